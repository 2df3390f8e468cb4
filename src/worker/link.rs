//! The way to a kernel in a worker: what is under way there, and what comes back.
//!
//! Executions are numbered, and end in the order of their numbers. What was sent before its turn is under way like the others; its caller
//! hears of it when its turn comes, and whatever has lost its caller by then is given up.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, Read};
use std::sync::Arc;

use rustkernel_actors::{Lifeline, Loss, Suspicion};
use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::KernelError;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::OwnedRwLockReadGuard;

use super::border::{Border, Message};
use super::eager::Eagerness;
use super::mailbox::{Attached, Mail};
use super::pace::Pace;
use super::parcel::{Packed, Parcel};
use super::tenant::InFlight;
use super::wire::{self, FromKernel, Inbox, MAX_BODY_BYTES, ToKernel, WireError};

pub(super) struct Link {
    pub(super) lifeline: Lifeline,
    place: Attached,
    stream: UnixStream,
    inbox: Inbox,
    /// Frames that the socket had no room for yet.
    outgoing: Vec<u8>,
    eagerness: Eagerness,
    /// The number of the last execution that was sent.
    sent: u64,
    /// The last one whose turn has come, or that was given up before.
    begun: u64,
    /// Those that were sent and have not been answered, oldest first: their tickets, if they had one.
    under_way: VecDeque<Option<u64>>,
    /// Held while something may be in execution that nobody awaits here at the moment.
    pub(super) shared: Option<OwnedRwLockReadGuard<()>>,
    pub(super) pace: Pace,
    /// It is gone there, and has said so.
    pub(super) has_panicked: bool,
}

/// So many requests are answered one by one.
const FEW: usize = 8;

/// What has come back of an execution.
type Answer = Result<Parcel, KernelError>;

impl Link {
    pub(super) fn new(lifeline: Lifeline, mut place: Attached) -> Result<Self, KernelError> {
        let socket = place.socket.take().ok_or_else(|| KernelError::permanent("a place without a socket"))?;
        let stream = UnixStream::from_std(socket)?;
        Ok(Self {
            lifeline,
            place,
            stream,
            inbox: Inbox::default(),
            outgoing: Vec::new(),
            eagerness: Eagerness::new(),
            sent: 0,
            begun: 0,
            under_way: VecDeque::new(),
            shared: None,
            pace: Pace::new(),
            has_panicked: false,
        })
    }

    /// Waits until the kernel is made.
    pub(super) async fn made(&mut self) -> Result<(), KernelError> {
        let made = self.receive().await.0;
        self.place.tenant.set_made();
        match made {
            FromKernel::Made(made) => made.map_err(wire::Failure::into_error),
            FromKernel::Panicked(text) => {
                Err(KernelError::permanent(format!("it panicked while it was made: {text}")))
            }
            FromKernel::Done { .. } => self.broken(&WireError::Unasked).await,
        }
    }

    pub(super) fn border(&self) -> &Arc<Border> {
        &self.place.border
    }

    /// Another request is in hand, and has not come there yet.
    pub(super) fn take(&mut self) {
        self.place.tenant.take();
        self.lifeline.set_waits(true);
    }

    /// Executions that were sent and have not been answered.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Until which execution the answers have come, and been read.
    pub(super) fn answered(&self) -> u64 {
        self.sent - self.under_way.len() as u64
    }

    /// The number of the execution that was sent under this ticket, if it is under way.
    pub(super) fn find(&self, ticket: u64) -> Option<u64> {
        let at = self.under_way.iter().position(|sent| *sent == Some(ticket))?;
        Some(self.answered() + 1 + at as u64)
    }

    /// One execution there and back, with nothing else under way. Dropped before the answer has come, the worker is told that nobody waits
    /// for it any more.
    pub(super) async fn ask(
        &mut self,
        message: impl FnOnce(u64) -> ToKernel,
        input: Packed<'_>,
    ) -> Result<Parcel, KernelError> {
        self.settle().await;
        let request = self.put(None, message, input)?;
        self.lifeline.set_waits(false);
        self.pace.begin_alone();
        let in_flight = self.begin(request);
        if let Err(error) = self.flush() {
            in_flight.withdraw();
            return self.broken(&error.into()).await;
        }
        self.finish(in_flight).await
    }

    /// The turn of an execution that was sent before it: its answer, once those before it have ended.
    pub(super) async fn turn(&mut self, request: u64) -> Result<Parcel, KernelError> {
        self.lifeline.set_waits(true);
        self.give_up_before(request);
        let in_flight = self.begin(request);
        while self.answered() + 1 < request {
            // Nobody wants it.
            let _ = self.answer(false).await;
        }
        self.lifeline.set_waits(false);
        self.finish(in_flight).await
    }

    /// Gives up whatever is under way, and waits until it has ended.
    pub(super) async fn settle(&mut self) {
        self.give_up_before(self.sent + 1);
        while !self.under_way.is_empty() {
            // How long those take whom nobody waits for says nothing about the others.
            self.pace.rest();
            let _ = self.answer(false).await;
        }
        self.shared = None;
        if self.has_panicked {
            // This life is fenced.
            pending().await
        }
    }

    /// Puts an execution behind those that are to be sent.
    pub(super) fn put(
        &mut self,
        ticket: Option<u64>,
        message: impl FnOnce(u64) -> ToKernel,
        input: Packed<'_>,
    ) -> Result<u64, KernelError> {
        if input.bytes.len() as u64 > MAX_BODY_BYTES {
            let error = format!("{} bytes are more than a worker takes", input.bytes.len());
            return Err(KernelError::invalid_input(error));
        }
        let request = self.sent + 1;
        let message = message(request);
        let (outgoing, border) = (&mut self.outgoing, &self.place.border);
        border.return_all();
        input.send(border, Message { kernel: self.place.tenant.number, request }, |load, inline| {
            wire::append(outgoing, &(message, load), inline).map_err(KernelError::permanent)
        })?;
        self.sent = request;
        self.under_way.push_back(ticket);
        self.place.tenant.send(request);
        Ok(request)
    }

    /// Sends what the socket has room for.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begin(&mut self, request: u64) -> InFlight {
        self.begun = request;
        self.place.tenant.begin(request)
    }

    /// Of what was sent before `request`, nobody waits for anything any more.
    fn give_up_before(&mut self, request: u64) {
        let last = request - 1;
        if last > self.answered().max(self.begun) {
            self.place.tenant.give_up(last);
            self.begun = last;
        }
    }

    async fn finish(&mut self, in_flight: InFlight) -> Result<Parcel, KernelError> {
        let answer = self.answer(true).await;
        in_flight.arrived();
        if self.under_way.is_empty() {
            self.shared = None;
            self.pace.end();
        }
        answer
    }

    /// Waits for the oldest answer. `in_hand`: it is that of the request in hand.
    async fn answer(&mut self, in_hand: bool) -> Answer {
        let request = self.answered() + 1;
        match self.receive().await {
            (FromKernel::Done { request: answered, result, load }, inline) if answered == request => {
                self.under_way.pop_front();
                self.place.tenant.end(request);
                self.pace.answered(in_hand);
                let parcel = match Parcel::new(load, inline, &self.place.border) {
                    Ok(parcel) => parcel,
                    Err(error) => return self.broken(&error).await,
                };
                self.place.tenant.set_read(request);
                result.map_err(wire::Failure::into_error)?;
                Ok(parcel)
            }
            (FromKernel::Panicked(reason), _) => {
                self.has_panicked = true;
                self.under_way.clear();
                // What was sent behind it has not begun, and will not.
                self.place.tenant.end(self.sent);
                let suspicion = if in_hand { Suspicion::Alone } else { Suspicion::None };
                self.lifeline.lost(Loss::Panicked { reason, suspicion });
                // This life is fenced by now.
                pending().await
            }
            (FromKernel::Done { .. } | FromKernel::Made(_), _) => self.broken(&WireError::Unasked).await,
        }
    }

    /// The next frame. What cannot come any more is awaited for ever: the keeper is told, and this life is fenced.
    async fn receive(&mut self) -> (FromKernel, Vec<u8>) {
        let mut look = None;
        let mut looked = false;
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
            if let Err(error) = self.flush() {
                return self.broken(&error.into()).await;
            }
            let filled = match self.inbox.fill(&mut Now(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !looked {
                        (look, looked) = (self.look(), true);
                    }
                    if look.is_some_and(|until| self.eagerness.goes_on(until)) {
                        // The runtime asks its sockets, and lets others run.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    if look.take().is_some() {
                        self.eagerness.note(false);
                    }
                    match self.ready().await {
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

    /// Until when to look for the next answer before sleeping for it. Those of many requests come many at a time, and looking for them would
    /// take the processor from whoever makes them.
    fn look(&mut self) -> Option<Timestamp> {
        if self.under_way.len() > FEW { None } else { self.eagerness.begin() }
    }

    /// Waits until there is something to read, or room for what is to be sent.
    async fn ready(&self) -> io::Result<()> {
        let interest = if self.outgoing.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        self.stream.ready(interest).await.map(drop)
    }

    /// The worker has died, or does not keep to the protocol. Either way its keeper ends it, and this life with it.
    async fn broken<T>(&self, reason: &WireError) -> T {
        let (tenant, reason) = (self.place.tenant.number, reason.to_string());
        self.place.tenant.tell(Mail::Broken { tenant, reason });
        pending().await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What stands here is gone, and with it whoever waits.
        self.give_up_before(self.sent + 1);
    }
}

/// Reads what is there now.
struct Now<'a>(&'a UnixStream);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}
