//! Taking over a file descriptor that another part of the process gives away by number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Owns `raw` from here on. The caller has given it up: nothing else may close or use it. Errors: it is not open.
pub fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow ends with this call, which at worst says that nothing is open there.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(raw) })?;
    // SAFETY: it is open, and its owner has given it up.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
