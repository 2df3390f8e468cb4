//! Memory that a kernel's two sides share: payloads that are too large for a socket go through it.
//!
//! The supervising process makes it and keeps it open, so that it outlives the worker. There is one region for each direction, and one
//! payload at a time in it, so that nothing has to be allocated there: a long input is sent alone, and a long answer behind one that has not been
//! read goes through the socket. They grow with the largest payload and go with their kernel.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};

use rustkernel_core::codec;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{Body, MAX_BODY_BYTES, WireError};

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

    /// How many bytes `len` is, if there are so many. One that there are not, or may not be, is an error before anything is allocated.
    fn check(&self, len: u64) -> Result<usize, WireError> {
        let have = u64::try_from(rustix::fs::fstat(&self.0).map_err(io::Error::from)?.st_size).unwrap_or(0);
        let limit = have.min(MAX_BODY_BYTES);
        let bytes = usize::try_from(len).ok().filter(|_| len <= limit);
        bytes.ok_or(WireError::TooLong { part: "shared body", bytes: len, limit })
    }

    /// Copies its beginning to `place`.
    fn copy_to(&self, place: &mut [u8]) -> Result<(), WireError> {
        let mut at = 0;
        while at < place.len() {
            match rustix::io::pread(&self.0, &mut place[at..], at as u64) {
                Ok(0) => return Err(WireError::CutOff),
                Ok(read) => at += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }
}

/// A body that has arrived, where it lies.
pub(super) enum Parcel<'a> {
    Inline(Vec<u8>),
    Shared(&'a Region, usize),
}

impl<'a> Parcel<'a> {
    /// The body of a message, of which `inline` is what came behind it.
    pub(super) fn new(body: Body, inline: Vec<u8>, region: &'a Region) -> Result<Self, WireError> {
        match body {
            Body::Inline => Ok(Self::Inline(inline)),
            Body::Shared(bytes) => Ok(Self::Shared(region, region.check(bytes)?)),
        }
    }

    /// Its bytes.
    pub(super) fn into_bytes(self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Inline(bytes) => Ok(bytes),
            Self::Shared(region, bytes) => {
                let mut place = vec![0; bytes];
                region.copy_to(&mut place)?;
                Ok(place)
            }
        }
    }

    /// The value that was [packed](pack).
    pub(super) fn unpack<T: Payload + DeserializeOwned>(self) -> Result<T, KernelError> {
        let bytes = match &self {
            Self::Inline(bytes) => bytes.len(),
            Self::Shared(_, bytes) => *bytes,
        };
        let fill = &mut |place: &mut [u8]| match &self {
            Self::Inline(bytes) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            Self::Shared(region, _) => region.copy_to(place).map_err(KernelError::transient),
        };
        if let Some(value) = T::from_raw(bytes, fill) {
            return value;
        }
        codec::decode(&self.into_bytes().map_err(KernelError::transient)?).map_err(KernelError::invalid_input)
    }
}

/// A value as bytes: a plain buffer as it lies in memory, anything else by its codec.
pub(super) fn pack<T: Payload + Serialize>(value: &T) -> Result<Cow<'_, [u8]>, KernelError> {
    match value.raw() {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        None => codec::encode(value).map(Cow::Owned).map_err(KernelError::permanent),
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
        let take = |bytes| Parcel::new(Body::Shared(bytes), Vec::new(), &region)?.into_bytes();
        assert_eq!(take(5).unwrap(), b"short");
        assert_eq!(take(100_000).unwrap()[5..], body[5..]);
        for claimed in [100_001, 1 << 40, u64::MAX] {
            let error = take(claimed).unwrap_err();
            assert!(matches!(error, WireError::TooLong { part: "shared body", .. }), "{error}");
        }
    }
}
