//! The hand-over between callers, the incarnation, the timer and recovery, in every interleaving within a bound.
//!
//! The ledger itself is only ever used under its lock; what is modelled is what happens between two lockings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::task::Wake;

use loom::sync::Notify;
use loom::thread;

use super::*;
use crate::sync::{Mutex, lock};

type Books = Arc<Mutex<Ledger<u64>>>;

const WATCH: Watch = Watch { hang_limit: None, hang_after: Duration::from_nanos(5) };
const DEADLINE: Timestamp = Timestamp::from_nanos(10);

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn books() -> Books {
    let mut ledger = Ledger::new(Bounds { requests: 8, bytes: 800 });
    ledger.life = Life::Serving;
    Arc::new(Mutex::new(ledger))
}

fn entry(id: u64) -> Entry<u64> {
    Entry {
        header: Header::new(id, DEADLINE),
        request: id,
        bytes: 1,
        convictions: 0,
        accepted: Timestamp::ZERO,
        ticket: 0,
    }
}

fn push(books: &Books, id: u64) {
    let sleeper = lock(books).accept(entry(id));
    sleeper.into_iter().for_each(Waker::wake);
}

fn take(ledger: &mut Ledger<u64>, waker: &Waker) -> Next<u64> {
    let epoch = ledger.epoch;
    ledger.next(epoch, waker, &WATCH, |_| Timestamp::ZERO, |_, _| false, &mut Vec::new())
}

/// An incarnation: takes until it is told to stop, and sleeps in between.
fn serve(books: &Books, mut wanted: usize) -> bool {
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(Arc::clone(&bell));
    while wanted > 0 {
        let next = take(&mut lock(books), &waker);
        match next {
            Next::Run(..) => {
                wanted -= 1;
                assert!(lock(books).hand_out(0, None).is_some());
            }
            Next::Sleep { .. } => bell.0.wait(),
            Next::Stop | Next::Fenced => return false,
        }
    }
    true
}

/// One that runs already, so that others can race for it.
fn running() -> Books {
    let books = books();
    push(&books, 1);
    assert!(matches!(take(&mut lock(&books), Waker::noop()), Next::Run(..)));
    books
}

fn settled(books: &Books) -> (u64, u64) {
    let accounts = lock(books).accounts;
    assert_eq!(accounts.accepted, accounts.answered + accounts.failed, "{accounts:?}");
    assert_eq!(lock(books).bytes(), 0);
    (accounts.answered, accounts.failed)
}

fn finish(books: &Books) -> bool {
    lock(books).hand_out(0, None).is_some()
}

fn fence(books: &Books) -> bool {
    let mut ledger = lock(books);
    let _wakers = ledger.fence();
    let suspect = ledger.take_running().and_then(Running::unsettled);
    drop(ledger);
    suspect.inspect(|suspect| lock(books).settle(suspect.bytes, false)).is_some()
}

fn expire(books: &Books) -> bool {
    lock(books).expire(DEADLINE, None, &WATCH).overdue.is_some()
}

fn cancel(books: &Books) -> bool {
    !matches!(lock(books).cancel(1), Cancelled::Gone)
}

fn race(books: &Books, parties: &[fn(&Books) -> bool]) -> usize {
    let threads: Vec<_> = parties
        .iter()
        .map(|party| {
            let (books, party) = (Arc::clone(books), *party);
            thread::spawn(move || party(&books))
        })
        .collect();
    threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
}

#[test]
fn a_push_and_a_park_never_lose_a_wake() {
    model(|| {
        let books = books();
        let server = {
            let books = Arc::clone(&books);
            thread::spawn(move || serve(&books, 2))
        };
        push(&books, 1);
        push(&books, 2);
        assert!(server.join().unwrap());
        assert_eq!(settled(&books), (2, 0));
    });
}

#[test]
fn a_stop_reaches_an_incarnation_that_goes_to_sleep() {
    model(|| {
        let books = books();
        let server = {
            let books = Arc::clone(&books);
            thread::spawn(move || serve(&books, usize::MAX))
        };
        push(&books, 1);
        let sleeper = lock(&books).stop();
        sleeper.into_iter().for_each(Waker::wake);
        assert!(!server.join().unwrap());
    });
}

#[test]
fn a_fence_reaches_an_incarnation_that_goes_to_sleep() {
    model(|| {
        let books = books();
        let server = {
            let books = Arc::clone(&books);
            thread::spawn(move || {
                let bell = Arc::new(Bell(Notify::new()));
                let waker = Waker::from(Arc::clone(&bell));
                loop {
                    let next = lock(&books).next(
                        0,
                        &waker,
                        &WATCH,
                        |_| Timestamp::ZERO,
                        |_, _| false,
                        &mut Vec::new(),
                    );
                    match next {
                        Next::Sleep { .. } => bell.0.wait(),
                        Next::Fenced => return,
                        Next::Run(..) | Next::Stop => unreachable!(),
                    }
                }
            })
        };
        let wakers = lock(&books).fence();
        wakers.into_iter().flatten().for_each(Waker::wake);
        server.join().unwrap();
    });
}

#[test]
fn of_a_deadline_and_a_finish_exactly_one_settles() {
    model(|| {
        let books = running();
        assert_eq!(race(&books, &[finish, expire]), 1);
        settled(&books);
    });
}

#[test]
fn of_a_fence_and_a_finish_exactly_one_settles() {
    model(|| {
        let books = running();
        assert_eq!(race(&books, &[finish, fence]), 1);
        settled(&books);
    });
}

#[test]
fn of_all_who_can_settle_a_request_exactly_one_does() {
    model(|| {
        let books = running();
        assert_eq!(race(&books, &[cancel, expire, fence]), 1);
        settled(&books);
    });
}
