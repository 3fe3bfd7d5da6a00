//! TLS 1.3 record protection (RFC 8446 §5) with the keys that rustls agreed on.
//!
//! rustls 0.23 allocates and copies every record twice on the way out and once on the way in; here plaintext is sealed straight into the
//! output buffer and opened where it was read, as kernel TLS does with the same keys.

use std::ops::Range;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// What a record adds to its plaintext: header, inner type, tag.
pub const OVERHEAD: usize = HEADER + 1 + TAG;
pub const MAX_PLAINTEXT: usize = 1 << 14;
/// RFC 8446 §5.2.
const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 256;
/// Records per key; AES-GCM allows 2^24.5 (RFC 8446 §5.5).
const RECORDS_PER_KEY: u64 = 1 << 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// The record is not what a TLS 1.3 peer with the right keys sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tls record refused: {0}")]
pub struct BadRecord(pub(super) &'static str);

/// How long the record at the front is, header included; `None` while its header is incomplete.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, BadRecord> {
    let &[kind, major, _, high, low, ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || major != 3 {
        return Err(BadRecord("not a tls record"));
    }
    if length == 0 || length > MAX_CIPHERTEXT {
        return Err(BadRecord("record length out of range"));
    }
    Ok(Some(HEADER + length))
}

/// One direction's key, and the sequence number that makes its nonces.
pub(super) struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Direction {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, BadRecord> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(BadRecord("unknown cipher")),
        };
        let bad = BadRecord("unusable traffic key");
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(|_| bad)?);
        let iv = iv.as_ref().try_into().map_err(|_| bad)?;
        Ok(Self { key, iv, sequence })
    }

    /// The next nonce: IV xor sequence number. Each is handed out once; a key that is used up refuses.
    fn nonce(&mut self) -> Result<Nonce, BadRecord> {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce.iter_mut().skip(NONCE_LEN - sequence.len()).zip(sequence).for_each(|(byte, part)| *byte ^= part);
        if self.sequence > 2 * RECORDS_PER_KEY {
            return Err(BadRecord("traffic key used up"));
        }
        self.sequence += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    #[cfg(test)]
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    #[cfg(test)]
    pub(super) fn rewind(&mut self) {
        self.sequence = 0;
    }

    pub(super) fn wants_update(&self) -> bool {
        self.sequence >= RECORDS_PER_KEY
    }

    /// Seal one record into the front of `out`; its length.
    pub(super) fn seal(&mut self, kind: Kind, plaintext: &[u8], out: &mut [u8]) -> Result<usize, BadRecord> {
        let length = plaintext.len();
        let bad = BadRecord("no room to seal");
        let (head, rest) = out.split_at_mut_checked(HEADER).ok_or(bad)?;
        let (body, rest) = rest.split_at_mut_checked(length).ok_or(bad)?;
        let tail = rest.get_mut(..1 + TAG).ok_or(bad)?;
        let [high, low] = u16::try_from(length + 1 + TAG).map_err(|_| bad)?.to_be_bytes();
        let header = [Kind::Data as u8, 3, 3, high, low];
        head.copy_from_slice(&header);
        let nonce = self.nonce()?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), plaintext, body, &[kind as u8], tail)
            .map_err(|_| BadRecord("sealing failed"))?;
        Ok(length + OVERHEAD)
    }

    /// Open one whole record where it lies; where its plaintext is.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Kind, Range<usize>), BadRecord> {
        let bad = BadRecord("record does not authenticate");
        let (head, body) = record.split_first_chunk_mut::<HEADER>().ok_or(bad)?;
        if *head.first().unwrap_or(&0) != Kind::Data as u8 {
            return Err(BadRecord("unprotected record"));
        }
        let nonce = self.nonce()?;
        let plaintext = self.key.open_in_place(nonce, Aad::from(*head), body).map_err(|_| bad)?;
        // RFC 8446 §5.4: zeros are padding, the last other byte is the type.
        let at = plaintext.iter().rposition(|&byte| byte != 0).ok_or(BadRecord("record without a type"))?;
        let kind = match plaintext.get(at) {
            Some(21) => Kind::Alert,
            Some(22) => Kind::Handshake,
            Some(23) => Kind::Data,
            _ => return Err(BadRecord("unknown record type")),
        };
        if at > MAX_PLAINTEXT {
            return Err(BadRecord("record length out of range"));
        }
        Ok((kind, HEADER..HEADER + at))
    }
}
