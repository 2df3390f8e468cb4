//! The ways a worker dies, and how long it takes until its kernels serve again.

use std::time::Duration;

use rustix::process::Signal;
use rustkernel::actors::{Cause, Fact, Runtime};
use rustkernel::core::error::{BreakerScope, KernelErrorKind};
use rustkernel::core::resilience::{BreakerMode, CircuitBreakerConfig, HealthStatus};
use rustkernel::worker::{Domain, DomainConfig, DomainState};

use crate::kit::{DOWN_ISOLATED, NONE, assert_balanced, kind, ms, soon, status};
use crate::puppets::{Do, PuppetRef, config, domain, is_alive, kill, puppet, spawned, state, until};

async fn pid(kernel: &PuppetRef) -> u32 {
    soon(kernel.call(Do::Count, NONE)).await.unwrap().pid
}

#[tokio::test]
async fn however_a_worker_dies_the_spare_one_takes_over_and_the_kernel_pays_nothing() {
    let deaths = [
        (Do::Exit(0), "exit code 0 (ended unasked)"),
        (Do::Exit(1), "exit code 1 (failure)"),
        (Do::Signal(Signal::ABORT.as_raw()), "SIGABRT"),
        (Do::Signal(Signal::SEGV.as_raw()), "SIGSEGV"),
        (Do::Signal(Signal::ILL.as_raw()), "SIGILL"),
        (Do::Signal(Signal::KILL.as_raw()), "SIGKILL"),
        (Do::HangUp, "the other side has closed it"),
    ];
    let domain = domain();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    for (number, (death, named)) in deaths.into_iter().enumerate() {
        let before = pid(&kernel).await;
        until(|| domain.status().spare.is_some()).await;
        let spare = domain.status().spare;
        let error = soon(kernel.call(death.clone(), NONE)).await.unwrap_err();
        assert_eq!(*error.kind(), KernelErrorKind::Crashed, "{death:?}");
        let text = error.to_string();
        assert!(text.contains(named), "{text}");
        assert_eq!(Some(pid(&kernel).await), spare, "{death:?}");
        assert!(!is_alive(before), "dead means gone");
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.restarts, now.incarnation), (0, number as u64 + 2));
        assert!(matches!(now.last_failure, Some(Cause::DomainLost(_))), "{:?}", now.last_failure);
        assert_eq!(domain.status().deaths, number as u64 + 1);
        assert!(runtime.health().ready, "{death:?}");
        let accounts = kernel.accounts();
        assert_eq!((accounts.failed, accounts.reruns), (number as u64 + 1, 0));
    }
    assert_balanced(&kernel);
}

/// What a death took along is a failure of its kernel's; the kernels that were lost beside it have done nothing.
#[tokio::test]
async fn a_death_is_a_failure_to_the_breaker_of_its_kernel_alone() {
    let domain = domain();
    let breaker = CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() };
    let (runtime, kernel) = spawned(puppet(&domain, "a/b").breaker(breaker.clone())).await;
    let beside = soon(runtime.spawn(puppet(&domain, "a/c").breaker(breaker))).await.unwrap();
    let mut events = runtime.events();
    assert_eq!(kind(soon(kernel.call(Do::Exit(1), NONE)).await), KernelErrorKind::Crashed);
    for again in [&beside, &kernel] {
        // Its breaker is half-open a moment after it serves again.
        soon(async {
            while again.call(Do::Count, NONE).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let (mut started, mut opened) = (0, Vec::new());
    while started < 2 {
        let event = soon(events.next()).await.unwrap();
        started += u32::from(matches!(event.fact, Fact::Started { incarnation: 2, .. }));
        if matches!(event.fact, Fact::Breaker(transition) if transition.to == BreakerMode::Open) {
            opened.extend(event.child);
        }
    }
    assert_eq!(opened, ["a/b".into()]);
    [&kernel, &beside].into_iter().for_each(assert_balanced);
}

#[tokio::test]
async fn an_idle_worker_that_is_killed_is_replaced_too() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let before = pid(&kernel).await;
    kill(before, Signal::KILL);
    until(|| domain.status().pid != Some(before)).await;
    assert_ne!(pid(&kernel).await, before);
}

#[tokio::test]
async fn without_a_spare_a_new_worker_is_started() {
    let domain = Domain::start("test", DomainConfig { spare: false, ..config() }).unwrap();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b").idempotent()).await;
    let before = pid(&kernel).await;
    let said = soon(kernel.call(Do::DieUntil(2), NONE)).await.unwrap();
    assert_eq!((said.attempt, said.suspect), (2, true));
    assert_ne!(said.pid, before);
    assert_eq!(domain.status().spare, None);
}

#[tokio::test]
async fn a_stopped_worker_is_killed_for_its_silence() {
    let silent = DomainConfig { heartbeat: ms(20), silence: ms(300), ..config() };
    let domain = Domain::start("test", silent).unwrap();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b").idempotent()).await;
    let before = pid(&kernel).await;
    kill(before, Signal::STOP);
    until(|| state(before) == Some('T')).await;
    assert_ne!(pid(&kernel).await, before);
    let reason = domain.status().last_death.unwrap();
    assert!(reason.contains("it has not answered for 300ms"), "{reason}");
}

#[tokio::test]
async fn a_hang_is_answered_at_its_deadline_and_ended_by_a_kill() {
    let domain = Domain::start("test", DomainConfig { kill_after: ms(20), ..config() }).unwrap();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let before = pid(&kernel).await;
    assert_eq!(kind(soon(kernel.call(Do::Hang, ms(50))).await), KernelErrorKind::DeadlineExceeded);
    assert_ne!(pid(&kernel).await, before);
    let reason = domain.status().last_death.unwrap();
    assert!(reason.contains("a/b does not end a request that was cancelled"), "{reason}");
    assert_eq!(kernel.accounts().answered, 2, "the late answer never came");
}

#[tokio::test]
async fn a_kernel_that_stops_when_it_is_cancelled_keeps_its_process() {
    let domain =
        Domain::start("test", DomainConfig { kill_after: Duration::from_secs(10), ..config() }).unwrap();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let before = pid(&kernel).await;
    assert_eq!(kind(soon(kernel.call(Do::Wait, ms(50))).await), KernelErrorKind::DeadlineExceeded);
    let said = soon(kernel.call(Do::Count, NONE)).await.unwrap();
    assert_eq!((said.pid, said.count), (before, 3), "it has counted the one that nobody waited for");
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn a_panic_ends_its_kernel_alone() {
    let domain = domain();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b").recovery(crate::kit::at_once(3))).await;
    let neighbour: PuppetRef = soon(runtime.spawn(puppet(&domain, "a/c"))).await.unwrap();
    let before = pid(&neighbour).await;
    assert_eq!(kind(soon(kernel.call(Do::Panic, NONE)).await), KernelErrorKind::Crashed);
    let said = soon(kernel.call(Do::Count, NONE)).await.unwrap();
    assert_eq!((said.pid, said.count), (before, 1), "a new kernel in the same process");
    let said = soon(neighbour.call(Do::Count, NONE)).await.unwrap();
    assert_eq!((said.pid, said.count), (before, 2));
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.restarts, now.last_failure), (1, Some(Cause::Panicked("told to panic".into()))));
    assert_eq!(domain.status().deaths, 0);
}

/// The checkpoint that follows each request found the socket closed, and the whole worker was killed for that.
#[tokio::test]
async fn a_panic_of_a_checkpointed_kernel_ends_it_alone_too() {
    let domain = domain();
    let spec = puppet(&domain, "a/b").recovery(crate::kit::at_once(100)).checkpointed();
    let (_runtime, kernel) = spawned(spec).await;
    let before = pid(&kernel).await;
    for panic in 1..=20 {
        let large = if panic % 2 == 0 { 10 } else { 300_000 };
        assert_eq!(kind(soon(kernel.call(Do::PanicAtLength(large), NONE)).await), KernelErrorKind::Crashed);
        let said = soon(kernel.call(Do::Count, NONE)).await.unwrap();
        assert_eq!((said.pid, said.count), (before, panic + 1));
    }
    assert_eq!(domain.status().deaths, 0);
}

/// All lives of the kernel died at once, and the standby was called to serve.
#[tokio::test]
async fn a_kernel_whose_standby_lives_in_the_same_worker_comes_back_with_it() {
    let domain = domain();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b").replicas(1).idempotent()).await;
    for _ in 0..20 {
        kill(pid(&kernel).await, Signal::KILL);
        pid(&kernel).await;
    }
    let back = async {
        while status(&runtime, "a/b").await.standbys == 0 {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), back).await.is_err() {
        // Which of the two is missing, and what became of it, is not seen from a timeout.
        let failures = runtime.failures();
        panic!("{:?}\n{:?}\n{failures:?}", status(&runtime, "a/b").await, domain.status());
    }
}

/// A service manager signals every process of the service; its workers go when it has drained.
#[tokio::test]
async fn workers_leave_the_signals_of_a_service_manager_to_their_parent() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let before = pid(&kernel).await;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill(before, signal);
        assert_eq!(pid(&kernel).await, before);
    }
    assert_eq!(domain.status().deaths, 0);
}

#[tokio::test]
async fn a_domain_that_loses_too_many_workers_is_down_and_its_kernels_escalate() {
    let domain = Domain::start("test", DomainConfig { max_deaths: 2, ..config() }).unwrap();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    for _ in 0..3 {
        assert_eq!(kind(soon(kernel.call(Do::Exit(1), NONE)).await), KernelErrorKind::Crashed);
    }
    // At first the breaker of the domain refuses, until one of the deaths is old enough; then the kernel has given up.
    let mut refused = kind(soon(kernel.call(Do::Count, NONE)).await);
    while refused != DOWN_ISOLATED {
        let KernelErrorKind::Rejected(rejection) = &refused else { panic!("{refused}") };
        assert_eq!(rejection.scope, BreakerScope::Domain);
        assert!(rejection.retry_after.is_some_and(|span| span <= Duration::from_secs(60)), "{rejection:?}");
        tokio::task::yield_now().await;
        refused = kind(soon(kernel.call(Do::Count, NONE)).await);
    }
    let Some(Cause::StartFailed(reason)) = status(&runtime, "a/b").await.last_failure else { panic!() };
    assert!(reason.contains("the domain test has no worker: it has lost more than 2 workers within 60s"));
    until(|| domain.status().state == DomainState::Down).await;
    let health = domain.status().health();
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(health.reason.unwrap().contains("workers that died: 3; the last one: worker"));
}

#[tokio::test]
async fn a_closed_domain_leaves_no_process_and_its_kernels_start_nowhere() {
    let domain = domain();
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    until(|| domain.status().spare.is_some()).await;
    let processes = [domain.status().pid.unwrap(), domain.status().spare.unwrap()];
    let closing = domain.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    assert!(processes.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(domain.status().state, DomainState::Closed);
    assert_eq!(kind(soon(kernel.call(Do::Count, NONE)).await), DOWN_ISOLATED);
}

#[tokio::test]
async fn the_last_of_a_domain_takes_its_processes_along() {
    let domain = domain();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    until(|| domain.status().spare.is_some()).await;
    let processes = [pid(&kernel).await, domain.status().spare.unwrap()];
    drop((domain, kernel));
    runtime.shutdown(ms(5_000)).await;
    drop(runtime);
    until(|| processes.iter().all(|pid| !is_alive(*pid))).await;
}

#[tokio::test]
async fn a_kernel_that_is_stopped_is_gone_from_its_worker() {
    let domain = domain();
    let (runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    let before = pid(&kernel).await;
    assert!(soon(runtime.stop("a/b", true)).await);
    until(|| domain.status().kernels == 0).await;
    let again: PuppetRef = soon(runtime.spawn(puppet(&domain, "a/b"))).await.unwrap();
    let said = soon(again.call(Do::Count, NONE)).await.unwrap();
    assert_eq!((said.pid, said.count), (before, 1));
}

#[tokio::test]
async fn a_worker_that_starts_slowly_is_waited_for() {
    use rustkernel::worker::WorkerCommand;
    let this = std::env::current_exe().unwrap();
    let slowly =
        format!("sleep 0.3; exec {} --exact worker_main --nocapture --test-threads=1", this.display());
    let worker = WorkerCommand::program("/bin/sh").arguments(["-c", &slowly]);
    let domain = Domain::start("test", DomainConfig { worker, spare: false, ..config() }).unwrap();
    assert_eq!(domain.status().state, DomainState::Starting);
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b")).await;
    pid(&kernel).await;
    let status = domain.status();
    assert_eq!((status.state, status.deaths), (DomainState::Ready, 0));
}

#[tokio::test]
async fn a_worker_that_refuses_its_configuration_is_not_started_again_and_again() {
    for (code, named) in [(78, "bad configuration"), (127, "not found"), (2, "wrong usage")] {
        let worker =
            rustkernel::worker::WorkerCommand::program("/bin/sh").arguments(["-c", &format!("exit {code}")]);
        let domain = Domain::start("test", DomainConfig { worker, max_deaths: 1_000, ..config() }).unwrap();
        until(|| domain.status().state == DomainState::Down).await;
        let status = domain.status();
        assert_eq!(status.deaths, 1, "{code}");
        assert!(status.obstacle.unwrap().contains(named), "{code}");
    }
}

#[tokio::test]
async fn programs_that_are_no_workers_are_told_by_name() {
    use rustkernel::worker::WorkerCommand;
    let runtime = Runtime::builder().build().await.unwrap();
    let cases = [
        (WorkerCommand::program("/nowhere/at-all"), "a worker could not be started"),
        (
            WorkerCommand::program("/bin/true"),
            "does the main of its program begin with rustkernel::worker::init?",
        ),
        (WorkerCommand::program("/bin/sleep").arguments(["1000"]), "it is not up after 200ms"),
    ];
    for (worker, expected) in cases {
        let config = DomainConfig { worker, start_limit: ms(200), max_deaths: 0, ..config() };
        let domain = Domain::start("test", config).unwrap();
        let error = soon(runtime.spawn(puppet(&domain, "a/b"))).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
