//! The frames of the resumable stream: codec only.

use super::Violation;

const HELLO: u8 = 0;
const DATA: u8 = 1;
const ACK: u8 = 2;
const CLOSE: u8 = 3;
const REFUSE: u8 = 4;

pub(super) const HEADER: usize = 4;
const HELLO_PAYLOAD: usize = 28;
/// A whole HELLO frame.
pub const HELLO_BYTES: usize = HEADER + HELLO_PAYLOAD;

/// Names one tunnel for its life; drawn at random by the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TunnelId(pub [u8; 16]);

impl std::fmt::Debug for TunnelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub tunnel: TunnelId,
    pub epoch: u32,
    pub received: u64,
}

/// Why a connector does not resume a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownTunnel,
    StaleEpoch,
}

impl Refusal {
    const fn byte(self) -> u8 {
        match self {
            Refusal::UnknownTunnel => 0,
            Refusal::StaleEpoch => 1,
        }
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[REFUSE, 0, 0, 1, self.byte()]);
    }
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    [kind, a, b, c]
}

pub(super) fn data_header(length: usize) -> [u8; HEADER] {
    header(DATA, length)
}

pub(super) fn encode_ack(offset: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(ACK, 8));
    out.extend_from_slice(&offset.to_be_bytes());
}

pub(super) fn encode_close(code: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(CLOSE, 1));
    out.push(code);
}

impl Hello {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&header(HELLO, HELLO_PAYLOAD));
        out.extend_from_slice(&self.tunnel.0);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.received.to_be_bytes());
    }

    /// A whole HELLO frame, as the connector reads it before it knows the tunnel.
    pub fn decode(frame: &[u8; HELLO_BYTES]) -> Result<Self, Violation> {
        let (head, payload) = frame.split_at(HEADER);
        if head != header(HELLO, HELLO_PAYLOAD) {
            return Err(Violation("HELLO must come first"));
        }
        Self::read(payload).ok_or(Violation("HELLO is malformed"))
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let (tunnel, rest) = payload.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let received = rest.try_into().ok()?;
        let epoch = u32::from_be_bytes(*epoch);
        (epoch != 0).then_some(Self { tunnel: TunnelId(*tunnel), epoch, received: u64::from_be_bytes(received) })
    }
}

/// The payload length in a DATA header.
pub(super) fn data_length(header: &[u8]) -> Option<usize> {
    match *header {
        [DATA, a, b, c, ..] => Some(u32::from_be_bytes([0, a, b, c]) as usize),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Hello(Hello),
    /// So many payload bytes are at hand now.
    Data(usize),
    Ack(u64),
    Close(u8),
    Refuse(Refusal),
}

/// Takes frames apart, whatever the cuts. DATA payload is never copied.
#[derive(Debug)]
pub(super) struct Decoder {
    held: [u8; HELLO_BYTES],
    have: usize,
    data_left: usize,
}

impl Decoder {
    pub(super) const fn new() -> Self {
        Self { held: [0; HELLO_BYTES], have: 0, data_left: 0 }
    }

    pub(super) fn delivered(&mut self, count: usize) {
        self.data_left = self.data_left.saturating_sub(count);
    }

    fn fill(&mut self, bytes: &[u8], target: usize) -> usize {
        let take = target.saturating_sub(self.have).min(bytes.len());
        if let (Some(to), Some(from)) = (self.held.get_mut(self.have..self.have + take), bytes.get(..take)) {
            to.copy_from_slice(from);
        }
        self.have += take;
        take
    }

    /// How many bytes were used, and the next item if it is complete.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Item>), Violation> {
        if self.data_left > 0 {
            let len = self.data_left.min(bytes.len());
            return Ok((0, (len > 0).then_some(Item::Data(len))));
        }
        let mut used = self.fill(bytes, HEADER);
        if self.have < HEADER {
            return Ok((used, None));
        }
        let [kind, a, b, c, ..] = self.held;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let expected = match kind {
            DATA if length == 0 => return Err(Violation("empty DATA")),
            DATA => {
                self.have = 0;
                self.data_left = length;
                let len = length.min(bytes.len() - used);
                return Ok((used, (len > 0).then_some(Item::Data(len))));
            }
            HELLO => HELLO_PAYLOAD,
            ACK => 8,
            CLOSE | REFUSE => 1,
            _ => return Err(Violation("unknown frame type")),
        };
        if length != expected {
            return Err(Violation("wrong frame length"));
        }
        used += self.fill(bytes.get(used..).unwrap_or_default(), HEADER + length);
        if self.have < HEADER + length {
            return Ok((used, None));
        }
        self.have = 0;
        let payload = self.held.get(HEADER..HEADER + length).unwrap_or_default();
        let item = match (kind, payload) {
            (HELLO, payload) => Item::Hello(Hello::read(payload).ok_or(Violation("HELLO is malformed"))?),
            (CLOSE, &[code]) => Item::Close(code),
            (REFUSE, &[0]) => Item::Refuse(Refusal::UnknownTunnel),
            (REFUSE, &[1]) => Item::Refuse(Refusal::StaleEpoch),
            (REFUSE, _) => return Err(Violation("unknown refusal")),
            (_, payload) => Item::Ack(u64::from_be_bytes(payload.try_into().map_err(|_| Violation("wrong frame length"))?)),
        };
        Ok((used, Some(item)))
    }
}
