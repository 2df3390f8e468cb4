//! All recovery strategies at once, at random: panics, hangs, kills, replacements, fail-backs and resumes, from one seed.
//!
//! A failing run prints its seed; `STRATEGIES_SEED=<seed> cargo test -p rustkernel --test strategies` runs that one again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kit::{Do, Latch, NONE, assert_balanced, ms, soon, status};
use rustkernel::actors::{Events, Fact, KernelRef, KernelSpec, Runtime};
use rustkernel::core::error::Phase;
use rustkernel::core::resilience::{RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel, Payload};
use rustkernel::core::{DeviceId, Result};

/// An execution that was answered: between which two ticks of a clock that all lives share.
#[derive(Clone, Copy, Debug)]
struct Span {
    life: u64,
    from: u64,
    to: u64,
}

impl Payload for Span {
    fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn schema() -> String {
        "span".into()
    }
}

/// What all lives of all versions share.
#[derive(Debug, Default)]
struct World {
    ticks: AtomicU64,
    /// Factories panic while this is above zero, and take one off.
    bad_starts: AtomicU64,
    bad_restores: AtomicU64,
}

impl World {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn maker(self: &Arc<Self>) -> impl Fn() -> Worker + Send + Sync + use<> {
        let world = Arc::clone(self);
        move || {
            assert!(!take_one(&world.bad_starts), "a bad start");
            Worker { world: Arc::clone(&world), served: 0 }
        }
    }
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

struct Worker {
    world: Arc<World>,
    served: u64,
}

impl Kernel for Worker {
    type Input = Do;
    type Output = Span;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<Span> {
        let from = self.world.tick();
        match input {
            Do::Panic => panic!("told to panic"),
            Do::Block(latch) => latch.block(),
            Do::Wait(latch) => latch.pass().await,
            Do::Double(_) | Do::Fail(_) | Do::Incarnation | Do::Attempt => {}
            Do::PanicUntil(_) | Do::FailUntil(_) => {}
        }
        self.served += 1;
        Ok(Span { life: cx.incarnation(), from, to: self.world.tick() })
    }
}

impl CheckpointableKernel for Worker {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64> {
        Ok(self.served)
    }

    async fn restore(&mut self, served: u64) -> Result<()> {
        assert!(!take_one(&self.world.bad_restores), "a bad restore");
        self.served = served;
        Ok(())
    }
}

/// A ladder at random, which ends with the operator.
fn policy(rng: &mut fastrand::Rng) -> (RecoveryPolicy, Vec<RecoveryStrategy>) {
    let mut ladder =
        vec![RecoveryStrategy::UseReplica, RecoveryStrategy::Degrade, RecoveryStrategy::Failover];
    rng.shuffle(&mut ladder);
    ladder.truncate(rng.usize(..=3));
    if rng.bool() {
        ladder.insert(0, RecoveryStrategy::RestartKernel);
    }
    ladder.push(RecoveryStrategy::NotifyOperator);
    let policy = RecoveryPolicy {
        strategy: ladder[0],
        max_restarts: rng.u32(1..4),
        restart_delay: ms(rng.u64(..3)),
        escalation: ladder.get(1).copied(),
    };
    (policy, ladder.split_off(ladder.len().min(2)))
}

fn spec(world: &Arc<World>, rng: &mut fastrand::Rng, inline: bool) -> KernelSpec<Worker> {
    let backup: DeviceId = "cpu:1".parse().unwrap();
    let spec = KernelSpec::new("a/b", world.maker()).checkpointed().backup(backup, world.maker());
    let spec = spec.breaker(None).checkpoint_every(rng.u32(1..5)).canary(Do::Double(1), |_| true);
    let mut spec = if inline { spec.inline() } else { spec.hang_limit(ms(20)) };
    if rng.bool() {
        spec = spec.idempotent();
    }
    spec
}

/// What one caller has seen.
#[derive(Default)]
struct Seen {
    answers: Vec<Span>,
    failed: u64,
}

async fn call(kernel: KernelRef<Do, Span>, mut rng: fastrand::Rng, inline: bool, shut: Arc<Latch>) -> Seen {
    let mut seen = Seen::default();
    let mut hangs = 4;
    for _ in 0..150 {
        let input = match rng.u32(..100) {
            0..5 => Do::Panic,
            5..7 if !inline && hangs > 0 => {
                hangs -= 1;
                Do::Block(Arc::clone(&shut))
            }
            _ => Do::Double(1),
        };
        let result = if rng.bool() {
            soon(kernel.call(input, NONE)).await
        } else {
            soon(kernel.call(input, ms(rng.u64(1..50)))).await
        };
        match result {
            Ok(span) => seen.answers.push(span),
            Err(error) if error.phase() == Phase::Admission => {}
            Err(_) => seen.failed += 1,
        }
        if rng.bool() {
            tokio::task::yield_now().await;
        }
    }
    seen
}

/// Kills, replaces and brings back at random until told to stop.
async fn meddle(
    runtime: Runtime,
    world: Arc<World>,
    mut rng: fastrand::Rng,
    inline: bool,
    over: Arc<AtomicBool>,
) {
    while !over.load(Ordering::Acquire) {
        match rng.u32(..12) {
            0 => drop(runtime.kill("a/b").await),
            1 => drop(soon(runtime.replace(spec(&world, &mut rng, inline))).await),
            2 => drop(soon(runtime.fail_back("a/b")).await),
            3 => drop(runtime.resume("a/b").await),
            4 => world.bad_starts.store(1, Ordering::Release),
            5 => world.bad_restores.store(1, Ordering::Release),
            _ => drop(soon(runtime.status()).await),
        }
        tokio::task::yield_now().await;
    }
}

/// The operator, who resumes whatever is isolated.
async fn operate(runtime: Runtime, mut events: Events) {
    while let Some(event) = events.next().await {
        if matches!(event.fact, Fact::Isolated { .. }) {
            runtime.resume("a/b").await;
        }
    }
}

async fn soak(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let runtime = Runtime::builder().abandoned_thread_limit(1_000).build().await.unwrap();
    let operator = kit::spawn(operate(runtime.clone(), runtime.events()));
    let world = Arc::new(World::default());
    let inline = rng.bool();
    let (policy, further) = policy(&mut rng);
    let window = Duration::from_millis(rng.u64(5..100));
    let spawned = spec(&world, &mut rng, inline)
        .replicas(1)
        .degraded(world.maker())
        .recovery(policy)
        .escalations(further)
        .restart_window(window);
    let spawned = if rng.bool() { spawned.replicas_follow() } else { spawned };
    let kernel = soon(runtime.spawn(spawned)).await.unwrap();
    let (shut, over) = (Latch::new(), Arc::new(AtomicBool::new(false)));
    let meddling =
        kit::spawn(meddle(runtime.clone(), Arc::clone(&world), rng.fork(), inline, Arc::clone(&over)));
    let callers: Vec<_> =
        (0..4).map(|_| kit::spawn(call(kernel.clone(), rng.fork(), inline, Arc::clone(&shut)))).collect();
    let mut all = Seen::default();
    for caller in callers {
        let seen = caller.await.expect("every caller is answered");
        all.answers.extend(seen.answers);
        all.failed += seen.failed;
    }
    over.store(true, Ordering::Release);
    soon(meddling).await.unwrap();
    world.bad_starts.store(0, Ordering::Release);
    world.bad_restores.store(0, Ordering::Release);

    // It can be brought back, whatever has become of it.
    soon(async {
        loop {
            match kernel.call(Do::Double(1), ms(500)).await {
                Ok(span) => break all.answers.push(span),
                Err(error) => all.failed += u64::from(error.phase() != Phase::Admission),
            }
            runtime.resume("a/b").await;
        }
    })
    .await;
    shut.open();
    all.answers.sort_by_key(|span| span.from);
    for pair in all.answers.windows(2) {
        assert!(pair[0].to < pair[1].from, "two lives were answered for at the same time: {pair:?}");
    }
    let accounts = kernel.accounts();
    assert_balanced(&kernel);
    assert_eq!((accounts.answered, accounts.failed), (all.answers.len() as u64, all.failed), "{accounts:?}");
    assert!(all.answers.iter().any(|span| span.life > 1), "something has happened");
    let now = status(&runtime, "a/b").await;
    assert_eq!((now.waiting, now.waiting_bytes), (0, 0), "{now:?}");
    soon(runtime.shutdown(ms(1_000))).await.unwrap();
    soon(async {
        while runtime.abandoned_threads() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    operator.abort();
}

/// Says which seed it was, if the run ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: STRATEGIES_SEED={} cargo test -p rustkernel --test strategies", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_caller_is_answered_by_one_life_at_a_time_and_the_books_balance() {
    let given = std::env::var("STRATEGIES_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = given.map_or_else(|| (0..8).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed]);
    for seed in seeds {
        let seed = Seed(seed);
        println!("seed {}", seed.0);
        soak(seed.0).await;
    }
}
