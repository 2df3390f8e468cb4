//! A new version behind the same name, while requests keep coming.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::sync::Arc;

use kit::{Do, Latch, NONE, Puppet, assert_balanced, kind, ms, soon, status};
use rustkernel::actors::{Cause, Fact, HandOverError, KernelSpec, KernelState, Runtime};
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel};
use rustkernel::core::{KernelError, Result};
use serde::{Deserialize, Serialize};
use tally::{COUNT, DELAY, Fault, Script, Tally, TallyRef, Told, fact, policy, runtime, standbys, tally};

fn version(script: &Arc<Script>, who: &'static str) -> KernelSpec<Tally> {
    KernelSpec::new("a/b", script.maker(who)).checkpointed()
}

async fn next(kernel: &TallyRef) -> (&'static str, u64) {
    let told = soon(kernel.call(COUNT, NONE)).await.unwrap();
    (told.who, told.count)
}

/// Starts a replacement in a task of its own.
fn replacing(
    runtime: &Runtime,
    spec: KernelSpec<Tally>,
) -> tokio::task::JoinHandle<Result<(), HandOverError>> {
    let runtime = runtime.clone();
    kit::spawn(async move { runtime.replace(spec).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_takes_over_while_requests_flow_and_loses_none_and_no_state() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let script = Script::new();
        let spec = tally(&script).checkpoint_every(1_000);
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let kernel = kernel.clone();
                kit::spawn(async move {
                    let mut told = Vec::new();
                    while told.last().is_none_or(|told: &Told| told.who != "third") {
                        told.push(kernel.call(COUNT, NONE).await.unwrap());
                    }
                    told
                })
            })
            .collect();
        for who in ["second", "third"] {
            let spec = version(&script, who);
            soon(runtime.replace(if inline { spec.inline() } else { spec })).await.unwrap();
        }
        let mut all = Vec::new();
        for caller in callers {
            all.extend(soon(caller).await.unwrap());
        }
        all.sort_by_key(|told| told.count);
        let counts: Vec<u64> = all.iter().map(|told| told.count).collect();
        assert_eq!(counts, (1..=all.len() as u64).collect::<Vec<_>>(), "one count, through all versions");
        assert!(all.is_sorted_by_key(|told| told.life), "one version after the other");
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.state, now.incarnation, now.restarts), (KernelState::Serving, 3, 0));
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn the_next_lives_are_of_the_new_version_too() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let now = RecoveryPolicy { restart_delay: ms(0), ..policy(RecoveryStrategy::RestartKernel) };
    let kernel = soon(runtime.spawn(tally(&script).recovery(now))).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    soon(runtime.replace(version(&script, "second"))).await.unwrap();
    assert_eq!(next(&kernel).await, ("second", 2));
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("second", 3));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn standbys_are_replaced_too() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let spec = tally(&script).replicas(1).recovery(policy(RecoveryStrategy::UseReplica));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    soon(runtime.replace(version(&script, "second"))).await.unwrap();
    script.made(4).await;
    standbys(&runtime, 1).await;
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(next(&kernel).await, ("second", 2));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_version_that_fails_in_its_factory_or_its_canary_or_blocks_leaves_the_old_one_serving() {
    let (runtime, hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(tally(&script))).await.unwrap();
    script.breaks("second", Fault::Panics);
    let error = soon(runtime.replace(version(&script, "second"))).await.unwrap_err();
    assert!(
        matches!(&error, HandOverError::Start(Cause::StartFailed(text)) if text.contains("broken")),
        "{error}"
    );
    script.mends("second");
    let wrong = version(&script, "second").canary(COUNT, |told| told.who == "third");
    let error = soon(runtime.replace(wrong)).await.unwrap_err();
    assert!(
        matches!(&error, HandOverError::Start(Cause::StartFailed(text)) if text.contains("canary")),
        "{error}"
    );
    let door = Latch::new();
    script.breaks("second", Fault::Blocks(Arc::clone(&door)));
    let blocked = replacing(&runtime, version(&script, "second"));
    door.arrived(1).await;
    assert_eq!(next(&kernel).await, ("main", 1));
    hand.advance(ms(30_000));
    let error = soon(blocked).await.unwrap().unwrap_err();
    assert!(matches!(error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
    door.open();
    assert_eq!(next(&kernel).await, ("main", 2));
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.state, now.incarnation, now.restarts), (KernelState::Serving, 1, 0));
    assert_eq!(now.last_failure, None, "the kernel itself has not failed");
    script.mends("second");
    soon(runtime.replace(version(&script, "second"))).await.unwrap();
    assert_eq!(next(&kernel).await, ("second", 3));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn other_types_and_unknown_kernels_and_bad_settings_are_refused() {
    let (runtime, _hand) = runtime().await;
    let kernel = soon(runtime.spawn(tally(&Script::new()))).await.unwrap();
    let other = soon(runtime.replace(KernelSpec::new("a/b", || Puppet))).await.unwrap_err();
    let HandOverError::Types { takes, gives } = other else { panic!("{other}") };
    assert_eq!((takes.as_str(), gives.as_str()), ("do", "told"));
    let unknown = soon(runtime.replace(KernelSpec::new("a/c", || Puppet))).await.unwrap_err();
    assert!(matches!(unknown, HandOverError::UnknownKernel));
    let bad = version(&Script::new(), "second").checkpoint_every(0);
    let Err(HandOverError::Config(refused)) = soon(runtime.replace(bad)).await else { panic!() };
    assert_eq!(refused.field, "checkpoint_every");
    assert_eq!(next(&kernel).await, ("main", 1));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn one_hand_over_at_a_time_and_none_of_a_kernel_that_drains_waits_or_is_isolated() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(tally(&script))).await.unwrap();
    let busy = async |who| {
        let error = soon(runtime.replace(version(&script, who))).await.unwrap_err();
        assert!(matches!(error, HandOverError::Busy), "{error}");
    };
    let door = Latch::new();
    script.breaks("second", Fault::Blocks(Arc::clone(&door)));
    let first = replacing(&runtime, version(&script, "second"));
    door.arrived(1).await;
    busy("third").await;
    door.open();
    soon(first).await.unwrap().unwrap();

    let mut events = runtime.events();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    fact(&mut events, |fact| matches!(fact, Fact::Restarting { .. })).await;
    busy("third").await;
    assert!(runtime.resume("a/b").await);
    assert_eq!(next(&kernel).await, ("second", 1));

    let door = Latch::new();
    let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let stopping = kit::spawn(async move { other.stop("a/b", true).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    busy("third").await;
    door.open();
    soon(in_hand).await.unwrap();
    assert!(soon(stopping).await.unwrap());
    assert_balanced(&kernel);

    let operator = policy(RecoveryStrategy::NotifyOperator);
    let kernel = soon(runtime.spawn(tally(&script).recovery(operator))).await.unwrap();
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Isolated {} }).await;
    busy("third").await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_kernel_of_a_runtime_that_shuts_down_is_not_replaced() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(tally(&script))).await.unwrap();
    let door = Latch::new();
    let in_hand = kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap();
    door.arrived(1).await;
    let other = runtime.clone();
    let ending = kit::spawn(async move { other.shutdown(ms(10_000)).await });
    soon(async { while status(&runtime, "a/b").await.state != KernelState::Draining {} }).await;
    let error = soon(runtime.replace(version(&script, "second"))).await.unwrap_err();
    assert!(matches!(error, HandOverError::Busy), "{error}");
    door.open();
    assert_eq!(soon(in_hand).await.unwrap().who, "main");
    soon(ending).await.unwrap().unwrap();
    assert_balanced(&kernel);
}

/// On one thread, so that a version that runs inline has said that it is ready as soon as anybody hears of its restore.
#[tokio::test]
async fn a_version_that_waits_takes_over_from_one_that_hangs_or_dies() {
    for hang in [false, true] {
        let (runtime, hand) = runtime().await;
        let script = Script::new();
        let spec = tally(&script).recovery(policy(RecoveryStrategy::NotifyOperator)).hang_limit(ms(500));
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        assert_eq!(next(&kernel).await, ("main", 1));
        let door = Latch::new();
        let input = if hang { Do::Block(Arc::clone(&door)) } else { Do::Wait(Arc::clone(&door)) };
        let in_hand = kernel.try_call(input, NONE).unwrap();
        let queued = kernel.try_call(COUNT, NONE).unwrap();
        door.arrived(1).await;
        let replaced = replacing(&runtime, version(&script, "second").inline());
        script.has_restored(1).await;
        // Asked after the new version has spoken, it answers when it has heard it.
        assert_eq!(status(&runtime, "a/b").await.incarnation, 1, "the old one has a request in hand");
        if hang {
            hand.advance(ms(500));
        } else {
            soon(async { while !runtime.kill("a/b").await {} }).await;
        }
        let expected = if hang { KernelErrorKind::Hung } else { KernelErrorKind::Crashed };
        assert_eq!(kind(soon(in_hand).await), expected);
        soon(replaced).await.unwrap().unwrap();
        let told = soon(queued).await.unwrap();
        assert_eq!((told.who, told.count, told.life), ("second", 2, 2));
        let now = status(&runtime, "a/b").await;
        assert_eq!((now.state, now.restarts), (KernelState::Serving, 0), "by no restart");
        assert_eq!(next(&kernel).await, ("second", 3));
        door.open();
        assert_balanced(&kernel);
    }
}

/// The new version took over, could not restore the last checkpoint, and the next lives were of that version still.
#[tokio::test]
async fn a_version_that_cannot_restore_the_last_checkpoint_gives_way_to_the_old_one() {
    for (replicas, strategy) in [(0, RecoveryStrategy::NotifyOperator), (1, RecoveryStrategy::UseReplica)] {
        let (runtime, _hand) = runtime().await;
        let script = Script::new();
        let spec = tally(&script).checkpoint_every(100).replicas(replicas).recovery(policy(strategy));
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        assert_eq!(next(&kernel).await, ("main", 1));
        script.fail_restores(1);
        let error = soon(runtime.replace(version(&script, "second"))).await.unwrap_err();
        assert!(matches!(&error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
        assert_eq!(next(&kernel).await, ("main", 2), "whatever its policy, and with its state");
        soon(runtime.replace(version(&script, "second"))).await.unwrap();
        assert_eq!(next(&kernel).await, ("second", 3));
        assert_balanced(&kernel);
    }
}

/// A new version that could not read the state of the old one had all of its checkpoints refused, and began with nothing.
#[tokio::test]
async fn a_version_whose_state_is_another_refuses_no_checkpoint() {
    #[derive(Serialize, Deserialize)]
    struct Elaborate {
        name: String,
        counts: Vec<u64>,
    }
    struct Other;
    impl Kernel for Other {
        type Input = Do;
        type Output = Told;

        async fn execute(&mut self, _: &Do, cx: &mut Context<'_>) -> Result<Told> {
            Ok(Told { who: "other", life: cx.incarnation(), count: 0, attempt: 1 })
        }
    }
    impl CheckpointableKernel for Other {
        type Checkpoint = Elaborate;

        async fn checkpoint(&self) -> Result<Elaborate> {
            Ok(Elaborate { name: "other".into(), counts: Vec::new() })
        }

        async fn restore(&mut self, _: Elaborate) -> Result<()> {
            Ok(())
        }
    }
    for every in [1, 100] {
        let (runtime, _hand) = runtime().await;
        let mut events = runtime.events();
        let script = Script::new();
        let policy = RecoveryPolicy { restart_delay: ms(0), ..policy(RecoveryStrategy::RestartKernel) };
        let kernel =
            soon(runtime.spawn(tally(&script).checkpoint_every(every).recovery(policy))).await.unwrap();
        assert_eq!(next(&kernel).await, ("main", 1));
        let other = KernelSpec::new("a/b", || Other).checkpointed();
        let error = soon(runtime.replace(other)).await.unwrap_err();
        assert!(matches!(&error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
        assert_eq!(next(&kernel).await, ("main", 2), "every {every}");
        soon(runtime.stop("a/b", true)).await;
        let refused = |fact: &Fact| matches!(fact, Fact::CheckpointRefused { .. } | Fact::Stopped);
        assert_eq!(fact(&mut events, refused).await, Fact::Stopped, "none was refused");
        assert_balanced(&kernel);
    }
}

/// The bytes of a count were read as a debt: the new version went on from -1.
#[tokio::test]
async fn a_version_whose_state_only_looks_alike_is_refused_by_name() {
    struct Debt(i64);
    impl Kernel for Debt {
        type Input = Do;
        type Output = Told;

        async fn execute(&mut self, _: &Do, cx: &mut Context<'_>) -> Result<Told> {
            Ok(Told { who: "debt", life: cx.incarnation(), count: self.0.unsigned_abs(), attempt: 1 })
        }
    }
    impl CheckpointableKernel for Debt {
        type Checkpoint = i64;

        async fn checkpoint(&self) -> Result<i64> {
            Ok(self.0)
        }

        async fn restore(&mut self, checkpoint: i64) -> Result<()> {
            self.0 = checkpoint;
            Ok(())
        }
    }
    let (runtime, _hand) = runtime().await;
    let kernel = soon(runtime.spawn(tally(&Script::new()))).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    let error = soon(runtime.replace(KernelSpec::new("a/b", || Debt(0)).checkpointed())).await.unwrap_err();
    let HandOverError::Start(Cause::StartFailed(text)) = &error else { panic!("{error}") };
    assert!(text.contains("it holds `u64`, not `i64`"), "{text}");
    assert_eq!(next(&kernel).await, ("main", 2));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_last_checkpoint_that_cannot_be_taken_leaves_the_old_version_serving() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(tally(&script).checkpoint_every(100))).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    script.fail_checkpoints(1);
    let error = soon(runtime.replace(version(&script, "second"))).await.unwrap_err();
    assert!(
        matches!(&error, HandOverError::Checkpoint { reason } if reason.contains("told to fail")),
        "{error}"
    );
    fact(&mut events, |fact| matches!(fact, Fact::CheckpointFailed { .. })).await;
    assert_eq!(next(&kernel).await, ("main", 2));
    soon(runtime.replace(version(&script, "second"))).await.unwrap();
    assert_eq!(next(&kernel).await, ("second", 3));
    assert_balanced(&kernel);
}

/// A version that blocked over the last checkpoint was watched by nobody.
#[tokio::test]
async fn a_version_that_blocks_over_the_last_checkpoint_is_left_behind() {
    struct Stuck(Arc<Latch>);
    impl Kernel for Stuck {
        type Input = Do;
        type Output = Told;

        async fn execute(&mut self, _: &Do, _: &mut Context<'_>) -> Result<Told> {
            Err(KernelError::permanent("it never serves"))
        }
    }
    impl CheckpointableKernel for Stuck {
        type Checkpoint = u64;

        async fn checkpoint(&self) -> Result<u64> {
            Ok(0)
        }

        async fn restore(&mut self, _: u64) -> Result<()> {
            self.0.block();
            Ok(())
        }
    }
    let (runtime, hand) = runtime().await;
    let kernel = soon(runtime.spawn(tally(&Script::new()).checkpoint_every(100))).await.unwrap();
    assert_eq!(next(&kernel).await, ("main", 1));
    let door = Latch::new();
    let before = Arc::clone(&door);
    let stuck = KernelSpec::new("a/b", move || Stuck(Arc::clone(&before))).checkpointed();
    let other = runtime.clone();
    let replaced = kit::spawn(async move { other.replace(stuck).await });
    door.arrived(1).await;
    let queued = kernel.try_call(COUNT, NONE).unwrap();
    soon(async {
        while !replaced.is_finished() {
            // Slowly: the old version is made again, and is to be in time.
            hand.advance(ms(10));
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = soon(replaced).await.unwrap().unwrap_err();
    assert!(matches!(error, HandOverError::Start(Cause::StartFailed(_))), "{error}");
    let told = soon(queued).await.unwrap();
    assert_eq!((told.who, told.count), ("main", 2));
    assert_eq!(runtime.abandoned_threads(), 1);
    door.open();
    hand.advance(DELAY);
    assert_balanced(&kernel);
}
