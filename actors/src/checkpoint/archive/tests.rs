use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::checkpoint::MemoryStore;

fn kernel() -> KernelId {
    KernelId::new("graph/pagerank").unwrap()
}

fn archive() -> (Arc<MemoryStore>, Archive) {
    let store = Arc::new(MemoryStore::new(1 << 20));
    (Arc::clone(&store), Archive::new(store))
}

fn save(archive: &Archive, sequence: u64, payload: &[u8]) {
    let saved = archive.save(&kernel(), sequence, payload).unwrap();
    assert!(saved.unpruned.is_none(), "{saved:?}");
}

/// A store that does not do what its switches say.
#[derive(Debug)]
struct Unwilling {
    inner: MemoryStore,
    to_get: AtomicBool,
    to_list: AtomicBool,
    to_put: AtomicBool,
    to_remove: AtomicBool,
}

impl Unwilling {
    fn new() -> Arc<Self> {
        let [to_get, to_list, to_put, to_remove] = [(); 4].map(|()| AtomicBool::new(false));
        Arc::new(Self { inner: MemoryStore::new(1 << 20), to_get, to_list, to_put, to_remove })
    }

    fn unless(switch: &AtomicBool) -> Result<(), StoreError> {
        if switch.load(Ordering::Relaxed) { Err(StoreError::ReadOnly) } else { Ok(()) }
    }
}

impl CheckpointStore for Unwilling {
    fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<(), StoreError> {
        Self::unless(&self.to_put)?;
        self.inner.put(kernel, sequence, record)
    }

    /// In no order at all.
    fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError> {
        assert!(!self.to_list.load(Ordering::Relaxed), "a store that panics");
        let mut sequences = self.inner.sequences(kernel)?;
        sequences.reverse();
        Ok(sequences)
    }

    fn get(&self, kernel: &KernelId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if sequence % 2 == 1 {
            Self::unless(&self.to_get)?;
        }
        self.inner.get(kernel, sequence)
    }

    fn remove(&self, kernel: &KernelId, sequence: u64) -> Result<(), StoreError> {
        Self::unless(&self.to_remove)?;
        self.inner.remove(kernel, sequence)
    }
}

#[test]
fn the_newest_is_found_and_the_retained_ones_are_kept() {
    let (store, archive) = archive();
    assert_eq!(archive.newest(&kernel(), None).unwrap().found, None);
    assert_eq!(archive.next_sequence(&kernel()).unwrap(), 1);
    for sequence in 1..=9 {
        save(&archive, sequence, &sequence.to_le_bytes());
    }
    assert_eq!(store.sequences(&kernel()).unwrap(), [9, 8, 7]);
    let recovered = archive.newest(&kernel(), None).unwrap();
    assert_eq!(recovered.found, Some((9, 9_u64.to_le_bytes().to_vec())));
    assert_eq!(recovered.refused, []);
    assert_eq!(archive.next_sequence(&kernel()).unwrap(), 10);
}

#[test]
fn a_retention_of_none_keeps_the_newest() {
    let (store, archive) = archive();
    let archive = archive.with_retention(0);
    save(&archive, 1, b"one");
    save(&archive, 2, b"two");
    assert_eq!(store.sequences(&kernel()).unwrap(), [2]);
}

#[test]
fn what_was_just_saved_is_never_pruned() {
    let (store, archive) = archive();
    for sequence in [7, 8, 9, 1] {
        save(&archive, sequence, b"state");
    }
    assert_eq!(store.sequences(&kernel()).unwrap(), [9, 8, 7, 1]);
    save(&archive, u64::MAX, b"state");
    assert_eq!(archive.next_sequence(&kernel()).unwrap(), u64::MAX);
    save(&archive, u64::MAX, b"the last number is used again");
    assert_eq!(archive.newest(&kernel(), None).unwrap().found.unwrap().1, b"the last number is used again");
}

#[test]
fn every_cut_and_every_flipped_byte_is_refused_by_name_and_the_one_before_is_used() {
    let (store, archive) = archive();
    save(&archive, 4, b"the one before");
    save(&archive, 5, b"the newest");
    let whole = store.get(&kernel(), 5).unwrap().unwrap();
    let cuts = (0..whole.len()).map(|have| whole[..have].to_vec());
    let flips = (0..whole.len()).map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        flipped
    });
    for damaged in cuts.chain(flips) {
        store.put(&kernel(), 5, &damaged).unwrap();
        let recovered = archive.newest(&kernel(), None).unwrap();
        assert_eq!(recovered.found, Some((4, b"the one before".to_vec())), "{damaged:?}");
        assert_eq!(recovered.refused.len(), 1);
        assert_eq!(recovered.refused[0].sequence, 5);
        assert!(!recovered.refused[0].reason.is_empty());
    }
    assert_eq!(archive.next_sequence(&kernel()).unwrap(), 6, "a refused one's number is not used again");
}

#[test]
fn a_record_of_another_kernel_or_under_another_number_is_refused() {
    let (store, archive) = archive();
    let other = KernelId::new("graph/load").unwrap();
    store.put(&kernel(), 9, &seal(&other, 9, b"state")).unwrap();
    store.put(&kernel(), 8, &seal(&kernel(), 3, b"state")).unwrap();
    let recovered = archive.newest(&kernel(), None).unwrap();
    assert_eq!(recovered.found, None);
    let reasons: Vec<&str> = recovered.refused.iter().map(|refused| refused.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["the checkpoint is of another kernel, \"graph/load\"", "the checkpoint is number 3"]
    );
}

#[test]
fn a_recovery_looks_at_so_many_and_no_more() {
    let (store, archive) = archive();
    for sequence in 0..100 {
        store.put(&kernel(), sequence, b"garbage").unwrap();
    }
    assert_eq!(archive.newest(&kernel(), None).unwrap().refused.len(), RETENTION + EXTRA_LOOKS);
}

#[test]
fn a_record_that_cannot_be_read_is_skipped_but_never_taken_for_none() {
    let store = Unwilling::new();
    let archive = Archive::new(Arc::clone(&store) as Arc<dyn CheckpointStore>).with_retention(9);
    save(&archive, 1, b"one");
    store.to_get.store(true, Ordering::Relaxed);
    assert!(matches!(archive.newest(&kernel(), None), Err(StoreError::ReadOnly)));
    save(&archive, 2, b"two");
    save(&archive, 3, b"three");
    let recovered = archive.newest(&kernel(), None).unwrap();
    assert_eq!(recovered.found, Some((2, b"two".to_vec())));
    let reason = StoreError::ReadOnly.to_string();
    assert_eq!(recovered.refused, [RefusedCheckpoint { sequence: 3, reason }]);
}

#[test]
fn a_failed_save_prunes_nothing_and_a_failed_pruning_is_no_failed_save() {
    let store = Unwilling::new();
    let archive = Archive::new(Arc::clone(&store) as Arc<dyn CheckpointStore>).with_retention(1);
    save(&archive, 1, b"one");
    store.to_put.store(true, Ordering::Relaxed);
    assert!(matches!(archive.save(&kernel(), 2, b"two"), Err(StoreError::ReadOnly)));
    assert_eq!(archive.newest(&kernel(), None).unwrap().found, Some((1, b"one".to_vec())));
    store.to_put.store(false, Ordering::Relaxed);
    store.to_remove.store(true, Ordering::Relaxed);
    let saved = archive.save(&kernel(), 2, b"two").unwrap();
    assert!(matches!(saved.unpruned, Some(StoreError::ReadOnly)));
    store.to_remove.store(false, Ordering::Relaxed);
    save(&archive, 3, b"three");
    assert_eq!(store.inner.sequences(&kernel()).unwrap(), [3], "what was left over is pruned later");
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    let store = Arc::new(MemoryStore::new(200));
    let archive = Archive::new(store);
    save(&archive, 1, &[1; 50]);
    assert!(matches!(archive.save(&kernel(), 2, &[2; 500]), Err(StoreError::Full)));
    assert_eq!(archive.newest(&kernel(), None).unwrap().found, Some((1, vec![1; 50])));
}

#[test]
fn a_panic_of_the_store_is_an_error() {
    let store = Unwilling::new();
    store.to_list.store(true, Ordering::Relaxed);
    let archive = Archive::new(Arc::clone(&store) as Arc<dyn CheckpointStore>);
    let error = archive.newest(&kernel(), None).unwrap_err();
    assert_eq!(with_causes(&error), "cannot list the checkpoints: the store panicked");
    assert!(archive.save(&kernel(), 1, b"state").unwrap().unpruned.is_some());
}
