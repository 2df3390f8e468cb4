//! Payloads on their way: as bytes behind their message, or, where those are many, in shared memory.

use std::borrow::Cow;
use std::sync::Arc;

use rustkernel_core::codec;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::border::{Arrival, Border, Found, Lending, Message, Thing};
use super::shared::Held;
use super::wire::{Body, Load, MAX_BODY_BYTES, WireError};

/// A body of this many bytes and more goes through shared memory.
const SHARED_FROM_BYTES: usize = 32 << 10;

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
        return Ok(Packed::plain(bytes));
    }
    let (encoded, mut lending) = border.write(|| codec::encode(value));
    let encoded =
        encoded.map_err(|error| lending.take_failure().unwrap_or_else(|| KernelError::permanent(error)));
    Ok(Packed { bytes: Cow::Owned(encoded?), lending: Some(lending) })
}

impl<'a> Packed<'a> {
    /// Bytes that take nothing along.
    pub(super) fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes: Cow::Borrowed(bytes), lending: None }
    }

    /// Has `send` send what its message says of it, and what goes behind that. It is on its way from then on.
    pub(super) fn send<T>(
        self,
        border: &Arc<Border>,
        message: Message,
        send: impl FnOnce(Load, &[u8]) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut lent = self.lending.as_ref().map_or_else(Vec::new, |lending| lending.numbers().to_vec());
        let (sent, of_body) = if self.bytes.len() < SHARED_FROM_BYTES {
            (send(Load { body: Body::Inline, lent }, &self.bytes)?, None)
        } else {
            let copy = Held::copied(border.own(), &self.bytes)?;
            let (place, lending) = border.write(|| border.lend(Thing::Memory(Arc::new(copy))));
            let place = place.ok_or_else(|| KernelError::permanent("it lies on no side of the border"))?;
            lent.extend(lending.numbers());
            (send(Load { body: Body::Shared(place), lent }, &[])?, Some(lending))
        };
        self.lending.into_iter().chain(of_body).for_each(|lending| lending.sent(message));
        Ok(sent)
    }
}

/// A body that has arrived, where it lies, with what came along. Dropped unread, it returns all of that.
pub(super) struct Parcel {
    body: Lies,
    arrival: Arrival,
}

enum Lies {
    Inline(Vec<u8>),
    Shared(Held),
}

impl Parcel {
    /// What a message has brought, of which `inline` is what came behind it.
    pub(super) fn new(load: Load, inline: Vec<u8>, border: &Arc<Border>) -> Result<Self, WireError> {
        let mut arrival = border.arrive(load.lent);
        let Body::Shared(place) = load.body else { return Ok(Self { body: Lies::Inline(inline), arrival }) };
        arrival.found(place);
        match border.find(place)? {
            Found::Memory { bytes, .. } if bytes as u64 > MAX_BODY_BYTES => {
                let (part, bytes, limit) = ("shared body", bytes as u64, MAX_BODY_BYTES);
                Err(WireError::TooLong { part, bytes, limit })
            }
            Found::Memory { start, bytes, loan } => {
                Ok(Self { body: Lies::Shared(Held::lent(start, bytes, loan)), arrival })
            }
            Found::Device(_) | Found::Own(_) => Err(WireError::Unasked),
        }
    }

    /// Its bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.body.into_bytes()
    }

    /// The value that was [packed](pack).
    pub(super) fn unpack<T: Payload + DeserializeOwned>(self) -> Result<T, KernelError> {
        let bytes = self.body.bytes();
        let fill = &mut |place: &mut [u8]| {
            place.copy_from_slice(bytes);
            Ok(())
        };
        if let Some(value) = T::from_raw(bytes.len(), fill) {
            return value;
        }
        // The other side could change under the decoder's eyes what it has checked.
        let bytes = self.body.into_bytes();
        Border::read(self.arrival, || codec::decode(&bytes)).map_err(KernelError::invalid_input)
    }
}

impl Lies {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(held) => held.values(),
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(held) => held.values().to_vec(),
        }
    }
}
