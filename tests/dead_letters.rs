//! Dead letters: what is kept, and how it is run again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kit::{DOWN_ISOLATED, Latch, NONE, at_once, kind, ms, soon, spawn, status};
use rustkernel::actors::{
    ClockHand, DeadLetter, KernelRef, KernelSpec, KernelState, ReplayError, Runtime, register, register_local,
};
use rustkernel::core::Result;
use rustkernel::core::codec::{self, CodecError};
use rustkernel::core::error::{KernelErrorKind, Phase};
use rustkernel::core::traits::{Context, Kernel, Payload};

/// Dies of its input until it is mended; then it answers with the input's length, once its door is open.
struct Fragile(Arc<Mood>);

struct Mood {
    mended: AtomicBool,
    door: Arc<Latch>,
}

impl Kernel for Fragile {
    type Input = Vec<u8>;
    type Output = usize;

    async fn execute(&mut self, input: &Vec<u8>, _: &mut Context<'_>) -> Result<usize> {
        assert!(self.0.mended.load(Ordering::Acquire), "not mended yet");
        self.0.door.pass().await;
        Ok(input.len())
    }
}

/// A runtime with one fragile kernel and, in it, one dead letter.
struct Scene {
    runtime: Runtime,
    _hand: ClockHand,
    kernel: KernelRef<Vec<u8>, usize>,
    mood: Arc<Mood>,
    letter: DeadLetter,
}

impl Scene {
    async fn new(input: Vec<u8>, max_restarts: u32, portable: bool) -> Self {
        let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
        hand.advance(ms(1));
        let mood = Arc::new(Mood { mended: AtomicBool::new(false), door: Latch::new() });
        let own = Arc::clone(&mood);
        let registration = if portable { register() } else { register_local() };
        let spec = KernelSpec::new("a/b", move || Fragile(Arc::clone(&own)))
            .breaker(None)
            .recovery(at_once(max_restarts))
            .idempotent()
            .registered(&registration);
        let kernel = runtime.spawn(spec).await.unwrap();
        assert_eq!(kind(soon(kernel.call(input, NONE)).await), KernelErrorKind::Crashed);
        let letter = runtime.dead_letters().1.remove(0);
        Self { runtime, _hand: hand, kernel, mood, letter }
    }

    fn mend(&self) {
        self.mood.mended.store(true, Ordering::Release);
    }

    async fn replay(&self) -> Result<(), ReplayError> {
        soon(self.runtime.replay(self.letter.letter, NONE)).await
    }

    fn is_kept(&self) -> bool {
        self.runtime.dead_letter(self.letter.letter).is_some()
    }
}

#[tokio::test]
async fn a_replayed_letter_is_removed_once_it_is_answered() {
    let scene = Scene::new(vec![7; 5], 9, true).await;
    scene.mend();
    scene.mood.door.open();
    scene.replay().await.unwrap();
    assert!(!scene.is_kept());
    assert!(matches!(scene.replay().await, Err(ReplayError::UnknownLetter { .. })));
    let accounts = scene.kernel.accounts();
    assert_eq!((accounts.accepted, accounts.answered, accounts.failed), (2, 1, 1));
    assert_eq!(scene.runtime.dead_letters().0, 1, "how many there were stays");
}

#[tokio::test]
async fn a_replay_that_fails_says_why_and_its_letter_stays_the_only_one() {
    let scene = Scene::new(vec![7], 9, true).await;
    for _ in 0..2 {
        let Err(ReplayError::Failed(error)) = scene.replay().await else { panic!("it is not mended") };
        assert_eq!((error.kind(), error.phase()), (&KernelErrorKind::Crashed, Phase::Executing));
    }
    let (total, letters) = scene.runtime.dead_letters();
    assert_eq!((total, letters), (1, vec![scene.letter]));
}

#[tokio::test]
async fn a_replay_is_admitted_like_every_other_request() {
    let scene = Scene::new(vec![7], 1, true).await;
    scene.mend();
    assert_eq!(status(&scene.runtime, "a/b").await.state, KernelState::Isolated);
    let Err(ReplayError::Failed(error)) = scene.replay().await else { panic!("the kernel is isolated") };
    assert_eq!((error.kind(), error.phase()), (&DOWN_ISOLATED, Phase::Admission));
    assert!(scene.is_kept());
    assert_eq!(scene.kernel.accounts().accepted, 1, "the replay was never accepted");
    assert!(scene.runtime.resume("a/b").await);
    scene.mood.door.open();
    scene.replay().await.unwrap();
}

#[tokio::test]
async fn a_letter_is_replayed_once_at_a_time_and_a_dropped_replay_gives_it_back() {
    let scene = Scene::new(vec![7], 9, true).await;
    scene.mend();
    let (runtime, number) = (scene.runtime.clone(), scene.letter.letter);
    let first = spawn(async move { runtime.replay(number, NONE).await });
    scene.mood.door.arrived(1).await;
    assert!(matches!(scene.replay().await, Err(ReplayError::AlreadyReplaying { .. })));
    let typed = soon(scene.kernel.replay(&scene.letter, NONE)).await;
    assert!(matches!(typed, Err(ReplayError::AlreadyReplaying { .. })));
    first.abort();
    soon(first).await.unwrap_err();
    assert!(scene.is_kept());
    scene.mood.door.open();
    scene.replay().await.unwrap();
}

#[tokio::test]
async fn a_typed_replay_gives_the_answer_and_takes_letters_of_another_process() {
    let scene = Scene::new(vec![7; 5], 9, true).await;
    scene.mend();
    scene.mood.door.open();
    let text = serde_json::to_string(&scene.letter).unwrap();
    let elsewhere: DeadLetter = serde_json::from_str(&text).unwrap();
    assert_eq!(elsewhere, scene.letter);
    assert_eq!(soon(scene.kernel.replay(&scene.letter, NONE)).await.unwrap(), 5);
    assert!(!scene.is_kept());
    assert_eq!(soon(scene.kernel.replay(&elsewhere, NONE)).await.unwrap(), 5);
}

#[tokio::test]
async fn a_dropped_letter_is_forgotten() {
    let scene = Scene::new(vec![7], 9, true).await;
    assert!(scene.runtime.drop_dead_letter(scene.letter.letter));
    assert!(!scene.runtime.drop_dead_letter(scene.letter.letter));
    assert!(!scene.is_kept());
}

#[tokio::test]
async fn a_letter_that_cannot_be_replayed_says_what_is_missing() {
    let long = Scene::new(vec![7; 100_000], 9, true).await;
    assert!(matches!(long.replay().await, Err(ReplayError::NoInput { .. })));
    let local = Scene::new(vec![7], 9, false).await;
    assert!(matches!(local.replay().await, Err(ReplayError::NotPortable { .. })));
    let scene = Scene::new(vec![7], 9, true).await;
    let damaged = DeadLetter { input: Some([1, 2, 3].into()), unix_millis: 1, ..scene.letter.clone() };
    let refused = soon(scene.kernel.replay(&damaged, NONE)).await;
    assert!(matches!(refused, Err(ReplayError::Codec(_))));
    // Read as what this kernel takes, it would be another input.
    let input = Some(codec::encode_as("[i8]", &vec![-7_i8]).unwrap());
    let other = DeadLetter { input: input.map(Into::into), unix_millis: 1, ..scene.letter.clone() };
    let refused = soon(scene.kernel.replay(&other, NONE)).await;
    assert!(matches!(refused, Err(ReplayError::Codec(CodecError::OtherSchema { .. }))), "{refused:?}");
    let foreign = DeadLetter { kernel: "a/other".parse().unwrap(), ..scene.letter.clone() };
    let refused = soon(scene.kernel.replay(&foreign, NONE)).await;
    assert!(matches!(refused, Err(ReplayError::UnknownKernel { .. })));
    soon(scene.runtime.stop("a/b", false)).await;
    assert!(matches!(scene.replay().await, Err(ReplayError::UnknownKernel { .. })));
    assert!(scene.is_kept());
}

#[tokio::test]
async fn a_letter_whose_decoding_panics_stays_and_harms_nobody() {
    #[derive(serde::Serialize)]
    struct Spiteful;
    impl<'de> serde::Deserialize<'de> for Spiteful {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
            panic!("never again")
        }
    }
    impl Payload for Spiteful {
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
    let (runtime, _hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let spec = KernelSpec::new("a/b", || Dies).breaker(None).recovery(at_once(9)).idempotent();
    let kernel = runtime.spawn(spec.registered(&register())).await.unwrap();
    soon(kernel.call(Spiteful, NONE)).await.unwrap_err();
    for _ in 0..2 {
        let replay = soon(runtime.replay(1, NONE)).await;
        assert!(matches!(replay, Err(ReplayError::CodecPanicked)), "{replay:?}");
    }
}
