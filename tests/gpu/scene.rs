//! A supervised scene: a runtime, worker processes on the first device, kernels in them.

use std::future::Future;
use std::time::Duration;

use rustkernel::actors::{KernelRef, Runtime};
use rustkernel::core::envelope::Deadline;
use rustkernel::core::resilience::RecoveryPolicy;
use rustkernel::core::traits::LocalKernel;
use rustkernel::worker::{Domain, DomainConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::{Order, Rig, Told};
use crate::row::{Halt, ensure};

pub(crate) type RigRef = KernelRef<Order, Told>;

/// Runs what a row does, on threads as a service has them.
pub(crate) fn play<T>(scene: impl Future<Output = Result<T, Halt>>) -> Result<T, Halt> {
    tokio()?.block_on(scene)
}

pub(crate) fn tokio() -> Result<tokio::runtime::Runtime, Halt> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

pub(crate) async fn runtime() -> Result<Runtime, Halt> {
    Runtime::builder().build().await.map_err(Halt::fail)
}

/// A domain on the first device that may lose as many workers as it takes.
pub(crate) fn domain(name: &'static str, config: DomainConfig) -> Result<Domain, Halt> {
    Domain::start(name, DomainConfig { max_deaths: u32::MAX, ..config }).map_err(Halt::fail)
}

/// What the workers know as `name`, restarted at once and as often as it takes, without a breaker.
pub(crate) async fn place<K>(
    runtime: &Runtime,
    domain: &Domain,
    name: &str,
) -> Result<KernelRef<K::Input, K::Output>, Halt>
where
    K: LocalKernel<Input: Serialize + DeserializeOwned, Output: Serialize + DeserializeOwned>,
{
    let recovery =
        RecoveryPolicy { max_restarts: u32::MAX, restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    let id = format!("{}/{name}", domain.name());
    let spec = domain.kernel::<K>(id, name, &0_u16).breaker(None).recovery(recovery);
    runtime.spawn(spec).await.map_err(Halt::fail)
}

pub(crate) async fn rig(runtime: &Runtime, domain: &Domain) -> Result<RigRef, Halt> {
    place::<Rig>(runtime, domain, "rig").await
}

/// A sum that is right, and the process that gave it.
pub(crate) async fn works(kernel: &RigRef) -> Result<u32, Halt> {
    let told = kernel.call(Order::Add(vec![1, 2, 3], 10), Deadline::None).await?;
    ensure(told.values == [11, 12, 13], || format!("1, 2, 3 and 10 give {:?}", told.values))?;
    Ok(told.pid)
}

/// The same, as soon as there is an answer. A wrong one ends the row.
pub(crate) async fn works_again(kernel: &RigRef) -> Result<u32, Halt> {
    loop {
        match kernel.call(Order::Add(vec![1, 2, 3], 10), Deadline::None).await {
            Ok(told) if told.values == [11, 12, 13] => return Ok(told.pid),
            Ok(told) => return Err(Halt::Fail(format!("1, 2, 3 and 10 give {:?}", told.values))),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Waits until the spare worker is warm, and says which process it is.
pub(crate) async fn spare(domain: &Domain) -> u32 {
    loop {
        if let Some(pid) = domain.status().spare {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}
