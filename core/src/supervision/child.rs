//! One child of a supervisor: what is declared about it, and where it stands.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A child's place in its supervisor: keys grow in start order and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChildKey(pub(super) u32);

impl ChildKey {
    /// The key as a number.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Which ends of a child make its supervisor start it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Every end. The default.
    #[default]
    Permanent,
    /// Only an abnormal end.
    Transient,
    /// None. A temporary child that has ended is forgotten, one that is stopped with its group too.
    Temporary,
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// Killed at once.
    Brutal,
    /// Asked, and killed after this long.
    Within(#[serde(with = "crate::resilience::span")] Duration),
    /// Asked, and waited for. For supervisors, so that their children can take their time; elsewhere a child that does not end holds
    /// up everything behind it.
    Infinity,
}

impl From<Duration> for Shutdown {
    fn from(grace: Duration) -> Self {
        Self::Within(grace)
    }
}

impl Default for Shutdown {
    /// 5 s, as in OTP.
    fn default() -> Self {
        Self::Within(Duration::from_secs(5))
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It was done.
    Normal,
    /// It ended in an orderly way before it was done: told to, or a supervisor that gave up.
    Shutdown,
    /// Anything else: a panic, an error, a kill.
    Abnormal,
    /// What it lived in has ended and taken it along: a worker process. Whoever answers for that has paid; it comes back like
    /// one that ended abnormally, and costs nothing.
    Lost,
}

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    /// A kernel behind its slot.
    Kernel,
    /// A plain async task.
    Task,
    /// A supervisor with children of its own.
    Supervisor,
}

/// The rules one child lives by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChildRules {
    /// Which ends make the supervisor start it again. Default permanent.
    pub restart: Restart,
    /// How it is stopped. Default: asked, and killed after 5 s.
    pub shutdown: Shutdown,
    /// Whether its own end may end the supervisor, as [`AutoShutdown`](super::AutoShutdown) says. Only for transient and temporary
    /// children, under a supervisor that shuts down by itself at all. Default no.
    pub significant: bool,
}

/// A child as it is declared to its supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// Its name, unique among its siblings.
    pub name: Arc<str>,
    /// What it is.
    pub kind: ChildKind,
    /// The rules it lives by.
    pub rules: ChildRules,
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// Not running, and nobody is about to start it.
    Down,
    /// Down, and to be started when its turn in the group comes.
    Planned,
    /// Being started.
    Starting,
    /// Running.
    Up,
    /// Failed; to be started again at this time.
    Delayed {
        /// When.
        at: Timestamp,
    },
    /// Told to end.
    Stopping,
    /// Held by its own policy: neither running nor the supervisor's to restart, until it is resumed.
    Held,
}

/// One line of [`SupervisorMachine::which_children`](super::SupervisorMachine::which_children).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView<'a> {
    /// Its key.
    pub key: ChildKey,
    /// How it was declared.
    pub spec: &'a ChildSpec,
    /// Where it stands.
    pub state: ChildState,
    /// The number of its current or last life; 0 before the first.
    pub life: u64,
}

/// A child in its machine.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) stage: Stage,
    pub(super) life: u64,
    /// Who waits for the outcome of the start that is under way.
    pub(super) ask: Ask,
}

/// Where a child stands, with what the machine has to remember about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Down,
    Planned,
    Starting,
    Up,
    Delayed { at: Timestamp },
    Stopping { until: Option<Timestamp>, killed: bool, then: Then },
    Held,
}

/// What becomes of a child once it has ended as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays down.
    Stay,
    /// It is started again with its group.
    Restart,
}

/// Why a child is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The supervisor wants it.
    Supervisor,
    /// Somebody adds it: if it does not start, it never was.
    Add,
    /// Somebody restarts it: if it does not start, it stays down.
    Restart,
}

impl Child {
    pub(super) fn new(spec: ChildSpec, stage: Stage, ask: Ask) -> Self {
        Self { spec, stage, life: 0, ask }
    }

    /// Whether anything of it is running.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Up | Stage::Stopping { .. })
    }

    /// Whether it runs, or is going to without being asked to.
    pub(super) fn is_to_run(&self) -> bool {
        match self.stage {
            Stage::Planned | Stage::Starting | Stage::Up | Stage::Delayed { .. } => true,
            Stage::Stopping { then, .. } => then == Then::Restart && !self.is_temporary(),
            Stage::Down | Stage::Held => false,
        }
    }

    /// Whether its start or its stop is being waited for.
    pub(super) fn is_alive_but_not_up(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Stopping { .. })
    }

    /// Whether something of it may be alive though its life is over: a kernel's standby, or what answers in its place.
    pub(super) fn may_leave_something(&self) -> bool {
        self.spec.kind == ChildKind::Kernel
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.spec.rules.restart == Restart::Temporary
    }

    /// Whether `exit` makes the supervisor start it again.
    pub(super) fn comes_back_after(&self, exit: Exit) -> bool {
        match self.spec.rules.restart {
            Restart::Permanent => true,
            Restart::Transient => matches!(exit, Exit::Abnormal | Exit::Lost),
            Restart::Temporary => false,
        }
    }

    pub(super) fn state(&self) -> ChildState {
        match self.stage {
            Stage::Down => ChildState::Down,
            Stage::Planned => ChildState::Planned,
            Stage::Starting => ChildState::Starting,
            Stage::Up => ChildState::Up,
            Stage::Delayed { at } => ChildState::Delayed { at },
            Stage::Stopping { .. } => ChildState::Stopping,
            Stage::Held => ChildState::Held,
        }
    }
}

impl Stage {
    /// When the machine has to look at it again.
    pub(super) fn due(self) -> Option<Timestamp> {
        match self {
            Self::Delayed { at } => Some(at),
            Self::Stopping { until, .. } => until,
            Self::Down | Self::Planned | Self::Starting | Self::Up | Self::Held => None,
        }
    }
}
