//! The runtime: it owns the timer, the recovery and breaker actors and the names, and is how users spawn kernels.

mod builder;
mod health;
mod registry;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorRef;
use rustkernel_core::KernelId;
use rustkernel_core::clock::Clock;
use rustkernel_core::error::DownReason;
use rustkernel_core::resilience::BreakerMachine;
use rustkernel_core::traits::{LocalKernel, Payload};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

pub use builder::{RuntimeBuilder, StartError};
pub use health::{KernelHealth, RuntimeHealth};

use crate::breaker::{BreakerCommand, BreakerMsg};
use crate::kernel_actor::Recipe;
use crate::kernel_ref::KernelRef;
use crate::lane::Abandoned;
use crate::links::Links;
use crate::operator::{DeadLetter, Events};
use crate::recovery::{ChildPlan, KernelStatus, RecoveryMsg, ShutdownReport};
use crate::slot::{Slot, Supervised};
use crate::spec::{Checked, KernelSpec, SpawnError};
use health::ProbeLoop;
use registry::Registry;

/// A supervision runtime on the current tokio runtime. Clones share it.
///
/// When the last clone is dropped without a [`shutdown`](Self::shutdown), all kernels are killed and everything that waits is answered.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    links: Arc<Links>,
    recovery: ActorRef<RecoveryMsg>,
    breaker: ActorRef<BreakerMsg>,
    registry: Arc<Registry>,
    abandoned: Abandoned,
    handle: Handle,
    probes: Arc<ProbeLoop>,
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

    /// Spawns a supervised kernel and waits until its first incarnation serves.
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
        let id = KernelId::new(&spec.id)?;
        let checked = spec.check().map_err(|source| SpawnError::Config { kernel: id.clone(), source })?;
        let Checked { rules, machine, factory, launcher, checkpointer, canary, shutdown, start_limit } =
            checked;
        let now = self.clock().now();
        let breaker = rules.breaker.clone().map(|config| BreakerMachine::try_new(config, now)).transpose();
        let breaker = breaker.map_err(|source| SpawnError::Config { kernel: id.clone(), source })?;
        let index = self.inner.registry.reserve(&id)?;
        let slot = Slot::new(id.clone(), index, rules, Arc::clone(&self.inner.links));
        self.inner.registry.fill(&id, index, &slot);
        let kernel = Arc::clone(&slot) as Arc<dyn crate::slot::Supervised>;
        if let Some(machine) = breaker {
            let machine = Box::new(machine);
            // A breaker actor that is gone leaves the gate closed; so does its end later on.
            self.inner.links.to_breaker(BreakerMsg::Register {
                slot: index,
                kernel: Arc::clone(&kernel),
                machine,
            });
        }
        let recipe = Arc::new(Recipe { slot: Arc::clone(&slot), factory, checkpointer, canary });
        let launcher = launcher(recipe, self.inner.abandoned.clone(), self.inner.handle.clone());
        let (registry, name) = (Arc::clone(&self.inner.registry), id.clone());
        let free_name = Box::new(move || registry.remove(&name, index));
        let plan = ChildPlan { kernel, launcher, machine, shutdown, start_limit, free_name };
        let (started, start) = oneshot::channel();
        let spawn = RecoveryMsg::Spawn { slot: index, plan, started };
        if self.inner.recovery.send_message(spawn).is_err() {
            // The slot could be found by its name already: whoever called it is answered.
            slot.close(DownReason::SupervisorGone);
            self.inner.registry.remove(&id, index);
            return Err(SpawnError::RuntimeGone);
        }
        match start.await {
            Ok(Ok(())) => {
                self.inner.probes.look(index, &*slot);
                Ok(KernelRef { slot })
            }
            Ok(Err(cause)) => Err(SpawnError::Start { kernel: id, cause }),
            Err(_) => {
                slot.close(DownReason::SupervisorGone);
                self.inner.registry.remove(&id, index);
                Err(SpawnError::RuntimeGone)
            }
        }
    }

    /// The kernel of this name and these types, if there is one.
    #[must_use]
    pub fn kernel<I: Payload, O: Payload>(&self, id: &str) -> Option<KernelRef<I, O>> {
        self.inner.registry.slot(id).map(|slot| KernelRef { slot })
    }

    /// How all kernels are, in start order; empty when the runtime is gone.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn status(&self) -> Vec<KernelStatus> {
        self.ask(|reply| RecoveryMsg::Status { reply }).await.unwrap_or_default()
    }

    /// Gives an isolated kernel a new incarnation and a full restart budget. `false` for an unknown one and for one that
    /// needs no resuming.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn resume(&self, id: &str) -> bool {
        let Some(slot) = self.inner.registry.index(id) else { return false };
        self.ask(|done| RecoveryMsg::Resume { slot, done }).await.unwrap_or(false)
    }

    /// Kills the kernel's incarnation, as a failure would end it: its recovery policy applies. `false` if none lives.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn kill(&self, id: &str) -> bool {
        let Some(slot) = self.inner.registry.index(id) else { return false };
        self.ask(|done| RecoveryMsg::Kill { slot, done }).await.unwrap_or(false)
    }

    /// Sets the kernel's breaker by hand. `false` for an unknown kernel and for one without a breaker.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn breaker(&self, id: &str, command: BreakerCommand) -> bool {
        let Some(slot) = self.inner.registry.index(id) else { return false };
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
        let Some(slot) = self.inner.registry.index(id) else { return false };
        self.ask(|done| RecoveryMsg::Stop { slot, drain, done }).await.is_some()
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
        let report = self.ask(|done| RecoveryMsg::Shutdown { grace, done }).await?;
        let mut state = self.inner.state.clone();
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

    /// A subscription to everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.links.operator.subscribe()
    }

    /// How many requests were given up for good, and the last 1024 of them, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> (u64, Vec<DeadLetter>) {
        self.inner.links.operator.dead_letters()
    }

    /// Threads that were left behind and still block.
    #[must_use]
    pub fn abandoned_threads(&self) -> usize {
        self.inner.abandoned.alive()
    }

    /// The runtime's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.inner.links.timer.clock()
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> RecoveryMsg) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inner.recovery.send_message(message(reply)).ok()?;
        answer.await.ok()
    }
}

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
