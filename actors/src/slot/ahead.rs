//! What an incarnation shows its kernel ahead of its turn.
//!
//! Only what may run twice is shown, for whoever sees a request may begin with it while the books have it waiting; only what is small, for
//! it takes up room there, too; and nothing beside a suspect, which runs alone.

use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::Header;
use rustkernel_core::traits::{LocalKernel, Payload, Room, Upcoming};

use super::incarnation::{Incarnation, Variant};
use super::ledger::{Entry, Ledger};
use super::{Shared, Slot};
use crate::contain::contain;
use crate::spans;

/// The requests that one incarnation shows its kernel. A pointer where there is one, because most kernels do not look.
pub(super) struct Ahead<I, O> {
    /// It has panicked over what it was shown, and is shown nothing more.
    is_blind: bool,
    room: Room,
    /// Whether the kernel holds something of what it has seen, and has not been told to settle since the last request.
    pub(super) holds: bool,
    has_settled: bool,
    /// What is to be shown now.
    upcoming: Vec<Seen<I, O>>,
    /// That of the request in hand.
    ticket: Option<u64>,
}

struct Seen<I, O> {
    ticket: u64,
    header: Header,
    request: Shared<I, O>,
}

impl<I: Payload, O: Payload> Ahead<I, O> {
    /// For a kernel that looks ahead, if its slot's rules allow it.
    pub(super) fn of<K: LocalKernel<Input = I>>(allowed: bool, kernel: &mut K) -> Option<Box<Self>> {
        let looks = allowed && kernel.look_ahead_local().is_some();
        looks.then(|| {
            Box::new(Self {
                is_blind: false,
                room: Room::default(),
                holds: false,
                has_settled: false,
                upcoming: Vec::new(),
                ticket: None,
            })
        })
    }

    /// Asks the kernel how much it takes.
    pub(super) fn look<K: LocalKernel<Input = I>>(&mut self, kernel: &mut K) {
        let looked = kernel.look_ahead_local().map(|ahead| (ahead.room(), ahead.holds()));
        let (room, holds) = looked.unwrap_or_default();
        (self.room, self.holds) = (room, holds && !self.has_settled);
    }

    /// A request was taken: chooses what is to be shown beside it; nothing more, if the kernel `is_succeeded` as soon as it has executed what
    /// it has seen. Under the slot's lock.
    pub(super) fn collect(
        &mut self,
        ledger: &mut Ledger<Shared<I, O>>,
        variant: Variant,
        is_succeeded: bool,
    ) {
        self.has_settled = false;
        if self.room.requests > 0 && !self.is_blind && !is_succeeded {
            let (room, upcoming) = (self.room, &mut self.upcoming);
            let may = |entry: &Entry<Shared<I, O>>| {
                let request = &entry.request;
                entry.bytes <= room.bytes_each
                    && !entry.header.suspect
                    // Its clock starts with its turn.
                    && request.budget == Duration::MAX
                    && !request.is_cancelled()
            };
            ledger.look_ahead(room.requests, may, |ticket, entry| {
                let degraded = variant == Variant::Degraded || entry.request.way.is_degraded_before();
                let header = Header { degraded, ..entry.header };
                upcoming.push(Seen { ticket, header, request: entry.request.clone() });
            });
        }
        self.ticket = ledger.running_ticket();
    }

    /// Shows the kernel what was chosen beside the request that was taken at `since`. Gives that one's ticket, if it has been seen.
    pub(super) fn show<K: LocalKernel<Input = I, Output = O>>(
        &mut self,
        slot: &Slot<I, O>,
        incarnation: &Incarnation,
        kernel: &mut K,
        since: Timestamp,
    ) -> Option<u64> {
        if self.upcoming.is_empty() {
            return self.ticket;
        }
        incarnation.enter(since);
        let timed = self.upcoming.iter().any(|seen| !seen.header.deadline.is_never());
        let now = if timed { slot.clock().now() } else { Timestamp::ZERO };
        let upcoming: Vec<_> = self.upcoming.iter().map(|seen| seen.as_upcoming(now)).collect();
        let show = || kernel.look_ahead_local().map_or(0, |ahead| ahead.show(&upcoming));
        // It looks at other requests than that in hand, which is not to answer for them. Whoever panics over one does it again at its turn.
        let taken = contain("looking ahead", show);
        self.is_blind = taken.is_none();
        // How many it had begun with by then is not known.
        let taken = taken.unwrap_or(self.upcoming.len());
        if let Some(left) = self.upcoming.get(taken) {
            let mut state = slot.lock();
            if state.ledger.epoch == incarnation.epoch() {
                state.ledger.withdraw_tickets(left.ticket);
                self.ticket = state.ledger.running_ticket();
            }
        }
        self.upcoming.clear();
        self.ticket
    }

    /// Lets the kernel be done with what it has seen and will not execute. `None` if the incarnation was fenced over it.
    pub(super) async fn settle<K: LocalKernel<Input = I, Output = O>>(
        &mut self,
        slot: &Slot<I, O>,
        incarnation: &Incarnation,
        kernel: &mut K,
    ) -> Option<()> {
        self.has_settled = true;
        match kernel.look_ahead_local() {
            Some(ahead) => slot.upkeep(incarnation, ahead.settle()).await,
            None => Some(()),
        }
    }
}

impl<I, O> Seen<I, O> {
    fn as_upcoming(&self, now: Timestamp) -> Upcoming<'_, I> {
        let remaining = (!self.header.deadline.is_never()).then(|| self.header.remaining(now));
        let trace = self.request.way.tracing().map(spans::Request::trace);
        Upcoming::new(self.ticket, self.header, &self.request.input).within(remaining).in_trace(trace)
    }
}
