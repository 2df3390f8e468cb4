//! What a kernel that looks ahead is shown, and what becomes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/kit.rs"]
mod kit;

use std::future::Future;
use std::num::{NonZeroU64, NonZeroU128};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::{Do, Latch, NONE, assert_balanced, at_once, ms, soon};
use rustkernel::actors::{
    HandOverError, KernelRef, KernelSpec, Lifeline, Loss, Pipeline, Reply, Runtime, Suspicion,
};
use rustkernel::core::Result;
use rustkernel::core::envelope::Deadline;
use rustkernel::core::error::{KernelErrorKind, Ran};
use rustkernel::core::resilience::CircuitBreakerConfig;
use rustkernel::core::trace::{TraceContext, with_trace};
use rustkernel::core::traits::{Context, Kernel, LookAhead, Room, Upcoming};
use tokio::task::JoinHandle;

/// A kernel that works ahead, as its test sees it. It knows a request by the number that it doubles; those that wait are 0.
#[derive(Default)]
struct Book {
    room: Room,
    /// Takes so many of what it is shown at a time.
    takes: usize,
    shown: Vec<Vec<(u64, u64)>>,
    traces: Vec<Option<TraceContext>>,
    remaining: Vec<Option<Duration>>,
    /// Tickets, numbers, and whether they were suspects.
    executed: Vec<(Option<u64>, u64, bool)>,
    holds: bool,
    panics: bool,
    /// Says that it holds nothing.
    forgets: bool,
    settled: u32,
    lives: Vec<Lifeline>,
}

#[derive(Clone)]
struct Ahead(Arc<Mutex<Book>>);

fn number(input: &Do) -> u64 {
    if let Do::Double(number) = input { *number } else { 0 }
}

impl Kernel for Ahead {
    type Input = Do;
    type Output = u64;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<u64> {
        self.0.lock().unwrap().executed.push((cx.ticket(), number(input), cx.header().suspect));
        kit::Puppet.execute(input, cx).await
    }

    fn look_ahead(&mut self) -> Option<&mut dyn LookAhead<Do>> {
        Some(self)
    }
}

impl LookAhead<Do> for Ahead {
    fn room(&mut self) -> Room {
        self.0.lock().unwrap().room
    }

    fn show(&mut self, upcoming: &[Upcoming<'_, Do>]) -> usize {
        let mut book = self.0.lock().unwrap();
        if book.panics {
            drop(book);
            panic!("told to panic");
        }
        book.shown.push(upcoming.iter().map(|next| (next.ticket, number(next.input))).collect());
        book.traces.extend(upcoming.iter().map(|next| next.trace));
        book.remaining.extend(upcoming.iter().map(|next| next.remaining));
        book.holds = true;
        book.takes.min(upcoming.len())
    }

    fn holds(&mut self) -> bool {
        let book = self.0.lock().unwrap();
        book.holds && !book.forgets
    }

    fn settle(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            let mut book = self.0.lock().unwrap();
            book.holds = false;
            book.settled += 1;
        })
    }
}

impl Ahead {
    fn new(requests: usize, takes: usize) -> Self {
        let room = Room { requests, bytes_each: 1_000 };
        Self(Arc::new(Mutex::new(Book { room, takes, ..Book::default() })))
    }

    fn spec(&self) -> KernelSpec<Self> {
        let ahead = self.clone();
        let made = move |lifeline| {
            ahead.0.lock().unwrap().lives.push(lifeline);
            std::future::ready(Ok(ahead.clone()))
        };
        KernelSpec::elsewhere("a/b", made).breaker(None).recovery(at_once(9)).idempotent()
    }

    fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        read(&self.0.lock().unwrap())
    }

    fn executed(&self) -> Vec<(Option<u64>, u64)> {
        self.book(|book| book.executed.iter().map(|(ticket, number, _)| (*ticket, *number)).collect())
    }
}

type AheadRef = KernelRef<Do, u64>;

async fn spawned(spec: KernelSpec<Ahead>) -> (Runtime, AheadRef) {
    let runtime = Runtime::builder().build().await.unwrap();
    let kernel = soon(runtime.spawn(spec)).await.unwrap();
    (runtime, kernel)
}

/// One that waits before a door and has been taken, and those behind it.
async fn queued(kernel: &AheadRef, behind: &[Do]) -> (Arc<Latch>, Vec<Reply<Do, u64>>) {
    let door = Latch::new();
    let mut replies = vec![kernel.try_call(Do::Wait(Arc::clone(&door)), NONE).unwrap()];
    door.arrived(1).await;
    replies.extend(behind.iter().map(|what| kernel.try_call(what.clone(), NONE).unwrap()));
    (door, replies)
}

async fn answered(replies: Vec<Reply<Do, u64>>) {
    for reply in replies {
        soon(reply).await.unwrap();
    }
}

#[tokio::test]
async fn each_request_is_shown_once_before_its_turn_and_executed_in_that_order() {
    let ahead = Ahead::new(64, 64);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let (door, replies) = queued(&kernel, &[1, 2, 3].map(Do::Double)).await;
    door.open();
    answered(replies).await;
    assert_eq!(ahead.book(|book| book.shown.clone()), [[(1, 1), (2, 2), (3, 3)]]);
    assert_eq!(ahead.executed(), [(None, 0), (Some(1), 1), (Some(2), 2), (Some(3), 3)]);
    assert_balanced(&kernel);
}

#[tokio::test]
async fn no_more_are_shown_than_there_is_room_for_and_what_was_not_taken_is_shown_again() {
    let ahead = Ahead::new(3, 2);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let (door, replies) = queued(&kernel, &[1, 2, 3, 4].map(Do::Double)).await;
    door.open();
    answered(replies).await;
    let shown = ahead.book(|book| book.shown.clone());
    let numbers: Vec<Vec<u64>> =
        shown.iter().map(|show| show.iter().map(|(_, number)| *number).collect()).collect();
    assert_eq!(numbers, [vec![1, 2, 3], vec![3, 4]]);
    let executed = ahead.executed();
    assert_eq!(executed[..3], [(None, 0), (Some(1), 1), (Some(2), 2)]);
    assert_eq!(executed[3..], [(Some(shown[1][0].0), 3), (Some(shown[1][1].0), 4)]);
}

#[tokio::test]
async fn the_last_one_is_not_shown_alone_and_a_large_one_ends_what_is_shown() {
    let ahead = Ahead::new(64, 64);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let (door, replies) = queued(&kernel, &[Do::Double(1)]).await;
    door.open();
    answered(replies).await;
    assert!(ahead.book(|book| book.shown.is_empty()), "nobody is behind it");
    let small = Ahead::new(64, 64);
    small.0.lock().unwrap().room.bytes_each = 99;
    let (_runtime, kernel) = spawned(small.spec()).await;
    let (door, replies) = queued(&kernel, &[1, 2].map(Do::Double)).await;
    door.open();
    answered(replies).await;
    assert!(small.book(|book| book.shown.is_empty()), "they have a hundred bytes");
}

#[tokio::test]
async fn what_may_not_run_twice_is_not_shown() {
    let ahead = Ahead::new(64, 64);
    let made = ahead.clone();
    let once = KernelSpec::new("a/b", move || made.clone()).breaker(None).recovery(at_once(9));
    let (_runtime, kernel) = spawned(once).await;
    let (door, replies) = queued(&kernel, &[1, 2].map(Do::Double)).await;
    door.open();
    answered(replies).await;
    assert!(ahead.book(|book| book.shown.is_empty()));
    assert_eq!(ahead.executed(), [0, 1, 2].map(|number| (None, number)));
}

/// Two before doors: the second one, and those behind it, have been shown when the first one is answered.
async fn under_way(kernel: &AheadRef, behind: &[Do]) -> (Arc<Latch>, Vec<Reply<Do, u64>>) {
    let door = Latch::new();
    let (first, mut replies) = queued(kernel, &[Do::Wait(Arc::clone(&door))]).await;
    replies.extend(behind.iter().map(|what| kernel.try_call(what.clone(), NONE).unwrap()));
    first.open();
    door.arrived(1).await;
    soon(replies.remove(0)).await.unwrap();
    (door, replies)
}

#[tokio::test]
async fn a_kernel_that_has_seen_what_lost_its_callers_settles_before_it_sleeps() {
    let ahead = Ahead::new(64, 64);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let (door, mut replies) = under_way(&kernel, &[1, 2].map(Do::Double)).await;
    replies.truncate(1);
    door.open();
    answered(replies).await;
    soon(async {
        while ahead.book(|book| book.settled == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(soon(kernel.call(Do::Double(4), NONE)).await.unwrap(), 8);
    assert_eq!(ahead.executed(), [(None, 0), (Some(1), 0), (None, 4)], "those that were left never were");
    assert_balanced(&kernel);
}

#[tokio::test]
async fn what_was_shown_when_its_domain_died_beside_it_is_suspect_and_runs_alone() {
    for suspicion in [Suspicion::Suspect, Suspicion::Alone, Suspicion::None] {
        let ahead = Ahead::new(3, 3);
        let (_runtime, kernel) = spawned(ahead.spec()).await;
        let (door, replies) = under_way(&kernel, &[1, 2, 3, 4].map(Do::Double)).await;
        let before = ahead.book(|book| (book.executed.len(), book.shown.len()));
        let life = ahead.book(|book| book.lives.last().unwrap().clone());
        life.lost(Loss::Domain { reason: "signal 9".into(), suspicion });
        door.open();
        answered(replies).await;
        let suspects = ahead.book(|book| book.executed[before.0..].to_vec());
        let suspects: Vec<_> = suspects.into_iter().map(|(_, number, suspect)| (number, suspect)).collect();
        let were = suspicion != Suspicion::Alone;
        let first = suspicion != Suspicion::None;
        assert_eq!(suspects, [(0, first), (1, were), (2, were), (3, false), (4, false)], "{suspicion:?}");
        let shown = ahead.book(|book| book.shown[before.1..].to_vec());
        let shown: Vec<u64> = shown.into_iter().flatten().map(|(_, number)| number).collect();
        assert!(suspicion != Suspicion::Suspect || shown == [3, 4], "suspects are not: {shown:?}");
        assert_balanced(&kernel);
    }
}

#[tokio::test]
async fn one_that_was_shown_and_ends_before_its_turn_may_have_run() {
    let ahead = Ahead::new(3, 3);
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let kernel = soon(runtime.spawn(ahead.spec())).await.unwrap();
    let door = Latch::new();
    let (first, mut replies) = queued(&kernel, &[Do::Wait(Arc::clone(&door))]).await;
    let late = [1, 2, 3].map(|number| kernel.try_call(Do::Double(number), ms(50)).unwrap());
    first.open();
    door.arrived(1).await;
    hand.advance(ms(50));
    for (late, ran) in late.into_iter().zip([Ran::Unknown, Ran::Unknown, Ran::No]) {
        let error = soon(late).await.unwrap_err();
        assert_eq!((error.kind(), error.ran()), (&KernelErrorKind::DeadlineExceeded, ran));
    }
    door.open();
    answered(replies.split_off(0)).await;
    let remaining = ahead.book(|book| book.remaining.clone());
    assert_eq!(remaining, [None, Some(ms(50)), Some(ms(50))], "what it was told");
    assert_balanced(&kernel);
}

/// A stall is one failure, however many were to come behind it.
#[tokio::test]
async fn those_that_were_shown_and_are_late_are_no_failures_of_the_kernel() {
    let ahead = Ahead::new(64, 64);
    let (runtime, hand) = Runtime::builder().build_with_manual_clock().await.unwrap();
    let watched = CircuitBreakerConfig { failure_threshold: 2, ..CircuitBreakerConfig::default() };
    let kernel = soon(runtime.spawn(ahead.spec().breaker(watched))).await.unwrap();
    let door = Latch::new();
    let (first, replies) = queued(&kernel, &[Do::Wait(Arc::clone(&door))]).await;
    let late = [1, 2, 3, 4].map(|number| kernel.try_call(Do::Double(number), ms(50)).unwrap());
    first.open();
    door.arrived(1).await;
    hand.advance(ms(50));
    for late in late {
        assert_eq!(soon(late).await.unwrap_err().kind(), &KernelErrorKind::DeadlineExceeded);
    }
    door.open();
    answered(replies).await;
    assert_eq!(soon(kernel.call(Do::Double(5), NONE)).await.unwrap(), 10, "the breaker is closed");
}

/// A new version that is made, and waits until the old one makes way.
async fn replacing(runtime: &Runtime) -> (Ahead, JoinHandle<std::result::Result<(), HandOverError>>) {
    let next = Ahead::new(3, 3);
    let (runtime, spec) = (runtime.clone(), next.spec());
    let replacing = kit::spawn(async move { runtime.replace(spec).await });
    soon(async {
        while next.book(|book| book.lives.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    (next, replacing)
}

/// What it may have begun with it ends itself; the rest is the new version's.
#[tokio::test]
async fn a_version_that_is_replaced_executes_what_it_has_seen() {
    let ahead = Ahead::new(3, 3);
    let (runtime, kernel) = spawned(ahead.spec()).await;
    let (door, replies) = under_way(&kernel, &[1, 2, 3, 4].map(Do::Double)).await;
    let (next, replacing) = replacing(&runtime).await;
    door.open();
    answered(replies).await;
    soon(replacing).await.unwrap().unwrap();
    let numbers = |ahead: &Ahead| ahead.executed().into_iter().map(|(_, number)| number).collect::<Vec<_>>();
    assert_eq!((numbers(&ahead), numbers(&next)), (vec![0, 0, 1, 2], vec![3, 4]));
    assert_balanced(&kernel);
}

#[tokio::test]
async fn a_kernel_that_is_stopped_settles_what_it_has_seen() {
    let ahead = Ahead::new(64, 64);
    let (runtime, kernel) = spawned(ahead.spec()).await;
    let (door, mut replies) = under_way(&kernel, &[1, 2].map(Do::Double)).await;
    let stopped = runtime.clone();
    let stopping = kit::spawn(async move { stopped.stop("a/b", false).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    door.open();
    soon(replies.remove(0)).await.unwrap();
    assert!(soon(stopping).await.unwrap());
    for reply in replies {
        assert_eq!(soon(reply).await.unwrap_err().kind(), &kit::DOWN_STOPPED);
    }
    assert_eq!(ahead.book(|book| book.settled), 1);
    assert_balanced(&kernel);
}

/// It is the other's panic, and that one's turn comes. Each is known by its own ticket still, and the kernel can be stopped.
#[tokio::test]
async fn a_panic_over_what_is_shown_is_not_that_of_the_request_in_hand() {
    let ahead = Ahead::new(2, 2);
    let (runtime, kernel) = spawned(ahead.spec()).await;
    let (door, mut replies) = under_way(&kernel, &[1, 2, 3, 4].map(Do::Double)).await;
    ahead.0.lock().unwrap().panics = true;
    drop(replies.remove(0));
    door.open();
    answered(replies).await;
    let executed = ahead.executed();
    assert_eq!(executed[1..3], [(Some(1), 0), (Some(2), 1)]);
    assert_eq!(
        executed[3..],
        [(Some(3), 2), (Some(4), 3), (None, 4)],
        "taken, for all that is known; and no more"
    );
    assert_eq!(runtime.failures().len(), 0);
    assert!(soon(runtime.stop("a/b", false)).await);
    assert_balanced(&kernel);
}

/// The last one that the old version has seen has lost its caller before its turn, which is found out when that comes: it is a chain's.
#[tokio::test]
async fn a_successor_does_not_wait_for_one_that_never_comes() {
    let ahead = Ahead::new(3, 3);
    ahead.0.lock().unwrap().forgets = true;
    let (runtime, kernel) = spawned(ahead.spec()).await;
    let door = Latch::new();
    let (first, mut replies) = queued(&kernel, &[Do::Wait(Arc::clone(&door))]).await;
    let chain = Pipeline::from(&kernel);
    let left = kit::spawn(async move { chain.run(Do::Double(1), NONE).await });
    while kernel.accounts().accepted < 3 {
        tokio::task::yield_now().await;
    }
    first.open();
    door.arrived(1).await;
    soon(replies.remove(0)).await.unwrap();
    assert_eq!(ahead.book(|book| book.shown.clone()), [[(1, 0), (2, 1)]]);
    let (next, replacing) = replacing(&runtime).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    door.open();
    answered(replies).await;
    soon(replacing).await.unwrap().unwrap();
    assert_eq!(soon(kernel.call(Do::Double(2), NONE)).await.unwrap(), 4);
    assert_eq!(next.executed(), [(None, 2)]);
}

#[tokio::test]
async fn what_is_shown_keeps_its_trace() {
    let ahead = Ahead::new(64, 64);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let (door, mut replies) = queued(&kernel, &[Do::Double(1)]).await;
    let trace = TraceContext::new(NonZeroU128::MIN, NonZeroU64::MIN, true);
    replies.push(with_trace(trace, async { kernel.try_call(Do::Double(2), Deadline::None) }).await.unwrap());
    door.open();
    answered(replies).await;
    assert_eq!(ahead.book(|book| book.traces.clone()), [None, Some(trace)]);
}

/// A retry goes to the head, but not before what has been shown.
#[tokio::test]
async fn a_request_that_is_run_again_comes_behind_those_that_were_shown() {
    let ahead = Ahead::new(3, 3);
    let (_runtime, kernel) = spawned(ahead.spec()).await;
    let again = Do::FailUntil(1);
    let (door, mut replies) = queued(&kernel, &[again, Do::Double(1), Do::Double(2), Do::Double(3)]).await;
    door.open();
    let retried = replies.remove(1);
    answered(replies).await;
    soon(retried).await.unwrap();
    let executed = ahead.executed();
    let tickets: Vec<_> = executed.iter().filter_map(|(ticket, _)| *ticket).collect();
    assert!(tickets.is_sorted(), "in the order in which they were shown: {executed:?}");
    assert_eq!(executed.len(), 6);
    assert_balanced(&kernel);
}
