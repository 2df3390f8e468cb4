//! Kernels that live together, and a domain beside another that dies.

use std::time::Duration;

use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::RecoveryPolicy;
use rustkernel::worker::Domain;

use crate::kit::{NONE, kind, soon};
use crate::puppets::{Do, PuppetRef, config, domain, puppet, spawned, ticks, until};

/// What ends the process is convicted only by dying alone; what was in hand beside it is answered.
#[tokio::test]
async fn poison_is_convicted_alone_and_its_innocent_neighbour_is_answered() {
    let domain = domain();
    let (runtime, poisoned) = spawned(puppet(&domain, "a/poisoned").idempotent()).await;
    let innocent: PuppetRef =
        soon(runtime.spawn(puppet(&domain, "a/innocent").idempotent().hang_limit(None))).await.unwrap();
    for _ in 0..10 {
        let beside = innocent.try_call(Do::Echo(vec![7; 1 << 20]), NONE).unwrap();
        let poison = poisoned.try_call(Do::Exit(1), NONE).unwrap();
        assert_eq!(soon(beside).await.unwrap().echo.len(), 1 << 20);
        assert_eq!(kind(soon(poison).await), KernelErrorKind::Crashed);
    }
    let (letters, _) = runtime.dead_letters();
    assert_eq!(letters, 10, "each poison, and nobody else");
    for kernel in [&poisoned, &innocent] {
        let accounts = kernel.accounts();
        assert_eq!(accounts.accepted, accounts.answered + accounts.failed);
    }
}

#[tokio::test]
async fn a_suspect_waits_until_it_is_alone_and_the_others_wait_for_it() {
    let domain = domain();
    let (runtime, first) = spawned(puppet(&domain, "a/first").idempotent()).await;
    let second: PuppetRef = soon(runtime.spawn(puppet(&domain, "a/second").idempotent())).await.unwrap();
    // Both are in hand when the process dies, so both are suspects, and neither is convicted by that.
    let dies = first.try_call(Do::DieUntil(2), NONE).unwrap();
    let waits = second.try_call(Do::DieUntil(2), NONE).unwrap();
    let [said, other] = [soon(dies).await.unwrap(), soon(waits).await.unwrap()];
    assert!(said.suspect && said.attempt >= 2, "{said:?}");
    assert!(other.attempt >= 1, "{other:?}");
    assert_eq!(runtime.dead_letters().0, 0);
}

/// It was taken before that one had ended, and would have been answered as if it had panicked itself.
#[tokio::test]
async fn a_request_does_not_answer_for_the_panic_of_one_whose_caller_has_left() {
    let domain = domain();
    let recovery = RecoveryPolicy { restart_delay: Duration::ZERO, ..RecoveryPolicy::default() };
    let (_runtime, kernel) = spawned(puppet(&domain, "a/b").recovery(recovery)).await;
    let pid = soon(kernel.call(Do::Count, NONE)).await.unwrap().pid;
    let before = ticks(pid);
    let left = kernel.try_call(Do::PanicWhenLeft, NONE).unwrap();
    until(|| ticks(pid) > before + 1).await;
    let next = kernel.try_call(Do::Count, NONE).unwrap();
    drop(left);
    let said = soon(next).await.unwrap();
    assert_eq!(said.count, 1, "it has panicked");
    assert_eq!((said.attempt, said.suspect), (1, false));
    assert_eq!(kernel.accounts().reruns, 0);
}

#[tokio::test]
async fn a_neighbour_domain_loses_no_request_while_this_one_keeps_dying() {
    let (dying, healthy) = (domain(), Domain::start("healthy", config()).unwrap());
    let (runtime, victim) = spawned(puppet(&dying, "a/victim")).await;
    let kernel: PuppetRef = soon(runtime.spawn(puppet(&healthy, "a/healthy"))).await.unwrap();
    let pid = soon(kernel.call(Do::Count, NONE)).await.unwrap().pid;
    for death in 1..=20 {
        let dies = victim.try_call(Do::Exit(1), NONE).unwrap();
        for _ in 0..20 {
            assert_eq!(soon(kernel.call(Do::Count, NONE)).await.unwrap().pid, pid);
        }
        assert_eq!(kind(soon(dies).await), KernelErrorKind::Crashed);
        until(|| dying.status().deaths >= death).await;
    }
    assert_eq!(healthy.status().deaths, 0);
    let accounts = kernel.accounts();
    assert_eq!((accounts.accepted, accounts.failed), (401, 0));
}
