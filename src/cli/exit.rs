//! What the process says when it ends.

use std::process::ExitCode;

use rustkernel_core::error::{DownReason, KernelError, KernelErrorKind};
use rustkernel_core::resilience::ErrorKind;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failure = 1,
    /// Wrong usage.
    Usage = 2,
    /// Degraded or not ready.
    NotReady = 3,
    /// No node answers.
    Unreachable = 4,
    /// Gave up: attempts or restarts are used up.
    GaveUp = 70,
    /// The device that the process has itself is lost to it: another process, started again, has it back.
    DeviceLost = 75,
    /// The configuration is invalid.
    Config = 78,
    /// Interrupted from the keyboard.
    Interrupted = 130,
}

impl Exit {
    /// How a job ends whose pipeline ended with `error`: either supervision has given up, or the work itself cannot be done.
    pub(super) fn of(error: &KernelError) -> Self {
        match error.kind() {
            KernelErrorKind::Crashed | KernelErrorKind::Hung | KernelErrorKind::Rejected(_) => Self::GaveUp,
            KernelErrorKind::Down(reason) => match reason {
                DownReason::Isolated | DownReason::SupervisorGone | DownReason::AbandonedThreads => {
                    Self::GaveUp
                }
                DownReason::Stopped => Self::Failure,
            },
            KernelErrorKind::Kernel(kind) => match kind {
                // Worth another attempt, and yet handed on: there was none left.
                ErrorKind::Transient
                | ErrorKind::Timeout
                | ErrorKind::Overloaded
                | ErrorKind::Exhausted
                | ErrorKind::Crashed
                | ErrorKind::Hung
                | ErrorKind::Rejected => Self::GaveUp,
                ErrorKind::Cancelled | ErrorKind::InvalidInput | ErrorKind::Permanent => Self::Failure,
            },
            KernelErrorKind::Overloaded(_)
            | KernelErrorKind::DeadlineExceeded
            | KernelErrorKind::Restarting { .. }
            | KernelErrorKind::Draining
            | KernelErrorKind::Cancelled
            | _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
