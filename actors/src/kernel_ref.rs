//! What users hold: the address of a slot, valid over every restart.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::clock::Timestamp;
use rustkernel_core::envelope::{Deadline, Header};
use rustkernel_core::error::{BreakerScope, DownReason, KernelError};
use rustkernel_core::resilience::{HealthCheckResult, HealthProbeConfig, HealthTarget, ambient_deadline};
use rustkernel_core::traits::Payload;

use crate::gate::Mode;
use crate::slot::{Accounts, ErrorCounts, Life, Shared, Slot, Supervised, Timing, Vitals};
use crate::spans;
use crate::way::{CallReport, Cell, Way};

/// The stable address of a supervised kernel. A clone is cheap and means the same kernel; it stays valid over
/// restarts.
pub struct KernelRef<I, O> {
    pub(crate) slot: Arc<Slot<I, O>>,
}

impl<I: Payload, O: Payload> KernelRef<I, O> {
    /// The kernel's name.
    #[must_use]
    pub fn id(&self) -> &KernelId {
        &self.slot.id
    }

    /// Runs one request and waits for its answer until `deadline`: a [`Duration`], a
    /// [`Timestamp`], or [`Deadline::None`]. The
    /// deadline of the task that calls counts too, if that is earlier, and so does the kernel's
    /// [`max_timeout`](rustkernel_core::resilience::TimeoutConfig::max_timeout), unless the call asks for no deadline at all.
    ///
    /// # Errors
    /// Every kind of [`KernelError`]. The answer comes at the deadline at the latest, whatever the kernel does.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: queued work is removed, running work is told to stop.
    pub async fn call(&self, input: I, deadline: impl Into<Deadline>) -> Result<O, KernelError> {
        Call { slot: &self.slot, state: CallState::New(input, self.timing(deadline.into())) }.await
    }

    /// [`call`](Self::call) within the deadline of the task that calls, or the kernel's default timeout.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn execute(&self, input: I) -> Result<O, KernelError> {
        Call { slot: &self.slot, state: CallState::New(input, self.default_timing()) }.await
    }

    /// [`call`](Self::call), and what became of the request on its way: how many attempts it took, and whether the degraded path
    /// answered.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_reported(
        &self,
        input: I,
        deadline: impl Into<Deadline>,
    ) -> (Result<O, KernelError>, CallReport) {
        Reported(Call { slot: &self.slot, state: CallState::New(input, self.timing(deadline.into())) }).await
    }

    /// Hands a request over without waiting for its answer.
    ///
    /// # Errors
    /// A request that is not taken comes back, with the reason.
    pub fn try_call(&self, input: I, deadline: impl Into<Deadline>) -> Result<Reply<I, O>, Refused<I>> {
        self.submit(input, deadline.into(), |_| {})
    }

    /// [`try_call`](Self::try_call) that says as which request the input is accepted, before it can run. `accepted` is called under the
    /// slot's lock.
    pub(crate) fn submit(
        &self,
        input: I,
        deadline: Deadline,
        accepted: impl FnOnce(u64),
    ) -> Result<Reply<I, O>, Refused<I>> {
        let (bytes, timing) = (input.size_bytes(), self.timing(deadline));
        let tracing = spans::request(&self.slot.id);
        let keep = |request: &Shared<I, O>, id| {
            accepted(id);
            Wait::keep(request, id)
        };
        match self.slot.submit(input, bytes, timing, Way::to_caller(None, tracing), keep) {
            Ok(wait) => Ok(Reply { slot: Arc::clone(&self.slot), wait: wait.recorded() }),
            Err(refused) => {
                refused.record();
                Err(Refused { input: refused.input, error: refused.error })
            }
        }
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.slot.accounts()
    }

    /// Accepted requests that got no answer, by why.
    #[must_use]
    pub fn failed(&self) -> ErrorCounts {
        let [_, failed] = self.slot.errors();
        failed
    }

    /// Requests that were not accepted, by why.
    #[must_use]
    pub fn refused(&self) -> ErrorCounts {
        let [refused, _] = self.slot.errors();
        refused
    }

    fn timing(&self, deadline: Deadline) -> Timing {
        let rules = &self.slot.rules.timeout;
        let parent = ambient_deadline();
        if deadline == Deadline::None && parent.is_none() {
            let never = Header::new(0, Timestamp::NEVER);
            return Timing { header: never, budget: Duration::MAX, now: Timestamp::ZERO, begun: false };
        }
        let now = self.slot.clock().now();
        let deadline = match deadline {
            Deadline::None => parent.filter(|_| rules.propagate_deadline).unwrap_or(Timestamp::NEVER),
            Deadline::Within(span) => rules.effective_deadline(parent, Some(span), now),
            Deadline::At(at) => rules.effective_deadline(parent, Some(at - now), now),
        };
        Timing { header: Header::new(0, deadline), budget: Duration::MAX, now, begun: false }
    }

    fn default_timing(&self) -> Timing {
        let rules = &self.slot.rules.timeout;
        let parent = ambient_deadline();
        let now = self.slot.clock().now();
        if rules.include_queue_time {
            let deadline = rules.effective_deadline(parent, None, now);
            return Timing { header: Header::new(0, deadline), budget: Duration::MAX, now, begun: false };
        }
        // The parent's deadline stands; the call's own time starts when an incarnation takes it.
        let parent = parent.filter(|_| rules.propagate_deadline);
        let budget = if parent.is_some() { rules.max_timeout } else { rules.default_timeout };
        Timing { header: Header::new(0, parent.unwrap_or(Timestamp::NEVER)), budget, now, begun: false }
    }
}

/// Healthy while an incarnation serves, degraded while one is on its way, unhealthy when nobody serves.
impl<I: Payload, O: Payload> HealthTarget for KernelRef<I, O> {
    async fn check(&self) -> HealthCheckResult {
        health_of(&*self.slot, self.slot.clock().now(), HealthProbeConfig::default().timeout)
    }
}

/// A kernel's health as its slot shows it. Where no watchdog ends an execution, a thread that has been blocking for `patience` is
/// unhealthy. An open breaker degrades the kernel; whether the node should take traffic is another question.
pub(crate) fn health_of(slot: &dyn Supervised, now: Timestamp, patience: Duration) -> HealthCheckResult {
    let vitals = slot.vitals();
    let unwatched = vitals.blocked_since.filter(|since| !vitals.watched && since.as_nanos() > 1);
    let blocked = unwatched.map(|since| now - since).filter(|blocked| *blocked >= patience);
    let takes = matches!(vitals.life, Life::Serving | Life::Starting | Life::Waiting(_));
    if let Some(scope) = vitals.refused_by.filter(|_| takes) {
        let place = if scope == BreakerScope::Device { "device" } else { "fault domain" };
        return HealthCheckResult::unhealthy(format!("the breaker of its {place} is open"));
    }
    match vitals.life {
        Life::Serving => match (blocked, slot.gate().mode()) {
            (Some(blocked), _) => {
                HealthCheckResult::unhealthy(format!("has blocked its thread for {blocked:?}"))
            }
            (None, Mode::Open | Mode::Tripping) => HealthCheckResult::degraded("its breaker is open"),
            (None, Mode::Isolated) => HealthCheckResult::degraded("its breaker is held open"),
            (None, Mode::Closed | Mode::HalfOpen | Mode::Disabled) => serving_health(&vitals),
        },
        Life::Starting => HealthCheckResult::degraded("an incarnation is being made"),
        Life::Waiting(_) => HealthCheckResult::degraded("restarting after a failure"),
        Life::Draining => HealthCheckResult::degraded("draining"),
        Life::Down(DownReason::Isolated) => {
            HealthCheckResult::unhealthy("isolated until an operator resumes it")
        }
        Life::Down(DownReason::Stopped) => HealthCheckResult::unhealthy("stopped"),
        Life::Down(DownReason::SupervisorGone) => HealthCheckResult::unhealthy("its supervisor is gone"),
        Life::Down(DownReason::AbandonedThreads) => {
            HealthCheckResult::unhealthy("too many abandoned threads")
        }
    }
}

/// The health of a kernel that answers behind a gate that lets calls through.
fn serving_health(vitals: &Vitals) -> HealthCheckResult {
    if vitals.degraded {
        return HealthCheckResult::degraded("its degraded path answers");
    }
    match &vitals.checkpoint_trouble {
        Some(trouble) => HealthCheckResult::degraded(trouble.clone()),
        None => HealthCheckResult::healthy(),
    }
}

impl<I, O> Clone for KernelRef<I, O> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<I, O> fmt::Debug for KernelRef<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KernelRef").field(&self.slot.id).finish()
    }
}

/// The answer to come of a [`KernelRef::try_call`]. Dropping it cancels the request.
pub struct Reply<I: Payload, O: Payload> {
    slot: Arc<Slot<I, O>>,
    wait: Wait<I, O>,
}

impl<I: Payload, O: Payload> Future for Reply<I, O> {
    type Output = Result<O, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.wait.poll(cx).map(|(result, _)| result)
    }
}

impl<I: Payload, O: Payload> Drop for Reply<I, O> {
    fn drop(&mut self) {
        self.wait.cancel(&self.slot);
    }
}

impl<I: Payload, O: Payload> fmt::Debug for Reply<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("id", &self.wait.id).finish_non_exhaustive()
    }
}

/// A request that was not taken: the input comes back.
#[derive(Debug)]
pub struct Refused<I> {
    /// What the caller handed in.
    pub input: I,
    /// Why it was not taken. Its phase is always admission.
    pub error: KernelError,
}

/// An accepted request whose answer is waited for.
struct Wait<I, O> {
    request: Shared<I, O>,
    id: u64,
    answered: bool,
}

impl<I: Payload, O: Payload> Wait<I, O> {
    fn keep(request: &Shared<I, O>, id: u64) -> Self {
        Self { request: Arc::clone(request), id, answered: false }
    }

    /// Its span, if there is one, has its number from now on.
    fn recorded(self) -> Self {
        spans::accepted(self.request.way.tracing(), self.id);
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Result<O, KernelError>, CallReport)> {
        let Some(cell) = self.request.way.cell() else { return Poll::Pending };
        let polled = cell.poll(cx);
        self.answered |= polled.is_ready();
        polled
    }

    fn cancel(&self, slot: &Slot<I, O>) {
        if !self.answered && self.request.way.cell().is_some_and(Cell::is_open) {
            slot.cancel(&self.request, self.id);
        }
    }
}

/// One call. It is submitted by its first poll, which knows the waker already, so that the answer's cell is locked once less.
struct Call<'a, I: Payload, O: Payload> {
    slot: &'a Slot<I, O>,
    state: CallState<I, O>,
}

enum CallState<I, O> {
    New(I, Timing),
    Waiting(Wait<I, O>),
    Over,
}

// The input is only ever moved out, never pinned.
impl<I: Payload, O: Payload> Unpin for Call<'_, I, O> {}

impl<I: Payload, O: Payload> Call<'_, I, O> {
    fn poll_reported(&mut self, cx: &mut Context<'_>) -> Poll<(Result<O, KernelError>, CallReport)> {
        if let CallState::Waiting(wait) = &mut self.state {
            return wait.poll(cx);
        }
        let CallState::New(input, timing) = std::mem::replace(&mut self.state, CallState::Over) else {
            return Poll::Pending;
        };
        let tracing = spans::request(&self.slot.id);
        let (bytes, way) = (input.size_bytes(), Way::to_caller(Some(cx.waker().clone()), tracing));
        match self.slot.submit(input, bytes, timing, way, Wait::keep) {
            Ok(wait) => {
                self.state = CallState::Waiting(wait.recorded());
                Poll::Pending
            }
            Err(refused) => {
                refused.record();
                Poll::Ready((Err(refused.error), CallReport::default()))
            }
        }
    }
}

impl<I: Payload, O: Payload> Future for Call<'_, I, O> {
    type Output = Result<O, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_reported(cx).map(|(result, _)| result)
    }
}

/// A call that tells what became of it.
struct Reported<'a, I: Payload, O: Payload>(Call<'a, I, O>);

impl<I: Payload, O: Payload> Future for Reported<'_, I, O> {
    type Output = (Result<O, KernelError>, CallReport);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_reported(cx)
    }
}

impl<I: Payload, O: Payload> Drop for Call<'_, I, O> {
    fn drop(&mut self) {
        if let CallState::Waiting(wait) = &self.state {
            wait.cancel(self.slot);
        }
    }
}
