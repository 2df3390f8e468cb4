//! The fault model, code by code: whatever loses a device goes the same way, from the fault to the next right answer.

use std::sync::atomic::{AtomicU16, Ordering};

use futures_util::future::join_all;
use rustkernel::actors::{Fact, KernelSpec, Runtime};
use rustkernel::core::DeviceId;
use rustkernel::core::error::{BreakerScope, KernelErrorKind};
use rustkernel::core::fault::{FaultClass, cuda};
use rustkernel::core::resilience::{
    BackoffStrategy, CircuitBreakerConfig, ErrorKind, HealthStatus, RecoveryPolicy, RecoveryStrategy,
    RetryConfig,
};
use rustkernel::cuda::DeviceWatch;
use rustkernel::worker::{Domain, DomainConfig, DomainState};

use crate::device::{Order, Rig};
use crate::faults::{add, tempfile, works};
use crate::kit::{NONE, assert_balanced, kind, ms, soon, status};
use crate::{RigSpec, command, found};

/// A device of its own for each row: what its hardware does is remembered by the process.
static NEXT: AtomicU16 = AtomicU16::new(100);

fn device() -> u16 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A domain on that device, without a spare worker.
fn cold(ordinal: u16, script: &str) -> Domain {
    let worker = command(&format!("count=1000,{script}"));
    let config = DomainConfig { worker, spare: false, max_deaths: u32::MAX, ..DomainConfig::cuda(ordinal) };
    Domain::start(DeviceId::cuda(ordinal).to_string(), config).unwrap()
}

/// A kernel there that may run twice, and may not be restarted at its own cost.
fn rig(domain: &Domain, ordinal: u16) -> RigSpec {
    let recovery = RecoveryPolicy { max_restarts: 0, restart_delay: ms(0), ..RecoveryPolicy::default() };
    domain.kernel::<Rig>("a/b", "rig", &ordinal).idempotent().recovery(recovery)
}

/// The same, which is restarted once, and then serves from its backup.
fn movable(domain: &Domain, ordinal: u16) -> RigSpec {
    rig(domain, ordinal).recovery(RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: 1,
        restart_delay: ms(0),
        escalation: Some(RecoveryStrategy::Failover),
    })
}

/// Every class that loses a device, by each code that `cuda.h` has for it, and two that it has not.
const LOST: [i32; 25] = [
    3, 4, 100, 101, 214, 220, 226, 304, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 726, 802, 810,
    911, 999, -7,
];

#[test]
fn the_codes_are_of_every_class_that_loses_a_device() {
    let mut left: Vec<FaultClass> = (-10..2_000).map(|code| cuda::classify(code).class).collect();
    left.retain(|class| class.poisons() && LOST.iter().all(|code| cuda::classify(*code).class != *class));
    assert_eq!(left, [], "no row is of these");
}

/// What was in hand runs again, alone, on a new process; nothing new comes in before that one has asked its device; nobody pays.
#[tokio::test]
async fn whatever_code_loses_a_device_the_next_process_answers_and_nobody_pays() {
    for codes in LOST.chunks(5) {
        join_all(codes.iter().map(|code| is_got_over(*code))).await;
    }
}

async fn is_got_over(code: i32) {
    let (ordinal, fault) = (device(), cuda::classify(code));
    let marker = tempfile(&format!("model-{code}"));
    // The probe is the first kernel of a process. The next process takes long enough for what is asked before it is there.
    let domain = cold(ordinal, &format!("kernel@3={code},first={marker},context_ms=500"));
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, ordinal))).await.unwrap();
    let before = works(&kernel).await.pid;
    let struck = kernel.try_call(add(), NONE).unwrap();
    found(|| (domain.status().deaths == 1).then_some(())).await;
    let health = runtime.health();
    assert!(health.live && !health.ready, "{fault}: {health:?}");
    let refused = kind(soon(kernel.call(add(), NONE)).await);
    let KernelErrorKind::Rejected(rejection) = &refused else { panic!("{fault}: {refused}") };
    assert_eq!(rejection.scope, BreakerScope::Domain, "{fault}");
    let told = soon(struck).await.unwrap();
    assert_eq!((&*told.values, told.attempt, told.suspect), (&[11, 12, 13][..], 2, true), "{fault}");
    assert_ne!(told.pid, before, "{fault}");
    works(&kernel).await;
    assert!(runtime.health().ready, "{fault}");
    let last = domain.status().last_death.unwrap();
    let named = format!("cuda:{ordinal} is lost to it: {} ({})", fault.name, fault.code);
    assert!(last.contains(&named), "{last}");
    assert_eq!((domain.status().generation, status(&runtime, "a/b").await.restarts), (2, 0), "{fault}");
    let watch = DeviceWatch::of(DeviceId::cuda(ordinal));
    assert_eq!(watch.faults(), [(fault, 1)]);
    let is_memory = fault.class == FaultClass::HardwareMemory;
    let expected = if is_memory { HealthStatus::Degraded } else { HealthStatus::Healthy };
    assert_eq!((watch.health().status, watch.unfit()), (expected, None), "{fault}");
    assert_eq!(runtime.dead_letters().0, 0, "{fault}");
    assert_balanced(&kernel);
}

/// The process that comes next finds no device, or a driver that says nothing it knows: another device has to serve.
#[tokio::test]
async fn a_device_that_is_not_there_for_the_next_process_is_left_for_the_backup() {
    for (code, named) in [(100, "no CUDA device"), (999, "CUDA_ERROR_UNKNOWN")] {
        let (first, second) = (device(), device());
        let marker = tempfile(&format!("lost-{code}"));
        let script = format!("kernel@3=719,first={marker},later,cuInit={code}");
        let worker = command(&format!("count=1000,{script}"));
        let config = DomainConfig { worker, spare: false, max_deaths: 3, ..DomainConfig::cuda(first) };
        let domain = Domain::start("gone", config).unwrap();
        let backup = cold(second, "");
        let to = DeviceId::cuda(second);
        let spec = movable(&domain, first).backup_elsewhere(to, backup.maker::<Rig>("rig", &second));
        let runtime = Runtime::builder().build().await.unwrap();
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        let mut events = runtime.events();
        works(&kernel).await;
        let struck = kernel.try_call(add(), NONE).unwrap();
        soon(events.find("a/b", |fact| matches!(fact, Fact::FailedOver { to: there } if *there == to)))
            .await
            .unwrap();
        let told = soon(struck).await.unwrap();
        assert_eq!((&*told.values, told.suspect), (&[11, 12, 13][..], true), "{code}");
        works(&kernel).await;
        let left = domain.status();
        assert_eq!((left.state, left.health().status), (DomainState::Down, HealthStatus::Unhealthy));
        assert!(left.obstacle.as_ref().unwrap().contains(named), "{left:?}");
        assert_eq!(status(&runtime, "a/b").await.device, to);
        assert_balanced(&kernel);
    }
}

/// What a device refuses before it runs is the caller's: it counts against its kernel, and against nobody else.
#[tokio::test]
async fn launches_that_are_refused_open_the_breaker_of_their_kernel_alone() {
    let ordinal = device();
    let domain = cold(ordinal, "");
    let runtime = Runtime::builder().build().await.unwrap();
    let breaker = CircuitBreakerConfig { failure_threshold: 3, ..CircuitBreakerConfig::default() };
    let spec: KernelSpec<_> = domain.kernel::<Rig>("a/wrong", "rig", &ordinal).breaker(Some(breaker));
    let wrong = soon(runtime.spawn(spec)).await.unwrap();
    let right = soon(runtime.spawn(rig(&domain, ordinal))).await.unwrap();
    let refused = || Order::Launch { threads: 2_000, shared_bytes: 0 };
    for _ in 0..3 {
        let error = kind(soon(wrong.call(refused(), NONE)).await);
        assert_eq!(error, KernelErrorKind::Kernel(ErrorKind::Permanent));
    }
    let error = kind(soon(wrong.call(add(), NONE)).await);
    let KernelErrorKind::Rejected(rejection) = &error else { panic!("{error}") };
    assert_eq!(rejection.scope, BreakerScope::Kernel);
    works(&right).await;
    assert_eq!((domain.status().deaths, status(&runtime, "a/wrong").await.restarts), (0, 0));
    assert_eq!(DeviceWatch::of(DeviceId::cuda(ordinal)).faults(), []);
    assert_balanced(&wrong);
    assert_balanced(&right);
}

/// Memory that is missing for a moment costs a pause; after a fault the same code means nothing, and is not retried on a dead device.
#[tokio::test]
async fn memory_that_is_missing_for_a_moment_is_asked_for_again_after_a_pause() {
    let ordinal = device();
    let runtime = Runtime::builder().build().await.unwrap();
    // Asked for twice: what lies around is given back in between.
    let marker = tempfile("oom");
    let domain = cold(ordinal, &format!("cuMemAlloc_v2@4=2,cuMemAlloc_v2@5=2,first={marker}"));
    let retry = RetryConfig {
        max_attempts: 3,
        backoff: BackoffStrategy::Fixed { delay: ms(5) },
        retryable_errors: vec![ErrorKind::Exhausted],
    };
    let spec = rig(&domain, ordinal).retry(retry);
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let mut attempts = Vec::new();
    for _ in 0..4 {
        // Larger than anything that was given back.
        let values = vec![1; 1_000 << attempts.len()];
        let told = soon(kernel.call(Order::Add(values, 1), NONE)).await.unwrap();
        assert!(told.values.iter().all(|value| *value == 2));
        attempts.push(told.attempt);
    }
    assert_eq!(attempts.iter().filter(|attempt| **attempt == 2).count(), 1, "{attempts:?}");
    assert_eq!((domain.status().deaths, status(&runtime, "a/b").await.restarts), (0, 0));
    assert_balanced(&kernel);
}

/// The driver makes a caller wait at about a thousand launches, and nobody can call it back from there: a stream does not get that far.
#[tokio::test]
async fn many_launches_behind_a_kernel_that_does_not_end_cost_the_process_at_the_deadline_and_no_sooner() {
    let ordinal = device();
    let marker = tempfile("depth");
    let script = format!("hang@3,first={marker}");
    let worker = command(&format!("count=1000,{script}"));
    let config = DomainConfig { worker, spare: false, kill_after: ms(20), ..DomainConfig::cuda(ordinal) };
    let domain = Domain::start("deep", config).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(rig(&domain, ordinal))).await.unwrap();
    works(&kernel).await;
    let error = kind(soon(kernel.call(Order::Many(3_000), ms(100))).await);
    assert_eq!(error, KernelErrorKind::DeadlineExceeded);
    let told = soon(kernel.call(Order::Many(3_000), NONE)).await.unwrap();
    assert_eq!(told.values, [3_000]);
    assert_eq!(domain.status().deaths, 1);
    let last = domain.status().last_death.unwrap();
    assert!(last.contains("does not end a request that was cancelled"), "{last}");
    assert_eq!(DeviceWatch::of(DeviceId::cuda(ordinal)).faults(), [], "nothing was met by anybody");
    assert_balanced(&kernel);
}

/// Without NVML: what the processes meet says enough. The second time within the hour it is the device's.
#[tokio::test]
async fn a_device_whose_hardware_fails_again_is_left_for_the_backup() {
    for code in [214, 220, 226] {
        let (first, second) = (device(), device());
        // The third request's launch is the fourth of the first process; the next one's probe and its request of before are two more.
        let worker = command(&format!("count=1000,kernel@4={code}"));
        let config = DomainConfig { worker, max_deaths: u32::MAX, ..DomainConfig::cuda(first) };
        let domain = Domain::start("failing", config).unwrap();
        let backup = cold(second, "");
        let to = DeviceId::cuda(second);
        let spec = movable(&domain, first).backup_elsewhere(to, backup.maker::<Rig>("rig", &second));
        let runtime = Runtime::builder().build().await.unwrap();
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        let mut events = runtime.events();
        let watch = DeviceWatch::of(DeviceId::cuda(first));
        for _ in 0..3 {
            works(&kernel).await;
        }
        assert_eq!((domain.status().deaths, watch.unfit()), (1, None), "{code}");
        for _ in 0..2 {
            works(&kernel).await;
        }
        assert!(watch.unfit().unwrap().contains("again"), "{:?}", watch.unfit());
        soon(events.find("a/b", |fact| matches!(fact, Fact::PlaceUnfit { .. }))).await.unwrap();
        soon(events.find("a/b", |fact| matches!(fact, Fact::FailedOver { to: there } if *there == to)))
            .await
            .unwrap();
        assert_eq!(status(&runtime, "a/b").await.device, to, "{code}");
        works(&kernel).await;
        assert_balanced(&kernel);
    }
}

/// What a call answers that loses nothing is the request's error, whatever it is: no process ends, no device is blamed, its kernel's breaker counts.
#[tokio::test]
async fn a_code_that_loses_nothing_is_the_requests_error_and_the_process_stays() {
    let mut classes = Vec::new();
    for code in [1, 2, 46, 200, 209, 222, 400, 701, 720, 801, 805, 807, 900, 901, 909, 919] {
        let (ordinal, fault) = (device(), cuda::classify(code));
        classes.push(fault.class);
        // The first launch of a process is its probe's.
        let domain = cold(ordinal, &format!("cuLaunchKernel@3={code}"));
        let runtime = Runtime::builder().build().await.unwrap();
        let breaker = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
        let counted = runtime.spawn(rig(&domain, ordinal).breaker(Some(breaker)));
        let kernel = soon(counted).await.unwrap();
        let before = works(&kernel).await.pid;
        let answer = soon(kernel.call(add(), NONE)).await;
        let Err(error) = answer else { panic!("{fault}: {answer:?}") };
        let exhausted = matches!(fault.class, FaultClass::Resource | FaultClass::MpsConnection);
        let expected = if exhausted { ErrorKind::Exhausted } else { ErrorKind::Permanent };
        assert_eq!(*error.kind(), KernelErrorKind::Kernel(expected), "{fault}: {error}");
        let text = error.to_string();
        let named = format!("cuLaunchKernel failed with {} ({})", fault.name, fault.code);
        assert!(text.contains(&named) && text.contains(fault.class.advice()), "{text}");
        let next = soon(kernel.call(add(), NONE)).await;
        let scope = match next.as_ref().map_err(|error| error.kind()) {
            Err(KernelErrorKind::Rejected(rejection)) => Some(rejection.scope),
            Ok(_) => None,
            Err(other) => panic!("{fault}: {other}"),
        };
        // Want of something is nobody's failure.
        assert_eq!(scope, (!exhausted).then_some(BreakerScope::Kernel), "{fault}");
        let beside = soon(runtime.spawn(domain.kernel::<Rig>("a/c", "rig", &ordinal))).await.unwrap();
        assert_eq!(works(&beside).await.pid, before, "{fault}");
        assert_eq!((domain.status().deaths, status(&runtime, "a/b").await.restarts), (0, 0), "{fault}");
        let watch = DeviceWatch::of(DeviceId::cuda(ordinal));
        assert_eq!((watch.faults(), watch.health().status), (Vec::new(), HealthStatus::Healthy), "{fault}");
        assert!(runtime.health().ready, "{fault}");
        assert_balanced(&kernel);
    }
    let mut left: Vec<FaultClass> = (0..2_000).map(|code| cuda::classify(code).class).collect();
    left.retain(|class| !class.poisons() && *class != FaultClass::NotAnError && !classes.contains(class));
    assert_eq!(left, [], "no row is of these");
}

/// A request without a deadline has the kernel's own limit.
#[tokio::test]
async fn a_launch_that_never_ends_costs_the_process_at_the_kernels_limit_where_nobody_gave_a_deadline() {
    let ordinal = device();
    let marker = tempfile("cap");
    let worker = command(&format!("count=1000,hang@3,first={marker}"));
    let config = DomainConfig { worker, kill_after: ms(20), ..DomainConfig::cuda(ordinal) };
    let domain = Domain::start("capped", config).unwrap();
    let runtime = Runtime::builder().build().await.unwrap();
    let recovery = RecoveryPolicy { max_restarts: 1, restart_delay: ms(0), ..RecoveryPolicy::default() };
    let spec = rig(&domain, ordinal).recovery(recovery).hang_limit(ms(100));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    let before = works(&kernel).await.pid;
    let told = works(&kernel).await;
    assert!(told.pid != before && told.attempt == 2 && told.suspect, "{told:?}");
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.restarts, domain.status().deaths), (1, 1), "it is the kernel's own failure");
    assert_eq!(DeviceWatch::of(DeviceId::cuda(ordinal)).faults(), []);
    assert_balanced(&kernel);
}
