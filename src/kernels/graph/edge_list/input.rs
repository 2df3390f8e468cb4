//! The lines of an edge list: bounded, and decompressed where that is needed.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::EdgeListLimits;
use super::error::EdgeListError;

/// Reads line by line into one buffer that never grows beyond the limit.
pub(super) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    line: Vec<u8>,
    number: u64,
    packed: bool,
    max_line_bytes: usize,
    max_bytes: u64,
}

impl<'a> Lines<'a> {
    /// Looks at the first two bytes of `input` for gzip's magic. No line is read yet.
    pub(super) fn open(input: impl BufRead + 'a, limits: &EdgeListLimits) -> Result<Self, EdgeListError> {
        let mut raw = Capped { inner: input, left: limits.max_bytes };
        let mut head = Vec::with_capacity(GZIP_MAGIC.len());
        let peeked = raw.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head);
        let packed = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(raw);
        let reader: Box<dyn BufRead + 'a> = if packed {
            let inner = BufReader::new(MultiGzDecoder::new(whole));
            Box::new(Capped { inner, left: limits.max_bytes })
        } else {
            Box::new(whole)
        };
        let EdgeListLimits { max_line_bytes, max_bytes, .. } = *limits;
        let lines = Self { reader, line: Vec::new(), number: 0, packed, max_line_bytes, max_bytes };
        match peeked {
            Ok(_) => Ok(lines),
            Err(error) => Err(lines.failed(1, error)),
        }
    }

    /// Goes to the next line; `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool, EdgeListError> {
        self.line.clear();
        let number = self.number + 1;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(number, error)),
            };
            if buffer.is_empty() && self.line.is_empty() {
                return Ok(false);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            if self.line.len() + part.len() > self.max_line_bytes {
                return Err(EdgeListError::LineTooLong { line: number, limit_bytes: self.max_line_bytes });
            }
            self.line.extend_from_slice(part);
            let (read, ended) = (part.len() + usize::from(end.is_some()), end.is_some() || part.is_empty());
            self.reader.consume(read);
            if ended {
                self.number = number;
                return Ok(true);
            }
        }
    }

    /// The line, without LF or CRLF.
    pub(super) fn current(&self) -> &[u8] {
        self.line.strip_suffix(b"\r").unwrap_or(&self.line)
    }

    /// The number of the line, from 1; how many lines there are after the end.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn failed(&self, line: u64, source: io::Error) -> EdgeListError {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        if source.get_ref().is_some_and(|inner| inner.is::<CapReached>()) {
            return EdgeListError::TooManyBytes { line, limit_bytes: self.max_bytes };
        }
        if self.packed && matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            return EdgeListError::Gzip { line, source };
        }
        EdgeListError::Read { line, source }
    }
}

/// A reader that fails, and does not end, where more follows behind the last byte allowed.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> BufRead for Capped<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(CapReached));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(&buffer[..buffer.len().min(most)])
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount as u64);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Capped<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the byte limit is reached")]
struct CapReached;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
