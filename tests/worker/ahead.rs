//! Requests that are sent to their worker before their turns.

use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use rustkernel::actors::{Reply, Runtime};
use rustkernel::core::Result;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::worker::Domain;

use crate::kit::{NONE, assert_balanced, kind, soon};
use crate::puppets::{Do, PuppetRef, PuppetSpec, Said, called, domain, puppet, spawned};

const LONG: Duration = Duration::from_secs(60);
/// More than a worker reads at once.
const BULK: usize = 3_000;

/// Restarted as often as it takes.
fn lasting(domain: &Domain, id: &str) -> PuppetSpec {
    lasting_called(domain, id, "puppet")
}

fn lasting_called(domain: &Domain, id: &str, name: &str) -> PuppetSpec {
    let recovery = RecoveryPolicy {
        strategy: RecoveryStrategy::RestartKernel,
        max_restarts: u32::MAX,
        restart_delay: Duration::ZERO,
        escalation: None,
    };
    called(domain, id, name).idempotent().recovery(recovery)
}

fn calls(kernel: &PuppetRef, what: &Do, count: usize) -> Vec<Reply<Do, Said>> {
    (0..count).map(|_| kernel.try_call(what.clone(), NONE).unwrap()).collect()
}

/// How much lay in the worker's socket while it ran one of many requests. To look takes longer than the rest together.
async fn unread(kernel: &PuppetRef) -> u64 {
    soon(kernel.call(Do::Count, NONE)).await.unwrap();
    let mut replies = calls(kernel, &Do::Echo(vec![7; BULK]), 8);
    let look = kernel.try_call(Do::Unread, NONE).unwrap();
    replies.extend(calls(kernel, &Do::Echo(vec![7; BULK]), 40));
    for reply in replies {
        soon(reply).await.unwrap();
    }
    let said = soon(look).await.unwrap().echo;
    u64::from_le_bytes(said.try_into().unwrap())
}

/// Asks until some are on their way at once. It has to be quick for that, which a busy machine is not at every moment.
async fn under_way(kernel: &PuppetRef) {
    soon(async { while unread(kernel).await < BULK as u64 {} }).await;
}

#[tokio::test]
async fn a_quick_kernel_that_may_run_twice_is_sent_its_requests_before_their_turns() {
    let domain = domain();
    let (_runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    under_way(&kernel).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn one_that_may_not_run_twice_or_keeps_checkpoints_has_one_request_there_at_a_time() {
    let domain = domain();
    let (runtime, once) = spawned(puppet(&domain, "a/once")).await;
    let kept = lasting(&domain, "a/kept").checkpointed();
    let kept: PuppetRef = soon(runtime.spawn(kept)).await.unwrap();
    for kernel in [&once, &kept] {
        for _ in 0..10 {
            assert_eq!(unread(kernel).await, 0);
        }
    }
}

#[tokio::test]
async fn poison_among_those_under_way_is_convicted_alone_and_all_others_are_answered() {
    let domain = domain();
    let (runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    for (round, poison) in [Do::Exit(1), Do::Panic, Do::Signal(Signal::KILL.as_raw())].into_iter().enumerate()
    {
        under_way(&kernel).await;
        let deaths = domain.status().deaths;
        let before = calls(&kernel, &Do::Count, 20);
        let poisoned = kernel.try_call(poison.clone(), NONE).unwrap();
        let behind = calls(&kernel, &Do::Count, 40);
        for innocent in before.into_iter().chain(behind) {
            soon(innocent).await.unwrap();
        }
        assert_eq!(kind(soon(poisoned).await), KernelErrorKind::Crashed, "{poison:?}");
        assert_eq!(runtime.dead_letters().0, round as u64 + 1, "{poison:?} and nobody else");
        let deaths = domain.status().deaths - deaths;
        assert!(deaths <= 3, "among others, and twice alone: {deaths}");
    }
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_suspect_elsewhere_is_alone_though_callers_have_left_what_they_sent_here() {
    let domain = domain();
    let (runtime, kernel) = spawned(lasting(&domain, "a/left")).await;
    let other: PuppetRef = soon(runtime.spawn(lasting(&domain, "a/other"))).await.unwrap();
    for _ in 0..10 {
        under_way(&kernel).await;
        let left = calls(&kernel, &Do::Echo(vec![7; BULK]), 64);
        let suspect = other.try_call(Do::DieUntil(2), NONE).unwrap();
        tokio::task::yield_now().await;
        drop(left);
        assert!(soon(suspect).await.unwrap().suspect);
        assert_balanced(&kernel);
    }
    assert_eq!(runtime.dead_letters().0, 0);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_slow_one_behind_it() {
    let domain = domain();
    let (_runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    for _ in 0..10 {
        under_way(&kernel).await;
        let quick = calls(&kernel, &Do::Count, 8);
        let slow = kernel.try_call(Do::Wait, NONE).unwrap();
        let behind = kernel.try_call(Do::Count, NONE).unwrap();
        for reply in quick {
            soon(reply).await.unwrap();
        }
        drop(slow);
        soon(behind).await.unwrap();
    }
}

/// Its caller leaves while another one is executed, and it ends only when it is told.
#[tokio::test]
async fn one_that_has_lost_its_caller_before_its_turn_is_told_so() {
    let domain = domain();
    let (_runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    for _ in 0..10 {
        under_way(&kernel).await;
        let before = calls(&kernel, &Do::Count, 8);
        let left = kernel.try_call(Do::Wait, NONE).unwrap();
        let behind = kernel.try_call(Do::Count, NONE).unwrap();
        tokio::task::yield_now().await;
        drop(left);
        soon(behind).await.unwrap();
        drop(before);
    }
    assert_eq!(domain.status().deaths, 0);
}

/// They end when they are told: nobody stands here for them any more. That their kernel takes longer to be dropped is another matter.
#[tokio::test]
async fn those_that_a_killed_life_has_sent_are_given_up_with_it() {
    for name in ["puppet", "lingering"] {
        let domain = domain();
        let (runtime, kernel) = spawned(lasting_called(&domain, "a/b", name)).await;
        for _ in 0..5 {
            under_way(&kernel).await;
            let before = calls(&kernel, &Do::Count, 8);
            let waits = calls(&kernel, &Do::Wait, 3);
            for reply in before {
                soon(reply).await.unwrap();
            }
            assert!(soon(runtime.kill("a/b")).await);
            drop(waits);
            soon(kernel.call(Do::Count, NONE)).await.unwrap();
        }
        assert_eq!(domain.status().deaths, 0, "{name}: none had to be killed");
    }
}

#[tokio::test]
async fn long_answers_to_requests_that_were_under_way_together_come_back_whole() {
    let domain = domain();
    let (_runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    under_way(&kernel).await;
    let lengths = (0..64).map(|n| if n % 3 == 0 { n } else { n * 4_000 });
    let ask = |length: usize| {
        let byte = length.to_le_bytes()[0];
        (vec![byte; length], kernel.try_call(Do::Repeat(vec![byte], length), NONE).unwrap())
    };
    let replies: Vec<_> = lengths.map(ask).collect();
    for (wanted, reply) in replies {
        let said = soon(reply).await.unwrap().echo;
        assert!(said == wanted, "{} bytes", wanted.len());
    }
}

/// Short and long ones, callers that leave, deadlines that pass, errors, panics and deaths: every answer is that of its own request, every
/// request is answered once, and only what does it alone is convicted.
#[tokio::test]
async fn whatever_happens_every_request_gets_its_own_answer() {
    let seed =
        std::env::var("RUSTKERNEL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("replay: RUSTKERNEL_SEED={seed}");
    let rounds = std::env::var("RUSTKERNEL_CASES").map_or(12, |cases| cases.parse::<u64>().unwrap());
    let mut rng = Rng::with_seed(seed);
    let domain = domain();
    let (runtime, kernel) = spawned(lasting(&domain, "a/b")).await;
    let other: PuppetRef = soon(runtime.spawn(lasting(&domain, "a/other"))).await.unwrap();
    let mut poison = 0;
    for round in 0..rounds {
        if rng.bool() {
            under_way(&kernel).await;
        }
        let mut replies = Vec::new();
        for number in 0..rng.u64(1..200) {
            let kernel = if rng.u8(..8) == 0 { &other } else { &kernel };
            let (what, echo) = request(&mut rng, round << 32 | number);
            let deadline = deadline(&mut rng);
            let Ok(reply) = kernel.try_call(what, deadline) else { continue };
            if rng.u8(..6) != 0 {
                replies.push((echo, deadline, reply));
            }
        }
        if rng.u8(..3) == 0 {
            poison += 1;
            let poisoned = kernel.try_call(if rng.bool() { Do::Exit(1) } else { Do::Panic }, NONE).unwrap();
            tokio::task::yield_now().await;
            assert_eq!(kind(soon(poisoned).await), KernelErrorKind::Crashed);
        }
        if let Some(pid) = domain.status().pid.filter(|_| rng.u8(..4) == 0) {
            // It may have died by now.
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        rng.shuffle(&mut replies);
        for (echo, deadline, reply) in replies {
            answered(echo, deadline, soon(reply).await);
        }
        check(&runtime, &[&kernel, &other], poison).await;
    }
}

fn request(rng: &mut Rng, number: u64) -> (Do, Option<Vec<u8>>) {
    let text = number.to_le_bytes().to_vec();
    match rng.u8(..20) {
        0 => (Do::Fail, None),
        1 => {
            let long = text.repeat(rng.usize(1..20_000));
            (Do::Echo(long.clone()), Some(long))
        }
        2 => {
            let times = rng.usize(1..20_000);
            (Do::Repeat(text.clone(), times), Some(text.repeat(times)))
        }
        _ => (Do::Echo(text.clone()), Some(text)),
    }
}

fn deadline(rng: &mut Rng) -> Deadline {
    match rng.u8(..4) {
        0 => Deadline::Within(Duration::from_micros(rng.u64(1..5_000))),
        1 => Deadline::Within(LONG),
        _ => NONE,
    }
}

fn answered(echo: Option<Vec<u8>>, deadline: Deadline, said: Result<Said>) {
    match (echo, said) {
        (Some(echo), Ok(said)) => assert!(said.echo == echo, "another one's answer"),
        (None, Ok(said)) => panic!("told to fail: {said:?}"),
        (None, Err(_)) => {}
        // One whose time was over when its worker died is not run again.
        (Some(_), Err(error)) => {
            assert!(matches!(deadline, Deadline::Within(span) if span < LONG), "{error}")
        }
    }
}

async fn check(runtime: &Runtime, kernels: &[&PuppetRef], poison: u64) {
    for kernel in kernels {
        // Those whose callers have left are answered too, and by now.
        soon(kernel.call(Do::Count, NONE)).await.unwrap();
        assert_balanced(kernel);
    }
    assert_eq!(runtime.dead_letters().0, poison, "the poison, and nobody else");
}
