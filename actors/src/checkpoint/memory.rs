//! A store in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustkernel_core::KernelId;

use super::{CheckpointStore, StoreError};

/// Keeps records in memory, up to a bound; they end with the process. For tests, and for what shows how a store behaves.
///
/// The limit counts each record's bytes, its kernel's name and the eight of its number. A record that does not fit is
/// refused as [`StoreError::Full`]; what it would replace counts as gone, and stays if it is refused.
#[derive(Debug)]
pub struct MemoryStore {
    limit_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: BTreeMap<KernelId, BTreeMap<u64, Vec<u8>>>,
    used_bytes: usize,
}

impl MemoryStore {
    /// A store of at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, kept: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckpointStore for MemoryStore {
    fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<(), StoreError> {
        let mut kept = self.lock();
        let replaced = kept.records.get(kernel).and_then(|records| records.get(&sequence));
        let freed_bytes = replaced.map_or(0, |replaced| cost_bytes(kernel, replaced));
        let used_bytes = kept.used_bytes - freed_bytes;
        if cost_bytes(kernel, record) > self.limit_bytes.saturating_sub(used_bytes) {
            return Err(StoreError::Full);
        }
        kept.records.entry(kernel.clone()).or_default().insert(sequence, record.to_vec());
        kept.used_bytes = used_bytes + cost_bytes(kernel, record);
        Ok(())
    }

    fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError> {
        let kept = self.lock();
        Ok(kept.records.get(kernel).map_or_else(Vec::new, |records| records.keys().rev().copied().collect()))
    }

    fn get(&self, kernel: &KernelId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().records.get(kernel).and_then(|records| records.get(&sequence)).cloned())
    }

    fn remove(&self, kernel: &KernelId, sequence: u64) -> Result<(), StoreError> {
        let mut kept = self.lock();
        let Some(records) = kept.records.get_mut(kernel) else { return Ok(()) };
        let removed = records.remove(&sequence);
        if records.is_empty() {
            kept.records.remove(kernel);
        }
        kept.used_bytes -= removed.map_or(0, |removed| cost_bytes(kernel, &removed));
        Ok(())
    }
}

fn cost_bytes(kernel: &KernelId, record: &[u8]) -> usize {
    record.len() + kernel.as_str().len() + size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::conformance;

    #[test]
    fn it_keeps_the_rules_of_a_store() {
        conformance(|| Box::new(MemoryStore::new(64 << 20)));
    }

    #[test]
    fn a_record_over_the_limit_is_refused_and_the_others_stay() {
        let kernel = KernelId::new("a/b").unwrap();
        let store = MemoryStore::new(2 * (3 + 8 + 10));
        store.put(&kernel, 1, &[1; 10]).unwrap();
        store.put(&kernel, 2, &[2; 10]).unwrap();
        assert!(matches!(store.put(&kernel, 3, &[]), Err(StoreError::Full)));
        assert!(matches!(store.put(&kernel, 2, &[9; 11]), Err(StoreError::Full)));
        assert_eq!(store.get(&kernel, 2).unwrap(), Some(vec![2; 10]));
        store.put(&kernel, 2, &[3; 10]).unwrap();
        store.remove(&kernel, 1).unwrap();
        store.remove(&kernel, 1).unwrap();
        store.put(&kernel, 3, &[3; 10]).unwrap();
        assert_eq!(store.sequences(&kernel).unwrap(), [3, 2]);
    }
}
