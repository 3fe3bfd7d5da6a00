//! HTTP datagrams as capsules (RFC 9297 §3) for CONNECT-UDP (RFC 9298 §5): codec only.

use bytes::{Buf, Bytes, BytesMut};

/// The largest UDP payload over IPv6 without jumbograms (RFC 9298 §5).
pub const MAX_DATAGRAM: usize = 65_527;
/// Longest capsule that is taken: a datagram with its context id.
const MAX_CAPSULE: u64 = MAX_DATAGRAM as u64 + 8;
const DATAGRAM: u64 = 0;

/// The peer sent what is not a capsule, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("capsule is malformed")]
pub struct BadCapsule;

/// RFC 9000 §16.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let whole = bytes.get(..length)?;
    let value = whole.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let bits = 8 * length as u32 - 2;
    Some((value & ((1 << bits) - 1), length))
}

fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..0x40 => out.extend_from_slice(&[value as u8]),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
    }
}

/// One datagram as a DATAGRAM capsule with context id 0; `None` if it is too long.
pub fn encode(datagram: &[u8]) -> Option<Bytes> {
    if datagram.len() > MAX_DATAGRAM {
        return None;
    }
    let mut out = BytesMut::with_capacity(datagram.len() + 6);
    put_varint(&mut out, DATAGRAM);
    put_varint(&mut out, datagram.len() as u64 + 1);
    put_varint(&mut out, 0);
    out.extend_from_slice(datagram);
    Some(out.freeze())
}

/// Takes capsules apart, whatever the cuts; holds memory only for an unfinished one.
#[derive(Debug, Default)]
pub struct Decoder {
    held: BytesMut,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next datagram, if a whole one is here. Capsules of other types and contexts are skipped (RFC 9297 §3.3).
    pub fn take(&mut self) -> Result<Option<Bytes>, BadCapsule> {
        while let Some((kind, a)) = varint(&self.held) {
            let Some((length, b)) = varint(self.held.get(a..).unwrap_or_default()) else { break };
            if length > MAX_CAPSULE {
                return Err(BadCapsule);
            }
            let length = length as usize;
            if self.held.len() < a + b + length {
                break;
            }
            self.held.advance(a + b);
            let mut value = self.held.split_to(length).freeze();
            if kind != DATAGRAM {
                continue;
            }
            let (context, c) = varint(&value).ok_or(BadCapsule)?;
            value.advance(c);
            if value.len() > MAX_DATAGRAM {
                return Err(BadCapsule);
            }
            if context == 0 {
                return Ok(Some(value));
            }
        }
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_survive_any_cut(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20), cut in 1usize..50) {
            let wire: Vec<u8> = datagrams.iter().flat_map(|datagram| encode(datagram).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for part in wire.chunks(cut) {
                decoder.push(part);
                while let Some(datagram) = decoder.take().unwrap() {
                    got.push(datagram.to_vec());
                }
            }
            prop_assert_eq!(got, datagrams);
            prop_assert_eq!(decoder.held.capacity(), 0);
        }

        #[test]
        fn case_35_no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }

    #[test]
    fn longest_datagram_passes_and_one_byte_more_does_not() {
        let mut decoder = Decoder::default();
        decoder.push(&encode(&vec![1; MAX_DATAGRAM]).unwrap());
        assert_eq!(decoder.take().unwrap().unwrap().len(), MAX_DATAGRAM);
        assert!(encode(&vec![1; MAX_DATAGRAM + 1]).is_none());
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0x80, 0x01, 0, 0]); // length 65,536
        assert_eq!(decoder.take(), Err(BadCapsule));
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0xbf, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.take(), Err(BadCapsule));
    }

    #[test]
    fn unknown_capsules_and_contexts_are_skipped() {
        let mut decoder = Decoder::default();
        decoder.push(&[0x17, 2, 9, 9, 0, 2, 2, 7, 0, 2, 0, 5]);
        assert_eq!(decoder.take().unwrap().unwrap().as_ref(), &[5]);
        assert_eq!(decoder.take().unwrap(), None);
    }
}
