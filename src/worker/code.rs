//! Code for a device that the workers of a domain have loaded, kept for those that come next: a spare one loads it while it waits.
//!
//! What a kernel's code comes as is known to the kernel alone, so that a worker says what it has loaded, with a file that has it. The
//! supervising process reads none of these files: it hands them on.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use serde::{Deserialize, Serialize};

/// What a file of code is, as the worker that wrote it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) kind: CodeKind,
    pub(super) bytes: u64,
    /// Of what is in it: two files that share it are taken for one.
    pub(super) hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CodeKind {
    /// CUDA C++.
    Source,
    Ptx,
    Cubin,
}

/// Longer ones are loaded when they are wanted.
const MAX_BYTES: u64 = 64 << 20;
/// Each takes one of this process's open files. The oldest goes for the next.
const MOST: usize = 64;
/// What a file of code has: nobody changes it any more.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// What a domain's workers have loaded.
#[derive(Default)]
pub(super) struct Codes(VecDeque<(Code, OwnedFd)>);

impl Codes {
    /// Takes it in, if it is new and what it is said to be: memory of so many bytes, and no other file that a worker would have kept open.
    pub(super) fn take(&mut self, code: Code, file: OwnedFd) -> Option<BorrowedFd<'_>> {
        if self.0.iter().any(|(known, _)| *known == code) || !is_whole(code, &file) {
            return None;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((code, file));
        self.0.back().map(|(_, file)| file.as_fd())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Code, BorrowedFd<'_>)> {
        self.0.iter().map(|(code, file)| (*code, file.as_fd()))
    }
}

fn is_whole(code: Code, file: &OwnedFd) -> bool {
    // Only memory has seals, so that nothing else is asked how long it is.
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
        && fstat(file).is_ok_and(|stat| u64::try_from(stat.st_size).ok() == Some(code.bytes))
        && code.bytes <= MAX_BYTES
}

/// A file that has it; `None` for one that is too long.
#[cfg(any(test, feature = "cuda"))]
pub(super) fn written(kind: CodeKind, content: &[u8]) -> std::io::Result<Option<(Code, OwnedFd)>> {
    use std::hash::Hasher;
    use std::io::Write;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    let bytes = content.len() as u64;
    if bytes > MAX_BYTES {
        return Ok(None);
    }
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(content);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create("rustkernel code", flags)?);
    file.write_all(content)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(Some((Code { kind, bytes, hash: hasher.finish() }, file.into())))
}

/// What is in it. Several processes have the same file, so that nobody's place in it counts.
#[cfg(any(test, feature = "cuda"))]
pub(super) fn read(code: Code, file: &OwnedFd) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;

    let too_long = || std::io::Error::other("it is too long");
    let bytes = usize::try_from(code.bytes.min(MAX_BYTES)).map_err(|_| too_long())?;
    let mut content = vec![0; bytes];
    std::fs::File::from(file.try_clone()?).read_exact_at(&mut content, 0)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn what_was_written_is_read_and_known_again() {
        let (code, file) = written(CodeKind::Ptx, b"// ptx").unwrap().unwrap();
        assert_eq!(read(code, &file).unwrap(), b"// ptx");
        assert_eq!(read(code, &file).unwrap(), b"// ptx", "its place is nobody's");
        let (again, same) = written(CodeKind::Ptx, b"// ptx").unwrap().unwrap();
        let (source, other) = written(CodeKind::Source, b"// ptx").unwrap().unwrap();
        let mut codes = Codes::default();
        assert!(codes.take(code, file).is_some());
        assert!(codes.take(again, same).is_none());
        assert!(codes.take(source, other).is_some());
        assert_eq!(codes.all().count(), 2);
    }

    #[test]
    fn a_file_that_is_not_what_is_said_is_not_kept_and_the_oldest_goes_for_the_next() {
        let (code, file) = written(CodeKind::Cubin, b"short").unwrap().unwrap();
        let again = || file.try_clone().unwrap();
        assert!(read(Code { bytes: 6, ..code }, &file).is_err());
        let mut codes = Codes::default();
        for bytes in [4, 6, MAX_BYTES + 1] {
            assert!(codes.take(Code { bytes, ..code }, again()).is_none(), "{bytes}");
        }
        let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&open, b"short").unwrap();
        assert!(codes.take(code, open).is_none(), "it could be changed");
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(codes.take(Code { bytes: 0, ..code }, null.into()).is_none());
        for hash in 0..=MOST as u64 {
            assert!(codes.take(Code { hash, ..code }, again()).is_some());
        }
        let kept: Vec<u64> = codes.all().map(|(code, _)| code.hash).collect();
        assert_eq!(kept, (1..=MOST as u64).collect::<Vec<_>>());
    }
}
