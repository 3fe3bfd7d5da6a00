//! Buffers that are borrowed only while bytes are in flight.
//!
//! Free buffers are kept per thread, so that taking and giving back costs no lock; what is beyond `KEPT_BYTES` is freed.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Free memory kept per thread and size.
pub const KEPT_BYTES: usize = 2 << 20;
/// The sizes that exist: one for replay and bulk reads of flows, one for reads and writes of carriers.
pub const SMALL: usize = 64 << 10;
pub const LARGE: usize = 256 << 10;

thread_local! {
    static FREE: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A fixed-size buffer with stale content; goes back to the pool when dropped.
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub fn small() -> Self {
        Self::take(0, SMALL)
    }

    pub fn large() -> Self {
        Self::take(1, LARGE)
    }

    fn take(class: usize, size: usize) -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().get_mut(class).and_then(Vec::pop)).ok().flatten();
        Self(free.unwrap_or_else(|| vec![0; size]))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let class = usize::from(buffer.len() > SMALL);
        let kept = KEPT_BYTES / buffer.len().max(1);
        // A thread that ends has no pool any more: the buffer is then simply freed.
        let _ = FREE.try_with(|free| {
            if let Some(list) = free.borrow_mut().get_mut(class)
                && list.len() < kept
            {
                list.push(buffer);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_buffers_are_bounded_and_reused() {
        let many: Vec<_> = (0..KEPT_BYTES / LARGE + 1).map(|_| Buffer::large()).collect();
        drop(many);
        let kept = FREE.with(|free| free.borrow()[1].len());
        assert_eq!(kept, KEPT_BYTES / LARGE);
        let again = Buffer::large();
        assert_eq!(FREE.with(|free| free.borrow()[1].len()), kept - 1);
        assert_eq!(again.len(), LARGE);
    }
}
