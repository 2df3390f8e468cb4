//! The runtime: it owns the timer, the recovery and breaker actors and the names, and is how users spawn kernels.

mod builder;
mod health;
mod records;
mod registry;
mod tree;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorRef;
use rustkernel_core::clock::Clock;
use rustkernel_core::traits::{LocalKernel, Payload};
use tokio::sync::{oneshot, watch};

pub use builder::{RuntimeBuilder, StartError};
pub use health::{KernelHealth, RuntimeHealth};

use crate::breaker::{BreakerCommand, BreakerMsg};
use crate::kernel_ref::KernelRef;
use crate::links::Links;
use crate::operator::Events;
use crate::recovery::{Env, HandOverError, KernelStatus, Node, Order, RecoveryMsg, ShutdownReport, Tree};
use crate::spec::{KernelSpec, SpawnError};
use crate::supervisor::{Supervisor, SupervisorRef};
use health::ProbeLoop;
pub(crate) use registry::Registry;

/// A supervision runtime on the current tokio runtime. Clones share it.
///
/// When the last clone is dropped without a [`shutdown`](Self::shutdown), all kernels are killed and everything that waits is answered.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    links: Arc<Links>,
    pub(crate) env: Env,
    /// The supervisor that [`Runtime::spawn`] and [`Runtime::supervise`] put children under.
    pub(crate) root: Arc<Node>,
    recovery: ActorRef<RecoveryMsg>,
    breaker: ActorRef<BreakerMsg>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) probes: Arc<ProbeLoop>,
    state: watch::Receiver<RuntimeState>,
    /// Weak, so that waiters learn it when the task that publishes the end is gone.
    publish: Weak<watch::Sender<RuntimeState>>,
}

/// What a runtime as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// It supervises.
    Running,
    /// A shutdown is under way.
    Draining,
    /// It was shut down.
    Stopped,
    /// Its recovery actor ended without having been asked to: every kernel is down.
    GaveUp,
}

impl Runtime {
    /// The way to make one.
    #[must_use]
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// Spawns a supervised kernel under the runtime's root and waits until its first incarnation serves.
    ///
    /// # Errors
    /// [`SpawnError`] says what is wrong with the spec, or why the kernel did not start. Nothing is left behind.
    ///
    /// # Cancel safety
    /// A dropped spawn goes on; the kernel then runs under its name.
    pub async fn spawn<K: LocalKernel>(
        &self,
        spec: KernelSpec<K>,
    ) -> Result<KernelRef<K::Input, K::Output>, SpawnError> {
        self.root().start_kernel(spec).await
    }

    /// Starts a tree under the runtime's root and waits until all of it is up.
    ///
    /// # Errors
    /// [`SpawnError`] says what is wrong with the tree, before any of it starts, or what did not start. Nothing is left behind.
    ///
    /// # Cancel safety
    /// A dropped start goes on.
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorRef, SpawnError> {
        self.root().start_supervisor(supervisor).await
    }

    /// The supervisor at the root, which every runtime has. It restarts its children one by one; unless
    /// [`RuntimeBuilder::root`] says otherwise it has no intensity of its own, because its kernels have budgets.
    #[must_use]
    pub fn root(&self) -> SupervisorRef {
        SupervisorRef::new(Arc::clone(&self.inner.root), Arc::downgrade(&self.inner))
    }

    /// The supervisor of this name, if there is one.
    #[must_use]
    pub fn supervisor(&self, name: &str) -> Option<SupervisorRef> {
        let node = self.inner.registry.supervisor(name)?;
        Some(SupervisorRef::new(node, Arc::downgrade(&self.inner)))
    }

    /// The whole tree, as its supervisors see it; `None` when the runtime is gone.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn tree(&self) -> Option<Tree> {
        tree::of(Arc::clone(&self.inner.root)).await
    }

    /// The kernel of this name and these types, if there is one.
    #[must_use]
    pub fn kernel<I: Payload, O: Payload>(&self, id: &str) -> Option<KernelRef<I, O>> {
        self.inner.registry.slot(id).map(|slot| KernelRef { slot })
    }

    /// How all kernels are, in the order of the tree; empty when the runtime is gone.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn status(&self) -> Vec<KernelStatus> {
        self.tree().await.map(Tree::into_kernels).unwrap_or_default()
    }

    /// Gives an isolated kernel a new incarnation and a full restart budget; one in its restart delay starts now, and a degraded one is
    /// rebuilt now. `false` for an unknown one and for one that needs no resuming.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn resume(&self, id: &str) -> bool {
        self.order(id, |slot, done| Order::Resume { slot, done }).await.unwrap_or(false)
    }

    /// Kills the kernel's incarnation, as a failure would end it: its recovery policy applies. `false` if none lives. Answers when that
    /// incarnation is gone and it is decided what follows; one that blocks its thread has the kernel's grace time to notice.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn kill(&self, id: &str) -> bool {
        self.order(id, |slot, done| Order::Kill { slot, done }).await.unwrap_or(false)
    }

    /// Puts a new version of a kernel behind its name: `spec` has its factories, devices, placement, canary and checkpoints. The new
    /// version is made, restored and proven while the old one serves; then the old one finishes its request, takes a last checkpoint and
    /// makes way. The limits, the breaker, the degraded path and the policies stay as they are. If the new version does not start,
    /// nothing has changed; if it cannot restore that last checkpoint, the old version is made again and goes on from it.
    ///
    /// # Errors
    /// [`HandOverError`] says why the old version still serves.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn replace<K: LocalKernel>(&self, spec: KernelSpec<K>) -> Result<(), HandOverError> {
        let id = spec.id.clone();
        let Some(named) = self.inner.registry.named(&id) else { return Err(HandOverError::UnknownKernel) };
        let Some(slot) = self.inner.registry.slot::<K::Input, K::Output>(&id) else {
            let (takes, gives) = named.kernel.schemas();
            return Err(HandOverError::Types { takes, gives });
        };
        let version = spec.check()?.version(&slot, &self.inner.env);
        let replaced = self.order(&id, |slot, done| Order::Replace { slot, version, done }).await;
        replaced.unwrap_or(Err(HandOverError::SupervisorGone))
    }

    /// Brings a kernel that has failed over back to its own device, as [`replace`](Self::replace) brings a new version.
    ///
    /// # Errors
    /// [`HandOverError`] says why the backup still serves.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn fail_back(&self, id: &str) -> Result<(), HandOverError> {
        if self.inner.registry.named(id).is_none() {
            return Err(HandOverError::UnknownKernel);
        }
        let back = self.order(id, |slot, done| Order::FailBack { slot, done }).await;
        back.unwrap_or(Err(HandOverError::SupervisorGone))
    }

    /// Sets the kernel's breaker by hand. `false` for an unknown kernel and for one without a breaker.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn breaker(&self, id: &str, command: BreakerCommand) -> bool {
        let Some(slot) = self.inner.registry.named(id).map(|named| named.index) else { return false };
        let (done, known) = oneshot::channel();
        let sent = self.inner.breaker.send_message(BreakerMsg::Command { slot, command, done });
        sent.is_ok() && known.await.unwrap_or(false)
    }

    /// Stops one kernel for good and frees its name: after its current request, or, with `drain`, after everything that
    /// waits. `false` for an unknown one. One that does not end within its shutdown grace is killed.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn stop(&self, id: &str, drain: bool) -> bool {
        self.order(id, |slot, done| Order::Stop { slot, drain, done }).await.is_some()
    }

    /// Drains everything for at most `grace`, then stops the kernels in reverse start order, each awaited. What still waits is
    /// answered with a type. `None` if the runtime is gone already.
    ///
    /// # Cancel safety
    /// A dropped shutdown is carried out.
    pub async fn shutdown(&self, grace: Duration) -> Option<ShutdownReport> {
        if let Some(publish) = self.inner.publish.upgrade() {
            publish.send_if_modified(|state| {
                let runs = *state == RuntimeState::Running;
                if runs {
                    *state = RuntimeState::Draining;
                }
                runs
            });
        }
        let order = |done| RecoveryMsg::Order(Order::Shutdown { grace, done });
        let report = self.inner.root.home.ask(order).await?;
        let mut state = self.inner.state.clone();
        if let Some(vault) = self.inner.links.vault.clone() {
            // An error means that the blocking thread is gone, with the async runtime.
            let _ = tokio::task::spawn_blocking(move || vault.flush(FLUSH_LIMIT)).await;
        }
        // The sender is the task that sees the recovery actor's end; without it there is nothing to wait for.
        let _ = state.wait_for(|state| matches!(state, RuntimeState::Stopped | RuntimeState::GaveUp)).await;
        Some(report)
    }

    /// What the runtime as a whole is doing.
    #[must_use]
    pub fn state(&self) -> RuntimeState {
        *self.inner.state.borrow()
    }

    /// Waits until the runtime has stopped or given up.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ended(&self) -> RuntimeState {
        let mut state = self.inner.state.clone();
        let ended =
            state.wait_for(|state| matches!(state, RuntimeState::Stopped | RuntimeState::GaveUp)).await;
        ended.map_or(RuntimeState::GaveUp, |state| *state)
    }

    /// How healthy the runtime and its kernels are, as the probe loop sees them.
    #[must_use]
    pub fn health(&self) -> RuntimeHealth {
        self.inner.probes.health(&self.inner.registry, self.state())
    }

    /// Whether the runtime is [ready](RuntimeHealth::ready), were it without the kernels of these names.
    #[must_use]
    pub fn ready_without(&self, excluded: &[&str]) -> bool {
        self.inner.probes.ready_without(&self.inner.registry, self.state(), excluded)
    }

    /// A subscription to everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.links.operator.subscribe()
    }

    /// Threads that were left behind and still block.
    #[must_use]
    pub fn abandoned_threads(&self) -> usize {
        self.inner.env.abandoned.alive()
    }

    /// The runtime's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.inner.links.timer.clock()
    }

    /// Asks the supervisor of a kernel; `None` for an unknown kernel, and when the supervisor is gone.
    async fn order<T>(&self, id: &str, order: impl FnOnce(u32, oneshot::Sender<T>) -> Order) -> Option<T> {
        let named = self.inner.registry.named(id)?;
        named.home.ask(|done| RecoveryMsg::Order(order(named.index, done))).await
    }
}

/// How long a shutdown waits for the last checkpoints to be stored.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

impl Drop for Inner {
    fn drop(&mut self) {
        self.recovery.stop(Some("the runtime was dropped".into()));
        self.breaker.stop(None);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("state", &self.state()).finish_non_exhaustive()
    }
}
