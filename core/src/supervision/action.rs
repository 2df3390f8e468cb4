//! What a supervisor machine wants done.

use super::child::{ChildKey, Exit};
use crate::clock::Timestamp;

/// One thing to do or to know, in the order in which [`SupervisorMachine::next_action`](super::SupervisorMachine::next_action) gives
/// them out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Start the child; answer with `on_started` or `on_start_failed`.
    Start {
        /// Which child.
        child: ChildKey,
        /// The number of this life, from 1.
        life: u64,
    },
    /// Ask the child to end; answer with `on_exit`. The machine watches the grace time.
    Stop {
        /// Which child.
        child: ChildKey,
    },
    /// End the child at once; answer with `on_exit` when it is gone, not when it has been told.
    Kill {
        /// Which child.
        child: ChildKey,
    },
    /// The child did not end when it was killed: let it go, fenced and counted. It counts as gone.
    Abandon {
        /// Which child.
        child: ChildKey,
    },
    /// The child failed and will be started again at `at`.
    Restarting {
        /// Which child.
        child: ChildKey,
        /// When.
        at: Timestamp,
        /// Restarts of this supervisor within its period, this one included.
        in_period: u32,
    },
    /// The child is down and stays so until somebody or a group restart starts it.
    Settled {
        /// Which child.
        child: ChildKey,
    },
    /// The child is no child any more; its key is not used again.
    Forget {
        /// Which child.
        child: ChildKey,
    },
    /// All children that the supervisor began with are up: it has started.
    Booted,
    /// No child is left alive: the supervisor ends.
    End(End),
}

/// Why a supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// This child could not be started when the supervisor began.
    BootFailed {
        /// Which child.
        child: ChildKey,
    },
    /// This child's failure was one more than the intensity allows.
    Intensity {
        /// Which child.
        child: ChildKey,
    },
    /// This child's own policy has nothing left and hands the failure on.
    Escalated {
        /// Which child.
        child: ChildKey,
    },
    /// The end of this significant child ended the supervisor.
    AutoShutdown {
        /// Which child.
        child: ChildKey,
    },
}

impl End {
    /// How the end looks to the supervisor above. As in OTP it is `shutdown`, except where the supervisor never came up.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Stopped | Self::Intensity { .. } | Self::Escalated { .. } | Self::AutoShutdown { .. } => {
                Exit::Shutdown
            }
            Self::BootFailed { .. } => Exit::Abnormal,
        }
    }
}
