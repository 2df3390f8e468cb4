//! The rows of the fault model, from the fault to the first correct answer.

use rustkernel::actors::{Cause, Runtime};
use rustkernel::core::DeviceId;
use rustkernel::core::error::{BreakerScope, KernelErrorKind, RetryAdvice};
use rustkernel::core::fault::FaultCode;
use rustkernel::core::resilience::{ErrorKind, HealthStatus};
use rustkernel::cuda::DeviceWatch;
use rustkernel::worker::{Domain, DomainConfig, DomainState};

use crate::device::{Order, Told};
use crate::kit::{NONE, assert_balanced, kind, ms, soon, status};
use crate::{RigRef, back, config, domain, found, is_inside, rig, spare};

pub(crate) fn add() -> Order {
    Order::Add(vec![1, 2, 3], 10)
}

pub(crate) async fn works(kernel: &RigRef) -> Told {
    let told = soon(kernel.call(add(), NONE)).await.unwrap();
    assert_eq!(told.values, [11, 12, 13]);
    told
}

async fn runtime() -> Runtime {
    Runtime::builder().build().await.unwrap()
}

#[tokio::test]
async fn a_kernel_on_a_device_computes_and_its_status_names_the_device() {
    let domain = domain("");
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    works(&kernel).await;
    assert_eq!(soon(kernel.call(Order::Many(1_000), NONE)).await.unwrap().values, [1_000]);
    assert_eq!(status(&runtime, "a/b").await.device, DeviceId::cuda(0));
    assert_eq!(domain.status().health().status, HealthStatus::Healthy);
}

/// Nothing that the device says afterwards is believed, and the process is the spare one's.
#[tokio::test]
async fn a_sticky_fault_ends_the_process_and_the_spare_one_answers_correctly() {
    let domain = domain("");
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    let rows = [
        ("rk_fault_illegal_address", "CUDA_ERROR_ILLEGAL_ADDRESS (CUDA 700)"),
        ("rk_fault_assert", "CUDA_ERROR_ASSERT (CUDA 710)"),
        ("rk_fault_trap", "CUDA_ERROR_LAUNCH_FAILED (CUDA 719)"),
        ("rk_fault_misaligned", "CUDA_ERROR_MISALIGNED_ADDRESS (CUDA 716)"),
        ("rk_fault_stack", "CUDA_ERROR_HARDWARE_STACK_ERROR (CUDA 714)"),
    ];
    for (number, (fault, named)) in rows.into_iter().enumerate() {
        let before = works(&kernel).await.pid;
        let warm = spare(&domain).await;
        let error = soon(kernel.call(Order::Fault(fault.into()), NONE)).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Crashed, "{error}");
        let text = error.to_string();
        assert!(text.contains(named) && text.contains("cuda:0 is lost to it"), "{text}");
        let after = works(&kernel).await.pid;
        assert_eq!(after, warm, "{fault}");
        assert_ne!(after, before);
        let now = status(&runtime, "a/b").await;
        assert!(matches!(now.last_failure, Some(Cause::DomainLost(_))), "{:?}", now.last_failure);
        assert_eq!((now.restarts, domain.status().deaths), (0, number as u64 + 1));
    }
    assert_balanced(&kernel);
}

#[tokio::test]
async fn scripted_codes_of_hardware_and_of_newer_drivers_are_faults_too() {
    const TEST: &str = "faults::scripted_codes_of_hardware_and_of_newer_drivers_are_faults_too";
    // What the hardware does is remembered by the process, of the device.
    if !is_inside(TEST, &[]) {
        return;
    }
    for (code, named) in [
        ("726", "unknown CUDA error"),
        ("999", "CUDA_ERROR_UNKNOWN"),
        ("214", "CUDA_ERROR_ECC_UNCORRECTABLE"),
    ] {
        let marker = tempfile(code);
        // The probe is the first kernel of a process.
        let domain = domain(&format!("kernel@3={code},first={marker}"));
        let runtime = runtime().await;
        let kernel = soon(runtime.spawn(rig(&domain, "a/b").idempotent())).await.unwrap();
        works(&kernel).await;
        let told = works(&kernel).await;
        assert_eq!((told.attempt, told.suspect), (2, true), "{code}");
        let last = domain.status().last_death.unwrap();
        assert!(last.contains(named), "{last}");
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn without_a_spare_a_cold_process_answers() {
    let cold = Domain::start("gpu", DomainConfig { spare: false, ..config("context_ms=20") }).unwrap();
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&cold, "a/b"))).await.unwrap();
    let queued = kernel.try_call(Order::Fault("rk_fault_trap".into()), NONE).unwrap();
    let waiting = kernel.try_call(add(), NONE).unwrap();
    soon(queued).await.unwrap_err();
    // Open from the fault until a process has asked the device: nothing new comes in, and what is there stays.
    let error = soon(kernel.call(add(), NONE)).await.unwrap_err();
    let KernelErrorKind::Rejected(rejection) = error.kind() else { panic!("{error}") };
    assert_eq!(rejection.scope, BreakerScope::Domain);
    assert!(!runtime.health().ready, "nobody is told that it is well");
    assert_eq!(soon(waiting).await.unwrap().values, [11, 12, 13]);
    works(&kernel).await;
    assert!(runtime.health().ready);
    assert_eq!((cold.status().deaths, cold.status().generation), (1, 2));
    let faults = DeviceWatch::of(DeviceId::cuda(0)).faults();
    assert!(faults.iter().any(|(fault, _)| fault.code == FaultCode::Cuda(719)), "{faults:?}");
}

/// A kernel on the device that reads its flag ends, and its process goes on.
#[tokio::test]
async fn a_launch_that_runs_past_its_deadline_is_stopped_by_its_flag() {
    let domain = domain("");
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    let before = works(&kernel).await.pid;
    let spins = kernel.call(Order::Spin(60_000_000_000), ms(30));
    assert_eq!(kind(soon(spins).await), KernelErrorKind::DeadlineExceeded);
    assert_eq!(works(&kernel).await.pid, before, "nothing had to be killed");
    assert_eq!(domain.status().deaths, 0);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_launch_that_never_ends_costs_the_process_at_its_deadline() {
    let marker = tempfile("hang");
    let hangs = DomainConfig { kill_after: ms(20), ..config(&format!("hang@3,first={marker}")) };
    let domain = Domain::start("gpu", hangs).unwrap();
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    works(&kernel).await;
    let warm = spare(&domain).await;
    let error = soon(kernel.call(add(), ms(50))).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::DeadlineExceeded);
    assert_eq!(works(&kernel).await.pid, warm);
    let last = domain.status().last_death.unwrap();
    assert!(last.contains("does not end a request that was cancelled"), "{last}");
    assert_balanced(&kernel);
}

/// What was in flight beside the fault is unknown, and runs again alone; what does it again alone is convicted.
#[tokio::test]
async fn innocent_neighbours_are_answered_and_the_poisonous_input_is_convicted_alone() {
    let domain = domain("");
    let runtime = runtime().await;
    let guilty = soon(runtime.spawn(rig(&domain, "a/guilty").idempotent())).await.unwrap();
    let innocent = soon(runtime.spawn(rig(&domain, "a/innocent").idempotent())).await.unwrap();
    let beside = innocent.try_call(Order::Spin(50_000_000), NONE).unwrap();
    let error = soon(guilty.call(Order::Fault("rk_fault_illegal_address".into()), NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Crashed);
    assert_eq!(soon(beside).await.unwrap().values, [2], "it ran to its own limit");
    assert_eq!(runtime.dead_letters().1.len(), 1);
    back(&domain, 2).await;
    works(&guilty).await;
    works(&innocent).await;
    assert_balanced(&guilty);
    assert_balanced(&innocent);
}

/// Two of them in a row were two convictions: a dead letter of an input that had done nothing.
#[tokio::test]
async fn an_error_of_the_hardware_convicts_nobody() {
    if !is_inside("faults::an_error_of_the_hardware_convicts_nobody", &[]) {
        return;
    }
    let marker = tempfile("ecc");
    let script = format!("kernel@4=214,first={marker}");
    let domain = Domain::start("gpu", DomainConfig { spare: false, ..config(&script) }).unwrap();
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b").idempotent().conviction_limit(1))).await.unwrap();
    works(&kernel).await;
    works(&kernel).await;
    let told = soon(kernel.call(add(), NONE)).await.unwrap();
    assert_eq!((told.values, told.suspect), (vec![11, 12, 13], true), "it ran again");
    assert_eq!(runtime.dead_letters().0, 0);
    assert!(domain.status().last_death.unwrap().contains("214"));
    assert_balanced(&kernel);
}

/// It was started again for ever, as fast as it died.
#[tokio::test]
async fn a_device_that_fails_every_worker_is_given_up_and_tried_again_later() {
    let broken = DomainConfig { max_deaths: 3, spare: false, ..config("kernel@1=719") };
    let domain = Domain::start("gpu", broken).unwrap();
    let status = found(|| Some(domain.status()).filter(|status| status.state == DomainState::Down)).await;
    assert_eq!(status.deaths, 4);
    let obstacle = status.obstacle.unwrap();
    assert!(obstacle.contains("lost more than 3 workers") && obstacle.contains("719"), "{obstacle}");
    assert!(!obstacle.contains("worker::init"), "it has begun as it should: {obstacle}");
}

#[tokio::test]
async fn memory_that_runs_out_is_the_callers_and_costs_nobody_anything() {
    let domain = domain("oom=1000000");
    let runtime = runtime().await;
    let kernel = soon(runtime.spawn(rig(&domain, "a/b"))).await.unwrap();
    let before = works(&kernel).await.pid;
    let error = soon(kernel.call(Order::Allocate(10_000_000), NONE)).await.unwrap_err();
    assert_eq!(*error.kind(), KernelErrorKind::Kernel(ErrorKind::Exhausted));
    assert!(error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY"), "{error}");
    assert_ne!(error.retry_advice(), RetryAdvice::Never);
    assert_eq!(works(&kernel).await.pid, before);
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn a_healthy_device_loses_nothing_while_its_neighbour_dies_again_and_again() {
    let (healthy, dying) = (Domain::start("well", config("")).unwrap(), domain(""));
    let runtime = runtime().await;
    let well = soon(runtime.spawn(rig(&healthy, "a/well"))).await.unwrap();
    let ill = soon(runtime.spawn(rig(&dying, "a/ill"))).await.unwrap();
    for deaths in 1..=10 {
        let fault = ill.try_call(Order::Fault("rk_fault_trap".into()), NONE).unwrap();
        for _ in 0..20 {
            works(&well).await;
        }
        soon(fault).await.unwrap_err();
        back(&dying, deaths).await;
    }
    assert_eq!(healthy.status().deaths, 0);
    assert_eq!(dying.status().deaths, 10);
    let accounts = well.accounts();
    assert_eq!((accounts.accepted, accounts.failed), (200, 0));
    works(&ill).await;
}

/// A path that does not exist yet, for a script's `first`.
pub(crate) fn tempfile(name: &str) -> String {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("standin-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path.display().to_string()
}
