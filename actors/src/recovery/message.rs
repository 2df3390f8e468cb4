//! What a recovery actor is told and asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, Message};
use rustkernel_core::supervision::{ChildKey, Counts, Refusal};
use tokio::sync::oneshot;

use super::ending::ShutdownReport;
use super::node::{Arriving, Declaration, Declared, Version};
use super::status::ChildStatus;
use super::status::SupervisorFacts;
use crate::cause::Cause;

pub(crate) enum RecoveryMsg {
    /// Start the children the supervisor begins with.
    Boot,
    /// A life is made and proven.
    Ready { slot: u32, number: u64, restored: bool },
    /// A life that was prepared has become the slot's present one.
    TookOver { slot: u32 },
    /// It has restored what the life before it left, and serves.
    Serves { slot: u32, number: u64 },
    /// The present life's state could not be handed over to this one.
    TurnedAway { slot: u32, number: u64, reason: String },
    /// An execution hangs; its epoch is void already.
    Hung { slot: u32, number: u64 },
    /// A life is gone, or its kernel elsewhere is; its epoch is void already.
    Lost { slot: u32, number: u64, cause: Cause },
    /// A kernel's thread has ended.
    LaneEnded { slot: u32, number: u64 },
    /// A draining slot has nothing left; without a number, some slot of the tree.
    Idle { slot: Option<u32> },
    /// A request has been accepted that cannot wait for the restart.
    Pressed { slot: u32 },
    /// An alarm of a kernel rang.
    Alarm { slot: u32 },
    /// The machine's alarm rang.
    Tick,
    /// An alarm of the shutdown rang.
    ShutdownOver,
    /// A task says that it is up, or a supervisor below has booted.
    ChildReady { child: ChildKey, life: u64 },
    /// A supervisor below had died without having ended its children; now they are gone too.
    Reaped { actor: ActorId },
    /// Stop all children and end.
    End,
    /// Somebody asks for something.
    Order(Order),
}

/// What people ask for. Whoever asked may be gone when the answer comes.
pub(crate) enum Order {
    StartChild {
        child: Box<Arriving>,
        started: oneshot::Sender<Result<(), ChildError>>,
    },
    Terminate {
        name: Arc<str>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    Restart {
        name: Arc<str>,
        started: oneshot::Sender<Result<(), ChildError>>,
    },
    Delete {
        name: Arc<str>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    /// End the present life of a task or a supervisor, as a failure would.
    KillChild {
        name: Arc<str>,
        done: oneshot::Sender<bool>,
    },
    Resume {
        slot: u32,
        done: oneshot::Sender<bool>,
    },
    Kill {
        slot: u32,
        done: oneshot::Sender<bool>,
    },
    /// Stop one kernel for good; `drain` finishes what waits first.
    Stop {
        slot: u32,
        drain: bool,
        done: oneshot::Sender<()>,
    },
    /// A new version of a kernel.
    Replace {
        slot: u32,
        version: Version,
        done: oneshot::Sender<Result<(), HandOverError>>,
    },
    /// Back from the backup to the kernel's own device.
    FailBack {
        slot: u32,
        done: oneshot::Sender<Result<(), HandOverError>>,
    },
    /// Drain everything, then stop it in reverse start order.
    Shutdown {
        grace: Duration,
        done: oneshot::Sender<ShutdownReport>,
    },
    Which {
        reply: oneshot::Sender<Vec<ChildStatus>>,
    },
    Count {
        reply: oneshot::Sender<Counts>,
    },
    /// How the supervisor itself is.
    Describe {
        reply: oneshot::Sender<SupervisorFacts>,
    },
}

/// Why a child is not started, restarted, stopped or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The supervisor does not do it. Nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was tried, and the child did not start.
    #[error("it did not start: {0}")]
    Failed(Cause),
    /// The supervisor is gone, or is being restarted.
    #[error("the supervisor is not running")]
    SupervisorGone,
}

/// Why a kernel was not replaced or brought back. What served before goes on serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// There is no such kernel.
    #[error("there is no such kernel")]
    UnknownKernel,
    /// The kernel takes or gives something else.
    #[error("the kernel takes `{takes}` and gives `{gives}`")]
    Types {
        /// The schema of its input.
        takes: String,
        /// The schema of its output.
        gives: String,
    },
    /// The new version did not start.
    #[error("the new version did not start: {0}")]
    Start(Cause),
    /// The state of the present version could not be taken down for its successor.
    #[error("the kernel's state cannot be handed over: {reason}")]
    Checkpoint {
        /// The kernel's error.
        reason: String,
    },
    /// A setting of the new version breaks its rule.
    #[error(transparent)]
    Config(#[from] rustkernel_core::resilience::InvalidConfig),
    /// Nothing serves that could hand over, or another hand-over is under way.
    #[error("the kernel is not serving, or hands over already")]
    Busy,
    /// The kernel has not failed over.
    #[error("the kernel runs on its own device")]
    AtHome,
    /// The supervisor is gone, or is being restarted.
    #[error("the supervisor is not running")]
    SupervisorGone,
}

impl Message for RecoveryMsg {}

impl fmt::Debug for RecoveryMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryMsg")
    }
}

impl Declared {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    pub(crate) fn is_kernel(&self) -> bool {
        matches!(self.body, Declaration::Kernel(_))
    }
}
