//! Checkpoints: when they are taken, what is restored, and stores that fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;
#[path = "support/tally.rs"]
mod tally;

use std::collections::BTreeMap;
use std::ops::Add;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kit::{DOWN_ISOLATED, Do, Latch, NONE, assert_balanced, at_once, kind, ms, soon, status};
use rustkernel::actors::{
    CheckpointStore, ClockHand, Events, Fact, KernelSpec, MemoryStore, Runtime, SpawnError, StoreError,
};
use rustkernel::core::resilience::HealthStatus;
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel};
use rustkernel::core::{KernelId, Result, checkpoint, codec};
use rustkernel::store::FileStore;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tally::{COUNT, Script, Tally, TallyRef, fact, health, runtime, tally};

/// A tally that restarts at once.
fn quick(script: &Arc<Script>) -> KernelSpec<Tally> {
    tally(script).recovery(at_once(9))
}

async fn counts(kernel: &TallyRef) -> u64 {
    soon(kernel.call(COUNT, NONE)).await.unwrap().count
}

async fn runtime_on(store: &Arc<impl CheckpointStore>) -> (Runtime, ClockHand) {
    let store = Arc::clone(store) as Arc<dyn CheckpointStore>;
    let (runtime, hand) = Runtime::builder().checkpoint_store(store).build_with_manual_clock().await.unwrap();
    hand.advance(ms(1));
    (runtime, hand)
}

async fn newest(runtime: &Runtime) -> Option<u64> {
    status(runtime, "a/b").await.checkpoint
}

/// Waits until the kernel's newest checkpoint has this number.
async fn has_checkpoint(runtime: &Runtime, number: u64) {
    soon(async {
        while newest(runtime).await != Some(number) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the kernel's health is as `wanted` says.
async fn is_well(kernel: &TallyRef, wanted: impl Fn(&(HealthStatus, Option<String>)) -> bool) {
    soon(async {
        while !wanted(&health(kernel).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn refused(events: &mut Events) -> (u64, String) {
    let refused = fact(events, |fact| matches!(fact, Fact::CheckpointRefused { .. })).await;
    let Fact::CheckpointRefused { sequence, reason } = refused else { unreachable!() };
    (sequence, reason)
}

#[tokio::test]
async fn one_is_taken_after_every_n_requests() {
    for inline in [false, true] {
        let (runtime, _hand) = runtime().await;
        let spec = quick(&Script::new()).checkpoint_every(3);
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        for count in 1..=7 {
            assert_eq!(counts(&kernel).await, count);
        }
        assert_eq!(newest(&runtime).await, Some(2));
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(counts(&kernel).await, 7, "from the sixth");
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn one_is_taken_a_span_after_the_last_one_also_by_a_kernel_that_idles() {
    for inline in [false, true] {
        let (runtime, hand) = runtime().await;
        let hour = ms(3_600_000);
        let spec = quick(&Script::new()).checkpoint_every(u32::MAX).checkpoint_after(hour);
        let kernel = soon(runtime.spawn(if inline { spec.inline() } else { spec })).await.unwrap();
        assert_eq!(counts(&kernel).await, 1);
        // A kernel that tells the timer after the hand has passed is rung by its next turn.
        let after = async |before| {
            soon(async {
                while newest(&runtime).await == before {
                    hand.advance(ms(1))
                }
            })
            .await;
            newest(&runtime).await
        };
        hand.advance(hour - ms(1));
        assert_eq!(newest(&runtime).await, None);
        assert_eq!(after(None).await, Some(1));
        assert_eq!(counts(&kernel).await, 2);
        assert_eq!(counts(&kernel).await, 3);
        hand.advance(hour - ms(100_000));
        assert_eq!(newest(&runtime).await, Some(1), "too early");
        hand.advance(ms(100_000));
        assert_eq!(after(Some(1)).await, Some(2));
        hand.advance(hour * 9);
        assert_eq!(newest(&runtime).await, Some(2), "idle, it needs none");
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(counts(&kernel).await, 4);
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn one_is_taken_on_stop_and_drain_and_in_a_group_restart() {
    for (inline, drain) in [(false, false), (false, true), (true, false), (true, true)] {
        let store = Arc::new(MemoryStore::new(1 << 20));
        let script = Script::new();
        let spec = |inline: bool| {
            let spec = quick(&script).checkpoint_every(u32::MAX);
            if inline { spec.inline() } else { spec }
        };
        let (runtime, _hand) = runtime_on(&store).await;
        let kernel = soon(runtime.spawn(spec(inline))).await.unwrap();
        assert_eq!(counts(&kernel).await, 1);
        assert!(soon(runtime.stop("a/b", drain)).await);
        assert_balanced(&kernel);
        soon(runtime.shutdown(ms(1_000))).await.unwrap();

        let (runtime, _hand) = runtime_on(&store).await;
        let kernel = soon(runtime.spawn(spec(inline))).await.unwrap();
        assert_eq!(counts(&kernel).await, 2, "drain: {drain}");
        soon(runtime.root().terminate_child("a/b")).await.unwrap();
        soon(runtime.root().restart_child("a/b")).await.unwrap();
        assert_eq!(counts(&kernel).await, 3);
        soon(runtime.shutdown(ms(1_000))).await.unwrap();
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_restore_that_fails_twice_gives_way_to_the_checkpoint_before() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let script = Script::new();
    let kernel = soon(runtime.spawn(quick(&script))).await.unwrap();
    assert_eq!((counts(&kernel).await, counts(&kernel).await), (1, 2));
    script.fail_restores(1);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(counts(&kernel).await, 3, "the first failure may have another cause");
    script.fail_restores(2);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(counts(&kernel).await, 3, "the checkpoint of 2");
    assert_eq!(refused(&mut events).await.0, 3);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn the_last_checkpoint_is_never_given_up_for_none() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(quick(&script))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    script.fail_restores(u32::MAX);
    let behind = [Do::Panic, COUNT].map(|input| kernel.try_call(input, NONE).unwrap());
    let [fatal, queued] = behind;
    soon(fatal).await.unwrap_err();
    assert_eq!(kind(soon(queued).await), DOWN_ISOLATED);
    script.fail_restores(0);
    assert!(runtime.resume("a/b").await);
    assert_eq!(counts(&kernel).await, 2);
    assert_balanced(&kernel);
}

/// Its state goes out in one shape and is read in another, as the test says.
struct Odd {
    count: u64,
    how: Arc<AtomicUsize>,
}

/// 0: well. 1: cannot be encoded. 2: can be encoded and not decoded.
#[derive(Debug)]
struct OddState {
    count: u64,
    how: usize,
}

impl Serialize for OddState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.how {
            0 => self.count.serialize(serializer),
            1 => Err(serde::ser::Error::custom("this is no state to write down")),
            _ => ().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OddState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self { count: u64::deserialize(deserializer)?, how: 0 })
    }
}

impl Kernel for Odd {
    type Input = Do;
    type Output = tally::Told;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<tally::Told> {
        assert!(!matches!(input, Do::Panic), "told to panic");
        self.count += 1;
        Ok(tally::Told { who: "odd", life: cx.incarnation(), count: self.count, attempt: 1 })
    }
}

impl CheckpointableKernel for Odd {
    type Checkpoint = OddState;

    async fn checkpoint(&self) -> Result<OddState> {
        Ok(OddState { count: self.count, how: self.how.load(Ordering::Acquire) })
    }

    async fn restore(&mut self, checkpoint: OddState) -> Result<()> {
        self.count = checkpoint.count;
        Ok(())
    }
}

fn odd(how: &Arc<AtomicUsize>) -> KernelSpec<Odd> {
    let how = Arc::clone(how);
    KernelSpec::new("a/b", move || Odd { count: 0, how: Arc::clone(&how) })
        .breaker(None)
        .recovery(at_once(9))
        .checkpointed()
}

#[tokio::test]
async fn a_state_that_cannot_be_encoded_is_found_out_at_the_first_checkpoint() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let how = Arc::new(AtomicUsize::new(1));
    let kernel = soon(runtime.spawn(odd(&how))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    let failed = fact(&mut events, |fact| matches!(fact, Fact::CheckpointFailed { .. })).await;
    let Fact::CheckpointFailed { reason } = failed else { unreachable!() };
    assert!(reason.contains("no state to write down"), "{reason}");
    let (state, reason) = health(&kernel).await;
    assert_eq!(state, HealthStatus::Degraded);
    assert!(reason.unwrap().contains("no state to write down"));
    assert_eq!(counts(&kernel).await, 2, "it goes on serving");
    how.store(0, Ordering::Release);
    assert_eq!(counts(&kernel).await, 3);
    is_well(&kernel, |health| health.0 == HealthStatus::Healthy).await;
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_decoded_gives_way_at_once() {
    let (runtime, _hand) = runtime().await;
    let mut events = runtime.events();
    let how = Arc::new(AtomicUsize::new(0));
    let kernel = soon(runtime.spawn(odd(&how))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    has_checkpoint(&runtime, 1).await;
    how.store(2, Ordering::Release);
    assert_eq!(counts(&kernel).await, 2);
    has_checkpoint(&runtime, 2).await;
    how.store(0, Ordering::Release);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(counts(&kernel).await, 2, "from the checkpoint of 1");
    assert_eq!(refused(&mut events).await.0, 2);
    assert_eq!(status(&runtime, "a/b").await.restarts, 1, "it cost no second start");
    assert_balanced(&kernel);
}

/// Counts in a type of its own.
#[derive(Debug, Default)]
struct Counts<C>(C);

impl<C> Kernel for Counts<C>
where
    C: Copy + Add<Output = C> + From<u8> + TryInto<u64, Error: std::fmt::Debug> + Send + Sync + 'static,
{
    type Input = Do;
    type Output = tally::Told;

    async fn execute(&mut self, _: &Do, cx: &mut Context<'_>) -> Result<tally::Told> {
        self.0 = self.0 + C::from(1);
        let count = self.0.try_into().unwrap();
        Ok(tally::Told { who: "counts", life: cx.incarnation(), count, attempt: 1 })
    }
}

impl<C: Copy + Serialize + DeserializeOwned + Send + Sync + 'static> CheckpointableKernel for Counts<C> {
    type Checkpoint = C;

    async fn checkpoint(&self) -> Result<C> {
        Ok(self.0)
    }

    async fn restore(&mut self, checkpoint: C) -> Result<()> {
        self.0 = checkpoint;
        Ok(())
    }
}

/// One process after the other on one store.
struct Processes(Arc<MemoryStore>);

impl Processes {
    /// Counts up to five, and gives the last count with the checkpoints that were refused.
    async fn run<C>(&self, schema: Option<&'static str>) -> (u64, Vec<(u64, String)>)
    where
        Counts<C>: Default + CheckpointableKernel + Kernel<Input = Do, Output = tally::Told>,
    {
        let (runtime, _hand) = runtime_on(&self.0).await;
        let mut events = runtime.events();
        let spec = KernelSpec::new("a/b", Counts::<C>::default).checkpointed().checkpoint_every(u32::MAX);
        let spec = if let Some(schema) = schema { spec.checkpoint_schema(schema) } else { spec };
        let kernel = soon(runtime.spawn(spec)).await.unwrap();
        let mut refused = Vec::new();
        let begun = |fact: &Fact| matches!(fact, Fact::CheckpointRefused { .. } | Fact::Started { .. });
        while let Fact::CheckpointRefused { sequence, reason } = fact(&mut events, begun).await {
            refused.push((sequence, reason));
        }
        let mut last = 0;
        for _ in 0..5 {
            last = counts(&kernel).await;
        }
        soon(runtime.shutdown(ms(1_000))).await.unwrap();
        assert_balanced(&kernel);
        (last, refused)
    }
}

/// A state that had been a `u64` was read as an `i64`: 5 as -3.
#[tokio::test]
async fn a_checkpoint_of_another_type_is_refused_by_name_and_the_one_before_is_used() {
    let processes = Processes(Arc::new(MemoryStore::new(1 << 20)));
    assert_eq!(processes.run::<u64>(None).await, (5, vec![]));
    let (last, refused) = processes.run::<i64>(None).await;
    assert_eq!(last, 5, "from nothing");
    assert_eq!(refused, [(1, "it holds `u64`, not `i64`".to_owned())]);
    let (last, refused) = processes.run::<u64>(None).await;
    assert_eq!(last, 10, "from the checkpoint of 5");
    assert_eq!(refused, [(2, "it holds `i64`, not `u64`".to_owned())]);
}

#[tokio::test]
async fn a_schemas_name_can_be_given_and_decides() {
    let processes = Processes(Arc::new(MemoryStore::new(1 << 20)));
    assert_eq!(processes.run::<u64>(Some("count/1")).await, (5, vec![]));
    assert_eq!(processes.run::<usize>(Some("count/1")).await, (10, vec![]), "whatever the type is called");
    let (last, refused) = processes.run::<u64>(Some("count/2")).await;
    assert_eq!(last, 5);
    assert_eq!(refused.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [2, 1]);
    assert!(refused.iter().all(|(_, reason)| reason == "it holds `count/1`, not `count/2`"), "{refused:?}");
    let (runtime, _hand) = runtime().await;
    for bad in ["", &"x".repeat(256)] {
        let bad = quick(&Script::new()).checkpoint_schema(String::leak(bad.to_owned()));
        let Err(SpawnError::Config { source, .. }) = soon(runtime.spawn(bad)).await else { panic!() };
        assert_eq!(source.field, "checkpoint_schema");
    }
}

#[tokio::test]
async fn a_checkpoint_of_a_build_that_named_no_schema_is_refused_by_its_version() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let id: KernelId = "a/b".parse().unwrap();
    let payload = codec::encode(&5_u64).unwrap();
    store.put(&id, 1, &checkpoint::seal(&id, 1, &payload)).unwrap();
    let (last, refused) = Processes(store).run::<u64>(None).await;
    assert_eq!(last, 5, "from nothing");
    assert_eq!(refused, [(1, "frame version 1 is not known here".to_owned())]);
}

/// A store whose every part fails as a test says.
#[derive(Debug)]
struct Moody {
    inner: MemoryStore,
    puts: Mutex<Option<fn() -> StoreError>>,
    lists: AtomicBool,
    /// Puts wait here.
    door: Mutex<Option<Arc<Latch>>>,
    under_way: Mutex<BTreeMap<KernelId, usize>>,
    overlaps: AtomicUsize,
}

impl Moody {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(1 << 20),
            puts: Mutex::default(),
            lists: AtomicBool::new(true),
            door: Mutex::default(),
            under_way: Mutex::default(),
            overlaps: AtomicUsize::new(0),
        })
    }

    fn refuse(&self, with: impl Into<Option<fn() -> StoreError>>) {
        *self.puts.lock().unwrap() = with.into();
    }
}

impl CheckpointStore for Moody {
    fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> std::result::Result<(), StoreError> {
        let count = |by: isize| {
            let mut under_way = self.under_way.lock().unwrap();
            let count = under_way.entry(kernel.clone()).or_default();
            *count = count.checked_add_signed(by).unwrap();
            *count
        };
        if count(1) > 1 {
            self.overlaps.fetch_add(1, Ordering::AcqRel);
        }
        let door = self.door.lock().unwrap().clone();
        if let Some(door) = door {
            door.block();
        }
        let refusal = *self.puts.lock().unwrap();
        let put = refusal.map_or_else(|| self.inner.put(kernel, sequence, record), |with| Err(with()));
        count(-1);
        put
    }

    fn sequences(&self, kernel: &KernelId) -> std::result::Result<Vec<u64>, StoreError> {
        if !self.lists.load(Ordering::Acquire) {
            return Err(StoreError::reading("list", std::io::Error::other("told to fail")));
        }
        self.inner.sequences(kernel)
    }

    fn get(&self, kernel: &KernelId, sequence: u64) -> std::result::Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(kernel, sequence)
    }

    fn remove(&self, kernel: &KernelId, sequence: u64) -> std::result::Result<(), StoreError> {
        self.inner.remove(kernel, sequence)
    }
}

#[tokio::test]
async fn a_store_that_is_full_or_read_only_stops_no_kernel_and_health_says_so_until_it_recovers() {
    for refusal in
        [|| StoreError::Full, || StoreError::ReadOnly, || panic!("told to panic")] as [fn() -> _; 3]
    {
        let store = Moody::new();
        let (runtime, _hand) = runtime_on(&store).await;
        let mut events = runtime.events();
        let kernel = soon(runtime.spawn(quick(&Script::new()))).await.unwrap();
        store.refuse(refusal);
        assert_eq!(counts(&kernel).await, 1);
        fact(&mut events, |fact| matches!(fact, Fact::CheckpointFailed { .. })).await;
        let told = |health: &(HealthStatus, Option<String>)| {
            health.0 == HealthStatus::Degraded
                && health.1.as_ref().is_some_and(|reason| reason.contains("checkpoints are not stored"))
        };
        is_well(&kernel, told).await;
        soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
        assert_eq!(counts(&kernel).await, 2, "from the one in memory");
        store.refuse(None);
        assert_eq!(counts(&kernel).await, 3);
        is_well(&kernel, |health| health.0 == HealthStatus::Healthy).await;
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn a_store_that_cannot_say_what_it_has_is_not_begun_without() {
    let store = Moody::new();
    let script = Script::new();
    let (first, _hand) = runtime_on(&store).await;
    let kernel = soon(first.spawn(quick(&script))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    soon(first.shutdown(ms(1_000))).await.unwrap();
    assert_balanced(&kernel);

    store.lists.store(false, Ordering::Release);
    let (second, _hand) = runtime_on(&store).await;
    let error = soon(second.spawn(quick(&script))).await.unwrap_err();
    assert!(matches!(&error, SpawnError::Start { .. }) && error.to_string().contains("cannot"), "{error}");
    store.lists.store(true, Ordering::Release);
    let kernel = soon(second.spawn(quick(&script))).await.unwrap();
    assert_eq!(counts(&kernel).await, 2);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_slow_store_holds_no_kernel_up_and_never_sees_two_checkpoints_of_one_at_once() {
    let store = Moody::new();
    let door = Latch::new();
    *store.door.lock().unwrap() = Some(Arc::clone(&door));
    let (runtime, _hand) = runtime_on(&store).await;
    let kernel = soon(runtime.spawn(quick(&Script::new()))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    door.arrived(1).await;
    for count in 2..=20 {
        assert_eq!(counts(&kernel).await, count);
    }
    has_checkpoint(&runtime, 20).await;
    assert_eq!(door.arrivals(), 1);
    door.open();
    soon(runtime.shutdown(ms(1_000))).await.unwrap();
    assert_eq!(store.overlaps.load(Ordering::Acquire), 0);
    assert_eq!(runtime.replaced_checkpoints(), 18, "those between the first and the last were never written");
    assert_eq!(store.sequences(&"a/b".parse().unwrap()).unwrap(), [20, 1]);
    assert_balanced(&kernel);
}

/// A folder of its own under the build's folder, removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("checkpoints-{}-{name}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self, sequence: u64) -> PathBuf {
        self.0.join("a@b").join(format!("{sequence:020}.ckpt"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_new_runtime_goes_on_from_the_newest_checkpoint_of_the_one_before() {
    let scratch = Scratch::new("goes-on");
    let memory: Arc<dyn CheckpointStore> = Arc::new(MemoryStore::new(1 << 20));
    let file = || -> Arc<dyn CheckpointStore> { Arc::new(FileStore::open(&scratch.0).unwrap()) };
    for in_memory in [true, false] {
        for process in 0..3 {
            let store = if in_memory { Arc::clone(&memory) } else { file() };
            let builder = Runtime::builder().checkpoint_store(store);
            let (runtime, _hand) = builder.build_with_manual_clock().await.unwrap();
            let mut events = runtime.events();
            let kernel = soon(runtime.spawn(quick(&Script::new()))).await.unwrap();
            let restored = Fact::Started { incarnation: 1, restored: process > 0 };
            assert_eq!(fact(&mut events, |fact| matches!(fact, Fact::Started { .. })).await, restored);
            assert_eq!(counts(&kernel).await, process * 2 + 1);
            assert_eq!(counts(&kernel).await, process * 2 + 2);
            soon(runtime.shutdown(ms(1_000))).await.unwrap();
            assert_balanced(&kernel);
        }
    }
}

#[tokio::test]
async fn a_damaged_newest_file_gives_way_to_the_one_before_and_is_told() {
    let scratch = Scratch::new("damaged");
    let run = async |process: u64| {
        let store: Arc<dyn CheckpointStore> = Arc::new(FileStore::open(&scratch.0).unwrap());
        let builder = Runtime::builder().checkpoint_store(store);
        let (runtime, _hand) = builder.build_with_manual_clock().await.unwrap();
        let mut events = runtime.events();
        let kernel = soon(runtime.spawn(quick(&Script::new()).checkpoint_every(2))).await.unwrap();
        if process > 0 {
            let (sequence, reason) = refused(&mut events).await;
            assert!(sequence == 2 && reason.contains("checksum"), "{sequence}: {reason}");
            let (state, reason) = health(&kernel).await;
            assert_eq!(state, HealthStatus::Degraded);
            assert!(reason.unwrap().contains("checkpoint 2 was refused"));
        }
        let mut last = 0;
        for checkpoint in 1..=2 {
            counts(&kernel).await;
            last = counts(&kernel).await;
            // The next one would take its place in the queue.
            let file = scratch.file(process * 2 + checkpoint);
            soon(async {
                while !file.exists() {
                    tokio::task::yield_now().await
                }
            })
            .await;
        }
        is_well(&kernel, |health| health.0 == HealthStatus::Healthy).await;
        soon(runtime.shutdown(ms(1_000))).await.unwrap();
        assert_balanced(&kernel);
        last
    };
    assert_eq!(run(0).await, 4);
    let mut bytes = std::fs::read(scratch.file(2)).unwrap();
    let middle = bytes.len() - 6;
    bytes[middle] ^= 0xff;
    std::fs::write(scratch.file(2), bytes).unwrap();
    assert_eq!(run(1).await, 6, "from the checkpoint of 2, which is the first");
    assert!(scratch.file(4).exists(), "the numbers go on after the damaged one");
}

/// A kernel that was fenced while it took its state down had it kept all the same: newer by number, older by what was in it.
#[tokio::test]
async fn a_checkpoint_of_a_life_that_was_fenced_over_it_is_not_kept() {
    struct Slow {
        count: u64,
        door: Arc<Mutex<Option<Arc<Latch>>>>,
    }
    impl Kernel for Slow {
        type Input = Do;
        type Output = tally::Told;

        async fn execute(&mut self, _: &Do, cx: &mut Context<'_>) -> Result<tally::Told> {
            self.count += 1;
            Ok(tally::Told { who: "slow", life: cx.incarnation(), count: self.count, attempt: 1 })
        }
    }
    impl CheckpointableKernel for Slow {
        type Checkpoint = u64;

        async fn checkpoint(&self) -> Result<u64> {
            let door = self.door.lock().unwrap().clone();
            if let Some(door) = door {
                door.block();
            }
            Ok(self.count)
        }

        async fn restore(&mut self, checkpoint: u64) -> Result<()> {
            self.count = checkpoint;
            Ok(())
        }
    }
    let (runtime, hand) = runtime().await;
    let door = Arc::new(Mutex::new(None));
    let shared = Arc::clone(&door);
    let spec = KernelSpec::new("a/b", move || Slow { count: 0, door: Arc::clone(&shared) });
    let spec = spec.breaker(None).recovery(at_once(9)).checkpointed().hang_limit(ms(500));
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    has_checkpoint(&runtime, 1).await;
    let latch = Latch::new();
    *door.lock().unwrap() = Some(Arc::clone(&latch));
    assert_eq!(counts(&kernel).await, 2);
    latch.arrived(1).await;
    *door.lock().unwrap() = None;
    let queued = kernel.try_call(COUNT, NONE).unwrap();
    hand.advance(ms(500));
    let told = soon(queued).await.unwrap();
    assert_eq!((told.life, told.count), (2, 2), "a blocked checkpoint is a hang");
    has_checkpoint(&runtime, 2).await;
    latch.open();
    soon(async {
        while runtime.abandoned_threads() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(newest(&runtime).await, Some(2));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_checkpoint_that_fails_leaves_the_one_before_and_is_tried_again() {
    let (runtime, _hand) = runtime().await;
    let script = Script::new();
    let kernel = soon(runtime.spawn(quick(&script))).await.unwrap();
    assert_eq!(counts(&kernel).await, 1);
    has_checkpoint(&runtime, 1).await;
    script.fail_checkpoints(1);
    assert_eq!(counts(&kernel).await, 2);
    soon(kernel.call(Do::Fail(rustkernel::core::resilience::ErrorKind::Permanent), NONE)).await.unwrap_err();
    has_checkpoint(&runtime, 2).await;
    script.fail_checkpoints(u32::MAX);
    assert_eq!(counts(&kernel).await, 3);
    is_well(&kernel, |health| health.0 == HealthStatus::Degraded).await;
    script.fail_checkpoints(0);
    soon(kernel.call(Do::Panic, NONE)).await.unwrap_err();
    assert_eq!(counts(&kernel).await, 3, "from the checkpoint of 2");
    assert_balanced(&kernel);
}
