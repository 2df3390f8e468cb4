//! What a kernel's type offers beyond this process: a codec for its payloads, captured where the types are known.

use std::fmt;

use rustkernel_core::codec;
use rustkernel_core::traits::{LocalKernel, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::slot::Codec;

/// A kernel type that has been registered, with or without a codec.
pub struct Registration<K: LocalKernel> {
    codec: Option<Codec<K::Input>>,
}

/// Registers a kernel whose input and output can leave the process.
#[must_use]
pub fn register<K>() -> Registration<K>
where
    K: LocalKernel,
    K::Input: Serialize + DeserializeOwned,
    K::Output: Serialize + DeserializeOwned,
{
    // An input outlives the process in a dead letter, and the next one's kernel may take another type.
    Registration {
        codec: Some(Codec {
            encode: |input| codec::encode_as(&K::Input::schema(), input),
            decode: |frame| codec::decode_as(&K::Input::schema(), frame),
        }),
    }
}

/// Registers a kernel that stays in this process: its payloads need no codec.
#[must_use]
pub fn register_local<K: LocalKernel>() -> Registration<K> {
    Registration { codec: None }
}

impl<K: LocalKernel> Registration<K> {
    /// The schema names of input and output, by which stages are matched.
    #[must_use]
    pub fn schemas(&self) -> (String, String) {
        (K::Input::schema(), K::Output::schema())
    }

    /// Whether the kernel's payloads can leave the process.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.codec.is_some()
    }

    pub(crate) fn input_codec(&self) -> Option<Codec<K::Input>> {
        self.codec
    }
}

impl<K: LocalKernel> fmt::Debug for Registration<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = self.schemas();
        f.debug_struct("Registration").field("input", &input).field("output", &output).finish_non_exhaustive()
    }
}
