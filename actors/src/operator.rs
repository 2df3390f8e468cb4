//! What a human is told: events as they happen, and the dead letters.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::resilience::{HealthStatus, Transition};
use rustkernel_core::{KernelError, KernelId};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::cause::Cause;
use crate::contain::contain;

/// Events a slow subscriber may fall behind before it loses the oldest ones.
const EVENT_CAPACITY: usize = 4096;
/// Dead letters kept; the oldest goes first.
const DEAD_LETTER_CAPACITY: usize = 1024;
/// Encoded input kept with a dead letter, in bytes; a longer one is left out.
pub(crate) const DEAD_LETTER_INPUT_BYTES: usize = 64 * 1024;

/// One fact about a kernel, reported once.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened, on the runtime's clock.
    pub at: Timestamp,
    /// The kernel it happened to; `None` for the runtime itself.
    pub kernel: Option<KernelId>,
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
    /// The next incarnation starts after `delay`.
    Restarting {
        /// The wait before it.
        delay: Duration,
        /// Restarts in the window, this one included.
        in_window: u32,
    },
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
        /// The request.
        id: u64,
    },
    /// A checkpoint could not be taken; the previous one is kept.
    CheckpointFailed {
        /// The kernel's error.
        reason: String,
    },
    /// The probe loop's view of the kernel changed.
    Health(HealthStatus),
    /// The recovery actor gave up; every kernel is down.
    GaveUp,
}

/// A request that was given up after it had taken down as many incarnations as it may.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The request.
    pub id: u64,
    /// The kernel.
    pub kernel: KernelId,
    /// The attempt that was the last.
    pub attempts: u32,
    /// The last error, as text.
    pub error: String,
    /// The input as a codec frame, where the kernel is registered with a codec and it is at most 64 KiB.
    #[serde(skip)]
    pub input: Option<Vec<u8>>,
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
    dead: Mutex<DeadLetters>,
}

#[derive(Default)]
struct DeadLetters {
    kept: VecDeque<DeadLetter>,
    total: u64,
}

impl Operator {
    pub(crate) fn new(clock: Clock, hooks: Vec<Hook>) -> Self {
        let (events, _) = broadcast::channel(EVENT_CAPACITY);
        Self(Arc::new(Inner { clock, events, hooks, dead: Mutex::default() }))
    }

    pub(crate) fn tell(&self, kernel: Option<&KernelId>, fact: Fact) {
        match &fact {
            Fact::Isolated { .. } | Fact::GaveUp | Fact::ThreadAbandoned { .. } => {
                tracing::error!(kernel = kernel.map(KernelId::as_str), ?fact, "supervision");
            }
            Fact::Failed { .. } | Fact::DeadLetter { .. } | Fact::CheckpointFailed { .. } => {
                tracing::warn!(kernel = kernel.map(KernelId::as_str), ?fact, "supervision");
            }
            Fact::Started { .. }
            | Fact::Restarting { .. }
            | Fact::Resumed
            | Fact::Stopped
            | Fact::Breaker(_)
            | Fact::Health(_) => tracing::debug!(kernel = kernel.map(KernelId::as_str), ?fact, "supervision"),
        }
        if self.0.hooks.is_empty() && self.0.events.receiver_count() == 0 {
            return;
        }
        let event = Event { at: self.0.clock.now(), kernel: kernel.cloned(), fact };
        for hook in &self.0.hooks {
            contain("a hook", || hook(&event));
        }
        // An error means that nobody subscribes.
        let _ = self.0.events.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events(self.0.events.subscribe())
    }

    pub(crate) fn bury(
        &self,
        kernel: &KernelId,
        id: u64,
        attempts: u32,
        error: &KernelError,
        input: Option<Vec<u8>>,
    ) {
        let input = input.filter(|input| input.len() <= DEAD_LETTER_INPUT_BYTES);
        let letter = DeadLetter { id, kernel: kernel.clone(), attempts, error: error.to_string(), input };
        let mut dead = self.dead();
        dead.total += 1;
        if dead.kept.len() == DEAD_LETTER_CAPACITY {
            dead.kept.pop_front();
        }
        dead.kept.push_back(letter);
        drop(dead);
        self.tell(Some(kernel), Fact::DeadLetter { id });
    }

    pub(crate) fn dead_letters(&self) -> (u64, Vec<DeadLetter>) {
        let dead = self.dead();
        (dead.total, dead.kept.iter().cloned().collect())
    }

    fn dead(&self) -> MutexGuard<'_, DeadLetters> {
        self.0.dead.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The next fact about `kernel` that `wanted` accepts; `None` when the runtime is gone.
    ///
    /// # Cancel safety
    /// Events that were skipped before the drop are gone from this subscription.
    pub async fn find(&mut self, kernel: &str, mut wanted: impl FnMut(&Fact) -> bool) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.kernel.as_ref().is_some_and(|id| id.as_str() == kernel) && wanted(&event.fact) {
                return Some(event);
            }
        }
    }
}
