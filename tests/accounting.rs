//! The law of accounting: whatever happens, `accepted = answered + failed`, and every caller gets an answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::future::Future;
use std::sync::Arc;

use kit::{Do, Latch, NONE, PuppetRef, assert_balanced, at_once, kind, ms, puppet, soon, status};
use rustkernel::actors::{ClockHand, Runtime};
use rustkernel::core::error::{KernelErrorKind, Limit};
use rustkernel::core::resilience::{CircuitBreakerConfig, ErrorKind};

async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

#[tokio::test]
async fn the_request_limit_refuses_and_gives_the_input_back() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").queue(2, 1 << 20)).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let queued: Vec<_> = (0..2).map(|value| kernel.try_call(Do::Double(value), NONE).unwrap()).collect();
    let refused = kernel.try_call(Do::Double(77), NONE).unwrap_err();
    assert_eq!(refused.error.kind(), &KernelErrorKind::Overloaded(Limit::Requests));
    assert!(matches!(refused.input, Do::Double(77)));
    assert_eq!(kernel.accounts().accepted, 3, "a refused request was never accepted");
    door.open();
    for reply in queued {
        soon(reply).await.unwrap();
    }
    soon(busy).await.unwrap();
    assert_balanced(&kernel);
}

#[tokio::test]
async fn the_byte_limit_counts_what_is_unanswered_and_frees_it_again() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").queue(100, 250)).await.unwrap();
    for _ in 0..3 {
        let door = Latch::new();
        let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
        let queued = kernel.try_call(Do::Double(1), NONE).unwrap();
        let refused = kernel.try_call(Do::Double(1), NONE).unwrap_err();
        assert_eq!(refused.error.kind(), &KernelErrorKind::Overloaded(Limit::Bytes));
        door.open();
        soon(busy).await.unwrap();
        soon(queued).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(status(&runtime, "a/b").await.waiting_bytes, 0);
    }
}

#[tokio::test]
async fn a_cancelled_call_frees_its_place_at_once() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").queue(1, 1 << 20)).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    for _ in 0..100 {
        drop(kernel.try_call(Do::Panic, NONE).unwrap());
    }
    drop(busy);
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 1, "nothing of it ran");
    let accounts = kernel.accounts();
    assert_eq!((accounts.accepted, accounts.answered, accounts.failed), (102, 1, 101));
}

#[tokio::test]
async fn ten_times_too_much_is_refused_and_memory_stays_bounded() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").queue(64, 64 * 100)).await.unwrap();
    let door = Latch::new();
    let busy = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let (mut taken, mut refused) = (Vec::new(), 0);
    for value in 0..640 {
        match kernel.try_call(Do::Double(value), NONE) {
            Ok(reply) => taken.push(reply),
            Err(error) => {
                assert!(matches!(error.error.kind(), KernelErrorKind::Overloaded(_)));
                refused += 1;
            }
        }
        let now = status(&runtime, "a/b").await;
        assert!(now.waiting <= 64 && now.waiting_bytes <= 6_400);
    }
    assert_eq!((taken.len(), refused), (63, 577), "63 that wait and one that runs are 6,400 bytes");
    door.open();
    soon(busy).await.unwrap();
    for reply in taken {
        soon(reply).await.unwrap();
    }
    assert_balanced(&kernel);
}

/// One random life of a kernel; the same seed does the same things in the same order.
async fn live(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (runtime, hand) = runtime().await;
    let mut spec = puppet("a/b").recovery(at_once(rng.u32(5..100))).queue(rng.usize(4..40), 1 << 20);
    if rng.bool() {
        spec = spec.inline();
    }
    if rng.bool() {
        spec = spec.idempotent().conviction_limit(rng.u32(1..4));
    }
    if rng.bool() {
        let config = CircuitBreakerConfig { failure_threshold: 3, timeout: ms(50), ..Default::default() };
        spec = spec.breaker(config);
    }
    let kernel = runtime.spawn(spec).await.unwrap();
    let (mut replies, mut doors, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rng.usize(20..120) {
        match rng.u32(0..20) {
            0 | 1 => hand.advance(ms(rng.u64(1..200))),
            2 if !replies.is_empty() => drop(replies.swap_remove(rng.usize(..replies.len()))),
            3 => drop(soon(runtime.kill("a/b")).await),
            4 => drop(soon(runtime.resume("a/b")).await),
            5 => doors.drain(..).for_each(|door: Arc<Latch>| door.open()),
            6 => tokio::task::yield_now().await,
            _ => match submit(&kernel, &mut rng, &mut doors) {
                Ok(reply) => replies.push(reply),
                Err(_) => refused += 1,
            },
        }
    }
    let others = rng.u32(0..4);
    if others != 1 {
        doors.iter().for_each(|door| door.open());
    }
    match others {
        0 => drop(turning(&hand, runtime.stop("a/b", rng.bool())).await),
        1 => drop(runtime),
        2 => drop(turning(&hand, runtime.shutdown(ms(1_000))).await),
        _ => drop(turning(&hand, runtime.resume("a/b")).await),
    }
    for reply in replies {
        drop(turning(&hand, reply).await);
    }
    doors.iter().for_each(|door| door.open());
    soon(async {
        loop {
            let accounts = kernel.accounts();
            let whys = kernel.failed().sum();
            if accounts.accepted == accounts.answered + accounts.failed && whys == accounts.failed {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(kernel.refused().sum(), refused);
}

fn submit(
    kernel: &PuppetRef,
    rng: &mut fastrand::Rng,
    doors: &mut Vec<Arc<Latch>>,
) -> std::result::Result<rustkernel::actors::Reply<Do, u64>, rustkernel::actors::Refused<Do>> {
    let work = match rng.u32(0..9) {
        0 => Do::Panic,
        1 => Do::Fail(ErrorKind::Permanent),
        2 => Do::FailUntil(rng.u32(0..3)),
        3 => Do::PanicUntil(rng.u32(0..3)),
        4 => {
            let door = Latch::new();
            doors.push(Arc::clone(&door));
            Do::Wait(door)
        }
        value => Do::Double(u64::from(value)),
    };
    if rng.bool() { kernel.try_call(work, NONE) } else { kernel.try_call(work, ms(rng.u64(0..300))) }
}

/// Waits while the clock goes on: retries wait for their backoff, a stop for its grace.
async fn turning<F: Future>(hand: &ClockHand, future: F) -> F::Output {
    let goes_on = async {
        loop {
            hand.advance(ms(10));
            tokio::task::yield_now().await;
        }
    };
    soon(async {
        tokio::select! {
            output = future => output,
            () = goes_on => unreachable!("the clock goes on"),
        }
    })
    .await
}

#[test]
fn whatever_happens_every_accepted_request_is_answered() {
    let replay = std::env::var("RUSTKERNEL_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds: Vec<u64> =
        replay.map_or_else(|| (0..150).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed]);
    for (index, seed) in seeds.into_iter().enumerate() {
        let mut builder = if index % 2 == 0 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2);
            builder
        };
        let tokio = builder.enable_all().build().unwrap();
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio.block_on(live(seed))));
        if let Err(panic) = lived {
            eprintln!("replay: RUSTKERNEL_SEED={seed} cargo test --test accounting whatever_happens");
            std::panic::resume_unwind(panic);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_caller_of_many_tasks_is_answered_over_panics_and_kills() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let spec = puppet("a/b").queue(8, 1 << 20).idempotent();
        let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let kernel = kernel.clone();
                kit::spawn(async move {
                    let mut refused = 0_u64;
                    for turn in 0..300 {
                        let work = if turn % 31 == 7 { Do::PanicUntil(1) } else { Do::Double(turn) };
                        let result = kernel.call(work, NONE).await;
                        let limit = |kind| matches!(kind, KernelErrorKind::Overloaded(_));
                        refused += u64::from(result.is_err() && limit(kind(result)));
                    }
                    refused
                })
            })
            .collect();
        for _ in 0..50 {
            soon(runtime.kill("a/b")).await;
            tokio::task::yield_now().await;
        }
        let mut refused = 0;
        for caller in callers {
            refused += soon(caller).await.unwrap();
        }
        assert_balanced(&kernel);
        assert_eq!(kernel.accounts().accepted + refused, 2_400);
    }
}
