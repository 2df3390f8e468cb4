//! The one suite that every store passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustkernel_core::KernelId;

use super::{CheckpointStore, StoreError};

/// Tests the store that `make` makes, a new and empty one for every call, against every rule of [`CheckpointStore`] that shows from
/// outside. It needs room for 16 MiB.
///
/// ```
/// use rustkernel_actors::MemoryStore;
/// use rustkernel_actors::checkpoint::conformance;
///
/// conformance(|| Box::new(MemoryStore::new(16 << 20)));
/// ```
///
/// # Panics
/// On the first broken rule, with the rule.
pub fn conformance(mut make: impl FnMut() -> Box<dyn CheckpointStore>) {
    for check in [
        an_empty_store_has_nothing,
        what_is_put_is_got,
        the_newest_comes_first,
        a_sequence_is_replaced_whole,
        kernels_do_not_meet,
        a_removal_is_of_one_record_and_can_be_repeated,
        records_of_any_length_are_kept,
        puts_of_many_threads_are_all_kept,
        a_record_is_visible_to_other_threads_and_never_torn,
    ] {
        check(make().as_ref());
    }
}

fn an_empty_store_has_nothing(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    assert!(sequences(store, &kernel).is_empty(), "an empty store has no sequences");
    assert!(get(store, &kernel, 0).is_none(), "an empty store has no record");
    remove(store, &kernel, 0);
}

fn what_is_put_is_got(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    put(store, &kernel, 7, &every_byte);
    assert!(get(store, &kernel, 7) == Some(every_byte), "a record is got back as it was put");
    assert!(get(store, &kernel, 6).is_none(), "a sequence that was not put has no record");
    assert_eq!(sequences(store, &kernel), [7], "what was put is among the sequences");
}

fn the_newest_comes_first(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    let (text_would_sort_otherwise, ends) = ([9, 10, 100, 2], [0, u64::MAX, u64::MAX - 1]);
    for sequence in text_would_sort_otherwise.into_iter().chain(ends) {
        put(store, &kernel, sequence, &sequence.to_le_bytes());
    }
    let newest_first = [u64::MAX, u64::MAX - 1, 100, 10, 9, 2, 0];
    assert_eq!(sequences(store, &kernel), newest_first, "sequences come as numbers, the greatest first");
    for sequence in newest_first {
        let kept = get(store, &kernel, sequence) == Some(sequence.to_le_bytes().to_vec());
        assert!(kept, "sequence {sequence} keeps its own record");
    }
}

fn a_sequence_is_replaced_whole(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    for record in [&b"a long first record"[..], b"short", b"a longer record than the first one"] {
        put(store, &kernel, 3, record);
        assert!(get(store, &kernel, 3).as_deref() == Some(record), "a put replaces the whole record");
        assert_eq!(sequences(store, &kernel), [3], "a replaced sequence is there once");
    }
}

fn kernels_do_not_meet(store: &dyn CheckpointStore) {
    let longest = ["X".repeat(63), "Y".repeat(64)].join("/");
    let names = [
        "a/b-c", "a-b/c", "a/b.c", "a.b/c", "a/b_c", "a_b/c", "a/b--c", "a/b..c", "a/b.", "a/b", "A/b",
        "a/B", "aa/b", "con/nul", "0/1", &longest,
    ];
    for (sequence, name) in (1..).zip(names) {
        put(store, &id(name), sequence, name.as_bytes());
    }
    for (sequence, name) in (1..).zip(names) {
        assert_eq!(sequences(store, &id(name)), [sequence], "{name} has its own sequences only");
        let own = get(store, &id(name), sequence).as_deref() == Some(name.as_bytes());
        assert!(own, "{name} has its own record");
    }
    remove(store, &id("a/b"), 10);
    assert!(sequences(store, &id("a/b")).is_empty(), "a removed record is gone");
    for (sequence, name) in (1..).zip(names).filter(|(_, name)| *name != "a/b") {
        assert_eq!(sequences(store, &id(name)), [sequence], "{name} keeps its record when a/b loses its own");
    }
}

fn a_removal_is_of_one_record_and_can_be_repeated(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    for sequence in 1..=3 {
        put(store, &kernel, sequence, b"record");
    }
    remove(store, &kernel, 2);
    remove(store, &kernel, 2);
    remove(store, &kernel, 99);
    assert!(get(store, &kernel, 2).is_none(), "a removed record is not got");
    assert_eq!(sequences(store, &kernel), [3, 1], "a removal leaves the other sequences");
    put(store, &kernel, 2, b"again");
    assert!(get(store, &kernel, 2).as_deref() == Some(b"again"), "a removed sequence can be put again");
}

fn records_of_any_length_are_kept(store: &dyn CheckpointStore) {
    let kernel = id("graph/pagerank");
    put(store, &kernel, 1, b"");
    assert!(get(store, &kernel, 1).as_deref() == Some(b""), "an empty record is kept, and is not none");
    // 251 is prime: no block of a power of two repeats.
    let big: Vec<u8> = (0..=250).cycle().take(4 << 20).collect();
    put(store, &kernel, 2, &big);
    assert!(get(store, &kernel, 2) == Some(big), "a record of 4 MiB is got back as it was put");
    assert_eq!(sequences(store, &kernel), [2, 1], "empty and big records are among the sequences");
}

fn puts_of_many_threads_are_all_kept(store: &dyn CheckpointStore) {
    let kernels = [id("graph/pagerank"), id("graph/load")];
    let own = |thread: u64| (0..8).map(move |n| thread * 8 + n);
    let puts = |thread: u64| -> Result<(), StoreError> {
        for sequence in own(thread) {
            for kernel in &kernels {
                store.put(kernel, sequence, &sequence.to_le_bytes())?;
                store.put(kernel, 1000, &thread.to_le_bytes())?;
            }
        }
        Ok(())
    };
    let results = thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || puts(thread)));
        threads.map(|thread| thread.join().ok())
    });
    for result in results {
        must(joined(result), "puts of several threads at once succeed");
    }
    for kernel in &kernels {
        let expected: Vec<u64> = [1000].into_iter().chain((0..32).rev()).collect();
        assert_eq!(sequences(store, kernel), expected, "puts of several threads are all kept");
        for sequence in 0..32_u64 {
            let kept = get(store, kernel, sequence) == Some(sequence.to_le_bytes().to_vec());
            assert!(kept, "sequence {sequence} keeps the record that its thread put");
        }
        let last = get(store, kernel, 1000);
        let is_one = (0..4_u64).any(|thread| last.as_deref() == Some(&thread.to_le_bytes()[..]));
        assert!(is_one, "of several puts of one sequence, one is kept, whole");
    }
}

fn a_record_is_visible_to_other_threads_and_never_torn(store: &dyn CheckpointStore) {
    const RECORD_BYTES: usize = 64 << 10;
    let kernel = &id("graph/pagerank");
    put(store, kernel, 1, &[0; RECORD_BYTES]);
    let (done, is_done) = (&AtomicBool::new(false), |done: &AtomicBool| done.load(Ordering::Acquire));
    let (written, read) = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let _done = SetOnDrop(done);
            (1..=32).try_for_each(|fill| store.put(kernel, 1, &[fill; RECORD_BYTES]))
        });
        let reader = scope.spawn(move || -> Result<bool, StoreError> {
            loop {
                let last = is_done(done);
                let Some(record) = store.get(kernel, 1)? else { return Ok(false) };
                if record.len() != RECORD_BYTES || record.iter().any(|byte| *byte != record[0]) {
                    return Ok(false);
                }
                if last {
                    return Ok(record[0] == 32);
                }
            }
        });
        (writer.join().ok(), reader.join().ok())
    });
    must(joined(written), "a record can be replaced while it is read");
    let whole = must(joined(read), "a record can be read while it is replaced");
    assert!(whole, "a reader gets the old record or the new one, whole, and the new one after its put");
}

/// Sets the flag whatever way the thread ends, so that nobody waits for it in vain.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn id(name: &str) -> KernelId {
    match KernelId::new(name) {
        Ok(id) => id,
        Err(error) => panic!("the suite's own id: {error}"),
    }
}

#[track_caller]
fn put(store: &dyn CheckpointStore, kernel: &KernelId, sequence: u64, record: &[u8]) {
    must(store.put(kernel, sequence, record), "a record can be put");
}

#[track_caller]
fn sequences(store: &dyn CheckpointStore, kernel: &KernelId) -> Vec<u64> {
    must(store.sequences(kernel), "the sequences of any kernel can be told")
}

#[track_caller]
fn get(store: &dyn CheckpointStore, kernel: &KernelId, sequence: u64) -> Option<Vec<u8>> {
    must(store.get(kernel, sequence), "a record that is there or not can be asked for")
}

#[track_caller]
fn remove(store: &dyn CheckpointStore, kernel: &KernelId, sequence: u64) {
    must(store.remove(kernel, sequence), "a record that is there or not can be removed");
}

#[track_caller]
fn must<T>(result: Result<T, StoreError>, rule: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{rule}: {error} ({error:?})"),
    }
}

#[track_caller]
fn joined<T>(result: Option<Result<T, StoreError>>) -> Result<T, StoreError> {
    match result {
        Some(result) => result,
        None => panic!("a store does not panic; see the message of its thread"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::MemoryStore;

    /// A store that breaks one rule.
    #[derive(Debug)]
    struct Broken {
        inner: MemoryStore,
        how: How,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum How {
        OldestFirst,
        OneKernel,
        KeepsTheFirst,
        LosesTheEmpty,
        PanicsOnThreads,
    }

    impl Broken {
        fn key(&self, kernel: &KernelId) -> KernelId {
            if self.how == How::OneKernel { id("only/one") } else { kernel.clone() }
        }
    }

    impl CheckpointStore for Broken {
        fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<(), StoreError> {
            let there = self.inner.get(kernel, sequence)?.is_some();
            assert!(!(sequence == 1000 && self.how == How::PanicsOnThreads), "a store that panics");
            let ignored = self.how == How::KeepsTheFirst && there
                || self.how == How::LosesTheEmpty && record.is_empty();
            if ignored { Ok(()) } else { self.inner.put(&self.key(kernel), sequence, record) }
        }

        fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError> {
            let mut sequences = self.inner.sequences(&self.key(kernel))?;
            if self.how == How::OldestFirst {
                sequences.reverse();
            }
            Ok(sequences)
        }

        fn get(&self, kernel: &KernelId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
            self.inner.get(&self.key(kernel), sequence)
        }

        fn remove(&self, kernel: &KernelId, sequence: u64) -> Result<(), StoreError> {
            self.inner.remove(&self.key(kernel), sequence)
        }
    }

    fn test(how: How) {
        conformance(move || Box::new(Broken { inner: MemoryStore::new(64 << 20), how }));
    }

    #[test]
    #[should_panic = "the greatest first"]
    fn the_wrong_order_is_found() {
        test(How::OldestFirst);
    }

    #[test]
    #[should_panic = "has its own sequences only"]
    fn kernels_that_meet_are_found() {
        test(How::OneKernel);
    }

    #[test]
    #[should_panic = "a put replaces the whole record"]
    fn a_put_that_does_not_replace_is_found() {
        test(How::KeepsTheFirst);
    }

    #[test]
    #[should_panic = "an empty record is kept"]
    fn a_lost_empty_record_is_found() {
        test(How::LosesTheEmpty);
    }

    #[test]
    #[should_panic = "a store does not panic"]
    fn a_panic_is_found() {
        test(How::PanicsOnThreads);
    }
}
