//! The bytes of one stored checkpoint.
//!
//! | bytes | field |
//! |---|---|
//! | 3 | the magic `RKC` |
//! | 1 | the format's version, 1 |
//! | 8 | the sequence number, u64, little-endian |
//! | 8 | the payload's length, u64, little-endian |
//! | 1 | the length of the kernel's id |
//! | n | the kernel's id |
//! | m | the payload, opaque here; the runtime puts a named [frame](crate::codec) in it |
//! | 4 | CRC-32 (IEEE), u32, little-endian, of everything before it |
//!
//! Every version keeps the magic, the version byte and the checksum in the last four bytes, so that a build tells a whole record of
//! another version from a damaged one.
//!
//! Opening takes bytes that may come from anywhere: it allocates nothing that a claimed length decides, never panics, and
//! says of a damaged record that it is damaged, not that it is another version's or another kernel's. A record that was cut off
//! and one whose length was changed look the same; both are called truncated.
//!
//! What the payload is of, the frame says: a kernel's state is named after its schema, so that the state of another type is refused instead
//! of being read as one's own. Earlier builds put frames without a name in it. Those say nothing about their type: they are refused by the
//! frame's version.
//!
//! What this does not do: name a checkpoint, keep it, or choose among several. A checksum finds accidents, not forgery.

use crate::id::{KernelId, MAX_ID_BYTES};

const MAGIC: [u8; 3] = *b"RKC";
const VERSION: u8 = 1;
const VERSION_AT: usize = MAGIC.len();
const HEADER_BYTES: usize = 21;
const CRC_BYTES: usize = 4;

const _: () = assert!(MAX_ID_BYTES <= u8::MAX as usize, "an id's length fits its byte");

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The checkpoint's number; a later checkpoint of the same kernel has a greater one.
    pub sequence: u64,
    /// What was sealed.
    pub payload: &'a [u8],
}

/// Why a record is not a checkpoint to restore from. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The bytes do not begin like a checkpoint.
    #[error("not a rustkernel checkpoint")]
    NotACheckpoint,
    /// A whole record of another version.
    #[error("checkpoint format {found} is not known")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A whole record of another kernel.
    #[error("the checkpoint is of another kernel, {found:?}")]
    OtherKernel {
        /// The id found.
        found: String,
    },
    /// The record ends before the length that it claims.
    #[error("the checkpoint is cut off: {have} of {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes the record needs.
        need: usize,
    },
    /// The record was changed after it was sealed.
    #[error("the checkpoint does not match its checksum")]
    Checksum,
    /// Bytes follow the record.
    #[error("{bytes} bytes are left over after the checkpoint")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The record claims a payload that no memory can hold.
    #[error("a checkpoint of {bytes} bytes is too long")]
    TooLong {
        /// The length that it claims.
        bytes: u64,
    },
}

/// The record of one checkpoint.
///
/// ```
/// use rustkernel_core::{KernelId, checkpoint};
///
/// let kernel = KernelId::new("graph/pagerank")?;
/// let record = checkpoint::seal(&kernel, 7, b"state");
/// let opened = checkpoint::open(&kernel, &record)?;
/// assert_eq!((opened.sequence, opened.payload), (7, &b"state"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn seal(kernel: &KernelId, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let id = kernel.as_str().as_bytes();
    #[expect(clippy::cast_possible_truncation, reason = "an id has at most MAX_ID_BYTES")]
    let id_length = id.len() as u8;
    let mut record = Vec::with_capacity(HEADER_BYTES + id.len() + payload.len() + CRC_BYTES);
    record.extend_from_slice(&MAGIC);
    record.push(VERSION);
    record.extend_from_slice(&sequence.to_le_bytes());
    record.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    record.push(id_length);
    record.extend_from_slice(id);
    record.extend_from_slice(payload);
    let crc = crc32fast::hash(&record);
    record.extend_from_slice(&crc.to_le_bytes());
    record
}

/// Reads the record of a checkpoint of `kernel`.
///
/// # Errors
/// [`CheckpointError`] says what is wrong. Damage is told from a whole record of another version or kernel by the checksum.
pub fn open<'a>(kernel: &KernelId, record: &'a [u8]) -> Result<Opened<'a>, CheckpointError> {
    let have = record.len();
    if record.iter().zip(MAGIC).any(|(found, expected)| *found != expected) {
        return Err(CheckpointError::NotACheckpoint);
    }
    let is_whole = matches_checksum(record);
    if let Some(&found) = record.get(VERSION_AT).filter(|found| **found != VERSION) {
        return Err(if is_whole { CheckpointError::Version { found } } else { CheckpointError::Checksum });
    }
    let Some((header, rest)) = record.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CheckpointError::Truncated { have, need: HEADER_BYTES + CRC_BYTES });
    };
    let header = Header::read(header);
    let Some(need) = header.record_bytes() else {
        let bytes = header.payload_bytes;
        return Err(if is_whole { CheckpointError::TooLong { bytes } } else { CheckpointError::Checksum });
    };
    if have < need {
        return Err(CheckpointError::Truncated { have, need });
    }
    if have > need && (is_whole || matches_checksum(&record[..need])) {
        return Err(CheckpointError::LeftOver { bytes: have - need });
    }
    if have > need || !is_whole {
        return Err(CheckpointError::Checksum);
    }
    let (id, rest) = rest.split_at(header.id_bytes);
    if id != kernel.as_str().as_bytes() {
        return Err(CheckpointError::OtherKernel { found: String::from_utf8_lossy(id).into_owned() });
    }
    Ok(Opened { sequence: header.sequence, payload: &rest[..rest.len() - CRC_BYTES] })
}

/// The numbers of a header, as found.
struct Header {
    sequence: u64,
    payload_bytes: u64,
    id_bytes: usize,
}

impl Header {
    fn read(header: &[u8; HEADER_BYTES]) -> Self {
        let [_, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7, p0, p1, p2, p3, p4, p5, p6, p7, id] = *header;
        Self {
            sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            payload_bytes: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            id_bytes: usize::from(id),
        }
    }

    /// The length of the whole record; `None` if no memory can hold that much.
    fn record_bytes(&self) -> Option<usize> {
        let payload = usize::try_from(self.payload_bytes).ok()?;
        let bytes = payload.checked_add(HEADER_BYTES + self.id_bytes + CRC_BYTES)?;
        isize::try_from(bytes).is_ok().then_some(bytes)
    }
}

fn matches_checksum(record: &[u8]) -> bool {
    let sealed = record.split_last_chunk::<CRC_BYTES>();
    sealed.is_some_and(|(content, crc)| crc32fast::hash(content) == u32::from_le_bytes(*crc))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kernel() -> KernelId {
        KernelId::new("graph/pagerank").unwrap()
    }

    fn sample() -> Vec<u8> {
        seal(&kernel(), 0x0102_0304_0506_0708, b"the state of a kernel")
    }

    /// `record` with the bytes at `at` replaced and a checksum that matches.
    fn forged(mut record: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        record[at..at + bytes.len()].copy_from_slice(bytes);
        record.truncate(record.len() - CRC_BYTES);
        let crc = crc32fast::hash(&record);
        record.extend_from_slice(&crc.to_le_bytes());
        record
    }

    #[test]
    fn the_layout_is_what_the_documentation_says() {
        let kernel = KernelId::new("a/b").unwrap();
        let record = seal(&kernel, 2, b"xy");
        assert_eq!(record[..26], *b"RKC\x01\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03a/bxy");
        assert_eq!(record.len(), 30);
    }

    #[test]
    fn every_cut_is_refused_as_a_cut() {
        let record = sample();
        for have in 0..record.len() {
            let need = if have < HEADER_BYTES { HEADER_BYTES + CRC_BYTES } else { record.len() };
            let refused = open(&kernel(), &record[..have]);
            assert_eq!(refused, Err(CheckpointError::Truncated { have, need }), "cut at {have}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_by_the_name_of_what_it_looks_like() {
        let record = sample();
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = open(&kernel(), &flipped).unwrap_err();
            let fits = match bit / 8 {
                0..3 => error == CheckpointError::NotACheckpoint,
                12..21 => matches!(error, CheckpointError::Checksum | CheckpointError::Truncated { .. }),
                _ => error == CheckpointError::Checksum,
            };
            assert!(fits, "bit {bit}: {error}");
        }
    }

    #[test]
    fn a_whole_record_of_another_version_is_refused_by_its_number() {
        let record = forged(sample(), VERSION_AT, &[9]);
        assert_eq!(open(&kernel(), &record), Err(CheckpointError::Version { found: 9 }));
        let mut damaged = record;
        damaged[10] ^= 1;
        assert_eq!(open(&kernel(), &damaged), Err(CheckpointError::Checksum));
    }

    #[test]
    fn a_whole_record_of_another_kernel_is_refused_by_its_name() {
        let other = KernelId::new("graph/pagerank2").unwrap();
        let record = sample();
        assert_eq!(
            open(&other, &record),
            Err(CheckpointError::OtherKernel { found: "graph/pagerank".into() })
        );
    }

    #[test]
    fn bytes_after_a_record_are_counted() {
        let mut record = sample();
        record.extend_from_slice(b"more");
        assert_eq!(open(&kernel(), &record), Err(CheckpointError::LeftOver { bytes: 4 }));
        let shorter = forged(sample(), 12, &20_u64.to_le_bytes());
        assert_eq!(open(&kernel(), &shorter), Err(CheckpointError::LeftOver { bytes: 1 }));
    }

    #[test]
    fn a_length_that_is_only_claimed_is_refused() {
        let record = forged(sample(), 12, &u64::MAX.to_le_bytes());
        assert_eq!(open(&kernel(), &record), Err(CheckpointError::TooLong { bytes: u64::MAX }));
        let record = forged(sample(), 12, &(1_u64 << 40).to_le_bytes());
        assert!(matches!(open(&kernel(), &record), Err(CheckpointError::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(sequence: u64, payload: Vec<u8>, id in "[a-z0-9][a-zA-Z0-9_.-]{0,62}/[A-Z][a-z.]{0,62}") {
            let kernel = KernelId::new(&id).unwrap();
            let record = seal(&kernel, sequence, &payload);
            prop_assert_eq!(open(&kernel, &record), Ok(Opened { sequence, payload: &payload }));
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, keep in 0..26_usize) {
            prop_assert!(open(&kernel(), &bytes).is_err());
            let mut begun = sample();
            begun.truncate(keep);
            begun.extend_from_slice(&bytes);
            prop_assert!(open(&kernel(), &begun).is_err());
        }

        #[test]
        fn forged_numbers_are_refused_without_a_panic(sequence: u64, payload_bytes: u64, id_bytes: u8) {
            prop_assume!(payload_bytes != 21);
            let fields = [&sequence.to_le_bytes()[..], &payload_bytes.to_le_bytes(), &[id_bytes]].concat();
            prop_assert!(open(&kernel(), &forged(sample(), 4, &fields)).is_err());
        }
    }
}
