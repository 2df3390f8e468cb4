//! The failures and dead letters of a job's runtime, written down for the next process.
//!
//! Whoever asks for them to be written returns at once, however many there are and however often it happens: they are taken from the
//! runtime by the thread that writes, and one that waits to be written stands for all that are asked for meanwhile.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rustkernel_actors::checkpoint::{Recovered, Vault};
use rustkernel_actors::{CheckpointStore, DeadLetter, FailureReport, Runtime, StoreError};
use rustkernel_core::{KernelId, codec};

/// What is written down beside the cursor.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Records {
    pub(super) failures: Vec<FailureReport>,
    pub(super) letters: Vec<DeadLetter>,
}

/// Where the records of one runtime are written.
pub(super) struct RecordLog {
    vault: Vault,
    next: AtomicU64,
    /// Whether a record waits that has not been taken from the runtime yet.
    is_waiting: Arc<AtomicBool>,
}

/// Why there is no log to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordLogError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the thread that saves cannot be started: {0}")]
    Thread(#[source] io::Error),
}

impl RecordLog {
    /// The log kept in `store`, and what an earlier process has left in it. Records that are no good are told to `refused`.
    pub(super) fn open(
        store: Arc<dyn CheckpointStore>,
        mut refused: impl FnMut(u64, &str),
    ) -> Result<(Self, Option<Records>), RecordLogError> {
        let vault = Vault::open(store, RECORDS_KEPT, |_, _, saved| {
            if let Err(error) = saved {
                tracing::warn!(%error, "the failures and dead letters are not written down");
            }
        });
        let vault = vault.map_err(RecordLogError::Thread)?;
        let (Recovered { found, refused: bad }, next) = vault.load(&records_name(), None)?;
        bad.iter().for_each(|bad| refused(bad.sequence, &bad.reason));
        let earlier = found.and_then(|(sequence, bytes)| {
            codec::decode(&bytes).inspect_err(|error| refused(sequence, &error.to_string())).ok()
        });
        Ok((Self { vault, next: AtomicU64::new(next), is_waiting: Arc::default() }, earlier))
    }

    /// Writes the failures and dead letters of `runtime` down, soon: those that there are when the writing begins.
    pub(super) fn save(&self, runtime: &Runtime) {
        if self.is_waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (runtime, is_waiting) = (runtime.clone(), Arc::clone(&self.is_waiting));
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        self.vault.save_with(&records_name(), sequence, move || {
            // Before it looks: what comes after the look has to find nothing waiting.
            is_waiting.store(false, Ordering::Release);
            let records = Records { failures: runtime.failures(), letters: runtime.dead_letters().1 };
            codec::encode(&records).map_err(|error| error.to_string())
        });
    }

    /// Waits until what was asked for is written, for at most `limit`. Blocks.
    pub(super) fn flush(&self, limit: Duration) {
        self.vault.flush(limit);
    }
}

impl fmt::Debug for RecordLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordLog").field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// The name that the records are stored under.
fn records_name() -> KernelId {
    match KernelId::new("job/records") {
        Ok(name) => name,
        Err(_) => unreachable!("it is a kernel id"),
    }
}

const RECORDS_KEPT: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use rustkernel_actors::{FailureClass, MemoryStore, ReportContext};
    use rustkernel_core::clock::Timestamp;

    use super::*;

    fn failure(incarnation: u64) -> FailureReport {
        FailureReport {
            supervisor: "root".to_owned(),
            context: ReportContext::ChildTerminated,
            reason: "told to panic".to_owned(),
            offender: "a/b".to_owned(),
            class: FailureClass::Panic,
            advice: FailureClass::Panic.advice(),
            incarnation,
            at: Timestamp::ZERO,
            unix_millis: 0,
        }
    }

    /// Every event copied all records on the task that drives the job, for a writer that took the last copy only.
    #[tokio::test]
    async fn records_are_taken_when_they_are_written_and_one_waits_for_all_that_are_asked_for() {
        let store = Arc::new(MemoryStore::new(1 << 20));
        let opened = || RecordLog::open(Arc::clone(&store) as _, |_, reason| panic!("{reason}")).unwrap();
        let (log, earlier) = opened();
        assert!(earlier.is_none());
        let runtime = Runtime::builder().build().await.unwrap();
        let written = || opened().1.map_or(0, |records| records.failures.len());

        let (open, shut) = channel::<()>();
        let gate = move || {
            let _opened = shut.recv();
            Err("it writes nothing".to_owned())
        };
        log.vault.save_with(&KernelId::new("job/gate").unwrap(), 1, gate);
        log.save(&runtime);
        runtime.restore_failures(vec![failure(1), failure(2)]);
        for _ in 0..1000 {
            log.save(&runtime);
        }
        assert_eq!(log.vault.replaced_count(), 0, "nothing was made for nothing");
        drop(open);
        log.flush(Duration::from_secs(60));
        assert_eq!((store.sequences(&records_name()).unwrap(), written()), (vec![1], 2));

        runtime.restore_failures(vec![failure(0)]);
        log.save(&runtime);
        log.flush(Duration::from_secs(60));
        assert_eq!((store.sequences(&records_name()).unwrap(), written()), (vec![2, 1], 3));
    }
}
