//! Payloads on their way: as bytes behind their message, or, where those are many, in shared memory.

use std::borrow::Cow;
use std::sync::Arc;

use rustkernel_core::codec;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};
use rustkernel_core::traits::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::border::{Border, Found, Lending, Thing};
use super::shared::Held;
use super::wire::{Body, MAX_BODY_BYTES, WireError};

/// A body of this many bytes and more goes through shared memory.
const SHARED_FROM_BYTES: usize = 32 << 10;

const GONE: &str = "it was given data on the device of a worker process that has ended, or that is another domain's; what made it has to be \
                    run again";

/// A value as it is sent.
pub(super) struct Packed<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// What it takes along.
    lending: Option<Lending>,
}

/// A value as bytes: a plain buffer as it lies in memory, anything else by its codec.
pub(super) fn pack<'a, T: Payload + Serialize>(
    border: &Arc<Border>,
    value: &'a T,
) -> Result<Packed<'a>, KernelError> {
    if let Some(bytes) = value.raw() {
        return Ok(Packed { bytes: Cow::Borrowed(bytes), lending: None });
    }
    let (encoded, lending) = border.cross(|| codec::encode(value));
    let encoded = encoded.map_err(|error| match lending.is_lost() {
        true => KernelError::new(KernelErrorKind::Crashed, Phase::Queued).with_source(GONE),
        false => KernelError::permanent(error),
    });
    let bytes = Cow::Owned(encoded?);
    Ok(Packed { bytes, lending: Some(lending) })
}

impl<'a> Packed<'a> {
    /// Bytes that are no payload's.
    pub(super) fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes: Cow::Borrowed(bytes), lending: None }
    }

    /// What its message says of it, and what goes behind that. It is on its way from then on.
    pub(super) fn send<T>(
        self,
        border: &Arc<Border>,
        send: impl FnOnce(Body, &[u8]) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let sent = if self.bytes.len() < SHARED_FROM_BYTES {
            send(Body::Inline, &self.bytes)?
        } else {
            let copy = Held::copied(border.own(), &self.bytes)?;
            let (place, lending) = border.cross(|| border.lend(Thing::Memory(Arc::new(copy))));
            let place = place.ok_or_else(|| KernelError::permanent("it lies on no side of the border"))?;
            let sent = send(Body::Shared(place), &[])?;
            lending.keep();
            sent
        };
        if let Some(lending) = self.lending {
            lending.keep();
        }
        Ok(sent)
    }
}

/// A body that has arrived, where it lies.
pub(super) enum Parcel {
    Inline(Vec<u8>),
    Shared(Held),
}

impl Parcel {
    /// The body of a message, of which `inline` is what came behind it.
    pub(super) fn new(body: Body, inline: Vec<u8>, border: &Arc<Border>) -> Result<Self, WireError> {
        let Body::Shared(place) = body else { return Ok(Self::Inline(inline)) };
        match border.find(place)? {
            Found::Memory { bytes, .. } if bytes as u64 > MAX_BODY_BYTES => {
                let (part, bytes, limit) = ("shared body", bytes as u64, MAX_BODY_BYTES);
                Err(WireError::TooLong { part, bytes, limit })
            }
            Found::Memory { start, bytes, loan } => Ok(Self::Shared(Held::lent(start, bytes, loan))),
            Found::Device(_) | Found::Own(_) => Err(WireError::Unasked),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(held) => held.values(),
        }
    }

    /// Its bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(held) => held.values().to_vec(),
        }
    }

    /// The value that was [packed](pack).
    pub(super) fn unpack<T: Payload + DeserializeOwned>(
        self,
        border: &Arc<Border>,
    ) -> Result<T, KernelError> {
        let bytes = self.bytes();
        let fill = &mut |place: &mut [u8]| {
            place.copy_from_slice(bytes);
            Ok(())
        };
        if let Some(value) = T::from_raw(bytes.len(), fill) {
            return value;
        }
        // The other side could change under the decoder's eyes what it has checked.
        let bytes = self.into_bytes();
        border.cross(|| codec::decode(&bytes)).0.map_err(KernelError::invalid_input)
    }
}
