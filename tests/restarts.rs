//! Restarts: budget, delay, isolation, checkpoints, re-runs, dead letters, failed starts, names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use kit::{DOWN_ISOLATED, DOWN_STOPPED, Do, Latch, NONE, Puppet, after, assert_balanced, at_once};
use kit::{kind, ms, puppet, soon, status};
use rustkernel::actors::{
    Cause, ClockHand, Events, Fact, KernelSpec, KernelState, Runtime, SpawnError, register,
};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{
    BackoffStrategy, ErrorKind, RecoveryPolicy, RecoveryStrategy, RetryConfig,
};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel};
use rustkernel::core::{KernelError, Result, codec};

async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

async fn fact(events: &mut Events, id: &str, wanted: impl FnMut(&Fact) -> bool) -> Fact {
    soon(events.find(id, wanted)).await.unwrap().fact
}

#[tokio::test]
async fn a_kernel_ref_stays_valid_over_1000_restarts() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let spec = puppet("a/b");
        let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
        for incarnation in 1..=1000 {
            assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), incarnation);
            assert_eq!(kind(soon(kernel.call(Do::Panic, NONE)).await), KernelErrorKind::Crashed);
        }
        assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 1001);
        assert_eq!(status(&runtime, "a/b").await.restarts, 1000);
        assert_balanced(&kernel);
    }
}

/// The end of an incarnation overtook the news that it serves: its panic was reported as a failed start.
#[tokio::test]
async fn an_incarnation_that_panics_on_its_first_request_has_panicked_and_not_failed_to_start() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let mut events = runtime.events();
        let spec = puppet("a/b");
        let kernel = runtime.spawn(if inline { spec.inline() } else { spec }).await.unwrap();
        let poison: Vec<_> = (0..20).map(|_| kernel.try_call(Do::Panic, NONE).unwrap()).collect();
        for reply in poison {
            soon(reply).await.unwrap_err();
        }
        soon(kernel.call(Do::Double(1), NONE)).await.unwrap();
        for number in 1..=20 {
            let started = fact(&mut events, "a/b", |fact| matches!(fact, Fact::Started { .. })).await;
            assert_eq!(started, Fact::Started { incarnation: number, restored: false });
            let failed = fact(&mut events, "a/b", |fact| matches!(fact, Fact::Failed { .. })).await;
            let Fact::Failed { incarnation, cause } = failed else { unreachable!() };
            assert_eq!(incarnation, number);
            assert!(matches!(&cause, Cause::Panicked(text) if text.contains("told to panic")), "{cause}");
        }
    }
}

#[tokio::test]
async fn a_used_up_budget_isolates_the_queue_is_answered_and_resume_brings_the_kernel_back() {
    let (runtime, _hand) = runtime().await;
    let kernel = runtime.spawn(puppet("a/b").recovery(at_once(2))).await.unwrap();
    let mut replies: Vec<_> = (0..3).map(|_| kernel.try_call(Do::Panic, NONE).unwrap()).collect();
    replies.extend((0..5).map(|value| kernel.try_call(Do::Double(value), NONE).unwrap()));
    let mut kinds = Vec::new();
    for reply in replies {
        kinds.push(kind(soon(reply).await));
    }
    assert!(kinds[..3].iter().all(|kind| *kind == KernelErrorKind::Crashed), "{kinds:?}");
    assert!(kinds[3..].iter().all(|kind| *kind == DOWN_ISOLATED), "{kinds:?}");
    assert_eq!(status(&runtime, "a/b").await.state, KernelState::Isolated);
    assert!(!runtime.resume("a/unknown").await);
    assert!(runtime.resume("a/b").await);
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 4);
    assert!(!runtime.resume("a/b").await, "it needs no resuming");
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 5, "the budget is full again");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn notify_operator_isolates_at_the_first_failure() {
    let (runtime, _hand) = runtime().await;
    let policy = RecoveryPolicy {
        strategy: RecoveryStrategy::NotifyOperator,
        escalation: None,
        ..RecoveryPolicy::default()
    };
    let kernel = runtime.spawn(puppet("a/b").recovery(policy)).await.unwrap();
    let behind = (kernel.try_call(Do::Panic, NONE).unwrap(), kernel.try_call(Do::Double(1), NONE).unwrap());
    soon(behind.0).await.unwrap_err();
    assert_eq!(kind(soon(behind.1).await), DOWN_ISOLATED);
}

#[tokio::test]
async fn a_restart_delay_blocks_nothing() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let slow = runtime.spawn(puppet("a/slow").recovery(after(ms(60_000), 9))).await.unwrap();
    let fast = runtime.spawn(puppet("a/fast")).await.unwrap();
    soon(slow.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, "a/slow", |fact| matches!(fact, Fact::Restarting { .. })).await;
    assert_eq!(status(&runtime, "a/slow").await.state, KernelState::Restarting);
    soon(fast.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(fast.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    let new = runtime.spawn(puppet("a/new")).await.unwrap();
    assert_eq!(soon(new.call(Do::Double(1), NONE)).await.unwrap(), 2);

    let refused = slow.try_call(Do::Double(1), ms(59_999)).unwrap_err();
    let restarting = KernelErrorKind::Restarting { retry_after: ms(60_000) };
    assert_eq!(refused.error.kind(), &restarting);
    assert!(matches!(refused.input, Do::Double(1)), "the input comes back");
    let waits = slow.try_call(Do::Incarnation, ms(60_001)).unwrap();
    hand.advance(ms(60_000));
    assert_eq!(soon(waits).await.unwrap(), 2);
}

#[tokio::test]
async fn a_stop_during_the_restart_delay_is_final() {
    for drain in [false, true] {
        let (runtime, hand) = runtime().await;
        let mut events = runtime.events();
        let kernel = runtime.spawn(puppet("a/b").recovery(after(ms(1_000), 9))).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        fact(&mut events, "a/b", |fact| matches!(fact, Fact::Restarting { .. })).await;
        let waits = kernel.try_call(Do::Double(1), NONE).unwrap();
        assert!(soon(runtime.stop("a/b", drain)).await);
        assert_eq!(kind(soon(waits).await), DOWN_STOPPED, "drain: {drain}");
        hand.advance(ms(60_000));
        assert!(soon(runtime.status()).await.is_empty());
        assert_eq!(kind(kernel.call(Do::Double(1), NONE).await), DOWN_STOPPED);
        runtime.spawn(puppet("a/b")).await.unwrap();
    }
}

/// The alarm of the first delay rings while the kernel is in its second: by its token it starts nothing.
#[tokio::test]
async fn a_stale_timer_is_ignored() {
    let (runtime, hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(puppet("a/b").recovery(after(ms(1_000), 9))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, "a/b", |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(ms(500));
    assert!(runtime.resume("a/b").await, "an operator does not wait for the delay");
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, "a/b", |fact| matches!(fact, Fact::Restarting { .. })).await;
    hand.advance(ms(999));
    assert_eq!(status(&runtime, "a/b").await.incarnation, 2);
    hand.advance(ms(1));
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 3);
}

#[tokio::test]
async fn a_first_start_that_fails_is_a_spawn_error_and_the_name_is_free_again() {
    let (runtime, hand) = runtime().await;
    let panics = KernelSpec::<Puppet>::new("a/b", || panic!("no device"));
    let errs = KernelSpec::<Puppet>::fallible("a/b", || Err(KernelError::permanent("no device")));
    let wrong = puppet("a/b").canary(Do::Double(2), |answer| *answer == 5);
    for (spec, inline) in [(panics, false), (errs, true), (wrong, true)] {
        let spec = if inline { spec.inline() } else { spec };
        let error = soon(runtime.spawn(spec)).await.unwrap_err();
        let SpawnError::Start { cause: Cause::StartFailed(text), .. } = &error else { panic!("{error}") };
        assert!(text.contains("no device") || text.contains("canary"), "{text}");
        assert!(runtime.kernel::<Do, u64>("a/b").is_none());
    }

    let door = Latch::new();
    let stuck = Arc::clone(&door);
    let hangs = KernelSpec::new("a/b", move || {
        stuck.block();
        Puppet
    });
    let other = runtime.clone();
    let spawning = kit::spawn(async move { other.spawn(hangs.start_limit(ms(100))).await.map(drop) });
    door.arrived(1).await;
    let taken = runtime.spawn(puppet("a/b")).await.unwrap_err();
    assert!(matches!(taken, SpawnError::NameTaken(_)));
    hand.advance(ms(100));
    let error = soon(spawning).await.unwrap().unwrap_err();
    assert!(matches!(error, SpawnError::Start { cause: Cause::StartFailed(_), .. }), "{error}");
    door.open();
    let kernel = runtime.spawn(puppet("a/b")).await.unwrap();
    assert_eq!(soon(kernel.call(Do::Double(1), NONE)).await.unwrap(), 2);
    assert!(matches!(runtime.spawn(puppet("a/b")).await.unwrap_err(), SpawnError::NameTaken(_)));
    assert!(matches!(runtime.spawn(puppet("ab")).await.unwrap_err(), SpawnError::Id(_)));
}

/// A spawn or a stop whose future was dropped kept the name taken for ever.
#[tokio::test]
async fn a_dropped_spawn_or_stop_still_frees_the_name() {
    let (runtime, _hand) = runtime().await;
    let door = Latch::new();
    let stuck = Arc::clone(&door);
    let fails = KernelSpec::<Puppet>::fallible("a/b", move || {
        stuck.block();
        Err(KernelError::permanent("no device"))
    });
    let other = runtime.clone();
    let spawning = kit::spawn(async move { other.spawn(fails).await.map(drop) });
    door.arrived(1).await;
    spawning.abort();
    door.open();
    let free = async {
        while let Err(SpawnError::NameTaken(_)) = runtime.spawn(puppet("a/b")).await {
            tokio::task::yield_now().await;
        }
    };
    soon(free).await;

    let busy = Latch::new();
    let kernel = runtime.kernel::<Do, u64>("a/b").unwrap();
    let reply = kernel.try_call(Do::Block(Arc::clone(&busy)), NONE).unwrap();
    busy.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", false).await });
    while status(&runtime, "a/b").await.state != KernelState::Stopping {
        tokio::task::yield_now().await;
    }
    stopping.abort();
    busy.open();
    soon(reply).await.unwrap();
    let free = async {
        while let Err(SpawnError::NameTaken(_)) = runtime.spawn(puppet("a/b")).await {
            tokio::task::yield_now().await;
        }
    };
    soon(free).await;
}

#[tokio::test]
async fn two_runtimes_in_one_process_share_no_names() {
    let (first, _hand) = runtime().await;
    let (second, _hand) = runtime().await;
    let one = first.spawn(puppet("a/b")).await.unwrap();
    let two = second.spawn(puppet("a/b")).await.unwrap();
    soon(one.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(one.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    assert_eq!(soon(two.call(Do::Incarnation, NONE)).await.unwrap(), 1);
    assert!(soon(first.stop("a/b", true)).await);
    assert_eq!(soon(two.call(Do::Double(1), NONE)).await.unwrap(), 2);
}

#[tokio::test]
async fn strategies_without_a_target_and_bad_numbers_are_refused_by_field() {
    let (runtime, _hand) = runtime().await;
    let refused = async |spec| {
        let SpawnError::Config { source, .. } = runtime.spawn(spec).await.unwrap_err() else { panic!() };
        source.field
    };
    for strategy in [RecoveryStrategy::UseReplica, RecoveryStrategy::Degrade, RecoveryStrategy::Failover] {
        let first = RecoveryPolicy { strategy, ..at_once(1) };
        assert_eq!(refused(puppet("a/b").recovery(first)).await, "recovery.strategy");
        let then = RecoveryPolicy { escalation: Some(strategy), ..at_once(1) };
        assert_eq!(refused(puppet("a/b").recovery(then)).await, "recovery.escalation");
    }
    let same = RecoveryPolicy { escalation: Some(RecoveryStrategy::RestartKernel), ..at_once(1) };
    assert_eq!(refused(puppet("a/b").recovery(same)).await, "recovery.escalation");
    assert_eq!(refused(puppet("a/b").queue(0, 1)).await, "queue.requests");
    assert_eq!(refused(puppet("a/b").queue(1, 0)).await, "queue.bytes");
    assert_eq!(refused(puppet("a/b").conviction_limit(0)).await, "conviction_limit");
    assert_eq!(refused(puppet("a/b").hang_limit(Duration::ZERO)).await, "hang_limit");
    assert_eq!(refused(puppet("a/b").start_limit(Duration::ZERO)).await, "start_limit");
    assert_eq!(refused(puppet("a/b").restart_window(Duration::ZERO)).await, "restart_window");
    runtime.spawn(puppet("a/b")).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_age_window_no_longer_counts() {
    let (runtime, hand) = runtime().await;
    let spec = puppet("a/b").recovery(at_once(1)).restart_window(ms(1_000));
    let kernel = runtime.spawn(spec).await.unwrap();
    for incarnation in 2..=5 {
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), incarnation);
        hand.advance(ms(1_000));
    }
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(kernel.call(Do::Incarnation, NONE)).await.unwrap();
    hand.advance(ms(999));
    let behind = [kernel.try_call(Do::Panic, NONE).unwrap(), kernel.try_call(Do::Double(1), NONE).unwrap()];
    let [_, behind] = behind;
    assert!(matches!(kind(soon(behind).await), KernelErrorKind::Down(_)));
}

/// Counts its requests; its restore and its canary do as they are told.
struct Counter {
    count: u64,
    restore_fails: Arc<AtomicBool>,
}

impl Kernel for Counter {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, _: &mut Context<'_>) -> Result<u64> {
        assert!(!matches!(input, Do::Panic), "told to panic");
        self.count += 1;
        Ok(self.count)
    }
}

impl CheckpointableKernel for Counter {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64> {
        Ok(self.count)
    }

    async fn restore(&mut self, checkpoint: u64) -> Result<()> {
        if self.restore_fails.load(Ordering::Acquire) {
            return Err(KernelError::permanent("told to fail"));
        }
        self.count = checkpoint;
        Ok(())
    }
}

fn counter(restore_fails: &Arc<AtomicBool>) -> KernelSpec<Counter> {
    let restore_fails = Arc::clone(restore_fails);
    KernelSpec::new("a/b", move || Counter { count: 0, restore_fails: Arc::clone(&restore_fails) })
        .breaker(None)
        .recovery(at_once(3))
        .checkpointed()
}

#[tokio::test]
async fn the_newest_checkpoint_is_restored_after_a_panic() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let kernel = runtime.spawn(counter(&Arc::default()).checkpoint_every(2)).await.unwrap();
    for count in 1..=5 {
        assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), count);
    }
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 5, "the checkpoint of 4 and one more");
    let restored = Fact::Started { incarnation: 2, restored: true };
    assert_eq!(fact(&mut events, "a/b", |fact| *fact == restored).await, restored);
}

#[tokio::test]
async fn a_failing_restore_costs_the_budget() {
    let (runtime, _hand) = runtime().await;
    let fails = Arc::new(AtomicBool::new(false));
    let kernel = runtime.spawn(counter(&fails)).await.unwrap();
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 1);
    fails.store(true, Ordering::Release);
    let waits = (kernel.try_call(Do::Panic, NONE).unwrap(), kernel.try_call(Do::Double(0), NONE).unwrap());
    soon(waits.0).await.unwrap_err();
    assert_eq!(kind(soon(waits.1).await), DOWN_ISOLATED);
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.restarts, now.incarnation), (3, 4));
    assert!(matches!(now.last_failure, Some(Cause::StartFailed(_))));
    fails.store(false, Ordering::Release);
    assert!(runtime.resume("a/b").await);
    assert_eq!(soon(kernel.call(Do::Double(0), NONE)).await.unwrap(), 2, "the checkpoint was kept");
}

#[tokio::test]
async fn a_canary_that_answers_wrong_later_on_costs_the_budget() {
    let (runtime, _hand) = runtime().await;
    let starts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&starts);
    let spec = puppet("a/b").recovery(at_once(9)).canary(Do::Double(2), move |answer| {
        *answer == 4 && !(2..=3).contains(&(counted.fetch_add(1, Ordering::AcqRel) + 1))
    });
    let kernel = runtime.spawn(spec).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 4);
    assert_eq!(status(&runtime, "a/b").await.restarts_in_window, 3);
}

#[tokio::test]
async fn only_idempotent_requests_are_run_again() {
    let (runtime, _hand) = runtime().await;
    let once = runtime.spawn(puppet("a/once")).await.unwrap();
    assert_eq!(kind(soon(once.call(Do::PanicUntil(1), NONE)).await), KernelErrorKind::Crashed);
    let again = runtime.spawn(puppet("a/again").idempotent()).await.unwrap();
    assert_eq!(soon(again.call(Do::PanicUntil(1), NONE)).await.unwrap(), 2);
    assert_eq!(again.accounts().reruns, 1);
    assert_balanced(&again);
}

#[tokio::test]
async fn an_idempotent_kernels_own_errors_are_retried_after_the_backoff() {
    let (runtime, hand) = runtime().await;
    let retry = RetryConfig {
        max_attempts: 3,
        backoff: BackoffStrategy::Fixed { delay: ms(100) },
        retryable_errors: vec![ErrorKind::Transient],
    };
    let kernel = runtime.spawn(puppet("a/b").idempotent().retry(retry.clone())).await.unwrap();
    let reply = kernel.try_call(Do::FailUntil(2), NONE).unwrap();
    for _ in 0..2 {
        soon(async { while status(&runtime, "a/b").await.waiting == 0 {} }).await;
        let overtakes = soon(kernel.call(Do::Attempt, NONE)).await.unwrap();
        assert_eq!(overtakes, 1, "a backoff holds nobody up");
        hand.advance(ms(100));
        soon(kernel.call(Do::Attempt, NONE)).await.unwrap();
    }
    assert_eq!(soon(reply).await.unwrap(), 3);
    let reply = kernel.try_call(Do::FailUntil(9), ms(150)).unwrap();
    soon(async { while status(&runtime, "a/b").await.waiting == 0 {} }).await;
    hand.advance(ms(100));
    let error = soon(reply).await.unwrap_err();
    assert_eq!(error.kind(), &KernelErrorKind::Kernel(ErrorKind::Transient), "no time for a third attempt");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_request_that_takes_two_incarnations_down_is_a_dead_letter_with_its_bytes() {
    let (runtime, _hand) = runtime().await;
    struct Fragile(Arc<AtomicU64>);
    impl Kernel for Fragile {
        type Input = u64;
        type Output = u64;

        async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64> {
            self.0.fetch_add(1, Ordering::AcqRel);
            assert!(*input != 13, "unlucky");
            Ok(*input)
        }
    }
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let spec = KernelSpec::new("a/b", move || Fragile(Arc::clone(&count)))
        .breaker(None)
        .recovery(at_once(9))
        .idempotent()
        .registered(&register());
    let kernel = runtime.spawn(spec).await.unwrap();
    let replies: Vec<_> = [1, 13, 2].map(|input| kernel.try_call(input, NONE).unwrap()).into();
    let mut results = Vec::new();
    for reply in replies {
        results.push(soon(reply).await.map_err(|error| error.kind().clone()));
    }
    assert_eq!(results, [Ok(1), Err(KernelErrorKind::Crashed), Ok(2)]);
    assert_eq!(runs.load(Ordering::Acquire), 4);
    let (total, letters) = runtime.dead_letters();
    assert_eq!((total, letters.len()), (1, 1));
    assert_eq!(letters[0].attempts, 2);
    let input: u64 = codec::decode_as("u64", letters[0].input.as_ref().unwrap()).unwrap();
    assert_eq!(input, 13);
}

#[tokio::test]
async fn without_an_escalation_the_runtime_gives_up_and_everything_is_answered() {
    let (runtime, _hand) = runtime().await;
    let fatal = RecoveryPolicy { escalation: None, ..at_once(0) };
    let kernel = runtime.spawn(puppet("a/fatal").recovery(fatal)).await.unwrap();
    let other = runtime.spawn(puppet("a/other")).await.unwrap();
    let door = Latch::new();
    let waits =
        [Do::Wait(Arc::clone(&door)), Do::Double(1)].map(|input| other.try_call(input, NONE).unwrap());
    door.arrived(1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    for reply in waits {
        soon(reply).await.unwrap_err();
    }
    assert_eq!(soon(runtime.ended()).await, rustkernel::actors::RuntimeState::GaveUp);
    assert!(!runtime.health().live);
    assert!(matches!(kind(other.call(Do::Double(1), NONE).await), KernelErrorKind::Down(_)));
    assert!(matches!(runtime.spawn(puppet("a/new")).await.unwrap_err(), SpawnError::RuntimeGone));
    assert_balanced(&other);
}

/// User code that runs beside a kernel may panic too: it must not take the recovery actor along.
#[tokio::test]
async fn an_error_whose_text_panics_is_a_failed_start_and_nothing_else() {
    #[derive(Debug)]
    struct Spiteful;
    impl std::fmt::Display for Spiteful {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("not even my text")
        }
    }
    impl std::error::Error for Spiteful {}
    let (runtime, _hand) = runtime().await;
    let other = runtime.spawn(puppet("a/other")).await.unwrap();
    for inline in [false, true] {
        let spec = KernelSpec::<Puppet>::fallible("a/b", || Err(KernelError::permanent(Spiteful)));
        let error = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap_err();
        assert!(matches!(error, SpawnError::Start { .. }), "{error}");
        assert_eq!(soon(other.call(Do::Double(1), NONE)).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_dead_letter_whose_encoding_panics_takes_nothing_along() {
    #[derive(serde::Deserialize)]
    struct Spiteful;
    impl serde::Serialize for Spiteful {
        fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
            panic!("not even my bytes")
        }
    }
    impl rustkernel::core::traits::Payload for Spiteful {
        fn size_bytes(&self) -> usize {
            0
        }
        fn schema() -> String {
            "spiteful".into()
        }
    }
    struct Dies;
    impl Kernel for Dies {
        type Input = Spiteful;
        type Output = u64;

        async fn execute(&mut self, _: &Spiteful, _: &mut Context<'_>) -> Result<u64> {
            panic!("told to panic")
        }
    }
    let (runtime, _hand) = runtime().await;
    let spec = KernelSpec::new("a/b", || Dies).breaker(None).recovery(at_once(9)).idempotent();
    let kernel = runtime.spawn(spec.registered(&register())).await.unwrap();
    for letters in 1..=2 {
        assert_eq!(kind(soon(kernel.call(Spiteful, NONE)).await), KernelErrorKind::Crashed);
        assert_eq!(runtime.dead_letters().0, letters);
    }
}

/// Panics when it runs and again when it is dropped by that panic.
struct Bitter;

impl Kernel for Bitter {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        assert!(!matches!(input, Do::Panic), "told to panic");
        Ok(cx.incarnation())
    }
}

impl Drop for Bitter {
    fn drop(&mut self) {
        panic!("and again");
    }
}

/// Two panics at once ended the process.
#[tokio::test]
async fn a_kernel_that_panics_in_its_drop_too_is_restarted() {
    for inline in [true, false] {
        let (runtime, _hand) = runtime().await;
        let spec = KernelSpec::new("a/bitter", || Bitter).recovery(at_once(5)).breaker(None);
        let spec = if inline { spec.inline() } else { spec };
        let kernel = runtime.spawn(spec).await.unwrap();
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(soon(kernel.call(Do::Incarnation, NONE)).await.unwrap(), 2);
    }
}
