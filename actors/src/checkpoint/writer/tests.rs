use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::checkpoint::{CheckpointStore, MemoryStore};

type Outcomes = Receiver<(KernelId, u64, Result<(), SaveError>)>;

fn id(name: &str) -> KernelId {
    KernelId::new(name).unwrap()
}

/// A writer, the store under it, and the outcomes it tells.
fn writer(limit_bytes: usize) -> (Writer, Arc<MemoryStore>, Outcomes) {
    let store = Arc::new(MemoryStore::new(limit_bytes));
    let (tell, outcomes) = channel();
    let archive = Archive::new(Arc::clone(&store) as Arc<dyn CheckpointStore>);
    let tell = move |kernel: &KernelId, sequence, outcome| {
        let _ = tell.send((kernel.clone(), sequence, outcome));
    };
    (Writer::start(archive, tell).unwrap(), store, outcomes)
}

fn job(sequence: u64) -> SaveJob {
    SaveJob { sequence, payload: Box::new(move || Ok(sequence.to_le_bytes().to_vec())) }
}

/// A job that tells when it has begun and goes on when it is let.
fn held(sequence: u64) -> (SaveJob, Receiver<()>, Sender<()>) {
    let (begin, begun) = channel();
    let (let_go, wait) = channel();
    let payload = Box::new(move || {
        begin.send(()).unwrap();
        // An error means that the test is over.
        let _ = wait.recv();
        Ok(vec![])
    });
    (SaveJob { sequence, payload }, begun, let_go)
}

fn told(outcomes: &Outcomes) -> Vec<(String, u64, Result<(), String>)> {
    let text = |outcome: Result<(), SaveError>| outcome.map_err(|error| error.to_string());
    outcomes
        .try_iter()
        .map(|(kernel, sequence, outcome)| (kernel.to_string(), sequence, text(outcome)))
        .collect()
}

#[test]
fn what_was_submitted_before_a_flush_is_saved_and_told_after_it() {
    let (writer, store, outcomes) = writer(1 << 20);
    for sequence in 1..=5 {
        writer.submit(&id("a/a"), job(sequence));
        writer.flush_within(Duration::MAX);
    }
    writer.flush_within(Duration::MAX);
    assert_eq!(store.sequences(&id("a/a")).unwrap(), [5, 4, 3]);
    let expected: Vec<_> = (1..=5).map(|sequence| ("a/a".to_owned(), sequence, Ok(()))).collect();
    assert_eq!(told(&outcomes), expected);
    assert_eq!(writer.replaced_count(), 0);
}

#[test]
fn a_newer_job_replaces_one_that_has_not_begun_and_no_other() {
    let (writer, store, outcomes) = writer(1 << 20);
    let (first, begun, let_go) = held(1);
    writer.submit(&id("a/a"), first);
    begun.recv().unwrap();
    for sequence in 2..=9 {
        writer.submit(&id("a/a"), job(sequence));
        writer.submit(&id("b/b"), job(sequence));
    }
    assert_eq!(writer.replaced_count(), 14);
    assert!(!writer.flush_within(Duration::ZERO), "the first is under way");
    let_go.send(()).unwrap();
    writer.flush_within(Duration::MAX);
    let saved = |kernel: &str, sequence| (kernel.to_owned(), sequence, Ok(()));
    assert_eq!(told(&outcomes), [saved("a/a", 1), saved("a/a", 9), saved("b/b", 9)]);
    assert_eq!(store.sequences(&id("a/a")).unwrap(), [9, 1]);
}

#[test]
fn a_flush_waits_for_no_job_that_came_after_it() {
    let (writer, _store, outcomes) = writer(1 << 20);
    writer.submit(&id("a/a"), job(1));
    let until = writer.shared.lock().pending.last_ticket();
    let (second, begun, let_go) = held(2);
    writer.submit(&id("b/b"), second);
    begun.recv().unwrap();
    assert!(writer.wait_for(until, Duration::MAX));
    assert_eq!(told(&outcomes), [("a/a".to_owned(), 1, Ok(()))]);
    assert!(!writer.flush_within(Duration::ZERO), "the second is under way");
    let_go.send(()).unwrap();
}

#[test]
fn an_encoding_that_fails_or_panics_costs_its_own_checkpoint() {
    let (writer, _store, outcomes) = writer(1 << 20);
    writer.submit(&id("a/a"), SaveJob { sequence: 1, payload: Box::new(|| Err("not now".into())) });
    writer
        .submit(&id("b/b"), SaveJob { sequence: 2, payload: Box::new(|| panic!("an encoding that panics")) });
    writer.submit(&id("c/c"), job(3));
    writer.flush_within(Duration::MAX);
    let refused = |reason: &str| Err(format!("the checkpoint cannot be encoded: {reason}"));
    let expected = [
        ("a/a".to_owned(), 1, refused("not now")),
        ("b/b".to_owned(), 2, refused("its encoding panicked")),
        ("c/c".to_owned(), 3, Ok(())),
    ];
    assert_eq!(told(&outcomes), expected);
}

#[test]
fn a_full_store_is_told_and_the_next_that_fits_is_saved() {
    let (writer, _store, outcomes) = writer(100);
    writer.submit(&id("a/a"), SaveJob { sequence: 1, payload: Box::new(|| Ok(vec![0; 200])) });
    writer.submit(&id("b/b"), job(2));
    writer.flush_within(Duration::MAX);
    let outcomes: Vec<_> = outcomes.try_iter().collect();
    assert!(matches!(outcomes[0], (_, 1, Err(SaveError::Store(StoreError::Full)))));
    assert!(matches!(outcomes[1], (_, 2, Ok(()))));
}

#[test]
fn a_listener_that_panics_costs_nothing() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let archive = Archive::new(Arc::clone(&store) as Arc<dyn CheckpointStore>);
    let writer = Writer::start(archive, |_, _, _| panic!("a listener that panics")).unwrap();
    writer.submit(&id("a/a"), job(1));
    writer.submit(&id("b/b"), job(2));
    writer.flush_within(Duration::MAX);
    assert_eq!(store.sequences(&id("b/b")).unwrap(), [2]);
}

#[test]
fn a_dropped_writer_finishes_what_is_pending() {
    let (writer, store, outcomes) = writer(1 << 20);
    let (first, begun, let_go) = held(1);
    writer.submit(&id("a/a"), first);
    begun.recv().unwrap();
    for name in ["b/b", "c/c", "d/d"] {
        writer.submit(&id(name), job(2));
    }
    let_go.send(()).unwrap();
    drop(writer);
    assert_eq!(store.sequences(&id("d/d")).unwrap(), [2]);
    assert_eq!(outcomes.iter().count(), 4, "and the listener is gone with the thread");
}

#[test]
fn a_dropped_writer_leaves_a_thread_that_blocks_behind() {
    struct Dropped(Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
            panic!("a drop that panics");
        }
    }
    let (mut writer, store, outcomes) = writer(1 << 20);
    writer.grace = Duration::ZERO;
    let (first, begun, let_go) = held(1);
    writer.submit(&id("a/a"), first);
    begun.recv().unwrap();
    let (tell, dropped) = channel();
    let state = Dropped(tell);
    let payload = Box::new(move || {
        let _state = &state;
        Ok(vec![])
    });
    writer.submit(&id("b/b"), SaveJob { sequence: 2, payload });
    drop(writer);
    dropped.recv().unwrap();
    let_go.send(()).unwrap();
    assert_eq!(outcomes.iter().count(), 1, "the thread ends after the job that was under way");
    assert!(store.sequences(&id("b/b")).unwrap().is_empty());
}

#[test]
fn a_writer_dropped_by_its_own_listener_does_not_wait_for_itself() {
    let (tell, outcomes) = channel();
    let own: Arc<Mutex<Option<Writer>>> = Arc::default();
    let listener = {
        let own = Arc::clone(&own);
        move |_: &KernelId, sequence, _| {
            let writer = own.lock().unwrap().take();
            if let Some(writer) = &writer {
                writer.submit(&id("a/a"), job(sequence + 1));
                writer.flush_within(Duration::MAX);
            }
            drop(writer);
            tell.send(sequence).unwrap();
        }
    };
    let archive = Archive::new(Arc::new(MemoryStore::new(1 << 20)));
    let writer = Writer::start(archive, listener).unwrap();
    let mut place = own.lock().unwrap();
    writer.submit(&id("a/a"), job(1));
    *place = Some(writer);
    drop(place);
    drop(own);
    assert_eq!(outcomes.iter().collect::<Vec<_>>(), [1, 2]);
}
