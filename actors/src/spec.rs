//! What a user says about a kernel before it is spawned.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::KernelId;
use rustkernel_core::error::KernelError;
use rustkernel_core::resilience::{
    CircuitBreakerConfig, InvalidConfig, RecoveryPolicy, ResilienceConfig, RetryConfig, RetryPlan,
    TimeoutConfig,
};
use rustkernel_core::restart::{DEFAULT_RESTART_WINDOW, RestartMachine};
use rustkernel_core::traits::{CheckpointableKernel, Kernel, LocalKernel};
use tokio::runtime::Handle;

use crate::checkpoint::Checkpointer;
use crate::kernel_actor::{Canary, Factory, Inline, Launch, Recipe, Threaded};
use crate::lane::Abandoned;
use crate::registration::Registration;
use crate::slot::{Bounds, Rules, Watch};

type Launcher<K> = fn(Arc<Recipe<K>>, Abandoned, Handle) -> Box<dyn Launch>;

/// A kernel's name, its factory, and every rule it lives by. Checked as a whole when it is spawned.
///
/// Defaults: a thread of its own, a queue of 1024 requests and 256 MiB, restarts as
/// [`RecoveryPolicy::default`] within 60 s, the default breaker, not idempotent, no checkpoints.
pub struct KernelSpec<K: LocalKernel> {
    pub(crate) id: String,
    pub(crate) factory: Factory<K>,
    launcher: Launcher<K>,
    checkpointer: Option<Checkpointer<K>>,
    canary: Option<Canary<K>>,
    encode: Option<crate::slot::Encode<K::Input>>,
    recovery: RecoveryPolicy,
    restart_window: Duration,
    breaker: Option<CircuitBreakerConfig>,
    retry: RetryConfig,
    timeout: TimeoutConfig,
    idempotent: bool,
    conviction_limit: u32,
    bounds: Bounds,
    hang_limit: Option<Duration>,
    hang_after: Duration,
    checkpoint_every: u32,
    shutdown: Duration,
    start_limit: Duration,
}

impl<K: LocalKernel> KernelSpec<K> {
    /// A kernel called `family/name`, made by `factory`, again for every incarnation.
    pub fn new(id: impl Into<String>, factory: impl Fn() -> K + Send + Sync + 'static) -> Self {
        Self::fallible(id, move || Ok(factory()))
    }

    /// As [`new`](Self::new), with a factory that can fail. A failed start costs the restart budget like any other
    /// failure; the very first one fails the spawn.
    pub fn fallible(
        id: impl Into<String>,
        factory: impl Fn() -> Result<K, KernelError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            factory: Arc::new(factory),
            launcher: |recipe, abandoned, runtime| Box::new(Threaded { recipe, abandoned, runtime }),
            checkpointer: None,
            canary: None,
            encode: None,
            recovery: RecoveryPolicy::default(),
            restart_window: DEFAULT_RESTART_WINDOW,
            breaker: Some(CircuitBreakerConfig::default()),
            retry: RetryConfig::default(),
            timeout: TimeoutConfig::default(),
            idempotent: false,
            conviction_limit: 2,
            bounds: Bounds { requests: 1024, bytes: 256 << 20 },
            hang_limit: Some(Duration::from_secs(60)),
            hang_after: Duration::from_millis(100),
            checkpoint_every: 1,
            shutdown: Duration::from_secs(5),
            start_limit: Duration::from_secs(30),
        }
    }

    /// Runs the kernel on the async runtime instead of a thread of its own: about ten times cheaper a call, and only for kernels that
    /// never block and take microseconds. One that blocks stalls the worker it runs on. Without a hang limit, unless one is
    /// set afterwards.
    #[must_use]
    pub fn inline(mut self) -> Self
    where
        K: Kernel,
    {
        self.launcher = |recipe, _, _| Box::new(Inline(recipe));
        self.hang_limit = None;
        self
    }

    /// Takes a checkpoint after every request (see [`checkpoint_every`](Self::checkpoint_every)) and gives the newest one to the next
    /// incarnation.
    #[must_use]
    pub fn checkpointed(mut self) -> Self
    where
        K: CheckpointableKernel,
    {
        self.checkpointer = Some(Checkpointer::new());
        self
    }

    /// A checkpoint after every `requests` requests; at least 1, which is the default.
    #[must_use]
    pub fn checkpoint_every(mut self, requests: u32) -> Self {
        self.checkpoint_every = requests;
        self
    }

    /// A known answer that every incarnation has to give before it serves. A wrong one is a failed start.
    #[must_use]
    pub fn canary(
        mut self,
        input: K::Input,
        accepts: impl Fn(&K::Output) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.canary = Some(Canary { input, accepts: Box::new(accepts) });
        self
    }

    /// The same request may run twice. Requests in hand when an incarnation dies are then run again, and errors that
    /// [`retry`](Self::retry) lists are retried.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Incarnations that one request may take down before it is a dead letter; at least 1. Default 2: one death may
    /// have another cause, the second convicts.
    #[must_use]
    pub fn conviction_limit(mut self, deaths: u32) -> Self {
        self.conviction_limit = deaths;
        self
    }

    /// What happens after a failure.
    #[must_use]
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.recovery = policy;
        self
    }

    /// The sliding window in which `max_restarts` are allowed. Default 60 s.
    #[must_use]
    pub fn restart_window(mut self, window: Duration) -> Self {
        self.restart_window = window;
        self
    }

    /// The breaker in front of the kernel; `None` lets everything pass.
    #[must_use]
    pub fn breaker(mut self, config: impl Into<Option<CircuitBreakerConfig>>) -> Self {
        self.breaker = config.into();
        self
    }

    /// How an idempotent kernel's own errors are retried inside the slot.
    #[must_use]
    pub fn retry(mut self, config: RetryConfig) -> Self {
        self.retry = config;
        self
    }

    /// The time limits of calls that do not set their own.
    #[must_use]
    pub fn timeout(mut self, config: TimeoutConfig) -> Self {
        self.timeout = config;
        self
    }

    /// Breaker, retry, timeout and recovery at once. The health checks of `config` are the runtime's affair: see
    /// [`RuntimeBuilder::health_check`](crate::RuntimeBuilder::health_check).
    #[must_use]
    pub fn resilience(self, config: ResilienceConfig) -> Self {
        self.breaker(config.circuit_breaker)
            .retry(config.retry)
            .timeout(config.timeout)
            .recovery(config.recovery)
    }

    /// The slot's bounds: requests that wait, and payload bytes of all unanswered ones. Both at least 1.
    #[must_use]
    pub fn queue(mut self, requests: usize, bytes: usize) -> Self {
        self.bounds = Bounds { requests, bytes };
        self
    }

    /// The longest that one execution may take, whatever its deadline; then it is hung. Default 60 s.
    #[must_use]
    pub fn hang_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.hang_limit = limit.into();
        self
    }

    /// How long an execution may block its thread before it counts as hung once its deadline has passed. Default
    /// 100 ms: long enough that a kernel that is merely late is not replaced. Its caller is answered at the deadline either
    /// way.
    #[must_use]
    pub fn hang_after(mut self, span: Duration) -> Self {
        self.hang_after = span;
        self
    }

    /// How long a stopped incarnation may take to end before it is killed. Default 5 s.
    #[must_use]
    pub fn shutdown(mut self, grace: Duration) -> Self {
        self.shutdown = grace;
        self
    }

    /// How long an incarnation may take to start: factory, restore and canary together. Default 30 s.
    #[must_use]
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Keeps the inputs of dead letters as bytes, by the codec that the registration captured.
    #[must_use]
    pub fn registered(mut self, registration: &Registration<K>) -> Self {
        self.encode = registration.encode_input();
        self
    }

    /// Checks everything.
    pub(crate) fn check(self) -> Result<Checked<K>, InvalidConfig> {
        let refuse = |field, rule| Err(InvalidConfig { field, rule });
        let at_least_one = [
            ("queue.requests", self.bounds.requests == 0),
            ("queue.bytes", self.bounds.bytes == 0),
            ("conviction_limit", self.conviction_limit == 0),
            ("checkpoint_every", self.checkpoint_every == 0),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, zero)| *zero) {
            return refuse(field, "must be at least 1");
        }
        let above_zero = [
            ("hang_limit", self.hang_limit == Some(Duration::ZERO)),
            ("start_limit", self.start_limit.is_zero()),
        ];
        if let Some((field, _)) = above_zero.into_iter().find(|(_, zero)| *zero) {
            return refuse(field, "must be longer than zero");
        }
        self.timeout.validate()?;
        if let Some(breaker) = &self.breaker {
            breaker.validate()?;
        }
        let retry = RetryPlan::try_new(&self.retry)?;
        let machine = RestartMachine::try_new(self.recovery, self.restart_window)?;
        let rules = Rules {
            bounds: self.bounds,
            watch: Watch { hang_limit: self.hang_limit, hang_after: self.hang_after },
            breaker: self.breaker,
            retry,
            timeout: self.timeout,
            idempotent: self.idempotent,
            conviction_limit: self.conviction_limit,
            checkpoint_every: self.checkpoint_every,
            encode: self.encode,
        };
        Ok(Checked {
            rules,
            machine,
            factory: self.factory,
            launcher: self.launcher,
            checkpointer: self.checkpointer,
            canary: self.canary,
            shutdown: self.shutdown,
            start_limit: self.start_limit,
        })
    }
}

/// A spec whose every field has been checked.
pub(crate) struct Checked<K: LocalKernel> {
    pub(crate) rules: Rules<K::Input>,
    pub(crate) machine: RestartMachine,
    pub(crate) factory: Factory<K>,
    pub(crate) launcher: Launcher<K>,
    pub(crate) checkpointer: Option<Checkpointer<K>>,
    pub(crate) canary: Option<Canary<K>>,
    pub(crate) shutdown: Duration,
    pub(crate) start_limit: Duration,
}

/// Why a kernel was not spawned. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The name is not `family/name`.
    #[error(transparent)]
    Id(#[from] rustkernel_core::id::InvalidKernelId),
    /// A setting breaks its rule.
    #[error("kernel {kernel}: {source}")]
    Config {
        /// The kernel.
        kernel: KernelId,
        /// The field and its rule.
        #[source]
        source: InvalidConfig,
    },
    /// A kernel of this name exists already.
    #[error("a kernel named {0} exists already")]
    NameTaken(KernelId),
    /// The first incarnation did not start.
    #[error("kernel {kernel} did not start: {cause}")]
    Start {
        /// The kernel.
        kernel: KernelId,
        /// What went wrong.
        cause: crate::cause::Cause,
    },
    /// The runtime has been shut down or has given up.
    #[error("the runtime is gone")]
    RuntimeGone,
}

impl<K: LocalKernel> fmt::Debug for KernelSpec<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSpec").field("id", &self.id).finish_non_exhaustive()
    }
}
