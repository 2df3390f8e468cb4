//! A folder that a job lives in, so that it survives the process: the kernels' checkpoints, the job's cursor, its dead letters and
//! failures.
//!
//! ```text
//! dir/lock             held by the process that uses the folder
//! dir/checkpoints/     one folder a kernel
//! dir/job/             the cursor and the records
//! dir/mark             how far the work has come
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fs4::FileExt;

use rustkernel_actors::{CheckpointStore, Fact, Pipeline, Runtime, StoreError};

use super::records::{RecordLog, RecordLogError, Records};
use crate::config::Document;
use crate::cursor::{Cursor, CursorError, Found, Resumed};
use crate::kernels::graph::EdgeListSource;
use crate::kernels::graph::fingerprint::Fingerprint;
use crate::store::FileStore;

/// A job's folder, opened and locked.
pub struct JobState {
    dir: PathBuf,
    checkpoints: Arc<FileStore>,
    store: Arc<FileStore>,
    cursor: Arc<Cursor>,
    resumed: Option<Resumed>,
    found: Mutex<Option<Found>>,
    records: RecordLog,
    earlier: Mutex<Option<Records>>,
    refused: Vec<String>,
    /// Released with the last of what uses the folder.
    _lock: File,
}

/// Why a folder cannot be used. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The folder cannot be made, read or written.
    #[error("the state folder {}: {source}", dir.display())]
    Store {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: StoreError,
    },
    /// Another process uses it.
    #[error("the state folder {} is in use by another process", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// It holds the state of another job, or of this job on another input.
    #[error("the state folder {}: {reason}; name another folder, or remove it", dir.display())]
    OtherJob {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        reason: String,
    },
    /// The operating system refuses something else.
    #[error("the state folder {}: {reason}", dir.display())]
    System {
        /// The folder.
        dir: PathBuf,
        /// What it says.
        reason: String,
    },
}

impl JobState {
    /// Opens `dir`, which is made if need be, for the job of `document` on `input`.
    ///
    /// # Errors
    /// [`StateError`] says why the folder cannot be used for it.
    pub fn open(dir: &Path, document: &Document, input: &EdgeListSource) -> Result<Self, StateError> {
        let store_error = |source| StateError::Store { dir: dir.to_owned(), source };
        let system = |reason: String| StateError::System { dir: dir.to_owned(), reason };
        let making = |error| StoreError::writing(format!("make the folder {}", dir.display()), error);
        fs::create_dir_all(dir).map_err(making).map_err(store_error)?;
        let lock = lock(dir)?;
        let checkpoints = FileStore::open(dir.join(CHECKPOINTS)).map_err(store_error)?;
        let store = Arc::new(FileStore::open(dir.join("job")).map_err(store_error)?);
        let mut refused = Vec::new();
        let mut tell = |what: &str, sequence, reason: &str| {
            refused.push(format!("{what} {sequence} was refused: {reason}"));
        };
        let fresh = Pipeline::<(), ()>::next_request_id();
        let job = identity(document, input);
        let as_store: Arc<dyn CheckpointStore> = Arc::clone(&store) as _;
        let opened = Cursor::open(Arc::clone(&as_store), dir, job, fresh, |sequence, reason| {
            tell("cursor", sequence, reason);
        });
        let (cursor, found) = opened.map_err(|error| match error {
            CursorError::Store(source) => store_error(source),
            CursorError::OtherJob => StateError::OtherJob { dir: dir.to_owned(), reason: error.to_string() },
            CursorError::Mark(_) | CursorError::Thread(_) => system(error.to_string()),
        })?;
        let opened = RecordLog::open(as_store, |sequence, reason| tell("record", sequence, reason));
        let (records, earlier) = opened.map_err(|error| match error {
            RecordLogError::Store(source) => store_error(source),
            RecordLogError::Thread(_) => system(error.to_string()),
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            checkpoints: Arc::new(checkpoints),
            store,
            cursor: Arc::new(cursor),
            resumed: found.as_ref().map(|found| found.resumed),
            found: Mutex::new(found),
            records,
            earlier: Mutex::new(earlier),
            refused,
            _lock: lock,
        })
    }

    /// The store of the kernels' checkpoints, for
    /// [`RuntimeBuilder::checkpoint_store`](rustkernel_actors::RuntimeBuilder::checkpoint_store).
    #[must_use]
    pub fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::clone(&self.checkpoints) as _
    }

    /// Where an earlier process stopped, if one did.
    #[must_use]
    pub fn resumed(&self) -> Option<Resumed> {
        self.resumed
    }

    /// What was there and is no good, for people.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// What is wrong with saving the cursor, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.cursor.trouble()
    }

    /// Gives the failures and dead letters of earlier processes to `runtime`, once.
    pub fn restore_records(&self, runtime: &Runtime) {
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Records { failures, letters }) = earlier {
            runtime.restore_failures(failures);
            runtime.restore_dead_letters(letters);
        }
    }

    /// Writes the failures and dead letters of `runtime` down whenever there are new ones; never ends.
    ///
    /// # Cancel safety
    /// What is being written is written.
    pub async fn keep_records(&self, runtime: &Runtime) {
        let mut events = runtime.events();
        while let Some(event) = events.next().await {
            if matches!(event.fact, Fact::Failed { .. } | Fact::StopFailed { .. } | Fact::DeadLetter { .. }) {
                self.save_records(runtime);
            }
        }
        std::future::pending().await
    }

    /// Writes the failures and dead letters of `runtime`, which is the job's, down, soon: those that there are when the writing begins.
    /// Returns at once, however many there are.
    pub fn save_records(&self, runtime: &Runtime) {
        self.records.save(runtime);
    }

    /// The job is done, its result is in somebody's hands and its runtime shut down: the next process begins anew, without cursor and
    /// checkpoints. Failures and dead letters stay. Blocks.
    ///
    /// # Errors
    /// Something cannot be removed: the next process would go on from it.
    pub fn finish(&self) -> Result<(), StateError> {
        self.flush();
        let dir = || self.dir.clone();
        self.cursor.clear(&*self.store).map_err(|source| StateError::Store { dir: dir(), source })?;
        fs::remove_dir_all(self.dir.join(CHECKPOINTS))
            .map_err(|error| StateError::System { dir: dir(), reason: error.to_string() })
    }

    /// Waits until the records are written. Blocks.
    pub fn flush(&self) {
        self.records.flush(PATIENCE);
    }

    pub(super) fn cursor(&self) -> &Arc<Cursor> {
        &self.cursor
    }

    /// The cursor that was found, once.
    pub(super) fn take_found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Holds the folder for this process, until the file is closed: at its end at the latest, however it ends.
fn lock(dir: &Path) -> Result<File, StateError> {
    let system = |error: io::Error| StateError::System { dir: dir.to_owned(), reason: error.to_string() };
    let file = File::options().write(true).create(true).truncate(false).open(dir.join("lock"));
    let file = file.map_err(system)?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(fs4::TryLockError::WouldBlock) => Err(StateError::Locked { dir: dir.to_owned() }),
        Err(fs4::TryLockError::Error(error)) => Err(system(error)),
    }
}

/// What tells this job on this input from every other: the job's text, and for a file its name, length and time.
fn identity(document: &Document, input: &EdgeListSource) -> u64 {
    let hash = bytes(Fingerprint::new(DOMAIN), document.text().as_bytes());
    let hash = match input {
        EdgeListSource::Shipped => hash.words([0]),
        EdgeListSource::Text(text) => bytes(hash.words([1]), text.as_bytes()),
        EdgeListSource::Bytes(list) => bytes(hash.words([2]), list),
        EdgeListSource::Path(path) => {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let hash = bytes(hash.words([3]), path.as_os_str().as_encoded_bytes());
            let seen = fs::metadata(&path).ok();
            let length = seen.as_ref().map_or(0, fs::Metadata::len);
            let changed = seen.and_then(|seen| seen.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            let changed = changed.unwrap_or_default();
            hash.words([length, changed.as_secs(), changed.subsec_nanos().into()])
        }
    };
    hash.finish()
}

fn bytes(hash: Fingerprint, bytes: &[u8]) -> Fingerprint {
    let words = bytes.chunks(8).map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    hash.words([bytes.len() as u64]).words(words)
}

const DOMAIN: u64 = u64::from_be_bytes(*b"jobstate");
const CHECKPOINTS: &str = "checkpoints";
const PATIENCE: Duration = Duration::from_secs(5);

impl fmt::Debug for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobState").field("dir", &self.dir).finish_non_exhaustive()
    }
}
