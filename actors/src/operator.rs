//! What a human is told: events as they happen, the failures so far, and the dead letters.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::envelope::Header;
use rustkernel_core::resilience::{BreakerMode, HealthStatus, Transition};
use rustkernel_core::{DeviceId, KernelError, KernelId};
use tokio::sync::broadcast;

use crate::cause::Cause;
use crate::contain::contain;
use crate::dead_letter::DeadLetters;
use crate::history::{FailureReport, History, ReportContext};
use crate::log::SupervisionLog;
use crate::slot::Variant;

/// Events a slow subscriber may fall behind before it loses the oldest ones.
const EVENT_CAPACITY: usize = 4096;

/// One fact about a kernel or another child, reported once.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened, on the runtime's clock.
    pub at: Timestamp,
    /// The kernel it happened to; `None` for other children and for the runtime itself.
    pub kernel: Option<KernelId>,
    /// The child it happened to, a kernel by its id; `None` for the runtime itself.
    pub child: Option<Arc<str>>,
    /// What happened.
    pub fact: Fact,
}

/// What an [`Event`] tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fact {
    /// An incarnation serves.
    Started {
        /// The number of this life, from 1.
        incarnation: u64,
        /// Whether it continued from a checkpoint.
        restored: bool,
    },
    /// An incarnation ended on its own.
    Failed {
        /// The number of the life that ended.
        incarnation: u64,
        /// Why.
        cause: Cause,
    },
    /// An incarnation that was told to end did not end in peace: its grace ran out and it was killed, or it failed over its end.
    StopFailed {
        /// The number of the life that ended.
        incarnation: u64,
        /// Why.
        cause: Cause,
    },
    /// The next incarnation starts after `delay`.
    Restarting {
        /// The wait before it.
        delay: Duration,
        /// Restarts in the window, this one included.
        in_window: u32,
    },
    /// Another life of the kernel has taken over, with the slot's queue: a standby, a recovered kernel, a new version.
    TookOver {
        /// The number of the life that serves now.
        incarnation: u64,
        /// What it was made from.
        variant: Variant,
    },
    /// A standby is warm.
    StandbyReady {
        /// The number of its life.
        incarnation: u64,
    },
    /// A standby ended or could not be made; what serves is not concerned.
    StandbyFailed {
        /// The number of its life.
        incarnation: u64,
        /// Why.
        cause: Cause,
    },
    /// The degraded path answers.
    Degraded,
    /// The kernel has taken over from its degraded path, or from the device it had failed over to.
    Recovered,
    /// The kernel moves to its backup device, with its queue and its checkpoint.
    FailedOver {
        /// The backup.
        to: DeviceId,
    },
    /// A child did not even end when it was killed, and was left to itself.
    ChildAbandoned,
    /// The restart budget is used up: nobody serves until [`resume`](crate::Runtime::resume).
    Isolated {
        /// The failure that used it up.
        cause: Cause,
    },
    /// An operator resumed the kernel.
    Resumed,
    /// The kernel was stopped on purpose.
    Stopped,
    /// The breaker changed its state.
    Breaker(Transition),
    /// A blocked thread was left behind; so many are abandoned now.
    ThreadAbandoned {
        /// Abandoned threads that still run, in the whole runtime.
        alive: usize,
    },
    /// A request was given up for good.
    DeadLetter {
        /// The letter's own number.
        letter: u64,
        /// The request.
        id: u64,
    },
    /// A checkpoint could not be taken; the previous one is kept.
    CheckpointFailed {
        /// The kernel's error.
        reason: String,
    },
    /// A checkpoint could not be restored; the one before it is the newest now.
    CheckpointRefused {
        /// Its number.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// What the kernel lives in is not fit for use: a device that has to be reset, for example. Somebody has to look at it.
    PlaceUnfit {
        /// What is wrong with it.
        reason: String,
    },
    /// The probe loop's view of the kernel changed.
    Health(HealthStatus),
    /// The recovery actor gave up; every kernel is down.
    GaveUp,
}

impl Fact {
    /// What kind of fact it is, in a word: for labels and log lines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Failed { .. } => "failed",
            Self::StopFailed { .. } => "stop_failed",
            Self::Restarting { .. } => "restarting",
            Self::TookOver { .. } => "took_over",
            Self::StandbyReady { .. } => "standby_ready",
            Self::StandbyFailed { .. } => "standby_failed",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::FailedOver { .. } => "failed_over",
            Self::ChildAbandoned => "child_abandoned",
            Self::Isolated { .. } => "isolated",
            Self::Resumed => "resumed",
            Self::Stopped => "stopped",
            Self::Breaker(transition) => match transition.to {
                BreakerMode::Open => "breaker_opened",
                BreakerMode::HalfOpen => "breaker_half_opened",
                BreakerMode::Closed => "breaker_closed",
                BreakerMode::Isolated => "breaker_isolated",
                BreakerMode::Disabled => "breaker_disabled",
            },
            Self::ThreadAbandoned { .. } => "thread_abandoned",
            Self::DeadLetter { .. } => "dead_letter",
            Self::CheckpointFailed { .. } => "checkpoint_failed",
            Self::CheckpointRefused { .. } => "checkpoint_refused",
            Self::PlaceUnfit { .. } => "place_unfit",
            Self::Health(_) => "health",
            Self::GaveUp => "gave_up",
        }
    }

    /// The life that it is about.
    #[must_use]
    pub fn incarnation(&self) -> Option<u64> {
        let (Self::Started { incarnation, .. }
        | Self::Failed { incarnation, .. }
        | Self::StopFailed { incarnation, .. }
        | Self::TookOver { incarnation, .. }
        | Self::StandbyReady { incarnation }
        | Self::StandbyFailed { incarnation, .. }) = self
        else {
            return None;
        };
        Some(*incarnation)
    }

    /// What it was that failed.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        let (Self::Failed { cause, .. }
        | Self::StopFailed { cause, .. }
        | Self::StandbyFailed { cause, .. }
        | Self::Isolated { cause }) = self
        else {
            return None;
        };
        Some(cause)
    }
}

/// A hook that is told every event, in the thread it happens in: it must return soon.
pub(crate) type Hook = Arc<dyn Fn(&Event) + Send + Sync>;

/// Where events and dead letters go. Clones share it.
#[derive(Clone)]
pub(crate) struct Operator(Arc<Inner>);

struct Inner {
    clock: Clock,
    events: broadcast::Sender<Event>,
    hooks: Vec<Hook>,
    log: SupervisionLog,
    history: Mutex<History>,
    letters: DeadLetters,
}

impl Operator {
    pub(crate) fn new(clock: Clock, hooks: Vec<Hook>) -> Self {
        let (events, _) = broadcast::channel(EVENT_CAPACITY);
        Self(Arc::new(Inner {
            clock,
            events,
            hooks,
            log: SupervisionLog::default(),
            history: Mutex::default(),
            letters: DeadLetters::default(),
        }))
    }

    pub(crate) fn tell(&self, kernel: Option<&KernelId>, fact: Fact) {
        self.0.log.write(kernel.map(KernelId::as_str), &fact, &self.0.clock);
        if self.is_heard() {
            let child = kernel.map(|kernel| kernel.as_str().into());
            self.publish(Event { at: self.0.clock.now(), kernel: kernel.cloned(), child, fact });
        }
    }

    /// Tells a fact about a child of `supervisor`; a failure is written down.
    pub(crate) fn tell_child(&self, supervisor: &str, child: &str, fact: Fact) {
        if let Fact::Failed { incarnation, cause } | Fact::StopFailed { incarnation, cause } = &fact {
            let stopped = matches!(fact, Fact::StopFailed { .. });
            let context =
                if stopped { ReportContext::ShutdownError } else { ReportContext::of_failure(cause) };
            let at = self.0.clock.now();
            self.failed().record(FailureReport::of(supervisor, child, context, cause, *incarnation, at));
        }
        self.0.log.write(Some(child), &fact, &self.0.clock);
        if self.is_heard() {
            let kernel = KernelId::new(child).ok();
            self.publish(Event { at: self.0.clock.now(), kernel, child: Some(child.into()), fact });
        }
    }

    fn is_heard(&self) -> bool {
        !self.0.hooks.is_empty() || self.0.events.receiver_count() > 0
    }

    fn publish(&self, event: Event) {
        for hook in &self.0.hooks {
            contain("a hook", || hook(&event));
        }
        // An error means that nobody subscribes.
        let _ = self.0.events.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events(self.0.events.subscribe())
    }

    pub(crate) fn history(&self, child: &str) -> Vec<FailureReport> {
        self.failed().of(child)
    }

    pub(crate) fn failures(&self) -> Vec<FailureReport> {
        self.failed().all()
    }

    pub(crate) fn restore_failures(&self, earlier: Vec<FailureReport>) {
        self.failed().restore(earlier);
    }

    /// A request is given up for good. The replay of a letter that fails again is no new letter, and whoever replays it is told.
    pub(crate) fn bury(
        &self,
        kernel: &KernelId,
        header: &Header,
        error: &KernelError,
        input: Option<Vec<u8>>,
    ) {
        if let Some(letter) = self.0.letters.bury(kernel, header, error, input) {
            self.tell(Some(kernel), Fact::DeadLetter { letter, id: header.id });
        }
    }

    pub(crate) fn letters(&self) -> &DeadLetters {
        &self.0.letters
    }

    fn failed(&self) -> MutexGuard<'_, History> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("hooks", &self.0.hooks.len()).finish_non_exhaustive()
    }
}

/// A subscription to a runtime's events.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when the runtime is gone. A subscriber that falls 4096 events behind loses the oldest ones and
    /// goes on with those that are left.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "event subscriber is too slow")
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next fact about the kernel or other child of this name that `wanted` accepts; `None` when the runtime is gone.
    ///
    /// # Cancel safety
    /// Events that were skipped before the drop are gone from this subscription.
    pub async fn find(&mut self, child: &str, mut wanted: impl FnMut(&Fact) -> bool) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.child.as_deref() == Some(child) && wanted(&event.fact) {
                return Some(event);
            }
        }
    }
}
