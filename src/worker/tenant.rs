//! One kernel in a worker, as both of its watchers here know it: what stands for it, and the domain's keeper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use rustkernel_actors::Suspicion;

use super::mailbox::{Mail, Mailbox};

/// What the two share.
#[derive(Debug)]
pub(super) struct Tenant {
    /// Its number in its domain.
    pub(super) number: u64,
    /// Whether its making is over.
    is_made: AtomicBool,
    /// The last execution that was sent to the worker. They are numbered from 1, and end in the order of their numbers.
    sent: AtomicU64,
    /// The last one that has ended. One that nobody waits for any more has when the worker says so.
    ended: AtomicU64,
    /// The last one whose answer was read.
    read: AtomicU64,
    /// That of the request in hand.
    begun: AtomicU64,
    /// How far that has come.
    progress: AtomicU8,
    mailbox: Arc<Mailbox>,
}

/// It has not come there yet.
const HERE: u8 = 0;
/// It is in execution there, as far as is known.
const THERE: u8 = 1;
/// Its answer has come, and may still be on its way to whom it is for.
const ANSWERED: u8 = 2;

impl Tenant {
    pub(super) fn new(number: u64, mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self {
            number,
            is_made: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            read: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            progress: AtomicU8::new(HERE),
            mailbox,
        })
    }

    /// Whether user code of it may run there: it is being made, or executes.
    pub(super) fn is_active(&self) -> bool {
        !self.is_made.load(Ordering::Acquire) || self.under_way() > 0
    }

    /// Executions in the worker whose end is not known yet.
    fn under_way(&self) -> u64 {
        // In this order: one that ends meanwhile is counted, not missed.
        let ended = self.ended.load(Ordering::Acquire);
        self.sent.load(Ordering::Acquire).saturating_sub(ended)
    }

    pub(super) fn set_made(&self) {
        self.is_made.store(true, Ordering::Release);
    }

    /// The answer to this execution was read, and those before it.
    pub(super) fn set_read(&self, request: u64) {
        self.read.store(request, Ordering::Release);
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// Whether the request in hand is the only one of this kernel whose end is not known.
    fn is_alone(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        self.sent.load(Ordering::Acquire) == begun && self.ended.load(Ordering::Acquire) + 1 == begun
    }

    /// What the death of the worker says about the request in hand, if there is one. `alone`: nothing else was active there.
    pub(super) fn suspicion(&self, alone: bool) -> Suspicion {
        match (self.progress.load(Ordering::Acquire), alone) {
            (HERE, _) => Suspicion::None,
            (THERE, true) if self.is_alone() => Suspicion::Alone,
            // One that was answered has run, and it was not what ended the worker: or it was one behind it, and its answer is on its way.
            _ => Suspicion::Suspect,
        }
    }

    /// Another request is in hand.
    pub(super) fn take(&self) {
        self.progress.store(HERE, Ordering::Release);
    }

    /// An execution is on its way to the worker.
    pub(super) fn send(&self, request: u64) {
        self.sent.store(request, Ordering::Release);
    }

    /// It is the turn of an execution that was sent. Dropped before its answer has come, it is one that nobody waits for.
    pub(super) fn begin(self: &Arc<Self>, request: u64) -> InFlight {
        self.begun.store(request, Ordering::Release);
        self.progress.store(THERE, Ordering::Release);
        InFlight { tenant: Arc::clone(self), request }
    }

    /// Nobody waits any more for an execution that was sent, and those before it.
    pub(super) fn give_up(&self, request: u64) {
        self.tell(Mail::Abandoned { tenant: self.number, request });
    }

    /// The execution has ended, and all before it.
    pub(super) fn end(&self, request: u64) {
        self.ended.fetch_max(request, Ordering::AcqRel);
    }

    pub(super) fn tell(&self, mail: Mail) {
        self.mailbox.post(mail);
    }
}

/// An execution in the worker whose answer is awaited.
pub(super) struct InFlight {
    tenant: Arc<Tenant>,
    request: u64,
}

impl InFlight {
    /// Its answer has come.
    pub(super) fn arrived(self) {
        self.tenant.progress.store(ANSWERED, Ordering::Release);
        self.tenant.end(self.request);
    }

    /// It could not be sent.
    pub(super) fn withdraw(self) {
        self.tenant.progress.store(HERE, Ordering::Release);
        self.tenant.end(self.request);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.tenant.ended.load(Ordering::Acquire) < self.request {
            // Whoever had it in hand has given it up, so that it is nobody's any more.
            self.tenant.progress.store(HERE, Ordering::Release);
            self.tenant.give_up(self.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_death_says_depends_on_how_far_the_request_had_come() {
        let tenant = Tenant::new(1, Mailbox::new().unwrap());
        let both = || [false, true].map(|alone| tenant.suspicion(alone));
        let begin = |request| {
            tenant.take();
            tenant.send(request);
            tenant.begin(request)
        };
        assert!(tenant.is_active(), "it is being made");
        tenant.set_made();
        tenant.take();
        assert_eq!(both(), [Suspicion::None; 2]);
        let in_flight = begin(1);
        assert_eq!((both(), tenant.is_active()), ([Suspicion::Suspect, Suspicion::Alone], true));
        in_flight.arrived();
        assert_eq!((both(), tenant.is_active()), ([Suspicion::Suspect; 2], false), "it has run, and well");
        begin(2).withdraw();
        assert_eq!((both(), tenant.is_active()), ([Suspicion::None; 2], false));
        drop(begin(3));
        assert!(tenant.is_active(), "nobody waits for it, and it runs");
        tenant.end(3);
        assert!(!tenant.is_active());
    }

    #[test]
    fn with_another_one_behind_it_none_is_convicted() {
        let tenant = Tenant::new(1, Mailbox::new().unwrap());
        tenant.set_made();
        tenant.send(1);
        tenant.send(2);
        let first = tenant.begin(1);
        assert_eq!(tenant.suspicion(true), Suspicion::Suspect, "it may be the second one");
        first.arrived();
        tenant.take();
        let second = tenant.begin(2);
        assert_eq!(tenant.suspicion(true), Suspicion::Alone);
        second.arrived();
        assert!(!tenant.is_active());
    }

    #[test]
    fn one_that_has_ended_and_whose_answer_is_on_its_way_is_not_convicted() {
        let tenant = Tenant::new(1, Mailbox::new().unwrap());
        tenant.set_made();
        (1..=3).for_each(|request| tenant.send(request));
        let _first = tenant.begin(1);
        tenant.give_up(2);
        // So its worker says, of one that comes behind the first.
        tenant.end(2);
        assert_eq!(tenant.suspicion(true), Suspicion::Suspect, "the third one may have done it");
    }
}
