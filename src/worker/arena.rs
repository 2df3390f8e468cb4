//! Memory that a kernel's two sides share: payloads that are too large for a socket go through it.
//!
//! The supervising process makes it and keeps it open, so that it outlives the worker. There is one region for each direction, and one
//! request at a time, so that nothing has to be allocated in them. They grow with the largest payload and go with their kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};

use super::wire::{MAX_BODY_BYTES, WireError};

/// A body of this many bytes and more goes through shared memory.
pub(super) const SHARED_FROM_BYTES: usize = 32 << 10;

/// One direction. Written by one side, read by the other.
#[derive(Debug)]
pub(super) struct Region(OwnedFd);

impl Region {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(memfd_create("rustkernel", MemfdFlags::CLOEXEC)?))
    }

    pub(super) fn received(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Puts `bytes` at its beginning, over what was there.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let (mut rest, mut at) = (bytes, 0_u64);
        while !rest.is_empty() {
            match rustix::io::pwrite(self.0.as_fd(), rest, at) {
                Ok(0) => return Err(io::ErrorKind::StorageFull.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    at += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the first `len` bytes out. A length that there is not, or may not be, is an error before anything is allocated.
    pub(super) fn take(&self, len: u64) -> Result<Vec<u8>, WireError> {
        let have = u64::try_from(rustix::fs::fstat(&self.0).map_err(io::Error::from)?.st_size).unwrap_or(0);
        let limit = have.min(MAX_BODY_BYTES);
        let Some(bytes) = usize::try_from(len).ok().filter(|_| len <= limit) else {
            return Err(WireError::TooLong { part: "shared body", bytes: len, limit });
        };
        let mut body = vec![0; bytes];
        let mut at = 0;
        while at < bytes {
            match rustix::io::pread(&self.0, &mut body[at..], at as u64) {
                Ok(0) => return Err(WireError::CutOff),
                Ok(read) => at += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_and_what_is_only_claimed_is_refused() {
        let region = Region::new().unwrap();
        let body: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        region.put(&body).unwrap();
        region.put(b"short").unwrap();
        assert_eq!(region.take(5).unwrap(), b"short");
        assert_eq!(region.take(100_000).unwrap()[5..], body[5..]);
        for claimed in [100_001, 1 << 40, u64::MAX] {
            let error = region.take(claimed).unwrap_err();
            assert!(matches!(error, WireError::TooLong { part: "shared body", .. }), "{error}");
        }
    }
}
