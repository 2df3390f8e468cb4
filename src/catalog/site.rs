//! Where and by which rules a prepared kernel is spawned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use rustkernel_actors::{KernelSpec, Pipeline, Runtime, SpawnError, register};
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Kernel;

use super::{AnyPipeline, Settings, SettingsError, Value};
use crate::config::{Placement, QueueConfig, StageConfig};
use crate::inject::{FaultPlan, Faulty, Injector};

/// A kernel with its settings checked: what is left is to spawn it.
pub(crate) type Prepared = Box<dyn Fn(Site) -> Spawning + Send + Sync>;

type Spawning = Pin<Box<dyn Future<Output = Result<AnyPipeline, SpawnError>> + Send>>;

/// Where and by which rules a kernel is spawned.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) runtime: Runtime,
    pub(crate) stage: StageConfig,
    pub(crate) injector: Option<Injector>,
    /// Rounds that a repeated stage has made, for those who watch.
    pub(crate) rounds: Arc<AtomicU32>,
}

impl Site {
    /// Spawns the kernel that `make` makes and leads to it, through `shape`, from values of run-time types. `call` tells its calls
    /// apart by their input.
    pub(crate) async fn spawn<K>(
        &self,
        call: fn(&K::Input) -> u64,
        make: impl Fn() -> Result<K, KernelError> + Send + Sync + 'static,
        shape: impl FnOnce(Pipeline<K::Input, K::Output>) -> Pipeline<K::Input, K::Output>,
    ) -> Result<AnyPipeline, SpawnError>
    where
        K: Kernel,
        K::Input: Serialize + DeserializeOwned,
        K::Output: Serialize + DeserializeOwned,
    {
        let faults = self.injector.map(|injector| FaultPlan::new(injector, self.stage.id(), call));
        let spec = KernelSpec::fallible(self.stage.id(), move || Ok(Faulty::new(make()?, faults.clone())));
        let kernel = self.runtime.spawn(self.rules(spec.registered(&register()))).await?;
        let typed = shape(Pipeline::from(kernel));
        Ok(Pipeline::start().try_map(Value::take).then(typed).map(Value::new))
    }

    /// Notes that the stage has made another round.
    pub(crate) fn round_counter(&self) -> impl Fn() + Send + Sync + 'static {
        let rounds = Arc::clone(&self.rounds);
        move || {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rules<K: Kernel>(&self, spec: KernelSpec<K>) -> KernelSpec<K> {
        let StageConfig {
            kernel: _,
            name: _,
            settings: _,
            repeat: _,
            placement,
            idempotent,
            conviction_limit,
            retry,
            recovery,
            restart_window,
            breaker,
            hang_limit,
            hang_after,
            queue: QueueConfig { requests, bytes },
        } = self.stage.clone();
        let spec = match placement {
            Placement::Thread => spec,
            Placement::Inline => spec.inline(),
        };
        let spec = if idempotent { spec.idempotent() } else { spec };
        spec.conviction_limit(conviction_limit)
            .retry(retry)
            .recovery(recovery)
            .restart_window(restart_window)
            .breaker(breaker)
            .hang_limit(hang_limit)
            .hang_after(hang_after)
            .queue(requests, bytes)
    }
}

impl Settings<'_> {
    /// The settings as the kernel's own type.
    pub(crate) fn read<T: DeserializeOwned + Default>(&self) -> Result<T, SettingsError> {
        match &self.0 {
            Some(table) => {
                T::deserialize(toml::de::Deserializer::from(table.clone())).map_err(SettingsError::Read)
            }
            None => Ok(T::default()),
        }
    }
}
