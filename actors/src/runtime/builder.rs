//! How a runtime is made.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use ractor::Actor;
use rustkernel_core::resilience::{HealthCheckConfig, InvalidConfig};
use rustkernel_core::supervision::SupervisorConfig;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::health::ProbeLoop;
use super::registry::{CloseOnDrop, ROOT, Registry};
use super::{Inner, Runtime, RuntimeState};
use crate::breaker::BreakerActor;
use crate::checkpoint::{CheckpointStore, RETENTION, Vault};
use crate::lane::Abandoned;
use crate::links::Links;
use crate::operator::{Event, Fact, Hook, Operator};
use crate::recovery::{Env, Node, RecoveryActor};
use crate::timer::{ClockHand, Timer};

/// Settings of a [`Runtime`]. Defaults: no hooks, at most 64 abandoned threads, the default health checks.
pub struct RuntimeBuilder {
    hooks: Vec<Hook>,
    abandoned_limit: usize,
    health_check: HealthCheckConfig,
    root: SupervisorConfig,
    store: Option<Arc<dyn CheckpointStore>>,
    retention: usize,
}

/// Why a runtime did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program is built with `panic = "abort"`: a panic could not be survived.
    #[error(
        "built with panic = \"abort\": a kernel's panic would end the process; build with panic = \"unwind\""
    )]
    PanicAbort,
    /// Not called within a tokio runtime.
    #[error("no tokio runtime is running here")]
    NoTokio(#[source] tokio::runtime::TryCurrentError),
    /// The timer's thread could not be started.
    #[error("the timer's thread could not be started")]
    Timer(#[source] std::io::Error),
    /// The thread that writes checkpoints could not be started.
    #[error("the checkpoint thread could not be started")]
    Checkpoints(#[source] std::io::Error),
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// An actor could not be started.
    #[error("an actor could not be started: {0}")]
    Actor(Box<dyn std::error::Error + Send + Sync>),
}

impl RuntimeBuilder {
    pub(super) fn new() -> Self {
        // Its kernels have budgets of their own, and escalations that do not take the whole runtime down.
        let root = SupervisorConfig { intensity: u32::MAX, ..SupervisorConfig::default() };
        Self {
            hooks: Vec::new(),
            abandoned_limit: 64,
            health_check: HealthCheckConfig::default(),
            root,
            store: None,
            retention: RETENTION,
        }
    }

    /// Calls `hook` for every event, in the thread it happens in; it must return soon.
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Blocked threads that may be left behind and still run before no kernel is restarted any more. At least 1; default 64: each
    /// costs its stack and, if it spins, a core.
    #[must_use]
    pub fn abandoned_thread_limit(mut self, threads: usize) -> Self {
        self.abandoned_limit = threads;
        self
    }

    /// How often and how patiently the probe loop looks at every kernel.
    #[must_use]
    pub fn health_check(mut self, config: HealthCheckConfig) -> Self {
        self.health_check = config;
        self
    }

    /// Keeps the checkpoints of all kernels in `store`, too, so that they survive this process: a kernel that is spawned goes on from the
    /// newest valid one. They are written on a thread of their own, the newest of each kernel first; a kernel does not wait for
    /// that. What the store does not take is told and shown in health.
    #[must_use]
    pub fn checkpoint_store(mut self, store: Arc<dyn CheckpointStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Checkpoints that the store keeps of each kernel; at least 1. Default 3: the newest may be damaged.
    #[must_use]
    pub fn checkpoint_retention(mut self, checkpoints: usize) -> Self {
        self.retention = checkpoints;
        self
    }

    /// How the root treats its children. Default one_for_one without a limit of restarts: kernels have budgets of their own. When the root
    /// gives up, the runtime does.
    #[must_use]
    pub fn root(mut self, config: SupervisorConfig) -> Self {
        self.root = config;
        self
    }

    /// Starts the runtime on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    ///
    /// # Cancel safety
    /// A dropped start leaves nothing behind.
    pub async fn build(self) -> Result<Runtime, StartError> {
        let timer = Timer::system().map_err(StartError::Timer)?;
        self.start(timer).await
    }

    /// Starts a runtime whose time stands still until the hand turns it: deadlines, restart delays, breaker times and
    /// the watchdog then follow the hand.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// # Cancel safety
    /// As [`build`](Self::build).
    pub async fn build_with_manual_clock(self) -> Result<(Runtime, ClockHand), StartError> {
        let (timer, hand) = Timer::manual();
        Ok((self.start(timer).await?, hand))
    }

    async fn start(self, timer: Timer) -> Result<Runtime, StartError> {
        if cfg!(panic = "abort") {
            return Err(StartError::PanicAbort);
        }
        if self.abandoned_limit == 0 {
            return Err(InvalidConfig { field: "abandoned_thread_limit", rule: "must be at least 1" }.into());
        }
        self.health_check.validate()?;
        self.root.validate()?;
        if self.retention == 0 {
            return Err(InvalidConfig { field: "checkpoint_retention", rule: "must be at least 1" }.into());
        }
        let handle = Handle::try_current().map_err(StartError::NoTokio)?;
        let operator = Operator::new(timer.clock().clone(), self.hooks);
        let registry = Arc::new(Registry::default());
        let vault = self.store.map(|store| {
            let (names, told) = (Arc::downgrade(&registry), operator.clone());
            Vault::open(store, self.retention, move |kernel, _, saved| {
                let trouble = saved.err().map(|error| error.to_string());
                if let Some(reason) = trouble.clone() {
                    told.tell(Some(kernel), Fact::CheckpointFailed { reason });
                }
                if let Some(kernel) = names.upgrade().and_then(|names| names.kernel(kernel)) {
                    kernel.checkpoint_stored(trouble);
                }
            })
        });
        let vault = vault.transpose().map_err(StartError::Checkpoints)?;
        let links = Arc::new(Links::new(timer, operator, vault));
        let abandoned = Abandoned::default();
        let breaker = BreakerActor { links: Arc::downgrade(&links), clock: links.timer.clock().clone() };
        let (breaker, breaker_ended) =
            Actor::spawn(None, breaker, ()).await.map_err(|error| StartError::Actor(error.into()))?;
        let home = Arc::clone(links.root());
        let root = Node::new(ROOT.into(), self.root, home, Vec::new(), Box::new(|| {}));
        let (booted, boot) = oneshot::channel();
        let recovery = RecoveryActor {
            links: Arc::downgrade(&links),
            abandoned: abandoned.clone(),
            abandoned_limit: self.abandoned_limit,
            handle: handle.clone(),
            node: Arc::clone(&root),
            above: None,
            booted: Mutex::new(Some(booted)),
        };
        links.connect(breaker.clone());
        let (recovery, ended) =
            Actor::spawn(None, recovery, ()).await.map_err(|error| StartError::Actor(error.into()))?;
        // It has no children to begin with; an error means that it is gone, which is noticed below.
        let _ = boot.await;
        let without_breaker = recovery.clone();
        handle.spawn(async move {
            // Its gates would stay as they are for ever: better to be down and say so.
            let _ = breaker_ended.await;
            without_breaker.stop(Some("the breaker actor is gone".into()));
        });
        let env = Env { links: Arc::clone(&links), abandoned, abandoned_limit: self.abandoned_limit, handle };
        let (state, publish) = watch_over(ended, Arc::clone(&registry), Arc::clone(&root), env.clone());
        let probes = ProbeLoop::start(self.health_check, &registry, &links)?;
        let inner = Inner { links, env, root, recovery, breaker, registry, probes, state, publish };
        Ok(Runtime { inner: Arc::new(inner) })
    }
}

/// Watches the recovery actor: when it is gone, for whatever reason, no request may go on waiting.
fn watch_over(
    ended: tokio::task::JoinHandle<()>,
    registry: Arc<Registry>,
    root: Arc<Node>,
    env: Env,
) -> (watch::Receiver<RuntimeState>, Weak<watch::Sender<RuntimeState>>) {
    let (publish, state) = watch::channel(RuntimeState::Running);
    let publish = Arc::new(publish);
    let weak = Arc::downgrade(&publish);
    let close = CloseOnDrop(registry);
    let handle = env.handle.clone();
    handle.spawn(async move {
        // ractor's join handle does not panic; an abort counts as an end.
        let _ = ended.await;
        let asked = env.links.is_shut_down();
        // Whoever waits is answered now. Supervisors below may be in the middle of starting something: so once more when all are gone.
        close.close();
        root.reap(env).await;
        drop(close);
        publish.send_replace(if asked { RuntimeState::Stopped } else { RuntimeState::GaveUp });
    });
    (state, weak)
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder")
            .field("abandoned_limit", &self.abandoned_limit)
            .finish_non_exhaustive()
    }
}
