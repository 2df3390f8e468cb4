//! A fault domain: the kernels in it live in one worker process and die together.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytemuck::Pod;
use rustkernel_actors::{DEFAULT_START_LIMIT, KernelSpec, Lifeline};
use rustkernel_core::DeviceId;
use rustkernel_core::clock::Clock;
use rustkernel_core::codec;
use rustkernel_core::error::KernelError;
use rustkernel_core::resilience::InvalidConfig;
use rustkernel_core::traits::LocalKernel;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::alone::Alone;
use super::config::{DomainConfig, DomainState, DomainStatus};
use super::host::is_worker;
use super::keeper::Keeper;
use super::mailbox::{Attach, Attached, Mail, Mailbox};
use super::memory::Memory;
use super::pool::Pool;
use super::remote::Remote;
use super::shared::SharedSlice;

/// A fault domain: one worker process at a time, and the kernels in it.
///
/// A panic there ends its kernel alone. Whatever ends the process (a crash, a kill, a kernel that does not stop) ends all its kernels, and is
/// one event: another process is there, at once where a [spare](DomainConfig::spare) is warm, and every kernel is restarted in it at no
/// cost to itself. What was in hand is suspect: it is run again alone, if it may run twice at all, and only a request that is alone
/// when the process dies is convicted.
///
/// Clones are the same domain. The process ends with the last clone and the last kernel that can be made in it.
#[derive(Clone)]
pub struct Domain(Arc<Shared>);

pub(super) struct Shared {
    name: Arc<str>,
    device: Option<DeviceId>,
    start_limit: Duration,
    mailbox: Arc<Mailbox>,
    status: Arc<Mutex<DomainStatus>>,
    memory: Arc<Pool>,
    /// Held by everything that runs in the domain.
    pub(super) alone: Alone,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Why there is no domain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// This process is a worker itself.
    #[error(
        "this process was started as a worker, and would start workers of its own: its main has to begin with rustkernel::init"
    )]
    InWorker,
    /// The system gives no thread, or no file descriptors.
    #[error("a domain cannot be watched over")]
    Io(#[from] io::Error),
}

impl Domain {
    /// A domain called `name`, whose first process is being started. It is watched over by a thread of its own.
    ///
    /// # Errors
    /// [`DomainError`] says why not. That no process can be started is told to the first kernel that needs one.
    pub fn start(name: impl Into<Arc<str>>, config: DomainConfig) -> Result<Self, DomainError> {
        config.validate()?;
        if is_worker() {
            return Err(DomainError::InWorker);
        }
        let name = name.into();
        let mailbox = Mailbox::new()?;
        let status = Arc::new(Mutex::new(DomainStatus::new()));
        let (device, start_limit) = (config.device, config.start_limit);
        let memory = Pool::new(Memory::new()?, config.holds_gpu());
        let own = Arc::clone(&memory);
        let keeper = Keeper::new(Arc::clone(&name), config, Arc::clone(&mailbox), Arc::clone(&status), own);
        let keeper = thread::Builder::new().name(format!("domain {name}")).spawn(move || keeper.keep())?;
        let keeper = Mutex::new(Some(keeper));
        let alone = Alone::default();
        Ok(Self(Arc::new(Shared { name, device, start_limit, mailbox, status, memory, alone, keeper })))
    }

    /// The domain's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The device that its processes hold.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.0.device
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> DomainStatus {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Room for `len` values in memory that the domain's workers read where it lies, whichever of them it is. What is in it is not said.
    ///
    /// # Errors
    /// [Exhausted](rustkernel_core::resilience::ErrorKind::Exhausted) where there is not so much memory.
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<SharedSlice<T>, KernelError> {
        SharedSlice::alloc_in(Some(&self.0.memory), len)
    }

    /// A copy of `values` there.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn copy_of<T: Pod>(&self, values: &[T]) -> Result<SharedSlice<T>, KernelError> {
        let mut copy = self.alloc(values.len())?;
        copy.fresh().copy_from_slice(values);
        Ok(copy)
    }

    /// A kernel called `id` that lives in this domain: what the worker knows as `name`, made from `settings`. Payloads go there and back as
    /// bytes, large ones through shared memory. Without checkpoints, unless [`checkpointed`](KernelSpec::checkpointed) is said and the kernel
    /// is registered with them.
    pub fn kernel<K>(
        &self,
        id: impl Into<String>,
        name: &str,
        settings: &impl Serialize,
    ) -> KernelSpec<Remote<K::Input, K::Output>>
    where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    {
        // Its first start may have to wait for the process.
        let start_limit = DEFAULT_START_LIMIT + self.0.start_limit;
        let spec = KernelSpec::elsewhere(id, self.maker::<K>(name, settings)).start_limit(start_limit);
        match self.0.device {
            Some(device) => spec.device(device),
            None => spec,
        }
    }

    /// What makes the kernel's lives here: for [`KernelSpec::elsewhere`] and [`KernelSpec::backup_elsewhere`].
    pub fn maker<K>(&self, name: &str, settings: &impl Serialize) -> Maker<K::Input, K::Output>
    where
        K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    {
        let (domain, name) = (self.clone(), Arc::<str>::from(name));
        let settings: Result<Arc<[u8]>, String> =
            codec::encode(settings).map(Arc::from).map_err(|error| error.to_string());
        Box::new(move |lifeline| {
            let (domain, name, settings) = (domain.clone(), Arc::clone(&name), settings.clone());
            Making::of(async move {
                let settings = settings.map_err(|error| {
                    KernelError::permanent(format!("the kernel's settings cannot be sent: {error}"))
                })?;
                Remote::attach(domain, name, settings, lifeline).await
            })
        })
    }

    /// Ends the processes and waits until they are gone. Kernels that live there are lost, and start nowhere. Blocks its thread.
    pub fn close(&self) {
        self.0.mailbox.post(Mail::Close);
        let keeper = self.0.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // A keeper that panicked has said so.
            let _ = keeper.join();
        }
    }

    /// Waits until the worker is up or has failed, `limit` at most. Blocks its thread.
    #[must_use]
    pub fn wait_until_decided(&self, limit: Duration) -> DomainStatus {
        let clock = Clock::system();
        let until = clock.now() + limit;
        loop {
            let status = self.status();
            if status.state != DomainState::Starting || clock.now() >= until {
                return status;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// A place in the worker for a life.
    pub(super) async fn attach(
        &self,
        name: Arc<str>,
        settings: Arc<[u8]>,
        lifeline: Lifeline,
    ) -> Result<Attached, KernelError> {
        let (attached, place) = oneshot::channel();
        self.0.mailbox.post(Mail::Attach(Attach { lifeline, name, settings, attached }));
        let closed = || KernelError::permanent(format!("the domain {} is closed", self.name()));
        place.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Makes the lives of a kernel in a worker.
pub type Maker<I, O> = Box<dyn Fn(Lifeline) -> Making<I, O> + Send + Sync>;

/// A life of a kernel that is being made in a worker.
#[must_use]
pub struct Making<I, O>(Pin<Box<dyn Future<Output = Made<I, O>> + Send>>);

type Made<I, O> = Result<Remote<I, O>, KernelError>;

impl<I, O> Making<I, O> {
    pub(crate) fn of(making: impl Future<Output = Made<I, O>> + Send + 'static) -> Self {
        Self(Box::pin(making))
    }
}

impl<I, O> Future for Making<I, O> {
    type Output = Made<I, O>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever drops the last of it may be the keeper itself: nobody waits.
        self.mailbox.post(Mail::Close);
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl<I, O> fmt::Debug for Making<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Making").finish_non_exhaustive()
    }
}
