//! What stands here for a kernel that lives in a worker.

use std::fmt;
use std::future::pending;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::sync::Arc;

use rustkernel_actors::{Lifeline, Loss};
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel, Payload};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::arena::{Parcel, SHARED_FROM_BYTES, pack};
use super::domain::Domain;
use super::eager::Eagerness;
use super::mailbox::{Attached, Mail};
use super::wire::{self, Body, FromKernel, Inbox, MAX_BODY_BYTES, Run, ToKernel, WireError};

/// A kernel in a worker process, as it serves its slot: it sends requests there and awaits their answers.
pub struct Remote<I, O> {
    domain: Domain,
    link: Mutex<Link>,
    payloads: PhantomData<fn(I) -> O>,
}

/// The way there.
struct Link {
    lifeline: Lifeline,
    place: Attached,
    stream: UnixStream,
    inbox: Inbox,
    eagerness: Eagerness,
    /// The number of the last execution.
    request: u64,
    /// An execution whose answer was given up and has not come yet. One at a time is in the worker.
    owed: Option<u64>,
    /// It is gone there, and has said so.
    has_panicked: bool,
}

/// The state of a kernel in a worker, as bytes.
#[derive(Debug)]
pub struct RemoteState(Vec<u8>);

impl<I, O> Remote<I, O> {
    /// Makes the kernel in the domain's worker.
    pub(super) async fn attach(
        domain: Domain,
        name: Arc<str>,
        settings: Arc<[u8]>,
        lifeline: Lifeline,
    ) -> Result<Self, KernelError> {
        let mut place = domain.attach(name, settings, lifeline.clone()).await?;
        let socket = place.socket.take().ok_or_else(|| KernelError::permanent("a place without a socket"))?;
        let stream = UnixStream::from_std(socket)?;
        let inbox = Inbox::default();
        let eagerness = Eagerness::new();
        let mut link =
            Link { lifeline, place, stream, inbox, eagerness, request: 0, owed: None, has_panicked: false };
        let made = link.receive().await.0;
        link.place.tenant.set_made();
        match made {
            FromKernel::Made(made) => {
                made.map_err(wire::Failure::into_error)?;
                Ok(Self { domain, link: Mutex::new(link), payloads: PhantomData })
            }
            FromKernel::Panicked(text) => {
                Err(KernelError::permanent(format!("it panicked while it was made: {text}")))
            }
            FromKernel::Done { .. } => link.broken(&WireError::Unasked).await,
        }
    }
}

impl Link {
    /// One execution there and back. Dropped before the answer has come, the worker is told that nobody waits for it any more.
    async fn ask(
        &mut self,
        message: impl FnOnce(u64) -> ToKernel,
        body: &[u8],
    ) -> Result<Parcel<'_>, KernelError> {
        self.settle().await;
        if self.has_panicked {
            // This life is fenced.
            return pending().await;
        }
        self.request += 1;
        let request = self.request;
        let frame = self.frame(&message(request), body)?;
        self.lifeline.set_waits(false);
        let in_flight = self.place.tenant.begin(request);
        match self.stream.try_write(&frame) {
            // The socket has room for it: nothing else is on its way there.
            Ok(sent) if sent == frame.len() => {}
            Ok(_) => {
                in_flight.withdraw();
                return self.broken(&WireError::CutOff).await;
            }
            Err(error) => {
                in_flight.withdraw();
                return self.broken(&error.into()).await;
            }
        }
        self.owed = Some(request);
        let answer = self.answer(request).await;
        in_flight.arrived();
        let (body, inline) = answer?;
        match Parcel::new(body, inline, &self.place.regions[1]) {
            Ok(parcel) => Ok(parcel),
            Err(error) => self.broken(&error).await,
        }
    }

    /// Waits for the answer that an earlier caller has given up.
    async fn settle(&mut self) {
        if let Some(owed) = self.owed {
            // Nobody wants it.
            let _ = self.answer(owed).await;
            self.place.tenant.end(owed);
        }
    }

    async fn answer(&mut self, request: u64) -> Result<(Body, Vec<u8>), KernelError> {
        match self.receive().await {
            (FromKernel::Done { request: answered, result, body }, inline) if answered == request => {
                self.owed = None;
                result.map_err(wire::Failure::into_error)?;
                Ok((body, inline))
            }
            (FromKernel::Panicked(text), _) => {
                self.has_panicked = true;
                self.owed = None;
                self.lifeline.lost(Loss::Panicked(text));
                // This life is fenced by now.
                pending().await
            }
            (FromKernel::Done { .. } | FromKernel::Made(_), _) => self.broken(&WireError::Unasked).await,
        }
    }

    /// A frame, whose body is in shared memory if it is long.
    fn frame(&self, message: &ToKernel, body: &[u8]) -> Result<Vec<u8>, KernelError> {
        if body.len() as u64 > MAX_BODY_BYTES {
            let error = format!("{} bytes are more than a worker takes", body.len());
            return Err(KernelError::invalid_input(error));
        }
        let frame = if body.len() < SHARED_FROM_BYTES {
            wire::frame(&(message, Body::Inline), body)
        } else {
            self.place.regions[0].put(body).map_err(KernelError::exhausted)?;
            wire::frame(&(message, Body::Shared(body.len() as u64)), &[])
        };
        frame.map_err(KernelError::permanent)
    }

    /// The next frame. What cannot come any more is awaited for ever: the keeper is told, and this life is fenced.
    async fn receive(&mut self) -> (FromKernel, Vec<u8>) {
        let mut look = self.eagerness.begin();
        loop {
            match self.inbox.next() {
                Ok(Some(frame)) => {
                    if look.is_some() {
                        self.eagerness.note(true);
                    }
                    return frame;
                }
                Ok(None) => {}
                Err(error) => return self.broken(&error).await,
            }
            let filled = match self.inbox.fill(&mut Now(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if look.is_some_and(|until| self.eagerness.goes_on(until)) {
                        // The runtime asks its sockets, and lets others run.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    if look.take().is_some() {
                        self.eagerness.note(false);
                    }
                    match self.stream.readable().await {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    }
                }
                filled => filled,
            };
            match filled {
                Ok(true) => {}
                Ok(false) => return self.broken(&WireError::CutOff).await,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(&error.into()).await,
            }
        }
    }

    /// The worker has died, or does not keep to the protocol. Either way its keeper ends it, and this life with it.
    async fn broken<T>(&self, reason: &WireError) -> T {
        let (tenant, reason) = (self.place.tenant.number, reason.to_string());
        self.place.tenant.tell(Mail::Broken { tenant, reason });
        pending().await
    }
}

/// Reads what is there now.
struct Now<'a>(&'a UnixStream);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl<I, O> Kernel for Remote<I, O>
where
    I: Payload + Serialize,
    O: Payload + DeserializeOwned,
{
    type Input = I;
    type Output = O;

    async fn execute(&mut self, input: &I, cx: &mut Context<'_>) -> Result<O, KernelError> {
        let header = *cx.header();
        let domain = self.domain.clone();
        let link = self.link.get_mut();
        link.place.tenant.take();
        link.lifeline.set_waits(true);
        let (_alone, _shared);
        if header.suspect {
            _alone = domain.shared().alone.write().await;
        } else {
            _shared = domain.shared().alone.read().await;
        }
        let input = pack(input)?;
        let remaining = (!header.deadline.is_never()).then(|| cx.remaining());
        let (incarnation, trace) = (cx.incarnation(), cx.trace());
        let run = |request| {
            ToKernel::Run(Run {
                request,
                id: header.id,
                remaining,
                attempt: header.attempt,
                retry_budget: header.retry_budget,
                degraded: header.degraded,
                suspect: header.suspect,
                trace,
                incarnation,
            })
        };
        link.ask(run, &input).await?.unpack()
    }
}

impl<I, O> CheckpointableKernel for Remote<I, O>
where
    I: Payload + Serialize,
    O: Payload + DeserializeOwned,
{
    type Checkpoint = RemoteState;

    async fn checkpoint(&self) -> Result<RemoteState, KernelError> {
        let _shared = self.domain.shared().alone.read().await;
        let mut link = self.link.lock().await;
        let state = link.ask(|request| ToKernel::Save { request }, &[]).await?;
        state.into_bytes().map(RemoteState).map_err(KernelError::transient)
    }

    async fn restore(&mut self, checkpoint: RemoteState) -> Result<(), KernelError> {
        self.link.get_mut().ask(|request| ToKernel::Restore { request }, &checkpoint.0).await.map(drop)
    }
}

impl Serialize for RemoteState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RemoteState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes).map(Self)
    }
}

struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

impl<I, O> fmt::Debug for Remote<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("domain", &self.domain).finish_non_exhaustive()
    }
}
