//! What stands here for a kernel that lives in a worker.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_actors::Lifeline;
use rustkernel_core::envelope::Header;
use rustkernel_core::error::KernelError;
use rustkernel_core::trace::TraceContext;
use rustkernel_core::traits::{CheckpointableKernel, Context, Kernel, LookAhead, Payload, Room, Upcoming};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Mutex;

use super::domain::Domain;
use super::link::Link;
use super::parcel::{Packed, pack};
use super::wire::{Due, Run, ToKernel};

/// A kernel in a worker process, as it serves its slot: it sends requests there and awaits their answers.
pub struct Remote<I, O> {
    domain: Domain,
    link: Mutex<Link>,
    payloads: PhantomData<fn(I) -> O>,
}

/// The state of a kernel in a worker, as bytes.
#[derive(Debug)]
pub struct RemoteState(Vec<u8>);

/// What is longer than this is not sent before its turn.
const AHEAD_BYTES: usize = 4 << 10;

impl<I, O> Remote<I, O> {
    /// Makes the kernel in the domain's worker.
    pub(super) async fn attach(
        domain: Domain,
        name: Arc<str>,
        settings: Arc<[u8]>,
        lifeline: Lifeline,
    ) -> Result<Self, KernelError> {
        let place = domain.attach(name, settings, lifeline.clone()).await?;
        let mut link = Link::new(lifeline, place)?;
        link.made().await?;
        Ok(Self { domain, link: Mutex::new(link), payloads: PhantomData })
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
        if let Some(request) = cx.ticket().and_then(|ticket| link.find(ticket)) {
            return link.turn(request).await?.unpack();
        }
        link.take();
        // It would wait behind them, and for their end.
        link.settle().await;
        let (_alone, _shared);
        if header.suspect {
            _alone = domain.shared().alone.take().await;
        } else {
            _shared = domain.shared().alone.share().await;
        }
        let input = pack(&Arc::clone(link.border()), input)?;
        let due = (!header.deadline.is_never()).then(|| cx.remaining());
        let run = run(&header, due, cx.trace(), cx.incarnation());
        link.ask(run, input).await?.unpack()
    }

    fn look_ahead(&mut self) -> Option<&mut dyn LookAhead<I>> {
        Some(self)
    }
}

impl<I, O> LookAhead<I> for Remote<I, O>
where
    I: Payload + Serialize,
    O: Payload + DeserializeOwned,
{
    fn room(&mut self) -> Room {
        let link = self.link.get_mut();
        if self.domain.shared().alone.is_wanted() || link.has_panicked {
            return Room::default();
        }
        Room { requests: link.pace.room(link.under_way()), bytes_each: AHEAD_BYTES }
    }

    fn show(&mut self, upcoming: &[Upcoming<'_, I>]) -> usize {
        let link = self.link.get_mut();
        if link.under_way() > 0 && !link.pace.end() {
            return 0;
        }
        if link.shared.is_none() {
            link.shared = self.domain.shared().alone.try_share();
        }
        if link.shared.is_none() {
            return 0;
        }
        link.pace.begin();
        let mut sent = 0;
        let (incarnation, border) = (link.lifeline.incarnation(), Arc::clone(link.border()));
        for next in upcoming {
            let Ok(body) = pack(&border, next.input) else {
                link.pace.rest_long();
                break;
            };
            let run = run(&next.header, next.remaining, next.trace, incarnation);
            if body.bytes.len() > AHEAD_BYTES || link.put(Some(next.ticket), run, body).is_err() {
                link.pace.rest_long();
                break;
            }
            sent += 1;
        }
        // What is wrong with the socket is found again when the first answer is waited for.
        let _ = link.flush();
        sent
    }

    fn holds(&mut self) -> bool {
        self.link.get_mut().shared.is_some()
    }

    fn settle(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let link = self.link.get_mut();
        Box::pin(async {
            link.lifeline.set_waits(true);
            link.settle().await;
            link.lifeline.set_waits(false);
        })
    }
}

/// The message that asks for an execution, whose number it is given.
fn run(
    header: &Header,
    remaining: Option<Duration>,
    trace: Option<TraceContext>,
    incarnation: u64,
) -> impl FnOnce(u64) -> ToKernel + use<> {
    let header = *header;
    move |request| {
        ToKernel::Run(Run {
            request,
            id: header.id,
            due: remaining.map(Due::within),
            attempt: header.attempt,
            retry_budget: header.retry_budget,
            degraded: header.degraded,
            suspect: header.suspect,
            trace,
            incarnation,
        })
    }
}

impl<I, O> CheckpointableKernel for Remote<I, O>
where
    I: Payload + Serialize,
    O: Payload + DeserializeOwned,
{
    type Checkpoint = RemoteState;

    async fn checkpoint(&self) -> Result<RemoteState, KernelError> {
        let _shared = self.domain.shared().alone.share().await;
        let mut link = self.link.lock().await;
        let state = link.ask(|request| ToKernel::Save { request }, Packed::plain(&[])).await?;
        Ok(RemoteState(state.into_bytes()))
    }

    async fn restore(&mut self, checkpoint: RemoteState) -> Result<(), KernelError> {
        let state = Packed::plain(&checkpoint.0);
        self.link.get_mut().ask(|request| ToKernel::Restore { request }, state).await.map(drop)
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
