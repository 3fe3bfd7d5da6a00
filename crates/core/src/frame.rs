//! Link and carrier frames: bytes to values and back, strict and bounded (ARCHITECTURE.md, "Link frames" and "Carriers").

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de};

use crate::code::Code;
use crate::ids::Id;

/// Longest payload of a link frame.
pub const MAX_LINK_PAYLOAD: usize = 1 << 20;
/// Longest JSON of a carrier frame.
pub const MAX_CARRIER_FRAME: usize = 16 << 10;
const LENGTH_BYTES: usize = 4;
const RECORDS_HEAD: usize = 12;
const MAX_CLOSE: usize = 64;

/// One frame of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFrame {
    /// One JSON object, not looked into here.
    Message(Bytes),
    Ping([u8; 8]),
    Pong([u8; 8]),
    /// `count` JSON lines, numbered from `first`, each ended by a line feed.
    Records {
        first: u64,
        count: u32,
        lines: Bytes,
    },
    /// Records up to and including `last` are written.
    RecordsAck {
        last: u64,
    },
    /// The peer leaves; a code of a newer version reads as `Stopped`.
    Close(Code),
}

impl LinkFrame {
    /// Takes the next whole frame off `input`; None if more bytes are needed. After an error the link cannot go on.
    pub fn decode(input: &mut BytesMut) -> Result<Option<LinkFrame>, Code> {
        let Some(head) = input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| Code::ProtocolError)?;
        if length == 0 || length > MAX_LINK_PAYLOAD + 1 {
            return Err(Code::ProtocolError);
        }
        if input.len() < LENGTH_BYTES + length {
            input.reserve(LENGTH_BYTES + length - input.len());
            return Ok(None);
        }
        input.advance(LENGTH_BYTES);
        let mut frame = input.split_to(length).freeze();
        let kind = frame.get_u8();
        Self::parse(kind, frame).map(Some)
    }

    fn parse(kind: u8, mut payload: Bytes) -> Result<LinkFrame, Code> {
        let eight = |payload: &Bytes| <[u8; 8]>::try_from(payload.as_ref()).map_err(|_| Code::ProtocolError);
        match kind {
            1 if !payload.is_empty() => Ok(LinkFrame::Message(payload)),
            2 => eight(&payload).map(LinkFrame::Ping),
            3 => eight(&payload).map(LinkFrame::Pong),
            4 if payload.len() > RECORDS_HEAD => {
                let (first, count) = (payload.get_u64(), payload.get_u32());
                let ends = payload.iter().filter(|byte| **byte == b'\n').count();
                let whole = payload.last() == Some(&b'\n') && u32::try_from(ends) == Ok(count);
                let fits = first.checked_add(u64::from(count)).is_some();
                if whole && fits { Ok(LinkFrame::Records { first, count, lines: payload }) } else { Err(Code::ProtocolError) }
            }
            5 => eight(&payload).map(|last| LinkFrame::RecordsAck { last: u64::from_be_bytes(last) }),
            6 if payload.len() <= MAX_CLOSE => {
                let text = std::str::from_utf8(&payload).map_err(|_| Code::ProtocolError)?;
                Ok(LinkFrame::Close(Code::parse(text).unwrap_or(Code::Stopped)))
            }
            _ => Err(Code::ProtocolError),
        }
    }

    /// Appends the frame to `output`; `TooLarge` (and nothing appended) if its payload is over the bound.
    pub fn encode(&self, output: &mut BytesMut) -> Result<(), Code> {
        let mut put = |kind: u8, parts: &[&[u8]]| {
            let payload: usize = parts.iter().map(|part| part.len()).sum();
            if payload > MAX_LINK_PAYLOAD {
                return Err(Code::TooLarge);
            }
            output.reserve(LENGTH_BYTES + 1 + payload);
            output.put_u32(u32::try_from(payload + 1).map_err(|_| Code::TooLarge)?);
            output.put_u8(kind);
            parts.iter().for_each(|part| output.put_slice(part));
            Ok(())
        };
        match self {
            LinkFrame::Message(body) if body.is_empty() => Err(Code::ArgumentInvalid),
            LinkFrame::Message(body) => put(1, &[body]),
            LinkFrame::Ping(opaque) => put(2, &[opaque]),
            LinkFrame::Pong(opaque) => put(3, &[opaque]),
            LinkFrame::Records { first, count, lines } => put(4, &[&first.to_be_bytes(), &count.to_be_bytes(), lines]),
            LinkFrame::RecordsAck { last } => put(5, &[&last.to_be_bytes()]),
            LinkFrame::Close(code) => put(6, &[code.as_str().as_bytes()]),
        }
    }
}

/// A carrier frame of one sender: the relay hears other things from a connector than from a client.
pub trait CarrierFrame: Serialize + de::DeserializeOwned {
    /// Parses the JSON of one frame, without its length.
    fn parse(json: &[u8]) -> Result<Self, Code> {
        if json.is_empty() || json.len() > MAX_CARRIER_FRAME {
            return Err(Code::ProtocolError);
        }
        serde_json::from_slice(json).map_err(|_| Code::ProtocolError)
    }

    /// The frame with its length; `TooLarge` if over the bound.
    fn to_bytes(&self) -> Result<Vec<u8>, Code> {
        let json = serde_json::to_vec(self).map_err(|_| Code::Internal)?;
        let length = u16::try_from(json.len()).ok().filter(|_| json.len() <= MAX_CARRIER_FRAME).ok_or(Code::TooLarge)?;
        let mut frame = Vec::with_capacity(2 + json.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&json);
        Ok(frame)
    }
}

/// The length that a carrier frame announces; zero and what is over the bound end the carrier.
pub fn carrier_length(head: [u8; 2]) -> Result<usize, Code> {
    match usize::from(u16::from_be_bytes(head)) {
        length @ 1..=MAX_CARRIER_FRAME => Ok(length),
        _ => Err(Code::ProtocolError),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum FromConnector {
    Park {},
    Pong { n: u32 },
    Ready {},
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum FromClient {
    Join { ticket: String, connector: Option<Id>, wrapped: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum ToConnector {
    Ping { n: u32 },
    Go { wrapped: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum ToClient {
    Go {
        connector: Id,
    },
    Refuse {
        #[serde(with = "code_text")]
        code: Code,
    },
}

impl CarrierFrame for FromConnector {}
impl CarrierFrame for FromClient {}
impl CarrierFrame for ToConnector {}
impl CarrierFrame for ToClient {}

mod code_text {
    use super::{Code, Deserialize, de};

    pub fn serialize<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(code.as_str())
    }

    pub fn deserialize<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text).ok_or_else(|| de::Error::custom("unknown reason code"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<Option<LinkFrame>, Code> {
        LinkFrame::decode(&mut BytesMut::from(bytes))
    }

    fn wire(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32 + 1).to_be_bytes()[..], &[kind], payload].concat()
    }

    #[test]
    fn case_35_lengths_out_of_range_end_the_link() {
        for length in [0, MAX_LINK_PAYLOAD as u32 + 2, 1 << 31, u32::MAX] {
            assert_eq!(decode(&[&length.to_be_bytes()[..], &[1]].concat()), Err(Code::ProtocolError), "{length}");
        }
        let most = wire(1, &vec![b' '; MAX_LINK_PAYLOAD]);
        assert!(matches!(decode(&most), Ok(Some(LinkFrame::Message(body))) if body.len() == MAX_LINK_PAYLOAD));
        assert_eq!(decode(&most[..most.len() - 1]), Ok(None), "truncated");
    }

    #[test]
    fn case_35_malformed_frames_end_the_link() {
        let records = |first: u64, count: u32, lines: &str| {
            wire(4, &[&first.to_be_bytes()[..], &count.to_be_bytes(), lines.as_bytes()].concat())
        };
        for bad in [
            wire(0, b""),
            wire(1, b""),
            wire(2, b"1234567"),
            wire(3, b"123456789"),
            wire(4, b""),
            records(1, 0, ""),
            records(1, 2, "{}\n"),
            records(1, 1, "{}"),
            records(u64::MAX, 1, "{}\n"),
            wire(5, b"1"),
            wire(6, b"\xff"),
            wire(6, &[b'x'; MAX_CLOSE + 1]),
            wire(7, b""),
        ] {
            assert_eq!(decode(&bad), Err(Code::ProtocolError), "{bad:?}");
        }
        assert_eq!(decode(&wire(6, b"code_of_the_future")), Ok(Some(LinkFrame::Close(Code::Stopped))));
    }

    #[test]
    fn a_frame_over_the_bound_is_not_sent() {
        let mut output = BytesMut::new();
        assert_eq!(LinkFrame::Message(vec![b' '; MAX_LINK_PAYLOAD + 1].into()).encode(&mut output), Err(Code::TooLarge));
        assert!(output.is_empty());
        let ticket = "x".repeat(MAX_CARRIER_FRAME);
        assert_eq!(FromClient::Join { ticket, connector: None, wrapped: false }.to_bytes(), Err(Code::TooLarge));
    }

    #[test]
    fn case_20_a_fact_given_twice_is_refused() {
        for twice in [
            r#"{"t":"ping","n":1,"n":2}"#,
            r#"{"t":"ping","t":"ping","n":1}"#,
            r#"{"t":"go","wrapped":false,"wrapped":true}"#,
            r#"{"t":"ping","n":1} {"t":"ping","n":1}"#,
        ] {
            assert_eq!(ToConnector::parse(twice.as_bytes()), Err(Code::ProtocolError), "{twice}");
        }
        assert_eq!(ToConnector::parse(br#"{"t":"ping","n":1}"#), Ok(ToConnector::Ping { n: 1 }));
    }

    fn frame() -> impl Strategy<Value = LinkFrame> {
        let line = "[a-z]{0,9}\n";
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..200).prop_map(|body| LinkFrame::Message(body.into())),
            any::<[u8; 8]>().prop_map(LinkFrame::Ping),
            any::<[u8; 8]>().prop_map(LinkFrame::Pong),
            (0..1u64 << 60, prop::collection::vec(line, 1..9)).prop_map(|(first, lines)| LinkFrame::Records {
                first,
                count: lines.len() as u32,
                lines: lines.concat().into(),
            }),
            any::<u64>().prop_map(|last| LinkFrame::RecordsAck { last }),
            (0..Code::ALL.len()).prop_map(|at| LinkFrame::Close(Code::ALL[at])),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(frames in prop::collection::vec(frame(), 0..20), cut in 1usize..40) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                frame.encode(&mut bytes).unwrap();
            }
            let (mut input, mut read) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(cut) {
                input.extend_from_slice(part);
                while let Some(frame) = LinkFrame::decode(&mut input).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(input.is_empty());
        }
    }
}
