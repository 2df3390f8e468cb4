//! How registered payloads and checkpoints become bytes.
//!
//! | bytes | field |
//! |---|---|
//! | 3 | the magic `RKF` |
//! | 1 | the frame's version: 1 is a plain frame, 2 a named one |
//! | 4 | the body's length, u32, little-endian |
//! | 4 | CRC-32 (IEEE), u32, little-endian, of everything after it |
//! | 1 | the schema's length; named frames only |
//! | n | the name of the schema; named frames only |
//! | m | the body: bincode 2 with its standard configuration |
//!
//! A body does not say what it is: a 5 written as a `u64` is read as an `i64` without complaint, and is -3 then. A frame that another build
//! may read, or another version of a kernel, is therefore a named one ([`encode_as`], [`decode_as`]): bytes of another schema are refused
//! by its name. What a schema's name promises is its user's affair; nothing here compares types. Neither kind is read as the other.
//!
//! # bincode is unmaintained
//! RUSTSEC-2025-0141 reports that bincode's authors ended the project; the release 3.0.0 is a tombstone that does not
//! compile. The workspace pins `=2.0.1`, which works and has no known vulnerability. The way out is this module: no other file
//! names bincode, and the version byte in the header lets a later build read old frames with the old codec while it writes new
//! ones with another (postcard and wincode are the maintained candidates).
//!
//! Decoding takes bytes that may come from anywhere: lengths are checked before anything is allocated, a body
//! may not be longer than [`MAX_BODY_BYTES`], and what is left over after the value is an error.

pub mod packed;

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest body a frame may have.
pub const MAX_BODY_BYTES: usize = 1 << 30;

/// The longest name of a schema that a frame carries whole; of a longer one it carries the beginning and a checksum of all of it.
pub const MAX_SCHEMA_BYTES: usize = u8::MAX as usize;

const MAGIC: [u8; 3] = *b"RKF";
const PLAIN: u8 = 1;
const NAMED: u8 = 2;
const HEADER_BYTES: usize = 12;
/// Most frames are no longer, and written without growing.
const USUAL_BYTES: usize = 128;
/// A `#` and eight hexadecimal digits.
const SCHEMA_CRC_BYTES: usize = 9;

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
    /// A frame of another version, or of the other kind.
    #[error("frame version {found} is not known here")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A named frame of another schema.
    #[error("it holds `{found}`, not `{expected}`")]
    OtherSchema {
        /// The name found.
        found: String,
        /// The name asked for.
        expected: String,
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

/// Encodes `value` as one plain frame, for whoever knows what it is.
///
/// # Errors
/// [`CodecError::Encode`] when the value's serialisation fails, [`CodecError::TooLong`] when its body is too long.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = Vec::with_capacity(USUAL_BYTES);
    encode_behind(&mut frame, value)?;
    Ok(frame)
}

/// [`encode`] behind what is in `bytes`, which is left as it was on an error.
///
/// # Errors
/// As [`encode`].
pub fn encode_behind<T: Serialize>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    let done = finish_frame(PLAIN, bytes, start, value);
    if done.is_err() {
        bytes.truncate(start);
    }
    done
}

/// Encodes `value` as one frame that is named after its `schema`.
///
/// ```
/// use rustkernel_core::codec::{self, CodecError};
///
/// let frame = codec::encode_as("count", &5_u64)?;
/// assert_eq!(codec::decode_as::<u64>("count", &frame)?, 5);
/// let other = codec::decode_as::<i64>("balance", &frame);
/// assert!(matches!(other, Err(CodecError::OtherSchema { found, .. }) if found == "count"));
/// # Ok::<(), CodecError>(())
/// ```
///
/// # Errors
/// As [`encode`].
pub fn encode_as<T: Serialize>(schema: &str, value: &T) -> Result<Vec<u8>, CodecError> {
    let schema = carried(schema);
    let mut frame = vec![0; HEADER_BYTES];
    #[expect(clippy::cast_possible_truncation, reason = "a carried name has at most MAX_SCHEMA_BYTES")]
    frame.push(schema.len() as u8);
    frame.extend_from_slice(schema.as_bytes());
    finish_frame(NAMED, &mut frame, 0, value)?;
    Ok(frame)
}

/// Writes the body of the frame that begins at `start`, behind what it has already, and its header.
fn finish_frame<T: Serialize>(
    version: u8,
    bytes: &mut Vec<u8>,
    start: usize,
    value: &T,
) -> Result<(), CodecError> {
    let body_at = bytes.len();
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map_err(CodecError::Encode)?;
    let body = bytes.len() - body_at;
    let length = match u32::try_from(body) {
        Ok(length) if body <= MAX_BODY_BYTES => length,
        _ => return Err(CodecError::TooLong { bytes: body }),
    };
    let frame = &mut bytes[start..];
    let crc = crc32(&frame[HEADER_BYTES..]);
    frame[..3].copy_from_slice(&MAGIC);
    frame[3] = version;
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Decodes the one value that a plain `frame` holds.
///
/// # Errors
/// Every variant of [`CodecError`] but [`CodecError::Encode`] and [`CodecError::OtherSchema`]; damaged bytes never panic and never give a
/// value.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, CodecError> {
    let (_, body) = open(frame, PLAIN)?;
    value_of(body)
}

/// Decodes the one value that a `frame` named after `schema` holds.
///
/// # Errors
/// As [`decode`], and [`CodecError::OtherSchema`] for a frame of another name. A plain frame is refused by its version.
pub fn decode_as<T: DeserializeOwned>(schema: &str, frame: &[u8]) -> Result<T, CodecError> {
    let (found, body) = open(frame, NAMED)?;
    let expected = carried(schema);
    if found != expected.as_bytes() {
        let found = String::from_utf8_lossy(found).into_owned();
        return Err(CodecError::OtherSchema { found, expected: expected.into_owned() });
    }
    value_of(body)
}

fn value_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX_BODY_BYTES>();
    let (value, used) = bincode::serde::decode_from_slice(body, config).map_err(CodecError::Decode)?;
    if used != body.len() {
        return Err(CodecError::LeftOver { bytes: body.len() - used });
    }
    Ok(value)
}

/// The name, empty in a plain frame, and the body of a frame of this version.
fn open(frame: &[u8], expected: u8) -> Result<(&[u8], &[u8]), CodecError> {
    let Some((header, rest)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::Truncated { have: frame.len(), need: HEADER_BYTES });
    };
    let [m0, m1, m2, version, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1, m2] != MAGIC {
        return Err(CodecError::NotAFrame);
    }
    if version != expected {
        return Err(CodecError::Version { found: version });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BODY_BYTES {
        return Err(CodecError::TooLong { bytes: length });
    }
    // A frame that ends before its name's length ends before its name, too.
    let schema_bytes = rest.first().map_or(0, |bytes| usize::from(*bytes));
    let body_at = if version == NAMED { 1 + schema_bytes } else { 0 };
    let need = body_at + length;
    if rest.len() < need {
        return Err(CodecError::Truncated { have: frame.len(), need: HEADER_BYTES + need });
    }
    if rest.len() > need {
        return Err(CodecError::LeftOver { bytes: rest.len() - need });
    }
    if crc32(rest) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(CodecError::Checksum);
    }
    let (schema, body) = rest.split_at(body_at);
    Ok((schema.get(1..).unwrap_or_default(), body))
}

/// The name of a schema as frames carry it.
fn carried(schema: &str) -> Cow<'_, str> {
    if schema.len() <= MAX_SCHEMA_BYTES {
        return Cow::Borrowed(schema);
    }
    let mut end = MAX_SCHEMA_BYTES - SCHEMA_CRC_BYTES;
    while !schema.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}#{:08x}", &schema[..end], crc32(schema.as_bytes())))
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
            let _ = decode_as::<Sample>("sample", &bytes);
            let mut begun = encode_as("sample", &1_u8).unwrap();
            begun.truncate(HEADER_BYTES);
            begun.extend_from_slice(&bytes);
            prop_assert!(decode_as::<u8>("sample", &begun).is_err());
        }

        #[test]
        fn a_named_frame_is_decoded_by_its_name_and_by_no_other(schema in ".{0,300}", other in ".{0,300}", value: u64) {
            let frame = encode_as(&schema, &value).unwrap();
            prop_assert_eq!(decode_as::<u64>(&schema, &frame).unwrap(), value);
            prop_assume!(schema != other);
            let refused = decode_as::<u64>(&other, &frame);
            prop_assert!(matches!(refused, Err(CodecError::OtherSchema { .. })), "{:?}", refused);
        }

        #[test]
        fn every_cut_and_every_flipped_bit_of_a_named_frame_is_refused(cut: prop::sample::Index, bit: prop::sample::Index) {
            let frame = encode_as("sample", &(vec![1_u64, 2, 3], "state")).unwrap();
            let cut = cut.index(frame.len());
            let refused = decode_as::<(Vec<u64>, String)>("sample", &frame[..cut]);
            prop_assert!(matches!(refused, Err(CodecError::Truncated { .. })), "{:?}", refused);
            let mut flipped = frame.clone();
            let at = bit.index(frame.len() * 8);
            flipped[at / 8] ^= 1 << (at % 8);
            prop_assert!(decode_as::<(Vec<u64>, String)>("sample", &flipped).is_err(), "bit {}", at);
        }
    }

    /// A counter that had become a balance was read as a debt: 5 as -3.
    #[test]
    fn a_value_of_another_schema_is_refused_by_both_names() {
        let frame = encode_as("u64", &5_u64).unwrap();
        assert_eq!(decode_as::<u64>("u64", &frame).unwrap(), 5);
        let refused = decode_as::<i64>("i64", &frame).unwrap_err();
        assert_eq!(refused.to_string(), "it holds `u64`, not `i64`");
    }

    #[test]
    fn plain_and_named_frames_are_refused_as_each_other() {
        let (plain, named) = (encode(&5_u64).unwrap(), encode_as("u64", &5_u64).unwrap());
        assert!(matches!(decode_as::<u64>("u64", &plain), Err(CodecError::Version { found: PLAIN })));
        assert!(matches!(decode::<u64>(&named), Err(CodecError::Version { found: NAMED })));
    }

    #[test]
    fn the_layout_of_a_named_frame_is_what_the_documentation_says() {
        let frame = encode_as("u8", &7_u8).unwrap();
        assert_eq!((&frame[..8], &frame[12..]), (&b"RKF\x02\x01\0\0\0"[..], &b"\x02u8\x07"[..]));
    }

    #[test]
    fn long_names_that_differ_at_their_ends_stay_different() {
        let long = |end: &str| format!("{}{end}", "\u{e4}".repeat(200));
        let frame = encode_as(&long("a"), &1_u8).unwrap();
        assert_eq!(decode_as::<u8>(&long("a"), &frame).unwrap(), 1);
        let refused = decode_as::<u8>(&long("b"), &frame);
        assert!(matches!(refused, Err(CodecError::OtherSchema { .. })), "{refused:?}");
        assert!(carried(&long("a")).len() <= MAX_SCHEMA_BYTES);
        assert_eq!(carried(&"x".repeat(MAX_SCHEMA_BYTES)).len(), MAX_SCHEMA_BYTES);
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
