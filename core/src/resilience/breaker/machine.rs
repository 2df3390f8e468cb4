//! The breaker as a pure machine.
//!
//! It decides which calls pass and when the state changes. It follows resilience4j's states, gobreaker's
//! generations, and Polly's rule that a rate at its limit opens. It reads no clock and holds no lock.
//!
//! | from | event | to |
//! |---|---|---|
//! | closed | consecutive failures at the threshold, a rate at its limit, [`trip`](BreakerMachine::trip) | open |
//! | open | the open time is over, at the next question or timer | half-open |
//! | half-open | `success_threshold` good probes | closed |
//! | half-open | a bad or slow probe, the time limit from the first probe on, `trip` | open |
//! | closed, open, half-open | [`force_half_open`](BreakerMachine::force_half_open) | half-open |
//! | any | [`isolate`](BreakerMachine::isolate), [`disable`](BreakerMachine::disable) | isolated, disabled |
//! | any but closed | [`close`](BreakerMachine::close), [`reset`](BreakerMachine::reset) | closed |
//!
//! Every change begins a generation. An outcome of an older one is counted as stale and changes nothing. What the
//! machine does not do: make calls, keep permits alive, or tell anyone; the shell around it does.

use std::time::Duration;

use super::config::CircuitBreakerConfig;
use super::outcome::Outcome;
use super::state::{
    BreakerMode, BreakerTotals, CircuitState, Permit, Refusal, Transition, TransitionCause, TripCause,
};
use super::window::Rates;
use crate::clock::Timestamp;
use crate::error::RejectionCause;
use crate::resilience::InvalidConfig;

/// A circuit breaker without clock, lock or calls: see the table in the module's docs.
#[derive(Clone, Debug)]
pub struct BreakerMachine {
    config: CircuitBreakerConfig,
    phase: Phase,
    generation: u64,
    since: Timestamp,
    consecutive_failures: u32,
    rates: Option<Rates>,
    totals: BreakerTotals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Timestamp,
    },
    /// `until` is there from the first probe on: an idle half-open breaker waits without a limit.
    HalfOpen {
        in_flight: u32,
        good: u32,
        until: Option<Timestamp>,
    },
    Isolated,
    Disabled,
}

impl BreakerMachine {
    /// A closed breaker of generation 0.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn try_new(config: CircuitBreakerConfig, now: Timestamp) -> Result<Self, InvalidConfig> {
        config.validate()?;
        let rates = config.window.as_ref().map(Rates::new);
        Ok(Self {
            config,
            phase: Phase::Closed,
            generation: 0,
            since: now,
            consecutive_failures: 0,
            rates,
            totals: BreakerTotals::default(),
        })
    }

    /// Asks for the right to make one call. An open breaker whose time is over becomes half-open here, and a
    /// half-open one past its limit open; ask [`on_timer`](Self::on_timer) first to be handed that transition.
    ///
    /// # Errors
    /// [`Refusal`] says what stands in the way and when it makes sense to ask again.
    pub fn try_acquire(&mut self, now: Timestamp) -> Result<Permit, Refusal> {
        let _lazy = self.on_timer(now);
        let limit = self.config.half_open_limit();
        let refused = match &mut self.phase {
            Phase::Closed | Phase::Disabled => None,
            Phase::Open { until } => Some((RejectionCause::Failures, Some(*until - now))),
            Phase::Isolated => Some((RejectionCause::Isolated, None)),
            Phase::HalfOpen { in_flight, .. } if *in_flight >= self.config.success_threshold => {
                Some((RejectionCause::ProbesOut, None))
            }
            Phase::HalfOpen { in_flight, until, .. } => {
                *in_flight += 1;
                until.get_or_insert(now + limit);
                None
            }
        };
        if let Some((cause, retry_after)) = refused {
            bump(&mut self.totals.rejected);
            return Err(Refusal { cause, generation: self.generation, retry_after });
        }
        bump(&mut self.totals.permits);
        let probe = matches!(self.phase, Phase::HalfOpen { .. });
        Ok(Permit { generation: self.generation, probe, slow_counted: false })
    }

    /// Takes a permit back with the outcome of its call and the time the call took.
    #[allow(clippy::needless_pass_by_value, reason = "a permit is handed back once")]
    pub fn on_outcome(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        duration: Duration,
        now: Timestamp,
    ) -> Option<Transition> {
        if permit.generation != self.generation {
            bump(&mut self.totals.stale);
            return None;
        }
        let slow = permit.slow_counted || self.slow_limit().is_some_and(|limit| duration > limit);
        match outcome {
            Outcome::Success => bump(&mut self.totals.successes),
            Outcome::Failure => bump(&mut self.totals.failures),
            Outcome::Neutral => bump(&mut self.totals.neutral),
            Outcome::Inconclusive => bump(&mut self.totals.inconclusive),
        }
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            Outcome::Neutral | Outcome::Inconclusive => {
                self.return_slot();
                return None;
            }
        };
        if slow && !permit.slow_counted {
            bump(&mut self.totals.slow);
        }
        match self.phase {
            Phase::Closed => self.on_end_while_closed(failed, slow, permit.slow_counted, now),
            Phase::HalfOpen { .. } => self.on_probe_end(failed, slow, now),
            Phase::Open { .. } | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// Counts a call as slow while it still runs, once. In half-open a slow probe opens the breaker at once.
    ///
    /// Without a slow limit in the config this does nothing.
    pub fn on_slow(&mut self, permit: &mut Permit, now: Timestamp) -> Option<Transition> {
        let counts = permit.generation == self.generation && !permit.slow_counted;
        if !counts || self.slow_limit().is_none() {
            return None;
        }
        permit.slow_counted = true;
        bump(&mut self.totals.slow);
        match self.phase {
            Phase::Closed => {
                let over = self.rates.as_mut().is_some_and(|rates| rates.on_speed(true, now));
                over.then(|| self.open(TransitionCause::SlowRate, now))
            }
            Phase::HalfOpen { .. } => Some(self.open(TransitionCause::ProbeSlow, now)),
            Phase::Open { .. } | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// Moves on what time alone moves: an open breaker whose time is over, a half-open one past its limit. A timer
    /// that rings early or late does no harm.
    pub fn on_timer(&mut self, now: Timestamp) -> Option<Transition> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.phase {
            Phase::Open { .. } => Some(self.enter(HALF_OPEN, TransitionCause::OpenElapsed, now)),
            Phase::HalfOpen { .. } => Some(self.open(TransitionCause::ProbesOverdue, now)),
            Phase::Closed | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// When [`on_timer`](Self::on_timer) has something to do, if nothing else happens before.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::HalfOpen { until, .. } => until,
            Phase::Closed | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// Opens the breaker for a reason from outside. One that is open already keeps its time; one that is held stays.
    pub fn trip(&mut self, cause: TripCause, now: Timestamp) -> Option<Transition> {
        let cause = match cause {
            TripCause::Failures => TransitionCause::Failures,
            TripCause::Crashed | TripCause::Hung | TripCause::DeviceFault => TransitionCause::Tripped(cause),
        };
        match self.phase {
            Phase::Closed | Phase::HalfOpen { .. } => Some(self.open(cause, now)),
            Phase::Open { .. } | Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// Begins a half-open cycle, as a restart of the kernel does; probes of an older cycle become stale. A held
    /// breaker stays as it is.
    pub fn force_half_open(&mut self, now: Timestamp) -> Option<Transition> {
        match self.phase {
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => {
                Some(self.enter(HALF_OPEN, TransitionCause::Restarted, now))
            }
            Phase::Isolated | Phase::Disabled => None,
        }
    }

    /// Holds the breaker open until [`close`](Self::close), [`disable`](Self::disable) or [`reset`](Self::reset).
    pub fn isolate(&mut self, now: Timestamp) -> Option<Transition> {
        self.hold(Phase::Isolated, TransitionCause::Isolated, now)
    }

    /// Holds the breaker closed: calls pass, and failures open nothing, until it is closed, isolated or reset.
    pub fn disable(&mut self, now: Timestamp) -> Option<Transition> {
        self.hold(Phase::Disabled, TransitionCause::Disabled, now)
    }

    /// Closes the breaker, also one that is held. One that is closed stays, with its counts.
    pub fn close(&mut self, now: Timestamp) -> Option<Transition> {
        self.hold(Phase::Closed, TransitionCause::Closed, now)
    }

    /// Closes the breaker and forgets everything it has counted. The generation goes on.
    pub fn reset(&mut self, now: Timestamp) -> Option<Transition> {
        self.totals = BreakerTotals::default();
        self.forget_failures();
        self.hold(Phase::Closed, TransitionCause::Reset, now)
    }

    /// The state of the book. It is as of the last event: an open breaker whose time is over says so only after the
    /// next question or timer.
    #[must_use]
    pub const fn state(&self) -> CircuitState {
        self.mode().circuit_state()
    }

    /// The state together with what holds it.
    #[must_use]
    pub const fn mode(&self) -> BreakerMode {
        mode_of(self.phase)
    }

    /// How many transitions there have been.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the present mode began.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Failures now counted towards the threshold: consecutive ones, in the closed state.
    #[must_use]
    pub const fn failure_count(&self) -> u32 {
        self.consecutive_failures
    }

    /// Probes of the present half-open cycle that are out.
    #[must_use]
    pub const fn probes_in_flight(&self) -> u32 {
        match self.phase {
            Phase::HalfOpen { in_flight, .. } => in_flight,
            Phase::Closed | Phase::Open { .. } | Phase::Isolated | Phase::Disabled => 0,
        }
    }

    /// Everything counted since the machine was made or reset.
    #[must_use]
    pub const fn totals(&self) -> BreakerTotals {
        self.totals
    }

    /// The settings the machine was made with.
    #[must_use]
    pub const fn config(&self) -> &CircuitBreakerConfig {
        &self.config
    }

    /// What a call made now would be refused for, without asking for it.
    #[must_use]
    pub fn refusal(&self, now: Timestamp) -> Option<Refusal> {
        let (cause, retry_after) = match self.phase {
            Phase::Open { until } if now < until => (RejectionCause::Failures, Some(until - now)),
            Phase::Isolated => (RejectionCause::Isolated, None),
            Phase::HalfOpen { in_flight, .. } if in_flight >= self.config.success_threshold => {
                (RejectionCause::ProbesOut, None)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } | Phase::Closed | Phase::Disabled => return None,
        };
        Some(Refusal { cause, generation: self.generation, retry_after })
    }

    fn on_end_while_closed(
        &mut self,
        failed: bool,
        slow: bool,
        slow_counted: bool,
        now: Timestamp,
    ) -> Option<Transition> {
        self.consecutive_failures = if failed { self.consecutive_failures.saturating_add(1) } else { 0 };
        let watches_speed = self.slow_limit().is_some();
        let (mut failing, mut slowing) = (false, false);
        if let Some(rates) = &mut self.rates {
            failing = rates.on_end(failed, now);
            slowing = watches_speed && !slow_counted && rates.on_speed(slow, now);
        }
        if self.consecutive_failures >= self.config.failure_threshold {
            return Some(self.open(TransitionCause::Failures, now));
        }
        if failing {
            return Some(self.open(TransitionCause::FailureRate, now));
        }
        slowing.then(|| self.open(TransitionCause::SlowRate, now))
    }

    fn on_probe_end(&mut self, failed: bool, slow: bool, now: Timestamp) -> Option<Transition> {
        self.return_slot();
        if failed {
            return Some(self.open(TransitionCause::ProbeFailed, now));
        }
        if slow {
            return Some(self.open(TransitionCause::ProbeSlow, now));
        }
        let Phase::HalfOpen { good, .. } = &mut self.phase else { return None };
        *good += 1;
        let enough = *good >= self.config.success_threshold;
        enough.then(|| self.enter(Phase::Closed, TransitionCause::ProbesSucceeded, now))
    }

    fn return_slot(&mut self) {
        if let Phase::HalfOpen { in_flight, .. } = &mut self.phase {
            debug_assert!(*in_flight > 0, "a permit of this cycle is out");
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    fn open(&mut self, cause: TransitionCause, now: Timestamp) -> Transition {
        self.enter(Phase::Open { until: now + self.config.timeout }, cause, now)
    }

    fn hold(&mut self, phase: Phase, cause: TransitionCause, now: Timestamp) -> Option<Transition> {
        let changes = mode_of(phase) != self.mode();
        changes.then(|| self.enter(phase, cause, now))
    }

    fn enter(&mut self, phase: Phase, cause: TransitionCause, now: Timestamp) -> Transition {
        let from = self.mode();
        self.phase = phase;
        self.generation += 1;
        self.since = now;
        self.forget_failures();
        Transition { from, to: self.mode(), cause, generation: self.generation, at: now }
    }

    fn forget_failures(&mut self) {
        self.consecutive_failures = 0;
        if let Some(rates) = &mut self.rates {
            rates.clear();
        }
    }

    fn slow_limit(&self) -> Option<Duration> {
        self.config.window.as_ref().and_then(|window| window.slow_call)
    }
}

const HALF_OPEN: Phase = Phase::HalfOpen { in_flight: 0, good: 0, until: None };

const fn mode_of(phase: Phase) -> BreakerMode {
    match phase {
        Phase::Closed => BreakerMode::Closed,
        Phase::Open { .. } => BreakerMode::Open,
        Phase::HalfOpen { .. } => BreakerMode::HalfOpen,
        Phase::Isolated => BreakerMode::Isolated,
        Phase::Disabled => BreakerMode::Disabled,
    }
}

const fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests;
