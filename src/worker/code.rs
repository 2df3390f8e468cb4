//! Code for a device that the workers of a domain have loaded, kept for those that come next: a spare one loads it while it waits.
//!
//! What a kernel's code comes as is known to the kernel alone, so that a worker says what it has loaded, with a file that has it. The
//! supervising process reads none of these files: it hands them on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
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
/// Each takes one of this process's open files.
const MOST: usize = 64;

/// What a domain's workers have loaded.
#[derive(Default)]
pub(super) struct Codes(Vec<(Code, OwnedFd)>);

impl Codes {
    /// Takes it in, if it is new and there is room.
    pub(super) fn take(&mut self, code: Code, file: OwnedFd) -> Option<BorrowedFd<'_>> {
        let fits = code.bytes <= MAX_BYTES && self.0.len() < MOST;
        if !fits || self.0.iter().any(|(known, _)| *known == code) {
            return None;
        }
        self.0.push((code, file));
        self.0.last().map(|(_, file)| file.as_fd())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Code, BorrowedFd<'_>)> {
        self.0.iter().map(|(code, file)| (*code, file.as_fd()))
    }
}

/// A file that has it; `None` for one that is too long.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only devices load code"))]
pub(super) fn written(kind: CodeKind, content: &[u8]) -> io::Result<Option<(Code, OwnedFd)>> {
    use std::hash::Hasher;
    use std::io::Write;

    let bytes = content.len() as u64;
    if bytes > MAX_BYTES {
        return Ok(None);
    }
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(content);
    let mut file = std::fs::File::from(memfd_create("rustkernel code", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(Some((Code { kind, bytes, hash: hasher.finish() }, file.into())))
}

/// What is in it. Several processes have the same file, so that nobody's place in it counts.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only devices load code"))]
pub(super) fn read(code: Code, file: &OwnedFd) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;

    let too_long = || io::Error::other("it is too long");
    let bytes = usize::try_from(code.bytes.min(MAX_BYTES)).map_err(|_| too_long())?;
    let mut content = vec![0; bytes];
    std::fs::File::from(file.try_clone()?).read_exact_at(&mut content, 0)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
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
    fn a_file_that_is_shorter_than_is_said_is_refused_and_more_than_there_is_room_for_is_not_kept() {
        let (code, file) = written(CodeKind::Cubin, b"short").unwrap().unwrap();
        assert!(read(Code { bytes: 6, ..code }, &file).is_err());
        let mut codes = Codes::default();
        let long = Code { bytes: MAX_BYTES + 1, ..code };
        assert!(codes.take(long, file.try_clone().unwrap()).is_none());
        for hash in 0..=MOST as u64 {
            let taken = codes.take(Code { hash, ..code }, file.try_clone().unwrap()).is_some();
            assert_eq!(taken, hash < MOST as u64);
        }
    }
}
