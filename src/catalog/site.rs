//! Where and by which rules a prepared kernel is spawned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use rustkernel_actors::{KernelRef, KernelSpec, Pipeline, Runtime, SpawnError, Supervisor, register};
use rustkernel_core::DeviceId;
use rustkernel_core::codec::{self, CodecError};
use rustkernel_core::device::DeviceKind;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::{Kernel, LocalKernel, Payload};

use super::{AnyPipeline, Domains, Sections, Settings, SettingsError, Value};
use crate::config::{Placement, QueueConfig, StageConfig};
use crate::cursor::Cursor;
use crate::inject::{FaultPlan, Faulty, Injector};
use crate::worker::Remote;

/// A kernel with its settings checked: what is left is to make it for a stage.
pub(crate) type Prepared = Box<dyn Fn(&Site) -> Made + Send + Sync>;

/// A stage's kernel, ready to be put under a supervisor.
pub(crate) struct Made {
    pub(crate) spec: Box<dyn Planted>,
    pub(crate) way: Way,
}

/// The way to a stage's kernel.
pub(crate) struct Way {
    /// What leads to the kernel once it is there, from and to values of run-time types, for a value that has so many of the stage's
    /// rounds behind it: 0 for one that comes from the stage before.
    pub(crate) connect: Connect,
    /// Reads the stage's input as an earlier process has written it down.
    pub(crate) decode: fn(&[u8]) -> Result<Value, CodecError>,
}

type Connect = Box<dyn Fn(&Runtime, u32) -> Option<AnyPipeline> + Send>;
type Spawning = Pin<Box<dyn Future<Output = Result<(), SpawnError>> + Send>>;

/// A kernel's spec, whatever its type.
pub(crate) trait Planted: Send {
    /// Puts it into a tree.
    fn plant(self: Box<Self>, under: Supervisor) -> Supervisor;
    /// Spawns it under the root.
    fn spawn(self: Box<Self>, runtime: Runtime) -> Spawning;
}

impl<K: LocalKernel> Planted for KernelSpec<K> {
    fn plant(self: Box<Self>, under: Supervisor) -> Supervisor {
        under.kernel(*self)
    }

    fn spawn(self: Box<Self>, runtime: Runtime) -> Spawning {
        Box::pin(async move { runtime.spawn(*self).await.map(drop) })
    }
}

/// Where and by which rules a kernel is spawned.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) stage: StageConfig,
    /// The stage's place in the job, from 0.
    pub(crate) index: u32,
    pub(crate) injector: Option<Injector>,
    /// Rounds that a repeated stage has made, for those who watch.
    pub(crate) rounds: Arc<AtomicU32>,
    /// Where the job's progress is written down, if anywhere.
    pub(crate) cursor: Option<Arc<Cursor>>,
    /// Rounds that it has made since its input came.
    pub(crate) made: Arc<AtomicU32>,
    /// The worker processes of the job.
    pub(crate) domains: Arc<Domains>,
}

/// How a stage's kernel is made: itself, and its degraded path if it has one. From its settings, which go to a worker as they are, and
/// here by what has been made of them.
pub(crate) struct Factories<K, C> {
    pub(crate) main: (C, Make<K>),
    pub(crate) degraded: Option<(C, Make<K>)>,
}

impl<K, C: Clone> Factories<K, C> {
    pub(crate) fn new(main: &C, degraded: Option<&C>, make: impl Fn(C) -> Make<K>) -> Self {
        let both = |settings: &C| (settings.clone(), make(settings.clone()));
        Self { main: both(main), degraded: degraded.map(both) }
    }
}

/// What a worker is sent of a kernel: its settings, its faults by the name they are drawn for, if there are any, and its device.
pub(crate) type Ordered<C> = (C, Option<(Injector, String)>, DeviceId);

/// The name under which a worker knows the version of a kernel for CUDA devices.
pub(super) fn on_cuda(kernel: &str) -> String {
    format!("{kernel}@cuda")
}

pub(crate) type Make<K> = Arc<dyn Fn() -> Result<K, KernelError> + Send + Sync>;

impl Site {
    /// The kernel that `factories` make, with what `dress` adds to its spec, behind a way from and to values of run-time types that
    /// goes through `shape`, which is told the rounds that were made before. `call` tells its calls apart by their input.
    pub(crate) fn make<K>(
        &self,
        call: fn(&K::Input) -> u64,
        factories: &Factories<K, impl Serialize>,
        dress: impl FnOnce(KernelSpec<Faulty<K>>) -> KernelSpec<Faulty<K>>,
        shape: impl Fn(Pipeline<K::Input, K::Output>, u32) -> Pipeline<K::Input, K::Output> + Send + 'static,
    ) -> Made
    where
        K: Kernel,
        K::Input: Serialize + DeserializeOwned + Clone,
        K::Output: Serialize + DeserializeOwned,
    {
        let spec: Box<dyn Planted> = match self.stage.placement {
            Placement::Thread => Box::new(dress(self.here(call, factories))),
            Placement::Inline => Box::new(dress(self.here(call, factories)).inline()),
            Placement::Process => Box::new(self.in_worker::<K>(factories)),
        };
        self.lead(spec, shape)
    }

    /// A kernel of this stage, behind a way from and to values of run-time types; see [`make`](Self::make).
    pub(crate) fn lead<I, O>(
        &self,
        spec: Box<dyn Planted>,
        shape: impl Fn(Pipeline<I, O>, u32) -> Pipeline<I, O> + Send + 'static,
    ) -> Made
    where
        I: Payload + Serialize + DeserializeOwned + Clone,
        O: Payload,
    {
        let id = self.stage.id().to_owned();
        let (cursor, stage, made) = (self.cursor.clone(), self.index, Arc::clone(&self.made));
        let connect = move |runtime: &Runtime, rounds_before: u32| {
            let kernel: KernelRef<I, O> = runtime.kernel(&id)?;
            let typed = shape(Pipeline::from(kernel), rounds_before);
            let (cursor, made) = (cursor.clone(), Arc::clone(&made));
            let note = move |input: I| {
                made.store(0, Ordering::Relaxed);
                if let Some(cursor) = &cursor {
                    cursor.note(stage, rounds_before, input.clone());
                }
                input
            };
            Some(Pipeline::start().try_map(Value::take).map(note).then(typed).map(Value::new))
        };
        let decode = |bytes: &[u8]| codec::decode_as::<I>(&I::schema(), bytes).map(Value::new);
        Made { spec, way: Way { connect: Box::new(connect), decode } }
    }

    /// The kernel in this process.
    fn here<K>(
        &self,
        call: fn(&K::Input) -> u64,
        factories: &Factories<K, impl Serialize>,
    ) -> KernelSpec<Faulty<K>>
    where
        K: Kernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    {
        let id = self.stage.id();
        let faults = self.injector.map(|injector| FaultPlan::new(injector, id, call));
        let faulty = |(_, make): &(_, Make<K>)| {
            let (faults, make) = (faults.clone(), Arc::clone(make));
            move || Ok(Faulty::new(make()?, faults.clone()))
        };
        let mut spec = KernelSpec::fallible(id, faulty(&factories.main));
        if let Some(degraded) = &factories.degraded {
            spec = spec.degraded_fallible(faulty(degraded));
        }
        if let Some(backup) = self.stage.backup {
            spec = spec.backup_fallible(backup, faulty(&factories.main));
        }
        self.rules(spec.registered(&register()))
    }

    /// The kernel in a worker process, its degraded path too, and its backup in another one.
    fn in_worker<K>(
        &self,
        factories: &Factories<K, impl Serialize>,
    ) -> KernelSpec<Remote<K::Input, K::Output>>
    where
        K: Kernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
    {
        let StageConfig { kernel, device, backup, checkpointed, .. } = &self.stage;
        let faults = self.injector.map(|injector| (injector, self.stage.id().to_owned()));
        let maker = |domain: &str, device: DeviceId, (settings, _): &(_, Make<K>)| {
            let name = match device.kind() {
                DeviceKind::Cpu => kernel.clone(),
                DeviceKind::Cuda => on_cuda(kernel),
            };
            self.domains.maker::<K>(domain, device, &name, &(settings, &faults, device))
        };
        let home = self.stage.domain();
        let mut spec = KernelSpec::elsewhere(self.stage.id(), maker(&home, *device, &factories.main));
        if let Some(degraded) = &factories.degraded {
            spec = spec.degraded_elsewhere(maker(&home, *device, degraded));
        }
        if let Some(backup) = backup {
            spec = spec.backup_elsewhere(*backup, maker(&backup.to_string(), *backup, &factories.main));
        }
        if *checkpointed {
            spec = spec.checkpointed();
        }
        self.rules(spec.registered(&register()))
    }

    /// Notes that the stage has made another round after the `before` of an earlier process, with what it has come to.
    pub(crate) fn round_counter<T: Payload + Clone + Serialize>(
        &self,
        before: u32,
    ) -> impl Fn(&T) + Send + Sync + 'static {
        let (rounds, made, cursor) = (Arc::clone(&self.rounds), Arc::clone(&self.made), self.cursor.clone());
        let stage = self.index;
        move |value| {
            rounds.fetch_add(1, Ordering::Relaxed);
            let round = made.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(cursor) = &cursor {
                cursor.note(stage, before + round, value.clone());
            }
        }
    }

    /// What the stage says about its kernel, whatever it is.
    pub(crate) fn rules<K: LocalKernel>(&self, spec: KernelSpec<K>) -> KernelSpec<K> {
        let StageConfig {
            kernel: _,
            name: _,
            settings: _,
            domain: _,
            degraded: _,
            repeat: _,
            placement: _,
            idempotent,
            checkpointed: _,
            checkpoint_every,
            checkpoint_after,
            replicas,
            device,
            backup: _,
            escalations,
            conviction_limit,
            retry,
            recovery,
            restart_window,
            restart,
            shutdown,
            significant,
            breaker,
            hang_limit,
            hang_after,
            queue: QueueConfig { requests, bytes },
        } = self.stage.clone();
        let spec = if idempotent { spec.idempotent() } else { spec };
        let spec = if significant { spec.significant() } else { spec };
        spec.conviction_limit(conviction_limit)
            .checkpoint_every(checkpoint_every)
            .checkpoint_after(checkpoint_after)
            .replicas(replicas)
            .device(device)
            .escalations(escalations)
            .retry(retry)
            .recovery(recovery)
            .restart_window(restart_window)
            .restart(restart)
            .shutdown(shutdown)
            .breaker(breaker)
            .hang_limit(hang_limit)
            .hang_after(hang_after)
            .queue(requests, bytes)
    }
}

impl Sections<'_> {
    /// The settings of the kernel and of its degraded path, each checked. An error names the section.
    pub(crate) fn read<T: DeserializeOwned + Default>(
        &self,
        check: impl Fn(&T) -> Result<(), SettingsError>,
    ) -> Result<(T, Option<T>), (&'static str, SettingsError)> {
        let read = |section, settings: &Settings<'_>| {
            let value: T = settings.read().map_err(|error| (section, error))?;
            check(&value).map_err(|error| (section, error))?;
            Ok(value)
        };
        let main = read("settings", &self.main)?;
        let degraded = self.degraded.as_ref().map(|settings| read("degraded", settings)).transpose()?;
        Ok((main, degraded))
    }
}

impl Settings<'_> {
    /// The settings as the kernel's own type.
    fn read<T: DeserializeOwned + Default>(&self) -> Result<T, SettingsError> {
        match &self.0 {
            Some(table) => {
                T::deserialize(toml::de::Deserializer::from(table.clone())).map_err(SettingsError::Read)
            }
            None => Ok(T::default()),
        }
    }
}
