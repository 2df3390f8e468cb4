//! The place of one kernel in the runtime. It outlives every incarnation of its kernel, and requests belong to it.
//!
//! Three parties meet here: callers [`submit`](Slot::submit), one incarnation takes and finishes ([`serve`](mod@serve)), and
//! the recovery actor fences, restarts and closes ([`control`]). One lock guards the [`ledger`]; answers are
//! given and wakers woken after it is released.

mod ahead;
mod checkpoints;
mod control;
mod errors;
mod incarnation;
mod latency;
mod ledger;
mod rules;
mod serve;
mod succession;
mod upkeep;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::envelope::Header;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase, Rejection};
use rustkernel_core::resilience::Outcome;
use rustkernel_core::traits::Payload;

pub(crate) use checkpoints::Kept;
pub(crate) use control::{Supervised, Vitals};
pub use errors::ErrorCounts;
use errors::Errors;
pub use incarnation::Variant;
pub(crate) use incarnation::{Incarnation, Standing};
pub use latency::{LATENCY_BOUNDS, Latency, Quantiles, Spread};
pub use ledger::Accounts;
pub(crate) use ledger::{Bounds, Life, Watch};
pub(crate) use rules::{Codec, Rules};
pub(crate) use serve::{Ending, serve};

use crate::breaker::BreakerMsg;
use crate::cancel::{cancelled, deadline_exceeded};
use crate::contain::{contain, wake};
use crate::gate::{Gate, Report};
use crate::home::Home;
use crate::links::Links;
use crate::recovery::RecoveryMsg;
use crate::request::Request;
use crate::shared_breaker::SharedBreaker;
use crate::spans;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::timer::Alarm;
use crate::way::{CallReport, Way};
use checkpoints::Checkpoints;
use ledger::{Cancelled, Entry, Ledger, Pressed, Refusal};

pub(crate) type Shared<I, O> = Arc<Request<I, O>>;

/// One kernel's slot.
pub(crate) struct Slot<I, O> {
    pub(crate) id: KernelId,
    /// The slot's number in its runtime; the upper bits of its request ids.
    pub(crate) index: u32,
    pub(crate) gate: Gate,
    errors: Errors,
    pub(crate) rules: Rules<I>,
    pub(crate) links: Arc<Links>,
    /// The supervisor above.
    pub(crate) home: Arc<Home>,
    me: Weak<Self>,
    state: Mutex<State<I, O>>,
}

struct State<I, O> {
    ledger: Ledger<Shared<I, O>>,
    incarnation: Option<Arc<Incarnation>>,
    /// Who takes over as soon as the incarnation has nothing in hand, or is gone.
    successors: VecDeque<Arc<Incarnation>>,
    /// Made, proven, and waiting for the incarnation to fail.
    standbys: Vec<Arc<Incarnation>>,
    /// Every life that was begun to take over some day and has not yet, those two included.
    prepared: Vec<Arc<Incarnation>>,
    incarnations: u64,
    requests: u64,
    checkpoints: Checkpoints,
    /// What its present life stands behind, or its last one.
    shared: Arc<[SharedBreaker]>,
    /// Requests that these have refused here.
    refused_by_shared: u64,
}

/// A request that the slot did not take, with everything its caller gave.
pub(crate) struct Refused<I, O> {
    pub(crate) input: I,
    pub(crate) way: Way<O>,
    pub(crate) error: KernelError,
}

impl<I, O> Refused<I, O> {
    /// Its span, if there is one, says so.
    pub(crate) fn record(&self) {
        spans::answered(self.way.tracing(), CallReport::default(), Some(&self.error));
    }
}

/// Where in time a request stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) header: Header,
    /// A budget that starts when an incarnation takes the request; [`Duration::MAX`] for none.
    pub(crate) budget: Duration,
    /// The time, where the header has a deadline to compare it with.
    pub(crate) now: Timestamp,
    /// Whether an earlier stage of its chain has accepted it: then a drain lets it through.
    pub(crate) begun: bool,
}

impl<I: Payload, O: Payload> Slot<I, O> {
    pub(crate) fn new(
        id: KernelId,
        index: u32,
        rules: Rules<I>,
        links: Arc<Links>,
        home: Arc<Home>,
    ) -> Arc<Self> {
        let state = State {
            ledger: Ledger::new(rules.bounds),
            incarnation: None,
            successors: VecDeque::new(),
            standbys: Vec::new(),
            prepared: Vec::new(),
            incarnations: 0,
            requests: 0,
            checkpoints: Checkpoints::default(),
            shared: Arc::default(),
            refused_by_shared: 0,
        };
        Arc::new_cyclic(|me| Self {
            id,
            index,
            gate: Gate::new(rules.breaker.as_ref()),
            errors: Errors::default(),
            rules,
            links,
            home,
            me: Weak::clone(me),
            state: Mutex::new(state),
        })
    }

    /// Admits a request: gate, deadline, life, bounds, in that order; then it belongs to the slot. No actor is asked. A
    /// caller that waits gets the request with its id; the slot alone keeps one that goes through a chain.
    pub(crate) fn submit<T>(
        &self,
        input: I,
        bytes: usize,
        mut timing: Timing,
        way: Way<O>,
        keep: impl FnOnce(&Shared<I, O>, u64) -> T,
    ) -> Result<T, Refused<I, O>> {
        let permit = match self.gate.admit() {
            Ok(permit) => permit,
            Err(refused) => {
                // Who serves nobody says so, whatever its breaker would say.
                let life = self.lock().ledger.life;
                let kind = match life {
                    Life::Down(reason) => KernelErrorKind::Down(reason),
                    Life::Starting | Life::Serving | Life::Waiting(_) | Life::Draining => {
                        KernelErrorKind::Rejected(self.gate.explain(refused))
                    }
                };
                return Err(self.refuse(input, way, kind));
            }
        };
        let deadline = timing.header.deadline;
        let remaining = deadline.saturating_since(timing.now);
        // Made before the lock is taken; a refusal takes it apart again.
        let request = Arc::new(Request { input, permit, budget: timing.budget, way });
        let mut state = self.lock();
        let has_relief = self.has_relief(&state);
        state.ledger.set_relief(has_relief);
        let verdict = if remaining.is_zero() {
            Err(KernelErrorKind::DeadlineExceeded)
        } else if let Some(rejection) = shut(&mut state, has_relief) {
            Err(KernelErrorKind::Rejected(rejection))
        } else {
            state.ledger.may_accept(bytes, timing.begun, remaining, timing.now).map_err(KernelErrorKind::from)
        };
        let pressed = match verdict {
            Ok(pressed) => pressed,
            Err(kind) => return self.turn_away(state, request, bytes, timing, kind, keep),
        };
        if timing.header.id == 0 {
            state.requests += 1;
            timing.header.id = u64::from(self.index) << INDEX_SHIFT | state.requests;
        }
        let header = timing.header;
        let kept = keep(&request, header.id);
        let sleeper = state.ledger.accept(Entry {
            header,
            request,
            bytes,
            convictions: 0,
            accepted: timing.now,
            ticket: 0,
        });
        let arm = arm(&mut state.ledger, deadline);
        drop(state);
        if let Some(generation) = permit.probe_generation() {
            self.links.to_breaker(BreakerMsg::ProbeOut { slot: self.index, generation });
        }
        wake(sleeper);
        self.schedule(arm);
        if pressed == Pressed(true) {
            self.home.tell(RecoveryMsg::Pressed { slot: self.index });
        }
        Ok(kept)
    }

    /// A request that may not enter. A full slot first looks for entries that nobody waits for any more, and where there are, the request
    /// tries again.
    #[cold]
    fn turn_away<T>(
        &self,
        mut state: MutexGuard<'_, State<I, O>>,
        request: Shared<I, O>,
        bytes: usize,
        timing: Timing,
        kind: KernelErrorKind,
        keep: impl FnOnce(&Shared<I, O>, u64) -> T,
    ) -> Result<T, Refused<I, O>> {
        let full = matches!(kind, KernelErrorKind::Overloaded(_));
        let dead = if full && state.ledger.may_purge() {
            state.ledger.purge(|entry| entry.request.is_cancelled())
        } else {
            Vec::new()
        };
        drop(state);
        let purged = !dead.is_empty();
        self.answer_all(dead, |entry| cancelled(entry.phase()));
        self.gate.give_back(request.permit);
        let Some(Request { input, way, .. }) = Arc::into_inner(request) else {
            unreachable!("nobody else has it")
        };
        if purged { self.submit(input, bytes, timing, way, keep) } else { Err(self.refuse(input, way, kind)) }
    }

    /// The caller of `header.id` went away.
    pub(crate) fn cancel(&self, request: &Shared<I, O>, id: u64) {
        let cancelled = self.lock().ledger.cancel(id);
        if !matches!(cancelled, Cancelled::Gone) {
            self.errors.fail(&KernelErrorKind::Cancelled);
        }
        match cancelled {
            Cancelled::Waiting(_, sleeper) => {
                wake(sleeper);
                self.report(self.gate.observe(request.permit, Outcome::Inconclusive, Duration::ZERO))
            }
            Cancelled::Running(waker) => {
                request.way.signal().raise();
                wake(waker);
                self.report(self.gate.observe(request.permit, Outcome::Neutral, Duration::ZERO));
            }
            // Answered, or on its way back into the queue after a crash: raised, it is not run again.
            Cancelled::Gone => request.way.signal().raise(),
        }
    }

    /// The slot's books.
    pub(crate) fn accounts(&self) -> Accounts {
        self.lock().ledger.accounts
    }

    /// Those that were refused, and those that failed.
    pub(crate) fn errors(&self) -> [ErrorCounts; 2] {
        self.errors.counts()
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.links.timer.clock()
    }

    /// A draining slot has nothing left: its supervisor may be waiting for that, and so may the shutdown of all.
    fn tell_idle(&self) {
        self.home.tell(RecoveryMsg::Idle { slot: Some(self.index) });
        self.links.tell_root_idle();
    }

    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        lock(&self.state)
    }

    #[cold]
    fn refuse(&self, input: I, way: Way<O>, kind: KernelErrorKind) -> Refused<I, O> {
        self.errors.refuse(&kind);
        Refused { input, way, error: KernelError::new(kind, Phase::Admission).in_kernel(&self.id) }
    }

    /// Gives an entry that the ledger handed out its error, after its outcome has reached the gate.
    fn conclude(&self, header: Header, request: Shared<I, O>, outcome: Outcome, error: KernelError) {
        self.report(self.gate.observe(request.permit, outcome, Duration::ZERO));
        self.errors.fail(error.kind());
        // It may be the last to hold the input. A panic in there may not cost the others their answers, nor the recovery
        // actor its life.
        contain("giving an answer", || {
            request.way.give(header, Timestamp::ZERO, Err(error.in_kernel(&self.id)));
            drop(request);
        });
    }

    fn answer_all(
        &self,
        entries: Vec<Entry<Shared<I, O>>>,
        error: impl Fn(&Entry<Shared<I, O>>) -> KernelError,
    ) {
        for entry in entries {
            let error = error(&entry);
            // Whoever began with it ahead of its turn: what became of it there is not known.
            self.conclude(entry.header, entry.request, Outcome::Inconclusive, error);
        }
    }

    fn report(&self, report: Option<Report>) {
        if let Some(report) = report {
            self.links.breaker_report(self.index, report);
        }
    }

    fn schedule(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            let alarm: Weak<dyn Alarm> = Weak::clone(&self.me) as Weak<dyn Alarm>;
            self.links.timer.schedule(at, alarm, at.as_nanos());
        }
    }
}

impl<I: Payload, O: Payload> Alarm for Slot<I, O> {
    /// Deadlines, re-runs and hangs of this slot. Runs on the timer's thread, whatever the kernels do.
    fn ring(&self, now: Timestamp, token: u64) {
        let mut state = self.lock();
        state.ledger.scheduled.retain(|at| at.as_nanos() != token);
        if state.ledger.armed.as_nanos() != token {
            return;
        }
        if state.incarnation.as_ref().is_some_and(|incarnation| incarnation.waits()) {
            state.ledger.restart_clock(now, &self.rules.watch);
        }
        let blocked_since = state.incarnation.as_ref().and_then(|incarnation| incarnation.blocked_since());
        let due = state.ledger.expire(now, blocked_since, &self.rules.watch);
        state.ledger.armed = Timestamp::NEVER;
        let arm = arm(&mut state.ledger, due.next);
        if due.hung {
            self.fence_hung(state);
        } else {
            drop(state);
        }
        self.schedule(arm);
        wake(due.waker);
        self.answer_all(due.expired, |entry| deadline_exceeded(entry.phase()));
        if let Some((header, request)) = due.overdue {
            self.conclude(header, request, Outcome::Failure, deadline_exceeded(Phase::Executing));
        }
    }
}

/// Moves the slot's alarm to `at` if that is earlier. Returns what to schedule once the lock is released: nothing, if the timer
/// holds that point already.
fn arm<R: Clone>(ledger: &mut Ledger<R>, at: Timestamp) -> Option<Timestamp> {
    if at >= ledger.armed {
        return None;
    }
    ledger.armed = at;
    let known = ledger.scheduled.contains(&at);
    if !known {
        ledger.scheduled.push(at);
    }
    (!known).then_some(at)
}

/// Why the slot is shut though its own gate is not: what its kernel lives in is out of order, and nobody else is about to answer. One that
/// serves nobody has a better answer.
fn shut<I, O>(state: &mut State<I, O>, has_relief: bool) -> Option<Rejection> {
    let is_down = matches!(state.ledger.life, Life::Down(_));
    let mut shared = state.shared.iter().filter(|_| !has_relief && !is_down);
    let rejection = shared.find_map(SharedBreaker::refuses)?;
    state.refused_by_shared += 1;
    Some(rejection)
}

impl From<Refusal> for KernelErrorKind {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Limit(limit) => Self::Overloaded(limit),
            Refusal::Restarting(retry_after) => Self::Restarting { retry_after },
            Refusal::Draining => Self::Draining,
            Refusal::Down(reason) => Self::Down(reason),
        }
    }
}

impl<I, O> fmt::Debug for Slot<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Request ids carry the slot's index above this bit, so that slots count by themselves.
const INDEX_SHIFT: u32 = 40;
