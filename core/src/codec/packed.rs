//! Numbers as one run of bytes, for `#[serde(with = "packed")]`: a codec takes a sequence element by element, which for a long one takes ten
//! times as long as copying it.
//!
//! In a format for people (JSON, TOML) they are a sequence as ever. In others they are bytes, each number little-endian.
//!
//! ```
//! use rustkernel_core::codec::{self, packed};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Signal {
//!     rate: u32,
//!     #[serde(with = "packed")]
//!     samples: Vec<f32>,
//! }
//!
//! let signal = Signal { rate: 48_000, samples: vec![0.5; 1_000] };
//! let bytes = codec::encode(&signal)?;
//! assert!(bytes.len() < 4_040);
//! assert_eq!(codec::decode::<Signal>(&bytes)?, signal);
//! # Ok::<(), codec::CodecError>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number whose bytes are all there is to it.
pub trait Number: bytemuck::Pod + Serialize + for<'de> Deserialize<'de> {
    /// The same where the processor is little-endian; its bytes the other way round elsewhere.
    #[must_use]
    fn to_little_endian(self) -> Self;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Number for $number {
            fn to_little_endian(self) -> Self {
                Self::from_ne_bytes(self.to_le_bytes())
            }
        })*
    };
}

numbers! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }

/// What holds numbers in a row.
pub trait Packed: Sized {
    /// What it holds.
    type Number: Number;

    /// All of them.
    fn numbers(&self) -> &[Self::Number];

    /// One that holds these.
    fn of(numbers: Vec<Self::Number>) -> Self;
}

macro_rules! holders {
    ($($holder:ty)*) => {
        $(impl<T: Number> Packed for $holder {
            type Number = T;

            fn numbers(&self) -> &[T] {
                self
            }

            fn of(numbers: Vec<T>) -> Self {
                numbers.into()
            }
        })*
    };
}

holders! { Vec<T> Box<[T]> Arc<[T]> }

/// Writes them.
///
/// # Errors
/// What the format says.
pub fn serialize<P: Packed, S: Serializer>(packed: &P, serializer: S) -> Result<S::Ok, S::Error> {
    let numbers = packed.numbers();
    if serializer.is_human_readable() {
        return numbers.serialize(serializer);
    }
    let ordered = if cfg!(target_endian = "little") {
        Cow::Borrowed(numbers)
    } else {
        numbers.iter().map(|number| number.to_little_endian()).collect()
    };
    serializer.serialize_bytes(bytemuck::cast_slice(&ordered))
}

/// Reads them.
///
/// # Errors
/// What the format says, and bytes that are no whole number of numbers.
pub fn deserialize<'de, P: Packed, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    let run = Run(PhantomData::<P::Number>);
    let numbers = if deserializer.is_human_readable() {
        deserializer.deserialize_seq(run)
    } else {
        deserializer.deserialize_bytes(run)
    };
    numbers.map(P::of)
}

struct Run<T>(PhantomData<T>);

impl<'de, T: Number> Visitor<'de> for Run<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "numbers of {} bytes", size_of::<T>())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<T>, E> {
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        let mut numbers = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(bytes);
        if cfg!(target_endian = "big") {
            numbers.iter_mut().for_each(|number| *number = number.to_little_endian());
        }
        Ok(numbers)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = sequence.next_element()? {
            numbers.push(number);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        #[serde(with = "super")]
        bytes: Vec<u8>,
        #[serde(with = "super")]
        ids: Box<[u64]>,
        #[serde(with = "super")]
        ranks: Arc<[f64]>,
        after: u16,
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_in_every_format(
            bytes: Vec<u8>,
            ids: Vec<u64>,
            ranks: Vec<i32>,
            after: u16,
        ) {
            let all = All { bytes, ids: ids.into(), ranks: ranks.into_iter().map(f64::from).collect(), after };
            prop_assert_eq!(&codec::decode::<All>(&codec::encode(&all).unwrap()).unwrap(), &all);
            let text = serde_json::to_string(&all).unwrap();
            prop_assert_eq!(&serde_json::from_str::<All>(&text).unwrap(), &all);
        }
    }

    #[test]
    fn numbers_are_little_endian_and_a_part_of_one_is_refused() {
        #[derive(Debug, Serialize, Deserialize)]
        struct One(#[serde(with = "super")] Vec<u32>);

        let frame = codec::encode(&One(vec![1, 0x0203])).unwrap();
        assert_eq!(frame[12..], [8, 1, 0, 0, 0, 3, 2, 0, 0]);
        let short = codec::encode(&serde_bytes_of(&[1, 2, 3, 4, 5])).unwrap();
        let error = codec::decode::<One>(&short).unwrap_err();
        assert!(
            std::error::Error::source(&error).unwrap().to_string().contains("numbers of 4 bytes"),
            "{error:?}"
        );
    }

    fn serde_bytes_of(bytes: &[u8]) -> impl Serialize + use<> {
        #[derive(Serialize)]
        struct Bytes(#[serde(with = "super")] Vec<u8>);
        Bytes(bytes.to_vec())
    }
}
