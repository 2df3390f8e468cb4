//! A deadline that is shared by everything done under it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::ResilienceError;
use super::ambient::{Scope, ambient_deadline};
use crate::clock::{Clock, Timestamp};

/// A point in time that work has to be done by. A clone, and every child, holds the same point or an earlier one.
///
/// [`TimeoutConfig`](super::TimeoutConfig) decides how long a call may take; this type carries the decision and
/// enforces it, here and, through [`ambient_deadline`], in the kernels called further down.
///
/// ```
/// # use std::time::Duration;
/// use rustkernel_core::resilience::{DeadlineContext, ResilienceError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let deadline = DeadlineContext::new(Duration::from_secs(10));
/// let answer = deadline.execute(|| async { Ok::<_, ResilienceError>(42) }).await;
/// assert_eq!(answer.unwrap(), 42);
/// # }
/// ```
#[derive(Clone)]
pub struct DeadlineContext {
    clock: Clock,
    deadline: Timestamp,
}

impl DeadlineContext {
    /// A deadline `timeout` from now; none with [`Duration::MAX`]. Inside other work under a deadline,
    /// [`execute`](Self::execute) keeps the earlier of the two.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self::with_clock(timeout, Clock::system())
    }

    /// The same on a clock of the caller's.
    #[must_use]
    pub fn with_clock(timeout: Duration, clock: Clock) -> Self {
        let deadline = clock.now() + timeout;
        Self { clock, deadline }
    }

    /// Time left: zero once the deadline has passed, [`Duration::MAX`] without one.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline - self.clock.now()
    }

    /// The deadline; [`Timestamp::NEVER`] for none.
    #[must_use]
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.clock.now() >= self.deadline
    }

    /// A deadline `timeout` from now, or this one where it is earlier: a child never outlives its parent.
    #[must_use]
    pub fn child_with_timeout(&self, timeout: Duration) -> Self {
        let deadline = (self.clock.now() + timeout).min(self.deadline);
        Self { clock: self.clock.clone(), deadline }
    }

    /// Does `work` under the deadline, and makes the deadline known to every kernel called by it.
    ///
    /// Work whose time is over is not polled, not even once. At the deadline the work is dropped where it waits. Work
    /// that blocks its thread cannot be dropped; its late result is discarded.
    ///
    /// # Errors
    /// [`ResilienceError::DeadlineExceeded`] where the deadline passed before, during, or by the end of the work;
    /// otherwise the work's own error.
    ///
    /// # Panics
    /// Work that has to wait needs the tokio runtime's timer: in a runtime built without one, this panics. Outside
    /// any tokio runtime nothing wakes the caller at the deadline; a late result is discarded all the same.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work.
    pub async fn execute<F, Fut, T, E>(&self, work: F) -> Result<T, ResilienceError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<ResilienceError>,
    {
        let deadline = self.deadline.min(ambient_deadline().unwrap_or(Timestamp::NEVER));
        let started = self.clock.now();
        if started >= deadline {
            return Err(ResilienceError::DeadlineExceeded);
        }
        let mut work = pin!(async move { work().await });
        let mut alarm = Alarm::NotSet;
        poll_fn(|cx| {
            if alarm.is_set() && self.clock.now() >= deadline {
                return Poll::Ready(Err(ResilienceError::DeadlineExceeded));
            }
            let polled = {
                let _scope = Scope::enter(deadline);
                work.as_mut().poll(cx)
            };
            if let Poll::Ready(result) = polled {
                let late = self.clock.now() >= deadline || alarm.has_rung();
                let in_time = if late { Err(ResilienceError::DeadlineExceeded) } else { Ok(result) };
                return Poll::Ready(in_time);
            }
            alarm.poll(cx, || deadline - self.clock.now()).map(|()| Err(ResilienceError::DeadlineExceeded))
        })
        .await?
        .map_err(Into::into)
    }
}

impl fmt::Debug for DeadlineContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineContext").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}

/// A timer that costs nothing until work has to wait.
enum Alarm {
    NotSet,
    Set(Pin<Box<Sleep>>),
    /// No deadline, or no runtime that could ring.
    Silent,
}

impl Alarm {
    const fn is_set(&self) -> bool {
        !matches!(self, Self::NotSet)
    }

    fn has_rung(&self) -> bool {
        match self {
            Self::Set(sleep) => sleep.is_elapsed(),
            Self::NotSet | Self::Silent => false,
        }
    }

    /// Ready when the time is over; the first poll sets the alarm to what `remaining` says then.
    #[allow(clippy::disallowed_methods, reason = "a bare deadline has no runtime whose timer it could use")]
    fn poll(&mut self, cx: &mut Context<'_>, remaining: impl FnOnce() -> Duration) -> Poll<()> {
        if matches!(self, Self::NotSet) {
            let span = remaining();
            let can_ring = span != Duration::MAX && tokio::runtime::Handle::try_current().is_ok();
            *self = if can_ring { Self::Set(Box::pin(tokio::time::sleep(span))) } else { Self::Silent };
        }
        match self {
            Self::Set(sleep) => sleep.as_mut().poll(cx),
            Self::NotSet | Self::Silent => Poll::Pending,
        }
    }
}
