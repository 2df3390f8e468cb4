//! Why an incarnation ended.

use std::any::Any;
use std::fmt;

use serde::Serialize;

/// Why an incarnation, a task or a supervisor ended without having been asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "message")]
pub enum Cause {
    /// User code panicked.
    Panicked(String),
    /// An execution blocked its thread and was fenced.
    Hung,
    /// The actor was killed or its task aborted.
    Killed,
    /// It was not up yet: factory, restore or canary of a kernel failed, or a task or a supervisor ended before.
    StartFailed(String),
    /// A task returned an error.
    Exited(String),
    /// What it lived in has ended: a worker process.
    DomainLost(String),
    /// A supervisor has ended: its restarts were used up, a child's policy had nothing left, or a significant child ended.
    GaveUp(String),
}

impl Cause {
    /// Whether somebody else answers for it, so that it costs its kernel and its supervisor nothing.
    pub(crate) fn is_paid(&self) -> bool {
        matches!(self, Self::DomainLost(_))
    }

    /// The cause without its message: a label with few values.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Panicked(_) => "panicked",
            Self::Hung => "hung",
            Self::Killed => "killed",
            Self::StartFailed(_) => "start_failed",
            Self::Exited(_) => "exited",
            Self::DomainLost(_) => "domain_lost",
            Self::GaveUp(_) => "gave_up",
        }
    }

    /// What it is of a life that was not up yet.
    pub(crate) fn of_start(self) -> Self {
        match self {
            Self::StartFailed(_) | Self::DomainLost(_) => self,
            Self::Panicked(_) | Self::Hung | Self::Killed | Self::Exited(_) | Self::GaveUp(_) => {
                Self::StartFailed(self.to_string())
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Hung => f.write_str("hung"),
            Self::Killed => f.write_str("killed"),
            Self::StartFailed(reason) => write!(f, "failed to start: {reason}"),
            Self::Exited(error) => write!(f, "ended with an error: {error}"),
            Self::DomainLost(reason) => write!(f, "lost with its fault domain: {reason}"),
            Self::GaveUp(reason) => write!(f, "gave up: {reason}"),
        }
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a text".to_owned())
}
