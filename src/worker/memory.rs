//! Memory that two processes have mapped.
//!
//! The supervising process makes it and keeps it open, so that it outlives the worker. It cannot be made shorter, so that what was there
//! once can be read; a side that lies can have it be zeros. Whoever gives out a part of it has the system find the memory before, so that a
//! want of it is an error and no signal.

#![allow(unsafe_code, reason = "what is mapped is not this process's alone")]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Resource, getrlimit};

/// Address space that is set aside for one: the first of these that there is. What of it is in use takes memory.
const RESERVED_BYTES: [usize; 3] = [16 << 30, 4 << 30, 5 << 28];

const PIECE_BYTES: usize = 16 << 20;

/// What a side does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Only looks: a write that goes astray ends this process, and changes nothing.
    Reads,
    Writes,
}

#[derive(Debug)]
pub(super) struct Memory {
    fd: OwnedFd,
    start: NonNull<u8>,
    reserved: usize,
    /// There are so many bytes at least.
    known: AtomicUsize,
}

// SAFETY: it is memory without an owner but this, and no thread's in particular.
unsafe impl Send for Memory {}
// SAFETY: shared, it gives addresses and no references.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes some, with nothing in it, for this process to write.
    pub(super) fn new() -> io::Result<Self> {
        Self::make(Access::Writes)
    }

    /// Makes some, with nothing in it.
    pub(super) fn make(access: Access) -> io::Result<Self> {
        let fd = memfd_create("rustkernel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL)?;
        let mut tried = Err(io::ErrorKind::OutOfMemory.into());
        for reserved in RESERVED_BYTES {
            tried = Self::map(fd.try_clone()?, reserved, access);
            if tried.is_ok() {
                break;
            }
        }
        tried
    }

    /// What the supervising process has made, with as much address space as it has set aside.
    pub(super) fn map(fd: OwnedFd, reserved: usize, access: Access) -> io::Result<Self> {
        let access = match access {
            Access::Reads => ProtFlags::READ,
            Access::Writes => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: it is put where nothing is.
        let mapped = unsafe { mmap(ptr::null_mut(), reserved, access, flags, &fd, 0) };
        let start = mapped.map_err(|error| {
            let error = io::Error::from(error);
            let reason = format!(
                "no address space of {reserved} bytes for payloads: {error}; is it limited (ulimit -v)?"
            );
            io::Error::new(error.kind(), reason)
        })?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { fd, start, reserved, known: AtomicUsize::new(0) })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// How many bytes there can be.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Has the system give memory for `bytes` bytes from `offset` on; without an error they may be touched.
    pub(super) fn fill(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let end = (offset + bytes) as u64;
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| end > limit) {
            // The system would say so by a signal that ends the process.
            return Err(Errno::FBIG.into());
        }
        self.allocate(FallocateFlags::empty(), offset, bytes)
    }

    /// Gives the memory of `bytes` bytes from `offset` on back to the system.
    pub(super) fn punch(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)
    }

    /// In pieces: a signal in between has the system undo what it has done of one.
    fn allocate(&self, flags: FallocateFlags, offset: usize, bytes: usize) -> io::Result<()> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let piece = (end - at).min(PIECE_BYTES);
            match fallocate(&self.fd, flags, at as u64, piece as u64) {
                Err(Errno::INTR) => {}
                result => {
                    result?;
                    at += piece;
                }
            }
        }
        Ok(())
    }

    /// Whether there are `bytes` bytes from `offset` on, as the other side claims.
    pub(super) fn has(&self, offset: u64, bytes: u64) -> bool {
        let end = offset.checked_add(bytes).and_then(|end| usize::try_from(end).ok());
        let Some(end) = end.filter(|end| *end <= self.reserved) else { return false };
        if end <= self.known.load(Ordering::Relaxed) {
            return true;
        }
        let size = fstat(&self.fd).ok().and_then(|stat| usize::try_from(stat.st_size).ok()).unwrap_or(0);
        self.known.fetch_max(size, Ordering::Relaxed);
        end <= size
    }

    /// Where the byte at `offset` is. It may be touched where it is known to be [there](Self::has), or was [asked for](Self::fill).
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.reserved, "so much address space is set aside");
        // SAFETY: it is within what was mapped, or its end.
        unsafe { self.start.add(offset) }
    }

    /// Where in it `place` is, if it is.
    #[cfg(feature = "cuda")]
    pub(super) fn offset_of(&self, place: NonNull<u8>) -> Option<usize> {
        let offset = place.addr().get().checked_sub(self.start.addr().get())?;
        (offset < self.reserved).then_some(offset)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: whoever uses it holds it.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.reserved) };
        debug_assert!(unmapped.is_ok(), "it was mapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads_and_what_is_only_claimed_is_not_there() {
        let here = Memory::new().unwrap();
        let there = Memory::map(here.fd().try_clone().unwrap(), here.reserved(), Access::Reads).unwrap();
        assert!(!there.has(0, 1));
        here.fill(4096, 8192).unwrap();
        assert!(there.has(4096, 8192) && there.has(0, 0));
        for (offset, bytes) in [(4096, 8193), (12_288, 1), (u64::MAX, 1), (1, u64::MAX), (0, 1 << 40)] {
            assert!(!there.has(offset, bytes), "{offset} {bytes}");
        }
        // SAFETY: it was asked for.
        unsafe { here.at(4096).write(7) };
        // SAFETY: it is there.
        assert_eq!(unsafe { there.at(4096).read() }, 7);
        here.punch(4096, 4096).unwrap();
        // SAFETY: the system gives an empty page for it.
        assert_eq!(unsafe { there.at(4096).read() }, 0);
    }

    #[test]
    fn nobody_makes_it_shorter() {
        let memory = Memory::new().unwrap();
        memory.fill(0, 8192).unwrap();
        assert!(rustix::fs::ftruncate(memory.fd(), 4096).is_err());
        assert!(fcntl_add_seals(memory.fd(), SealFlags::GROW).is_err());
    }
}
