//! The book's breaker: a lock and a clock around the machine.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::config::CircuitBreakerConfig;
use super::listener::Listeners;
use super::machine::BreakerMachine;
use super::outcome::Outcome;
use super::state::{BreakerMode, BreakerTotals, CircuitState, Permit, Refusal, Transition};
use crate::clock::{Clock, Timestamp};
use crate::resilience::{InvalidConfig, ResilienceError};

/// A circuit breaker around any fallible call. A clone is the same breaker.
///
/// The runtime has one in front of every kernel already; this one is for what else a program calls.
///
/// ```
/// use rustkernel_core::resilience::{CircuitBreaker, CircuitBreakerConfig, ResilienceError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let cb = CircuitBreaker::new(CircuitBreakerConfig { failure_threshold: 1, ..Default::default() });
/// let failed = cb.call(|| async { Err::<(), _>(ResilienceError::DeadlineExceeded) }).await;
/// assert!(matches!(failed, Err(ResilienceError::DeadlineExceeded)));
/// let refused = cb.call(|| async { Ok::<_, ResilienceError>(()) }).await;
/// assert!(matches!(refused, Err(ResilienceError::CircuitOpen)));
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

struct Shared {
    clock: Clock,
    config: CircuitBreakerConfig,
    machine: Result<Mutex<BreakerMachine>, InvalidConfig>,
    listeners: Listeners,
}

/// What a [`CircuitBreaker`] has counted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitStats {
    /// The state, with what holds it.
    pub mode: BreakerMode,
    /// Failures now counted towards the threshold.
    pub failure_count: u32,
    /// Successes among the calls with a verdict, 0 to 1; 1.0 where there are none.
    pub success_rate: f64,
    /// How often the state has changed.
    pub generation: u64,
    /// Everything counted since the breaker was made or reset.
    pub totals: BreakerTotals,
}

impl CircuitBreaker {
    /// A closed breaker. Invalid settings are kept, and every call through them returns
    /// [`ResilienceError::InvalidConfig`]; [`try_new`](Self::try_new) refuses them at once.
    #[must_use]
    pub fn new(config: CircuitBreakerConfig) -> Self {
        Self::build(config, Clock::system())
    }

    /// A closed breaker.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first field that breaks its rule.
    pub fn try_new(config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self::new(config))
    }

    /// A breaker with the same settings on another clock. It starts anew: closed, with no counts and no listener.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self::build(self.0.config.clone(), clock)
    }

    /// Makes a call, unless the breaker refuses it, and counts how it ends.
    ///
    /// What counts as a failure is said by [`Outcome::of_call`]. A panic is a failure and goes on to the caller.
    ///
    /// # Errors
    /// [`ResilienceError::CircuitOpen`] where the breaker refuses: [`rejection`](Self::rejection) knows more.
    /// [`ResilienceError::InvalidConfig`] where its settings are invalid. In both cases no call is made. Otherwise
    /// the call's own error.
    ///
    /// # Cancel safety
    /// Dropping the future drops the call. It then counts neither way, and a probe's slot is free at once.
    pub async fn call<F, Fut, T, E>(&self, work: F) -> Result<T, ResilienceError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<ResilienceError>,
    {
        let mut guard = self.acquire()?;
        let mut work = pin!(guard.watch(work));
        let result = poll_fn(|cx| guard.watch(|| work.as_mut().poll(cx))).await.map_err(Into::into);
        guard.outcome = match &result {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::of_call(error),
        };
        result
    }

    /// The state as of the last event. Asking changes nothing: an open breaker becomes half-open at the next call.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.stats().mode.circuit_state()
    }

    /// The state and the counts.
    #[must_use]
    pub fn stats(&self) -> CircuitStats {
        let Ok(machine) = self.machine() else { return CircuitStats::of_none() };
        let totals = machine.totals();
        CircuitStats {
            mode: machine.mode(),
            failure_count: machine.failure_count(),
            success_rate: success_rate(totals),
            generation: machine.generation(),
            totals,
        }
    }

    /// What a call made now would be refused for, and when it makes sense to come back; `None` where it would pass.
    #[must_use]
    pub fn rejection(&self) -> Option<Refusal> {
        let now = self.0.clock.now();
        self.machine().ok()?.refusal(now)
    }

    /// Calls `listener` once for each change of state from now on, in their order; it takes the place of an earlier
    /// one. A listener's panic is swallowed.
    ///
    /// It runs on the thread that brought the change about, outside the breaker's lock: it sees the new state (or a
    /// newer one) and may use the breaker. Changes that it makes itself are reported when it returns.
    pub fn on_transition(&self, listener: impl Fn(&Transition) + Send + Sync + 'static) {
        self.0.listeners.set(Arc::new(listener));
    }

    /// Holds the breaker open until it is closed by hand.
    ///
    /// # Errors
    /// [`InvalidConfig`] where the breaker's settings are invalid.
    pub fn isolate(&self) -> Result<(), InvalidConfig> {
        self.change(BreakerMachine::isolate)
    }

    /// Holds the breaker closed, whatever fails, until it is closed, isolated or reset by hand.
    ///
    /// # Errors
    /// [`InvalidConfig`] where the breaker's settings are invalid.
    pub fn disable(&self) -> Result<(), InvalidConfig> {
        self.change(BreakerMachine::disable)
    }

    /// Closes the breaker, whatever holds it.
    ///
    /// # Errors
    /// [`InvalidConfig`] where the breaker's settings are invalid.
    pub fn close(&self) -> Result<(), InvalidConfig> {
        self.change(BreakerMachine::close)
    }

    /// Closes the breaker and forgets all counts.
    ///
    /// # Errors
    /// [`InvalidConfig`] where the breaker's settings are invalid.
    pub fn reset(&self) -> Result<(), InvalidConfig> {
        self.change(BreakerMachine::reset)
    }

    fn build(config: CircuitBreakerConfig, clock: Clock) -> Self {
        let machine = BreakerMachine::try_new(config.clone(), clock.now()).map(Mutex::new);
        Self(Arc::new(Shared { clock, config, machine, listeners: Listeners::default() }))
    }

    fn acquire(&self) -> Result<Guard<'_>, ResilienceError> {
        let started = self.0.clock.now();
        let (permit, moved) = {
            let mut machine = self.machine()?;
            let moved = machine.on_timer(started);
            self.0.listeners.queue(moved);
            (machine.try_acquire(started), moved)
        };
        let guard = permit.map(|permit| Guard {
            breaker: self,
            permit: Some(permit),
            outcome: Outcome::Neutral,
            started,
        });
        if moved.is_some() {
            self.0.listeners.deliver();
        }
        guard.map_err(|_refusal| ResilienceError::CircuitOpen)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BreakerMachine, Timestamp) -> Option<Transition>,
    ) -> Result<(), InvalidConfig> {
        let now = self.0.clock.now();
        {
            let mut machine = self.machine()?;
            let moved = change(&mut machine, now);
            self.0.listeners.queue(moved);
        }
        self.0.listeners.deliver();
        Ok(())
    }

    fn finish(&self, permit: Permit, outcome: Outcome, duration: Duration, now: Timestamp) {
        let Ok(mut machine) = self.machine() else { return };
        let moved = machine.on_outcome(permit, outcome, duration, now);
        self.0.listeners.queue(moved);
        drop(machine);
        if moved.is_some() {
            self.0.listeners.deliver();
        }
    }

    /// The machine's rules do not panic midway, so a poisoned lock guards a whole machine.
    fn machine(&self) -> Result<MutexGuard<'_, BreakerMachine>, InvalidConfig> {
        match &self.0.machine {
            Ok(machine) => Ok(machine.lock().unwrap_or_else(PoisonError::into_inner)),
            Err(invalid) => Err(*invalid),
        }
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl CircuitStats {
    fn of_none() -> Self {
        let totals = BreakerTotals::default();
        Self { mode: BreakerMode::Closed, failure_count: 0, success_rate: 1.0, generation: 0, totals }
    }
}

/// Hands the permit back when the call's future ends, however it ends.
struct Guard<'a> {
    breaker: &'a CircuitBreaker,
    permit: Option<Permit>,
    /// What the call's end counts as, so far.
    outcome: Outcome,
    started: Timestamp,
}

impl Guard<'_> {
    /// Runs the call's own code: a guard that is dropped within, by a panic, counts a failure.
    fn watch<R>(&mut self, code: impl FnOnce() -> R) -> R {
        self.outcome = Outcome::Failure;
        let result = code();
        self.outcome = Outcome::Neutral;
        result
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let now = self.breaker.0.clock.now();
        self.breaker.finish(permit, self.outcome, now - self.started, now);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people; counts stay far below 2^52")]
fn success_rate(totals: BreakerTotals) -> f64 {
    let judged = totals.successes.saturating_add(totals.failures);
    if judged == 0 { 1.0 } else { totals.successes as f64 / judged as f64 }
}
