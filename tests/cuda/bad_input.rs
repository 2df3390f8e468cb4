//! What is missing or wrong is said, with what to do about it, and the rest goes on.

use rustkernel::actors::{KernelSpec, Runtime, SpawnError};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{ErrorKind, HealthStatus};
use rustkernel::core::traits::{Context, Kernel};
use rustkernel::worker::{Domain, DomainConfig, DomainState};

use crate::device::Order;
use crate::kit::{NONE, assert_balanced, soon};
use crate::{command, config, domain, rig};

/// Answers whatever happens to the kernels beside it.
struct Echo;

impl Kernel for Echo {
    type Input = u64;
    type Output = u64;

    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> rustkernel::core::Result<u64> {
        Ok(*input)
    }
}

/// Why no kernel can live in the domain. The rest of the tree serves.
async fn refusal(config: DomainConfig) -> (SpawnError, Domain) {
    let domain = Domain::start("gpu", config).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let echo = soon(runtime.spawn(KernelSpec::new("a/echo", || Echo))).await.unwrap();
    let error = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap_err();
    assert_eq!(soon(echo.execute(7)).await.unwrap(), 7, "{error}");
    assert!(runtime.health().ready, "{error}");
    (error, domain)
}

#[tokio::test]
async fn a_machine_without_a_driver_or_a_device_is_told_so_once() {
    let without = DomainConfig { worker: command("").env("LD_LIBRARY_PATH", ""), ..DomainConfig::cuda(0) };
    let rows = [
        (without, "no CUDA driver", "install NVIDIA's driver"),
        (config("count=0"), "no CUDA device: the driver finds none", "nvidia-smi"),
        (config("cuInit=100"), "no CUDA device: the driver finds none", "CUDA_VISIBLE_DEVICES"),
        (config("version=11080"), "is of CUDA 11.8, and has to be of 12.0", "install a driver of CUDA 12"),
        (config("cuInit=803"), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "use another device"),
    ];
    for (config, said, advice) in rows {
        if said == "no CUDA driver" && std::path::Path::new("/dev/nvidiactl").exists() {
            continue;
        }
        let (error, domain) = refusal(config).await;
        let text = error.to_string();
        assert!(text.contains(said) && text.contains(advice), "{text}");
        let status = domain.status();
        assert_eq!((status.state, status.deaths), (DomainState::Down, 1), "it is not tried again and again");
        assert_eq!(status.health().status, HealthStatus::Unhealthy);
    }
}

#[tokio::test]
async fn a_device_that_there_is_not_is_named() {
    let missing = DomainConfig { device: Some(rustkernel::core::DeviceId::cuda(7)), ..config("count=2") };
    let (error, _) = refusal(missing).await;
    assert!(error.to_string().contains("no CUDA device cuda:7: there are 2"), "{error}");
}

#[tokio::test]
async fn a_device_that_computes_wrongly_is_not_used() {
    // Its copies are said to be done already, and are not.
    let (error, domain) = refusal(config("cuMemcpyHtoDAsync_v2=708")).await;
    assert!(error.to_string().contains("cuda:0 computes wrongly"), "{error}");
    assert_eq!(domain.status().deaths, 1);
}

#[tokio::test]
async fn what_a_device_cannot_do_is_refused_before_it_is_launched() {
    let domain = domain("");
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    let launch = |threads, shared_bytes| Order::Launch { threads, shared_bytes };
    let old = "//\n.version 9.9\n.target sm_75\n.address_size 64\n.visible .entry f()\n{\nret;\n}\n";
    let rows = [
        (launch(2_000, 0), "2000 threads a block are more than 1024", "launch fewer threads"),
        (launch(0, 0), "0 threads in x are not from 1 to 1024", "launch fewer threads"),
        (launch(1, 300_000), "300000 bytes of shared memory are more than", "with less shared memory"),
        (launch(1, 60_000), "need `allow_shared`", "with less shared memory"),
        (Order::Load(old.into()), "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "PTX of an older version"),
        (Order::Load("no ptx".into()), "CUDA_ERROR_INVALID_PTX", "provide a cubin"),
        (Order::Load("a\0b".into()), "zero byte", "take the zero byte out"),
        (Order::Find("rk_nobody".into()), "cuModuleGetFunction failed with CUDA_ERROR_NOT_FOUND", "; "),
    ];
    for (order, said, advice) in rows {
        let error = soon(kernel.call(order.clone(), NONE)).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Permanent), "{order:?}");
        let text = error.to_string();
        assert!(text.contains(said) && text.contains(advice), "{order:?}: {text}");
    }
    assert_eq!(soon(kernel.call(Order::Add(vec![1], 1), NONE)).await.unwrap().values, [2]);
    assert_eq!(domain.status().deaths, 0);
    assert_balanced(&kernel);
}
