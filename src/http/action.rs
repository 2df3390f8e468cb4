//! What people can have a node do.

use std::time::Duration;

use rustkernel_actors::{BreakerCommand, KernelState, Runtime};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::node::{Node, SNAPSHOT_LIMIT};

/// Something that a node is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action", deny_unknown_fields)]
pub enum Action {
    /// End the kernel's present life; the next one begins by its recovery policy, and what it had in hand and what waits stays. A kernel
    /// that is down is started. Answered when the life has ended and what follows is decided, or after a minute.
    Restart {
        /// The kernel.
        name: String,
    },
    /// Give an isolated kernel a new life and a full budget; close its breaker if that was isolated; do not wait for a delay. Of a device: it
    /// has been reset or replaced, and what was known against it counts no more.
    Resume {
        /// The kernel, or the device as `cuda:0`.
        name: String,
    },
    /// Hold the kernel's breaker open until it is resumed.
    Isolate {
        /// The kernel.
        name: String,
    },
    /// Take nothing new, finish what is there, and end.
    // In braces, or fields that it does not have would be taken.
    Drain {},
    /// Try a dead letter again.
    Replay {
        /// Its number.
        letter: u64,
    },
    /// Forget a dead letter.
    Drop {
        /// Its number.
        letter: u64,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// Whether it was done.
    pub done: bool,
    /// What was done, or why not.
    pub message: String,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such kernel or letter.
    Unknown(String),
    /// It is not in a state for that.
    Conflict(String),
    /// The supervisors do not answer.
    Late,
}

/// How long a replayed request may take, and a restart until it is told as one that goes on: less than the command waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does it.
pub(super) async fn act(node: &Node, action: Action) -> Result<String, Refused> {
    let runtime = node.runtime();
    tracing::warn!(?action, "an operator acts");
    match action {
        Action::Restart { name } => {
            let goes_on = |_| Ok(format!("{name} is being restarted"));
            timeout(PATIENCE, restart(runtime, &name)).await.unwrap_or_else(goes_on)
        }
        Action::Resume { name } if is_reset(&name) => Ok(format!("nothing is held against {name} any more")),
        Action::Resume { name } => {
            let state = known(runtime, &name).await?;
            let resumed = runtime.resume(&name).await;
            let closed = state.1 == "isolated" && runtime.breaker(&name, BreakerCommand::Close).await;
            match (resumed, closed) {
                (false, false) => Err(Refused::Conflict(format!("{name} needs no resuming"))),
                (true, _) => Ok(format!("{name} has a new life and a full restart budget")),
                (false, true) => Ok(format!("the breaker of {name} is closed")),
            }
        }
        Action::Isolate { name } => {
            known(runtime, &name).await?;
            if runtime.breaker(&name, BreakerCommand::Isolate).await {
                Ok(format!("the breaker of {name} is held open until it is resumed"))
            } else {
                Err(Refused::Conflict(format!("{name} has no breaker")))
            }
        }
        Action::Drain {} => {
            node.drain();
            Ok("the node is not ready any more, and is asked to end".to_owned())
        }
        Action::Replay { letter } => {
            letter_is_known(runtime, letter)?;
            let replayed = runtime.replay(letter, PATIENCE).await;
            replayed.map_err(|error| Refused::Conflict(error.to_string()))?;
            Ok(format!("dead letter {letter} was answered, and is gone"))
        }
        Action::Drop { letter } => {
            letter_is_known(runtime, letter)?;
            if runtime.drop_dead_letter(letter) {
                Ok(format!("dead letter {letter} is forgotten"))
            } else {
                Err(Refused::Conflict(format!("dead letter {letter} is being replayed")))
            }
        }
    }
}

/// Whether it is a device that is watched, which then has been reset.
#[cfg(feature = "cuda")]
fn is_reset(name: &str) -> bool {
    let watch = crate::cuda::DeviceWatch::all().into_iter().find(|watch| watch.id().to_string() == name);
    watch.as_ref().map(crate::cuda::DeviceWatch::on_reset).is_some()
}

/// There are no devices.
#[cfg(not(feature = "cuda"))]
fn is_reset(_: &str) -> bool {
    false
}

async fn restart(runtime: &Runtime, name: &str) -> Result<String, Refused> {
    let (state, _) = known(runtime, name).await?;
    let done = match state {
        KernelState::Isolated | KernelState::OutOfThreads | KernelState::Restarting => {
            runtime.resume(name).await
        }
        KernelState::Stopped => start(runtime, name).await,
        KernelState::Serving | KernelState::Degraded | KernelState::Starting => runtime.kill(name).await,
        KernelState::Draining | KernelState::Stopping => false,
    };
    if done {
        Ok(format!("{name} is restarted"))
    } else {
        Err(Refused::Conflict(format!("{name} cannot be restarted now")))
    }
}

/// Whoever its supervisor is.
async fn start(runtime: &Runtime, name: &str) -> bool {
    let Some(tree) = runtime.tree().await else { return false };
    let Some(supervisor) = tree.supervisor_of(name).and_then(|above| runtime.supervisor(&above)) else {
        return false;
    };
    supervisor.restart_child(name).await.is_ok()
}

/// What the kernel is doing, and the state of its breaker.
async fn known(runtime: &Runtime, name: &str) -> Result<(KernelState, &'static str), Refused> {
    let asked = timeout(SNAPSHOT_LIMIT, runtime.status()).await;
    let kernels = asked.map_err(|_| Refused::Late)?;
    let found = kernels.iter().find(|kernel| kernel.id.as_str() == name);
    found.map(|kernel| (kernel.state, kernel.breaker)).ok_or_else(|| {
        let names: Vec<&str> = kernels.iter().take(20).map(|kernel| kernel.id.as_str()).collect();
        Refused::Unknown(format!("there is no kernel {name}; there are {}", names.join(", ")))
    })
}

fn letter_is_known(runtime: &Runtime, letter: u64) -> Result<(), Refused> {
    let found = runtime.dead_letter(letter);
    found.map(drop).ok_or_else(|| Refused::Unknown(format!("there is no dead letter {letter}")))
}
