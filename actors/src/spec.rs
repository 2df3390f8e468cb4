//! What a user says about a kernel before it is spawned.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::error::KernelError;
use rustkernel_core::recovery::DEFAULT_RESTART_WINDOW;
use rustkernel_core::resilience::{
    CircuitBreakerConfig, InvalidConfig, RecoveryPolicy, RecoveryStrategy, ResilienceConfig, RetryConfig,
    TimeoutConfig,
};
use rustkernel_core::supervision::{ChildRules, Refusal, Restart, Shutdown};
use rustkernel_core::traits::{CheckpointableKernel, Kernel, LocalKernel};
use rustkernel_core::{DeviceId, KernelId};
use tokio::runtime::Handle;

use crate::checkpoint::Checkpointer;
use crate::kernel_actor::{Canary, Factory, Inline, Launch, Making, Recipe, Threaded};
use crate::lane::Abandoned;
use crate::lifeline::Lifeline;
use crate::registration::Registration;
use crate::slot::{Bounds, Codec, Slot};

mod plan;

pub(crate) use plan::Declaring;

type Launcher<K> = fn(Arc<Recipe<K>>, Abandoned, Handle) -> Arc<dyn Launch>;

/// Makes the launcher of a degraded path, whose kernel has a type of its own.
type Degraded<K> = Box<dyn FnOnce(Way<K>, Placing) -> Arc<dyn Launch> + Send>;
type Way<K> = Arc<Slot<<K as LocalKernel>::Input, <K as LocalKernel>::Output>>;

/// Where a launcher puts its lives.
pub(crate) struct Placing {
    pub(crate) inline: bool,
    pub(crate) abandoned: Abandoned,
    pub(crate) handle: Handle,
}

/// How long an incarnation may take to start, unless its spec says otherwise.
pub const DEFAULT_START_LIMIT: Duration = Duration::from_secs(30);

/// A kernel's name, its factory, and every rule it lives by. Checked as a whole when it is spawned.
///
/// Defaults: a thread of its own, a queue of 1024 requests and 256 MiB, restarts as
/// [`RecoveryPolicy::default`] within 60 s, the default breaker, not idempotent, no checkpoints.
pub struct KernelSpec<K: LocalKernel> {
    pub(crate) id: String,
    pub(crate) factory: Factory<K>,
    launcher: Launcher<K>,
    inline: bool,
    degraded: Option<Degraded<K>>,
    device: DeviceId,
    backup: Option<(DeviceId, Factory<K>)>,
    replicas: usize,
    replicas_follow: bool,
    rules: ChildRules,
    checkpointer: Option<Checkpointer<K>>,
    checkpoint_schema: Option<&'static str>,
    canary: Option<Arc<Canary<K>>>,
    codec: Option<Codec<K::Input>>,
    recovery: RecoveryPolicy,
    escalations: Vec<RecoveryStrategy>,
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
    checkpoint_after: Option<Duration>,
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
            factory: Factory::Here(Arc::new(factory)),
            launcher: |recipe, abandoned, runtime| Arc::new(Threaded { recipe, abandoned, runtime }),
            inline: false,
            degraded: None,
            device: DeviceId::CPU,
            backup: None,
            replicas: 0,
            replicas_follow: false,
            rules: ChildRules::default(),
            checkpointer: None,
            checkpoint_schema: None,
            canary: None,
            codec: None,
            recovery: RecoveryPolicy::default(),
            escalations: Vec::new(),
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
            checkpoint_after: None,
            start_limit: DEFAULT_START_LIMIT,
        }
    }

    /// A kernel whose work is done elsewhere: in another process, on another machine. What `factory` makes, at an await, stands for it
    /// here: it runs on the async runtime, sends requests there and awaits the answers, and never blocks. Whoever finds out that
    /// the kernel is gone there says so through the [`Lifeline`].
    pub fn elsewhere<F>(
        id: impl Into<String>,
        factory: impl Fn(Lifeline) -> F + Send + Sync + 'static,
    ) -> Self
    where
        K: Kernel,
        F: Future<Output = Result<K, KernelError>> + Send + 'static,
    {
        let mut spec = Self::fallible(id, || Err(KernelError::permanent("it is made elsewhere")));
        spec.factory = Factory::Elsewhere(Arc::new(move |lifeline| Box::pin(factory(lifeline))));
        spec.launcher = |recipe, _, _| Arc::new(Inline(recipe));
        spec
    }

    /// [`backup`](Self::backup) for a kernel whose work is done [elsewhere](Self::elsewhere).
    #[must_use]
    pub fn backup_elsewhere<F>(
        mut self,
        device: DeviceId,
        factory: impl Fn(Lifeline) -> F + Send + Sync + 'static,
    ) -> Self
    where
        K: Kernel,
        F: Future<Output = Result<K, KernelError>> + Send + 'static,
    {
        let factory = Factory::Elsewhere(Arc::new(move |lifeline| Box::pin(factory(lifeline)) as Making<K>));
        self.backup = Some((device, factory));
        self
    }

    /// Runs the kernel on the async runtime instead of a thread of its own: about ten times cheaper a call, and only for kernels that
    /// never block and take microseconds. One that blocks stalls the worker it runs on. Without a hang limit, unless one is
    /// set afterwards.
    #[must_use]
    pub fn inline(mut self) -> Self
    where
        K: Kernel,
    {
        self.launcher = |recipe, _, _| Arc::new(Inline(recipe));
        self.inline = true;
        self.hang_limit = None;
        self
    }

    /// Takes checkpoints, after every request unless [`checkpoint_every`](Self::checkpoint_every) or
    /// [`checkpoint_after`](Self::checkpoint_after) say otherwise, and when the kernel is stopped or hands over; gives the newest one to the
    /// next incarnation. One that cannot be restored gives way to the one before it, and one of another
    /// [schema](Self::checkpoint_schema) is never read.
    #[must_use]
    pub fn checkpointed(mut self) -> Self
    where
        K: CheckpointableKernel,
    {
        self.checkpointer = Some(Checkpointer::new());
        self
    }

    /// The name of the schema that the kernel's checkpoints have: 1 to 255 bytes. Every checkpoint carries it, and one of another name is
    /// refused, told, and gives way to the one before it. Default the name of the checkpoint's type: it tells types apart, but not what
    /// a type of the same name once held, and a type that moves, or another compiler, may change it. Give states that a
    /// [store](crate::RuntimeBuilder::checkpoint_store) keeps a name with a number, and count it up when their shape changes.
    #[must_use]
    pub fn checkpoint_schema(mut self, name: &'static str) -> Self {
        self.checkpoint_schema = Some(name);
        self
    }

    /// A checkpoint after every `requests` requests; at least 1, which is the default.
    #[must_use]
    pub fn checkpoint_every(mut self, requests: u32) -> Self {
        self.checkpoint_every = requests;
        self
    }

    /// A checkpoint this long after the last one, if the kernel has served since; beside those of
    /// [`checkpoint_every`](Self::checkpoint_every), which may be set to `u32::MAX`. Default none.
    #[must_use]
    pub fn checkpoint_after(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.checkpoint_after = span.into();
        self
    }

    /// Keeps `count` standbys: made, restored and proven beforehand, so that one takes over within a scheduling step when
    /// the kernel fails. Each costs what the kernel costs. The target of
    /// [`UseReplica`](RecoveryStrategy::UseReplica); at most 16.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Standbys restore every checkpoint as it comes. Without it they restore the newest when they take over, which costs nothing before and
    /// the time of one restore then.
    #[must_use]
    pub fn replicas_follow(mut self) -> Self {
        self.replicas_follow = true;
        self
    }

    /// A path that gives less and keeps going: another batch size, another device, a cached answer. It serves while the kernel cannot, by the
    /// strategy [`Degrade`](RecoveryStrategy::Degrade) or because a request cannot wait for a restart; replies and health say
    /// so. It is made when it is needed, in the kernel's placement, and keeps no checkpoints.
    #[must_use]
    pub fn degraded<D>(self, factory: impl Fn() -> D + Send + Sync + 'static) -> Self
    where
        D: Kernel<Input = K::Input, Output = K::Output>,
    {
        self.degraded_fallible(move || Ok(factory()))
    }

    /// [`degraded`](Self::degraded) with a factory that can fail, which is a failure of the degraded path.
    #[must_use]
    pub fn degraded_fallible<D>(
        mut self,
        factory: impl Fn() -> Result<D, KernelError> + Send + Sync + 'static,
    ) -> Self
    where
        D: Kernel<Input = K::Input, Output = K::Output>,
    {
        let factory: Factory<D> = Factory::Here(Arc::new(factory));
        self.degraded = Some(Box::new(move |slot, placing| {
            let recipe = Arc::new(Recipe { slot, factory, checkpointer: None, canary: None });
            let Placing { inline, abandoned, handle } = placing;
            if inline {
                Arc::new(Inline(recipe))
            } else {
                Arc::new(Threaded { recipe, abandoned, runtime: handle })
            }
        }));
        self
    }

    /// [`degraded`](Self::degraded) with a path whose work is done [elsewhere](Self::elsewhere).
    #[must_use]
    pub fn degraded_elsewhere<D, F>(mut self, factory: impl Fn(Lifeline) -> F + Send + Sync + 'static) -> Self
    where
        D: Kernel<Input = K::Input, Output = K::Output>,
        F: Future<Output = Result<D, KernelError>> + Send + 'static,
    {
        let factory = Factory::Elsewhere(Arc::new(move |lifeline| Box::pin(factory(lifeline)) as Making<D>));
        self.degraded = Some(Box::new(move |slot, _| {
            Arc::new(Inline(Arc::new(Recipe { slot, factory, checkpointer: None, canary: None })))
        }));
        self
    }

    /// Where the kernel runs; the factory has to put it there. Default the processor.
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = device;
        self
    }

    /// The device that the kernel moves to by [`Failover`](RecoveryStrategy::Failover), with its queue and its newest checkpoint, and the
    /// factory that makes it there. It comes back when it is told to ([`Runtime::fail_back`](crate::Runtime::fail_back)).
    #[must_use]
    pub fn backup(self, device: DeviceId, factory: impl Fn() -> K + Send + Sync + 'static) -> Self {
        self.backup_fallible(device, move || Ok(factory()))
    }

    /// [`backup`](Self::backup) with a factory that can fail, which is a failed start there.
    #[must_use]
    pub fn backup_fallible(
        mut self,
        device: DeviceId,
        factory: impl Fn() -> Result<K, KernelError> + Send + Sync + 'static,
    ) -> Self {
        self.backup = Some((device, Factory::Here(Arc::new(factory))));
        self
    }

    /// What follows when the policy's own escalation has not helped, in this order; after the last, the supervisor decides. Nothing may follow
    /// [`NotifyOperator`](RecoveryStrategy::NotifyOperator), the escalation of the default policy.
    #[must_use]
    pub fn escalations(mut self, further: impl IntoIterator<Item = RecoveryStrategy>) -> Self {
        self.escalations = further.into_iter().collect();
        self
    }

    /// A temporary kernel is not started again when it fails; transient and permanent are the same for a kernel, which never ends by
    /// itself in peace. Default permanent.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }

    /// Its end may end its supervisor, as the supervisor's auto-shutdown says. Not for permanent kernels.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.rules.significant = true;
        self
    }

    /// A known answer that every incarnation has to give before it serves. A wrong one is a failed start.
    #[must_use]
    pub fn canary(
        mut self,
        input: K::Input,
        accepts: impl Fn(&K::Output) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.canary = Some(Arc::new(Canary { input, accepts: Box::new(accepts) }));
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

    /// How it is stopped: a [`Duration`] it may take to end before it is killed, or another [`Shutdown`]. Default 5 s.
    #[must_use]
    pub fn shutdown(mut self, shutdown: impl Into<Shutdown>) -> Self {
        self.rules.shutdown = shutdown.into();
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
        self.codec = registration.input_codec();
        self
    }
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
    /// The name of a supervisor or a task breaks its rule.
    #[error("`{name}` is no name: {rule}")]
    Name {
        /// The name, cut to 128 characters.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A supervisor's own setting breaks its rule.
    #[error("supervisor {supervisor}: {source}")]
    Supervisor {
        /// The supervisor.
        supervisor: String,
        /// The field and its rule.
        #[source]
        source: InvalidConfig,
    },
    /// A supervisor of this name exists already.
    #[error("a supervisor named {0} exists already")]
    SupervisorTaken(String),
    /// A task or a supervisor did not start.
    #[error("{child} did not start: {cause}")]
    Child {
        /// The child.
        child: String,
        /// What went wrong.
        cause: crate::cause::Cause,
    },
    /// The supervisor does not take it.
    #[error("{child}: {source}")]
    Refused {
        /// The child.
        child: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The runtime has been shut down or has given up.
    #[error("the runtime is gone")]
    RuntimeGone,
    /// The supervisor is gone, or is being restarted.
    #[error("supervisor {0} is not running")]
    SupervisorGone(String),
}

impl<K: LocalKernel> fmt::Debug for KernelSpec<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSpec").field("id", &self.id).finish_non_exhaustive()
    }
}
