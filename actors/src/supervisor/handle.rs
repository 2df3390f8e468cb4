//! What people can ask of a running supervisor.

use std::fmt;
use std::sync::{Arc, Weak};

use rustkernel_core::KernelId;
use rustkernel_core::supervision::Counts;
use rustkernel_core::traits::LocalKernel;
use tokio::sync::oneshot;

use super::{Supervisor, declare_task};
use crate::kernel_ref::KernelRef;
use crate::recovery::{Arriving, ChildError, ChildStatus, Declared, Node, Order, RecoveryMsg};
use crate::runtime::Inner;
use crate::spec::{Declaring, KernelSpec, SpawnError};
use crate::task::Task;

/// The stable address of a supervisor. It stays valid when the supervisor is restarted; while it is down, everything asked of
/// it fails as [`ChildError::SupervisorGone`].
#[derive(Clone)]
pub struct SupervisorRef {
    node: Arc<Node>,
    runtime: Weak<Inner>,
}

impl SupervisorRef {
    pub(crate) fn new(node: Arc<Node>, runtime: Weak<Inner>) -> Self {
        Self { node, runtime }
    }

    /// The supervisor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Starts a kernel as the youngest child and waits until it serves.
    ///
    /// # Errors
    /// [`SpawnError`] says what is wrong with the spec, or why the kernel did not start. Nothing is left behind.
    ///
    /// # Cancel safety
    /// A dropped start goes on.
    pub async fn start_kernel<K: LocalKernel>(
        &self,
        spec: KernelSpec<K>,
    ) -> Result<KernelRef<K::Input, K::Output>, SpawnError> {
        let runtime = self.runtime.upgrade().ok_or(SpawnError::RuntimeGone)?;
        let id = KernelId::new(&spec.id)?;
        let checked = spec.check().map_err(|source| SpawnError::Config { kernel: id.clone(), source })?;
        let (declared, slot) = checked.declare(&self.declaring(&runtime))?;
        self.start(declared).await.map_err(|error| match error {
            Unstarted::Failed(cause) => SpawnError::Start { kernel: id, cause },
            Unstarted::Other(error) => error,
        })?;
        runtime.probes.look(slot.index, &*slot);
        Ok(KernelRef { slot })
    }

    /// Starts a task as the youngest child and waits until it is up.
    ///
    /// # Errors
    /// As [`start_kernel`](Self::start_kernel).
    ///
    /// # Cancel safety
    /// A dropped start goes on.
    pub async fn start_task(&self, task: Task) -> Result<(), SpawnError> {
        let declared = declare_task(task)?;
        let child = declared.name().to_string();
        self.start(declared).await.map_err(|error| error.of(child))
    }

    /// Starts a supervisor with everything below it as the youngest child, and waits until all of that is up.
    ///
    /// # Errors
    /// As [`start_kernel`](Self::start_kernel); everything in the tree is checked before any of it starts.
    ///
    /// # Cancel safety
    /// A dropped start goes on.
    pub async fn start_supervisor(&self, supervisor: Supervisor) -> Result<Self, SpawnError> {
        let runtime = self.runtime.upgrade().ok_or(SpawnError::RuntimeGone)?;
        let declared = supervisor.declare(&self.declaring(&runtime))?;
        let name = declared.name().to_string();
        self.start(declared).await.map_err(|error| error.of(name.clone()))?;
        let gone = || SpawnError::SupervisorGone(name.clone());
        let node = runtime.registry.supervisor(&name).ok_or_else(gone)?;
        for plan in node.kernels() {
            runtime.probes.look(plan.slot, &*plan.kernel);
        }
        Ok(Self::new(node, Weak::clone(&self.runtime)))
    }

    /// Ends a child and waits until it is gone; one that waits for its restart is not restarted. It stays a child that is down, unless it
    /// is temporary or dynamic: then it is forgotten. One that is down already is as it should be.
    ///
    /// # Errors
    /// No such child, or the supervisor is gone.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn terminate_child(&self, name: &str) -> Result<(), ChildError> {
        let name = name.into();
        Ok(self.ask(|done| Order::Terminate { name, done }).await??)
    }

    /// Starts a child that is down, and waits until it is up. If it does not start, it stays down.
    ///
    /// # Errors
    /// [`ChildError`] says why not.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn restart_child(&self, name: &str) -> Result<(), ChildError> {
        let name = name.into();
        self.ask(|started| Order::Restart { name, started }).await?
    }

    /// Forgets a child that is down, and frees its names.
    ///
    /// # Errors
    /// [`ChildError`] says why not.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn delete_child(&self, name: &str) -> Result<(), ChildError> {
        let name = name.into();
        Ok(self.ask(|done| Order::Delete { name, done }).await??)
    }

    /// Kills the present life of a task or a supervisor, as a failure would end it: its restart type applies. `false` if none lives. A
    /// kernel is killed through [`Runtime::kill`](crate::Runtime::kill).
    ///
    /// # Errors
    /// The supervisor is gone.
    ///
    /// # Cancel safety
    /// A dropped order is carried out.
    pub async fn kill_child(&self, name: &str) -> Result<bool, ChildError> {
        let name = name.into();
        self.ask(|done| Order::KillChild { name, done }).await
    }

    /// The children, in start order.
    ///
    /// # Errors
    /// The supervisor is gone.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn which_children(&self) -> Result<Vec<ChildStatus>, ChildError> {
        self.ask(|reply| Order::Which { reply }).await
    }

    /// How many children there are.
    ///
    /// # Errors
    /// The supervisor is gone.
    ///
    /// # Cancel safety
    /// A dropped question changes nothing.
    pub async fn count_children(&self) -> Result<Counts, ChildError> {
        self.ask(|reply| Order::Count { reply }).await
    }

    fn declaring<'a>(&'a self, runtime: &'a Inner) -> Declaring<'a> {
        Declaring { env: &runtime.env, registry: &runtime.registry, home: &self.node.home }
    }

    /// Hands a declared child over and waits until it is up.
    async fn start(&self, declared: Declared) -> Result<(), Unstarted> {
        let child = declared.name().to_string();
        let (started, start) = oneshot::channel();
        let order = Order::StartChild { child: Box::new(Arriving::new(declared)), started };
        let sent = self.node.home.tell(RecoveryMsg::Order(order));
        let outcome = if sent { start.await.ok() } else { None };
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(ChildError::Failed(cause))) => Err(Unstarted::Failed(cause)),
            Some(Err(ChildError::Refused(source))) => {
                Err(Unstarted::Other(SpawnError::Refused { child, source }))
            }
            Some(Err(ChildError::SupervisorGone)) | None => Err(Unstarted::Other(self.gone())),
        }
    }

    fn gone(&self) -> SpawnError {
        let is_root = self.runtime.upgrade().is_none_or(|runtime| Arc::ptr_eq(&runtime.root, &self.node));
        if is_root { SpawnError::RuntimeGone } else { SpawnError::SupervisorGone(self.node.name.to_string()) }
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ChildError> {
        let answer = self.node.home.ask(|reply| RecoveryMsg::Order(order(reply))).await;
        answer.ok_or(ChildError::SupervisorGone)
    }
}

/// Why a child is not there.
enum Unstarted {
    Failed(crate::cause::Cause),
    Other(SpawnError),
}

impl Unstarted {
    fn of(self, child: String) -> SpawnError {
        match self {
            Self::Failed(cause) => SpawnError::Child { child, cause },
            Self::Other(error) => error,
        }
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SupervisorRef").field(&self.node.name).finish()
    }
}
