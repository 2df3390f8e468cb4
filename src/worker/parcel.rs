//! Payloads on their way: as bytes behind their message, or, where those are many, in shared memory.

use std::borrow::Cow;
use std::sync::Arc;

use rustkernel_core::codec;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::border::{Arrival, Border, Found, Lending, Message, Thing};
use super::held::Held;
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
    /// If anything did.
    arrival: Option<Arrival>,
}

enum Lies {
    Inline(Vec<u8>),
    Shared(Held),
}

impl Parcel {
    /// What a message has brought, of which `inline` is what came behind it.
    pub(super) fn new(load: Load, inline: Vec<u8>, border: &Arc<Border>) -> Result<Self, WireError> {
        let mut arrival = (!load.lent.is_empty()).then(|| border.arrive(load.lent));
        let Body::Shared(place) = load.body else { return Ok(Self { body: Lies::Inline(inline), arrival }) };
        arrival.iter_mut().for_each(|arrival| arrival.found(place));
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
        let decoded = match self.arrival {
            Some(arrival) => Border::read(arrival, || codec::decode(&bytes)),
            None => codec::decode(&bytes),
        };
        decoded.map_err(KernelError::invalid_input)
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

#[cfg(test)]
mod tests {
    use super::super::border::tests::sides;
    use super::*;

    fn sent(border: &Arc<Border>, value: &Vec<u8>) -> (Load, Vec<u8>) {
        let packed = pack(border, value).unwrap();
        let message = Message { kernel: 1, request: 1 };
        packed.send(border, message, |load, inline| Ok((load, inline.to_vec()))).unwrap()
    }

    #[test]
    fn a_long_body_crosses_as_a_block_and_an_unread_one_is_returned() {
        let [(here, _), (there, heard)] = sides();
        for unread in [false, true] {
            let value = vec![7; SHARED_FROM_BYTES];
            let (load, inline) = sent(&here, &value);
            assert!(inline.is_empty() && matches!(load.body, Body::Shared(_)));
            let numbers = load.lent.clone();
            let parcel = Parcel::new(load, inline, &there).unwrap();
            if unread {
                drop(parcel);
            } else {
                assert_eq!(parcel.unpack::<Vec<u8>>().unwrap(), value);
            }
            there.return_all();
            assert_eq!(heard.try_recv().unwrap(), numbers);
        }
        let (load, inline) = sent(&here, &vec![7; SHARED_FROM_BYTES - 1]);
        assert!(load.lent.is_empty() && inline.len() == SHARED_FROM_BYTES - 1);
    }

    #[test]
    fn a_block_that_is_longer_than_a_body_may_be_is_refused() {
        let [(here, _), (there, _)] = sides();
        let (load, _) = sent(&here, &vec![7; SHARED_FROM_BYTES]);
        let Body::Shared(place) = load.body else { panic!("it is long") };
        rustix::fs::ftruncate(here.own().memory().fd(), 2 * MAX_BODY_BYTES).unwrap();
        let body = Body::Shared(place.with_bytes(MAX_BODY_BYTES + 1));
        let refused = Parcel::new(Load { body, lent: load.lent }, Vec::new(), &there);
        assert!(matches!(refused, Err(WireError::TooLong { part: "shared body", .. })));
    }
}
