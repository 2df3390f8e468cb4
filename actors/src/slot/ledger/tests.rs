//! The ledger against a model that is too simple to be wrong.

use proptest::prelude::*;

use super::*;

const BYTES: usize = 10;
const BOUNDS: Bounds = Bounds { requests: 5, bytes: 6 * BYTES };

/// What happens to a slot.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accept {
        within: Option<u64>,
    },
    Next,
    Finish {
        good: bool,
    },
    FinishLate,
    Retry {
        after: u64,
    },
    Cancel {
        nth: usize,
    },
    Pass {
        nanos: u64,
    },
    Fence {
        rerun: bool,
    },
    /// Those that come next are shown, and so many of them are taken.
    Look {
        room: usize,
        taken: usize,
    },
    Close,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::option::of(1_u64..40).prop_map(|within| Step::Accept { within }),
        4 => Just(Step::Next),
        3 => any::<bool>().prop_map(|good| Step::Finish { good }),
        1 => Just(Step::FinishLate),
        1 => (0_u64..20).prop_map(|after| Step::Retry { after }),
        2 => (0_usize..8).prop_map(|nth| Step::Cancel { nth }),
        3 => (1_u64..15).prop_map(|nanos| Step::Pass { nanos }),
        1 => any::<bool>().prop_map(|rerun| Step::Fence { rerun }),
        4 => (1_usize..5, 0_usize..5).prop_map(|(room, taken)| Step::Look { room, taken }),
        1 => Just(Step::Close),
        1 => Just(Step::Reopen),
    ]
}

/// Requests by id, with their deadlines: where each one is, and nothing else.
#[derive(Debug, Default)]
struct Model {
    waiting: Vec<u64>,
    delayed: Vec<(u64, u64)>,
    running: Option<u64>,
    /// The running one has been answered.
    settled: bool,
    deadlines: Vec<u64>,
    answered: u64,
    failed: u64,
    open: bool,
    /// What the incarnation has seen, in that order.
    seen: Vec<u64>,
}

impl Model {
    fn is_expired(&self, id: u64, now: u64) -> bool {
        self.deadlines[usize::try_from(id).unwrap() - 1] <= now
    }

    /// Those at the head that have been seen.
    fn seen_ahead(&self) -> usize {
        self.waiting.iter().take_while(|id| self.seen.contains(id)).count()
    }

    /// Answers everything that is over at `now`.
    fn expire(&mut self, now: u64) {
        let before = self.waiting.len() + self.delayed.len();
        let (waiting, delayed) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.delayed));
        self.waiting = waiting.into_iter().filter(|id| !self.is_expired(*id, now)).collect();
        self.delayed = delayed.into_iter().filter(|(_, id)| !self.is_expired(*id, now)).collect();
        self.failed += (before - self.waiting.len() - self.delayed.len()) as u64;
        if let Some(id) = self.running.filter(|id| !self.settled && self.is_expired(*id, now)) {
            debug_assert!(id > 0);
            self.settled = true;
            self.failed += 1;
        }
    }

    fn unsettled(&self) -> usize {
        self.waiting.len() + self.delayed.len() + usize::from(self.running.is_some() && !self.settled)
    }
}

struct Pair {
    ledger: Ledger<u64>,
    model: Model,
    now: u64,
}

const WATCH: Watch = Watch { hang_limit: None, hang_after: Duration::from_secs(1) };

impl Pair {
    fn new() -> Self {
        let mut ledger = Ledger::new(BOUNDS);
        ledger.life = Life::Serving;
        Self { ledger, model: Model { open: true, ..Model::default() }, now: 0 }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Accept { within } => self.accept(within),
            Step::Next => self.next(),
            Step::Finish { good } => self.finish(good),
            Step::FinishLate => {
                let before = self.ledger.accounts;
                assert!(self.ledger.finish(self.ledger.epoch.wrapping_sub(1), None).is_none());
                assert_eq!(self.ledger.accounts.discarded, before.discarded + 1);
            }
            Step::Retry { after } => self.retry(after),
            Step::Cancel { nth } => self.cancel(nth),
            Step::Pass { nanos } => self.pass(nanos),
            Step::Fence { rerun } => self.fence(rerun),
            Step::Look { room, taken } => self.look(room, taken),
            Step::Close => self.close(),
            Step::Reopen => {
                self.ledger.life = Life::Serving;
                self.model.open = true;
            }
        }
    }

    fn accept(&mut self, within: Option<u64>) {
        let deadline = within.map_or(Timestamp::NEVER, |within| Timestamp::from_nanos(self.now + within));
        let remaining = deadline.saturating_since(self.at());
        let verdict = self.ledger.may_accept(BYTES, false, remaining, self.at());
        let waiting = self.model.waiting.len() + self.model.delayed.len();
        let fits = waiting < BOUNDS.requests && (self.model.unsettled() + 1) * BYTES <= BOUNDS.bytes;
        if !self.model.open {
            assert!(matches!(verdict, Err(Refusal::Down(_))));
        } else if !fits {
            assert!(matches!(verdict, Err(Refusal::Limit(Limit::Requests | Limit::Bytes))));
        } else {
            assert_eq!(verdict, Ok(Pressed(false)));
            self.model.deadlines.push(deadline.as_nanos());
            let id = self.model.deadlines.len() as u64;
            let header = Header::new(id, deadline);
            let entry = Entry {
                header,
                request: id,
                bytes: BYTES,
                convictions: 0,
                accepted: Timestamp::ZERO,
                ticket: 0,
            };
            let _sleeper = self.ledger.accept(entry);
            self.model.waiting.push(id);
        }
    }

    fn next(&mut self) {
        if self.model.running.is_some() {
            return;
        }
        let (epoch, now, mut over) = (self.ledger.epoch, self.at(), Vec::new());
        let is_over = |entry: &Entry<u64>, now| entry.header.is_expired(now);
        let next = self.ledger.next(epoch, Waker::noop(), &WATCH, |_| now, is_over, &mut over);
        for entry in over {
            assert_eq!(self.model.waiting.remove(0), entry.request);
            assert!(self.model.is_expired(entry.request, self.now));
            self.model.failed += 1;
        }
        match next {
            Next::Run(_, id, _) => {
                assert_eq!(self.model.waiting.remove(0), id, "first in, first out");
                assert!(!self.model.is_expired(id, self.now), "expired work never runs");
                (self.model.running, self.model.settled) = (Some(id), false);
            }
            Next::Sleep { .. } => assert!(self.model.waiting.is_empty()),
            Next::Stop | Next::Fenced => unreachable!("nobody asked for it"),
        }
    }

    fn finish(&mut self, good: bool) {
        let Some(id) = self.model.running.take() else { return };
        let settled = std::mem::take(&mut self.model.settled);
        let entry = self.ledger.finish(self.ledger.epoch, None);
        assert_eq!(entry.is_none(), settled, "answered once");
        if let Some((entry, _)) = entry {
            assert_eq!(entry.request, id);
            self.ledger.settle(entry.bytes, good);
            if good { self.model.answered += 1 } else { self.model.failed += 1 }
        }
    }

    fn retry(&mut self, after: u64) {
        let Some(id) = self.model.running.filter(|_| !self.model.settled && self.model.open) else { return };
        let Some((entry, _)) = self.ledger.finish(self.ledger.epoch, None) else { unreachable!() };
        self.model.running = None;
        self.model.seen.retain(|seen| *seen != id);
        if after == 0 {
            let _sleeper = self.ledger.rerun(entry, None);
            let behind = self.model.seen_ahead();
            self.model.waiting.insert(behind, id);
        } else {
            let _sleeper = self.ledger.rerun(entry, Some(Timestamp::from_nanos(self.now + after)));
            self.model.delayed.push((self.now + after, id));
        }
    }

    fn cancel(&mut self, nth: usize) {
        let Some(id) = (nth as u64 + 1..=self.model.deadlines.len() as u64).next() else { return };
        let waits = self.model.waiting.contains(&id) || self.model.delayed.iter().any(|(_, at)| *at == id);
        let runs = self.model.running == Some(id) && !self.model.settled;
        match self.ledger.cancel(id) {
            Cancelled::Waiting(entry, _) => {
                assert!(waits && entry.request == id);
                self.model.waiting.retain(|waiting| *waiting != id);
                self.model.delayed.retain(|(_, delayed)| *delayed != id);
            }
            Cancelled::Running(_) => {
                assert!(runs);
                self.model.settled = true;
            }
            Cancelled::Gone => {
                assert!(!waits && !runs);
                return;
            }
        }
        self.model.failed += 1;
    }

    fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        let due = self.ledger.expire(self.at(), None, &WATCH);
        let before = self.model.failed;
        self.model.expire(self.now);
        let told = due.expired.len() as u64 + u64::from(due.overdue.is_some());
        assert_eq!(self.model.failed - before, told, "each is answered by one party");
        assert!(!due.hung, "nothing blocks");
        assert!(due.next > self.at(), "the alarm is never set to a time already past");
        let (now, mut released) = (self.now, Vec::new());
        self.model.delayed.retain(|(at, id)| {
            let stays = *at > now;
            if !stays {
                released.push(*id);
            }
            stays
        });
        // Re-runs go to the head, in no promised order among themselves: learn it from the ledger.
        let behind = self.model.seen_ahead();
        let head = self.ledger.queue.iter().skip(behind).take(released.len());
        let head: Vec<u64> = head.map(|entry| entry.request).collect();
        assert!(head.iter().all(|id| released.contains(id)), "{head:?} {released:?}");
        self.model.waiting.splice(behind..behind, head);
    }

    fn fence(&mut self, rerun: bool) {
        let epoch = self.ledger.epoch;
        let _wakers = self.ledger.fence();
        assert_eq!(self.ledger.epoch, epoch + 1);
        self.model.seen.clear();
        let running = self.ledger.take_running();
        let (id, settled) = (self.model.running.take(), std::mem::take(&mut self.model.settled));
        assert_eq!(running.is_some(), id.is_some());
        let Some(entry) = running.and_then(Running::unsettled) else {
            assert!(settled || id.is_none());
            return;
        };
        if rerun && self.model.open {
            let _sleeper = self.ledger.rerun(entry, None);
            self.model.waiting.splice(0..0, id);
        } else {
            self.ledger.settle(entry.bytes, false);
            self.model.failed += 1;
        }
    }

    fn look(&mut self, room: usize, taken: usize) {
        let mut shown = Vec::new();
        self.ledger.look_ahead(room, |_| true, |ticket, entry| shown.push((ticket, entry.request)));
        let unseen = |id: &&u64| !self.model.seen.contains(id);
        let waiting: Vec<_> = self.model.waiting[self.model.seen_ahead()..].to_vec();
        let next = self.model.running.iter().filter(unseen).chain(&waiting).copied().take(room);
        let may = self.model.running.is_some() && !waiting.is_empty();
        let next: Vec<u64> = if may { next.collect() } else { Vec::new() };
        assert_eq!(shown.iter().map(|(_, id)| *id).collect::<Vec<_>>(), next, "each once, in its order");
        if let Some((ticket, _)) = shown.get(taken) {
            self.ledger.withdraw_tickets(*ticket);
        }
        self.model.seen.extend(next.iter().take(taken));
    }

    fn close(&mut self) {
        let out = self.ledger.close(Life::Down(DownReason::Isolated));
        assert_eq!(out.len(), self.model.waiting.len() + self.model.delayed.len());
        self.model.failed += out.len() as u64;
        self.model.waiting.clear();
        self.model.delayed.clear();
        self.model.open = false;
    }

    fn check(&self) {
        let (accounts, model) = (self.ledger.accounts, &self.model);
        assert_eq!(accounts.accepted, model.deadlines.len() as u64);
        assert_eq!((accounts.answered, accounts.failed), (model.answered, model.failed));
        let unsettled = model.unsettled();
        assert_eq!(accounts.accepted, accounts.answered + accounts.failed + unsettled as u64);
        assert_eq!(self.ledger.bytes(), unsettled * BYTES);
        assert_eq!(self.ledger.waiting(), model.waiting.len() + model.delayed.len());
        let queue: Vec<u64> = self.ledger.queue.iter().map(|entry| entry.request).collect();
        assert_eq!(queue, model.waiting);
        let valid = |ticket: &&u64| self.ledger.tickets.is_valid(**ticket);
        let tickets: Vec<u64> = self.ledger.queue.iter().map(|entry| entry.ticket).collect();
        let seen = tickets.iter().take_while(valid).count();
        assert_eq!(seen, model.seen_ahead());
        assert!(tickets[..seen].is_sorted(), "those that were seen come in that order: {tickets:?}");
        assert!(!tickets[seen..].iter().any(|ticket| valid(&ticket)), "and before all others: {tickets:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_ledger_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.take(step);
            pair.check();
        }
    }
}
