//! How a runtime is made.

use std::fmt;
use std::sync::{Arc, Weak};

use ractor::Actor;
use rustkernel_core::resilience::{HealthCheckConfig, InvalidConfig};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::health::ProbeLoop;
use super::registry::{CloseOnDrop, Registry};
use super::{Inner, Runtime, RuntimeState};
use crate::breaker::BreakerActor;
use crate::lane::Abandoned;
use crate::links::Links;
use crate::operator::{Event, Hook, Operator};
use crate::recovery::RecoveryActor;
use crate::timer::{ClockHand, Timer};

/// Settings of a [`Runtime`]. Defaults: no hooks, at most 64 abandoned threads, the default health checks.
pub struct RuntimeBuilder {
    hooks: Vec<Hook>,
    abandoned_limit: usize,
    health_check: HealthCheckConfig,
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
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// An actor could not be started.
    #[error("an actor could not be started: {0}")]
    Actor(Box<dyn std::error::Error + Send + Sync>),
}

impl RuntimeBuilder {
    pub(super) fn new() -> Self {
        Self { hooks: Vec::new(), abandoned_limit: 64, health_check: HealthCheckConfig::default() }
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
        let handle = Handle::try_current().map_err(StartError::NoTokio)?;
        let operator = Operator::new(timer.clock().clone(), self.hooks);
        let links = Arc::new(Links::new(timer, operator));
        let abandoned = Abandoned::default();
        let breaker = BreakerActor { links: Arc::downgrade(&links), clock: links.timer.clock().clone() };
        let (breaker, _) =
            Actor::spawn(None, breaker, ()).await.map_err(|error| StartError::Actor(error.into()))?;
        let recovery = RecoveryActor {
            links: Arc::downgrade(&links),
            abandoned: abandoned.clone(),
            abandoned_limit: self.abandoned_limit,
        };
        let (recovery, ended) =
            Actor::spawn(None, recovery, ()).await.map_err(|error| StartError::Actor(error.into()))?;
        links.connect(breaker.clone(), recovery.clone());
        let registry = Arc::new(Registry::default());
        let (state, publish) = watch_over(ended, Arc::clone(&registry), &links, &handle);
        let probes = ProbeLoop::start(self.health_check, &registry, &links)?;
        Ok(Runtime {
            inner: Arc::new(Inner {
                links,
                recovery,
                breaker,
                registry,
                abandoned,
                handle,
                probes,
                state,
                publish,
            }),
        })
    }
}

/// Watches the recovery actor: when it is gone, for whatever reason, no request may go on waiting.
fn watch_over(
    ended: tokio::task::JoinHandle<()>,
    registry: Arc<Registry>,
    links: &Arc<Links>,
    handle: &Handle,
) -> (watch::Receiver<RuntimeState>, Weak<watch::Sender<RuntimeState>>) {
    let (publish, state) = watch::channel(RuntimeState::Running);
    let publish = Arc::new(publish);
    let weak = Arc::downgrade(&publish);
    let close = CloseOnDrop(registry);
    let links = Arc::downgrade(links);
    handle.spawn(async move {
        // ractor's join handle does not panic; an abort counts as an end.
        let _ = ended.await;
        let asked = links.upgrade().is_some_and(|links| links.is_shut_down());
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
