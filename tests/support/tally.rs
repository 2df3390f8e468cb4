//! What the tests of the recovery strategies share: a kernel that counts and says who it is, and a script that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses its own part of the kit")]

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustkernel::actors::{ClockHand, Events, Fact, KernelRef, KernelSpec, Runtime};
use rustkernel::core::resilience::{HealthStatus, HealthTarget, RecoveryPolicy, RecoveryStrategy};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel, Payload};
use rustkernel::core::{DeviceId, KernelError, Result};
use tokio::sync::watch;

use crate::kit::{self, Do, Latch, ms, soon, status};

/// Who has answered, and what it had counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) who: &'static str,
    pub(crate) life: u64,
    pub(crate) count: u64,
    pub(crate) attempt: u32,
}

impl Payload for Told {
    fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn schema() -> String {
        "told".into()
    }
}

pub(crate) type TallyRef = KernelRef<Do, Told>;

/// What goes wrong where, as a test says.
#[derive(Debug)]
pub(crate) struct Script {
    /// Factories called so far, all of them together.
    made: watch::Sender<usize>,
    /// Instances that are alive.
    living: watch::Sender<usize>,
    /// What a factory does: by the name that it gives, until that is taken back.
    broken: Mutex<HashMap<&'static str, Fault>>,
    /// Restores that are still to fail.
    restores_to_fail: AtomicU32,
    /// Checkpoints that are still to fail.
    checkpoints_to_fail: AtomicU32,
    /// What was restored, in order.
    restored: watch::Sender<Vec<u64>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Panics,
    /// Blocks its thread before a door.
    Blocks(Arc<Latch>),
}

impl Script {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            made: watch::Sender::new(0),
            living: watch::Sender::new(0),
            broken: Mutex::default(),
            restores_to_fail: AtomicU32::new(0),
            checkpoints_to_fail: AtomicU32::new(0),
            restored: watch::Sender::new(Vec::new()),
        })
    }

    pub(crate) fn breaks(&self, who: &'static str, fault: Fault) {
        self.broken.lock().unwrap().insert(who, fault);
    }

    pub(crate) fn mends(&self, who: &'static str) {
        self.broken.lock().unwrap().remove(who);
    }

    pub(crate) fn fail_restores(&self, count: u32) {
        self.restores_to_fail.store(count, Ordering::Release);
    }

    pub(crate) fn fail_checkpoints(&self, count: u32) {
        self.checkpoints_to_fail.store(count, Ordering::Release);
    }

    pub(crate) fn restored(&self) -> Vec<u64> {
        self.restored.borrow().clone()
    }

    /// Waits until `count` was restored.
    pub(crate) async fn has_restored(&self, count: u64) {
        soon(self.restored.subscribe().wait_for(|restored| restored.contains(&count))).await.unwrap();
    }

    /// Waits until so many factories have been called.
    pub(crate) async fn made(&self, count: usize) {
        soon(self.made.subscribe().wait_for(|made| *made >= count)).await.unwrap();
    }

    pub(crate) fn living(&self) -> usize {
        *self.living.borrow()
    }

    /// Waits until so many instances are alive.
    pub(crate) async fn lives(&self, count: usize) {
        soon(self.living.subscribe().wait_for(|living| *living == count)).await.unwrap();
    }

    /// An instance of another kind lives until what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Living {
        self.living.send_modify(|living| *living += 1);
        Living(Arc::clone(self))
    }

    /// A factory.
    pub(crate) fn maker(self: &Arc<Self>, who: &'static str) -> impl Fn() -> Tally + Send + Sync + use<> {
        let script = Arc::clone(self);
        move || {
            script.made.send_modify(|made| *made += 1);
            let fault = script.broken.lock().unwrap().get(who).cloned();
            match fault {
                Some(Fault::Panics) => panic!("{who} is broken"),
                Some(Fault::Blocks(door)) => door.block(),
                None => {}
            }
            script.living.send_modify(|living| *living += 1);
            Tally { who, count: 0, script: Arc::clone(&script) }
        }
    }
}

/// Counts as an instance that is alive.
#[derive(Debug)]
pub(crate) struct Living(Arc<Script>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.living.send_modify(|living| *living -= 1);
    }
}

/// Takes one off a counter, if there is one left.
fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

/// Counts its requests and does what they say.
#[derive(Debug)]
pub(crate) struct Tally {
    who: &'static str,
    count: u64,
    script: Arc<Script>,
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.script.living.send_modify(|living| *living -= 1);
    }
}

impl Kernel for Tally {
    type Input = Do;
    type Output = Told;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<Told> {
        match input {
            Do::Panic => panic!("told to panic"),
            Do::Fail(kind) => return Err(KernelError::kernel(*kind, "told to fail")),
            Do::Block(latch) => latch.block(),
            Do::Wait(latch) => latch.pass().await,
            Do::PanicUntil(attempt) => assert!(cx.header().attempt > *attempt, "told to panic"),
            Do::Double(_) | Do::Incarnation | Do::Attempt | Do::FailUntil(_) => {}
        }
        self.count += 1;
        let attempt = cx.header().attempt;
        Ok(Told { who: self.who, life: cx.incarnation(), count: self.count, attempt })
    }
}

impl CheckpointableKernel for Tally {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64> {
        if take_one(&self.script.checkpoints_to_fail) {
            return Err(KernelError::transient("told to fail"));
        }
        Ok(self.count)
    }

    async fn restore(&mut self, checkpoint: u64) -> Result<()> {
        if take_one(&self.script.restores_to_fail) {
            return Err(KernelError::transient("told to fail"));
        }
        self.count = checkpoint;
        self.script.restored.send_modify(|restored| restored.push(checkpoint));
        Ok(())
    }
}

pub(crate) async fn runtime() -> (Runtime, ClockHand) {
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

/// A tally `a/b` that says `main`, takes checkpoints, and has no breaker.
pub(crate) fn tally(script: &Arc<Script>) -> KernelSpec<Tally> {
    KernelSpec::new("a/b", script.maker("main")).breaker(None).checkpointed()
}

/// Three restarts, each after a second; then an operator is asked.
pub(crate) fn policy(strategy: RecoveryStrategy) -> RecoveryPolicy {
    let operator = RecoveryStrategy::NotifyOperator;
    RecoveryPolicy {
        strategy,
        max_restarts: 3,
        restart_delay: DELAY,
        escalation: (strategy != operator).then_some(operator),
    }
}

pub(crate) const DELAY: Duration = ms(1_000);

/// One more request that only counts.
pub(crate) const COUNT: Do = Do::Incarnation;

pub(crate) fn backup() -> DeviceId {
    "cpu:1".parse().unwrap()
}

pub(crate) async fn fact(events: &mut Events, wanted: impl FnMut(&Fact) -> bool) -> Fact {
    soon(events.find("a/b", wanted)).await.unwrap().fact
}

/// The same while time passes: for what follows a delay that begins nobody knows when. It passes slowly, lest a start be late.
pub(crate) async fn fact_in_time(
    events: &mut Events,
    hand: &ClockHand,
    wanted: impl FnMut(&Fact) -> bool,
) -> Fact {
    let mut found = pin!(fact(events, wanted));
    loop {
        tokio::select! {
            biased;
            fact = &mut found => return fact,
            () = tokio::task::yield_now() => hand.advance(ms(1)),
        }
    }
}

/// Spawns a tally whose start takes [`SLOW`]; so will its next ones, for all that is known.
pub(crate) async fn spawn_slowly(
    runtime: &Runtime,
    hand: &ClockHand,
    script: &Script,
    spec: KernelSpec<Tally>,
) -> TallyRef {
    let door = Latch::new();
    script.breaks("main", Fault::Blocks(Arc::clone(&door)));
    let other = runtime.clone();
    let spawning = kit::spawn(async move { other.spawn(spec).await });
    door.arrived(1).await;
    hand.advance(SLOW);
    script.mends("main");
    door.open();
    soon(spawning).await.unwrap().unwrap()
}

pub(crate) const SLOW: Duration = ms(2_000);

/// Waits until the kernel has so many warm standbys.
pub(crate) async fn standbys(runtime: &Runtime, count: usize) {
    soon(async {
        while status(runtime, "a/b").await.standbys != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The kernel's health as a probe of its own sees it.
pub(crate) async fn health(kernel: &TallyRef) -> (HealthStatus, Option<String>) {
    let result = kernel.check().await;
    (result.status, result.reason)
}
