//! How registered payloads and checkpoints become bytes.
//!
//! A frame is a 12-byte header and a body: the magic `RKF`, the frame version (1), the length of the body (u32,
//! little-endian) and its CRC-32 (IEEE, u32, little-endian). The body is bincode 2 with its standard configuration.
//!
//! # bincode is unmaintained
//! RUSTSEC-2025-0141 reports that bincode's authors ended the project; the release 3.0.0 is a tombstone that does not
//! compile. The workspace pins `=2.0.1`, which works and has no known vulnerability. The way out is this module: no other file
//! names bincode, and the version byte in the header lets a later build read old frames with the old codec while it writes new
//! ones with another (postcard and wincode are the maintained candidates).
//!
//! Decoding takes bytes that may come from anywhere: lengths are checked before anything is allocated, a body
//! may not be longer than [`MAX_BODY_BYTES`], and what is left over after the value is an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest body a frame may have.
pub const MAX_BODY_BYTES: usize = 1 << 30;

const MAGIC: [u8; 3] = *b"RKF";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 12;

/// Why a value could not be encoded, or bytes not be decoded. Nothing is half-done in either case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value's own serialisation failed.
    #[error("the value cannot be encoded")]
    Encode(#[source] bincode::error::EncodeError),
    /// The body is not such a value.
    #[error("the body is not a value of the expected type")]
    Decode(#[source] bincode::error::DecodeError),
    /// The bytes end before the frame does.
    #[error("the frame is cut off: {have} of {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes the frame needs.
        need: usize,
    },
    /// The bytes do not begin like a frame.
    #[error("not a rustkernel frame")]
    NotAFrame,
    /// A frame of another version.
    #[error("frame version {found} is not known")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The body does not match its checksum.
    #[error("the body does not match its checksum")]
    Checksum,
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("a body of {bytes} bytes is too long")]
    TooLong {
        /// The body's length.
        bytes: usize,
    },
    /// Bytes are left over after the frame or after the value.
    #[error("{bytes} bytes are left over")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
}

/// Encodes `value` as one frame.
///
/// # Errors
/// [`CodecError::Encode`] when the value's serialisation fails, [`CodecError::TooLong`] when its body is too long.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; HEADER_BYTES];
    bincode::serde::encode_into_std_write(value, &mut frame, bincode::config::standard())
        .map_err(CodecError::Encode)?;
    let body = &frame[HEADER_BYTES..];
    let length = match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_BODY_BYTES => length,
        _ => return Err(CodecError::TooLong { bytes: body.len() }),
    };
    let crc = crc32(body);
    frame[..3].copy_from_slice(&MAGIC);
    frame[3] = VERSION;
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(frame)
}

/// Decodes the one value that `frame` holds.
///
/// # Errors
/// Every variant of [`CodecError`] but [`CodecError::Encode`]; damaged bytes never panic and never give a value.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    let body = body(frame)?;
    let config = bincode::config::standard().with_limit::<MAX_BODY_BYTES>();
    let (value, used) = bincode::serde::decode_from_slice(body, config).map_err(CodecError::Decode)?;
    if used != body.len() {
        return Err(CodecError::LeftOver { bytes: body.len() - used });
    }
    Ok(value)
}

fn body(frame: &[u8]) -> Result<&[u8], CodecError> {
    let Some((header, rest)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::Truncated { have: frame.len(), need: HEADER_BYTES });
    };
    let [m0, m1, m2, version, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1, m2] != MAGIC {
        return Err(CodecError::NotAFrame);
    }
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BODY_BYTES {
        return Err(CodecError::TooLong { bytes: length });
    }
    if rest.len() < length {
        return Err(CodecError::Truncated { have: frame.len(), need: HEADER_BYTES + length });
    }
    if rest.len() > length {
        return Err(CodecError::LeftOver { bytes: rest.len() - length });
    }
    if crc32(rest) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(CodecError::Checksum);
    }
    Ok(rest)
}

fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sample = (Vec<u64>, String, Option<f64>);

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value: (Vec<u64>, String, Option<i32>)) {
            let frame = encode(&value).unwrap();
            prop_assert_eq!(decode::<(Vec<u64>, String, Option<i32>)>(&frame).unwrap(), value);
        }

        #[test]
        fn every_cut_and_every_flipped_bit_is_refused(cut: prop::sample::Index, bit: prop::sample::Index) {
            let value: Sample = (vec![1, 2, 3], "state".into(), Some(0.5));
            let frame = encode(&value).unwrap();
            prop_assert!(decode::<Sample>(&frame[..cut.index(frame.len())]).is_err());
            let mut flipped = frame.clone();
            let at = bit.index(frame.len() * 8);
            flipped[at / 8] ^= 1 << (at % 8);
            prop_assert!(decode::<Sample>(&flipped).is_err(), "bit {} of {:?}", at, frame);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode::<Sample>(&bytes);
        }
    }

    #[test]
    fn a_length_that_is_only_claimed_is_not_allocated() {
        let mut frame = encode(&vec![1_u8; 4]).unwrap();
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&frame), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn another_version_is_refused_by_number() {
        let mut frame = encode(&1_u8).unwrap();
        frame[3] = 9;
        assert!(matches!(decode::<u8>(&frame), Err(CodecError::Version { found: 9 })));
    }
}
