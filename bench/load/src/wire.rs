//! What the first bytes of a connection ask of the sink.
//!
//! `T` one byte back, then the end is awaited. Every other request is an op byte and a `u64` (big endian):
//! `U` read to the end of file, answer the count as `u64`; `D` send that many bytes, close; `E` send back every message of that size.

pub const TOUCH: u8 = b'T';
pub const UPLOAD: u8 = b'U';
pub const DOWNLOAD: u8 = b'D';
pub const ECHO: u8 = b'E';

pub const REQUEST: usize = 9;
/// One read or write of bulk data.
pub const CHUNK: usize = 256 * 1024;
/// The largest message that is sent back.
pub const MAX_ECHO: usize = 64 * 1024;

pub fn request(op: u8, argument: u64) -> [u8; REQUEST] {
    let mut bytes = [op; REQUEST];
    for (place, byte) in bytes.iter_mut().skip(1).zip(argument.to_be_bytes()) {
        *place = byte;
    }
    bytes
}
