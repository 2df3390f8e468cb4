//! What the incarnation has seen ahead of its turn.
//!
//! Whoever is seen gets a ticket. Those that have a valid one are at the head of the queue, in the order of their tickets: that is the order in
//! which they are taken, whatever is put back meanwhile. A fence voids all tickets.

use super::{Entry, Ledger};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tickets {
    /// The last one that was given; from 1.
    last: u64,
    /// Up to this one, they were an earlier incarnation's.
    void: u64,
}

impl Tickets {
    pub(super) fn is_valid(self, ticket: u64) -> bool {
        ticket > self.void
    }

    pub(super) fn void(&mut self) {
        self.void = self.last;
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl<R: Clone> Ledger<R> {
    /// At the head, and behind those that the incarnation has seen: their turns come in the order in which it saw them.
    pub(super) fn push_to_head(&mut self, entry: Entry<R>) {
        let seen = self.seen_ahead();
        self.queue.insert(seen, Entry { ticket: 0, ..entry });
    }

    /// Gives tickets to the request that runs and those that come next, `limit` at most, up to the first one that `may` not have one. Those
    /// that have one keep it; where only the running one would get one, nobody does.
    pub(crate) fn look_ahead(
        &mut self,
        limit: usize,
        may: impl Fn(&Entry<R>) -> bool,
        mut show: impl FnMut(u64, &Entry<R>),
    ) {
        let seen = self.seen_ahead();
        let Some(running) = self.running.as_mut().filter(|running| may(&running.entry)) else { return };
        if !self.queue.get(seen).is_some_and(&may) {
            return;
        }
        let tickets = &mut self.tickets;
        let runs = (!tickets.is_valid(running.entry.ticket)).then_some(&mut running.entry);
        for entry in runs.into_iter().chain(self.queue.range_mut(seen..)).take(limit) {
            if !may(entry) {
                return;
            }
            entry.ticket = tickets.next();
            show(entry.ticket, entry);
        }
    }

    /// The ticket of the running request, if it has one of this incarnation's.
    pub(crate) fn running_ticket(&self) -> Option<u64> {
        let ticket = self.running.as_ref()?.entry.ticket;
        self.tickets.is_valid(ticket).then_some(ticket)
    }

    /// Takes back the tickets from this one on: nothing was begun for them.
    pub(crate) fn withdraw_tickets(&mut self, from: u64) {
        let running = self.running.as_mut().map(|running| &mut running.entry);
        for entry in running.into_iter().chain(&mut self.queue).filter(|entry| entry.ticket >= from) {
            entry.ticket = 0;
        }
    }

    /// What the incarnation lived in is gone: whatever waits and was seen by it may have been in execution there.
    pub(crate) fn suspect_seen(&mut self) {
        let tickets = self.tickets;
        for entry in self.queue.iter_mut().filter(|entry| tickets.is_valid(entry.ticket)) {
            entry.header.suspect = true;
        }
    }

    /// Whether the request that comes next has been seen by the incarnation, which may have begun with it.
    pub(crate) fn is_next_seen(&self) -> bool {
        self.queue.front().is_some_and(|entry| self.tickets.is_valid(entry.ticket))
    }

    /// How many at the head the incarnation has seen.
    fn seen_ahead(&self) -> usize {
        self.queue.iter().take_while(|entry| self.tickets.is_valid(entry.ticket)).count()
    }
}
