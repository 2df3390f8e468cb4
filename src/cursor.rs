//! How far a job has come, written down so that another process can go on from there.
//!
//! Two records: the *cursor*, the value at the last noted place with the place itself, saved off the job's path, the newest first; and
//! the *mark*, twelve bytes that say how far the work itself has come, written in place. After a kill the mark is ahead of the
//! cursor by what has to be done twice; the job waits for the cursor when that would become too much.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rustkernel_actors::checkpoint::{SaveError, Vault};
use rustkernel_actors::{CheckpointStore, StoreError};
use rustkernel_core::KernelId;
use rustkernel_core::codec;
use rustkernel_core::traits::Payload;

/// A place in a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spot {
    /// The stage, from 0.
    pub stage: u32,
    /// Rounds that it has made; 0 at its beginning and for a stage that is not repeated.
    pub round: u32,
}

/// Where an earlier process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resumed {
    /// The place that this process goes on from.
    pub from: Spot,
    /// The place that the earlier one had come to. What lies between is done twice.
    pub reached: Spot,
    /// The request's id, which stays the same.
    pub request: u64,
}

/// What a cursor's record begins with; the value's frame follows.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// Which job on which input.
    job: u64,
    request: u64,
    spot: Spot,
}

/// The cursor of a running job.
pub(crate) struct Cursor {
    vault: Vault,
    name: KernelId,
    job: u64,
    request: u64,
    sequence: AtomicU64,
    state: Arc<Mutex<Stored>>,
    mark: Mutex<File>,
}

/// What has become of the saves.
#[derive(Debug, Default)]
struct Stored {
    /// The last one that is stored.
    sequence: u64,
    trouble: Option<String>,
}

/// A cursor that was found.
pub(crate) struct Found {
    pub(crate) resumed: Resumed,
    /// The value at [`Resumed::from`], as a codec frame.
    pub(crate) value: Vec<u8>,
}

/// Why there is no cursor to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CursorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the mark cannot be kept: {0}")]
    Mark(#[source] io::Error),
    #[error("the thread that saves cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error("it holds another job, or the same job on another input")]
    OtherJob,
}

impl Cursor {
    /// The cursor kept in `store`, with its mark in `dir`, of the job and input that `job` stands for; and what an earlier process has left of
    /// it. Records that are no good are told to `refused`. Without any, the job begins under the id `request`.
    pub(crate) fn open(
        store: Arc<dyn CheckpointStore>,
        dir: &Path,
        job: u64,
        request: u64,
        mut refused: impl FnMut(u64, &str),
    ) -> Result<(Self, Option<Found>), CursorError> {
        let state = Arc::new(Mutex::new(Stored::default()));
        let told = Arc::clone(&state);
        let on_outcome = move |_: &KernelId, sequence: u64, saved: Result<(), SaveError>| {
            let mut stored = told.lock().unwrap_or_else(PoisonError::into_inner);
            match saved {
                Ok(()) => *stored = Stored { sequence, trouble: None },
                Err(error) => stored.trouble = Some(error.to_string()),
            }
        };
        let vault = Vault::open(store, RETENTION, on_outcome).map_err(CursorError::Thread)?;
        let name = cursor_name();
        let mut mark = open_mark(dir).map_err(CursorError::Mark)?;
        let (found, next) = find(&vault, &name, job, &mut refused)?;
        let found = match found {
            Some((head, value)) => {
                // A mark that cannot be read says nothing: then nothing is known to be done twice.
                let reached = read_mark(&mut mark).ok().flatten().unwrap_or_default().max(head.spot);
                let resumed = Resumed { from: head.spot, reached, request: head.request };
                Some(Found { resumed, value })
            }
            None => None,
        };
        let request = found.as_ref().map_or(request, |found| found.resumed.request);
        lock(&state).sequence = next - 1;
        let sequence = AtomicU64::new(next - 1);
        let cursor = Self { vault, name, job, request, sequence, state, mark: Mutex::new(mark) };
        Ok((cursor, found))
    }

    /// The id of the job's request.
    pub(crate) fn request(&self) -> u64 {
        self.request
    }

    /// The job has come to `spot` with `value`. Returns at once, unless more than [`MOST_TWICE`] notes are not stored yet.
    pub(crate) fn note<T: Payload + Serialize>(&self, stage: u32, round: u32, value: T) {
        let spot = Spot { stage, round };
        self.write_mark(spot);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let head = Head { job: self.job, request: self.request, spot };
        self.vault.save_with(&self.name, sequence, move || {
            let text = |error: codec::CodecError| error.to_string();
            let head = codec::encode(&head).map_err(text)?;
            let value = codec::encode_as(&T::schema(), &value).map_err(text)?;
            let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes();
            Ok([&length[..], &head, &value].concat())
        });
        let behind = {
            let stored = lock(&self.state);
            stored.trouble.is_none() && sequence - stored.sequence > MOST_TWICE
        };
        if behind {
            // What cannot be stored is told by the outcome; nobody waits for it twice.
            let _stored = self.vault.flush(PATIENCE);
        }
    }

    /// What is wrong with saving, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    /// The job is done: nothing is left to go on from. Blocks.
    pub(crate) fn clear(&self, store: &dyn CheckpointStore) -> Result<(), StoreError> {
        self.vault.flush(PATIENCE);
        for sequence in store.sequences(&self.name)? {
            store.remove(&self.name, sequence)?;
        }
        Ok(())
    }

    fn write_mark(&self, spot: Spot) {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&spot.stage.to_le_bytes());
        bytes[4..8].copy_from_slice(&spot.round.to_le_bytes());
        let check = crc(&bytes[..8]);
        bytes[8..].copy_from_slice(&check);
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let written = mark.seek(SeekFrom::Start(0)).and_then(|_| mark.write_all(&bytes));
        if let Err(error) = written {
            lock(&self.state).trouble = Some(format!("the mark cannot be written: {error}"));
        }
    }
}

type Place = (Head, Vec<u8>);

/// The newest cursor that is good, and the number of the next one.
fn find(
    vault: &Vault,
    name: &KernelId,
    job: u64,
    refused: &mut impl FnMut(u64, &str),
) -> Result<(Option<Place>, u64), CursorError> {
    let mut below = None;
    loop {
        let (recovered, next) = vault.load(name, below)?;
        for bad in &recovered.refused {
            refused(bad.sequence, &bad.reason);
        }
        let Some((sequence, record)) = recovered.found else { return Ok((None, next)) };
        match split(&record) {
            Some((head, _)) if head.job != job => return Err(CursorError::OtherJob),
            Some((head, value)) => return Ok((Some((head, value.to_vec())), next)),
            None => refused(sequence, "not a cursor of this version"),
        }
        below = Some(sequence);
    }
}

fn split(record: &[u8]) -> Option<(Head, &[u8])> {
    let (length, rest) = record.split_first_chunk::<4>()?;
    let (head, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((codec::decode(head).ok()?, value))
}

fn open_mark(dir: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(dir.join("mark"))
}

fn read_mark(mark: &mut File) -> io::Result<Option<Spot>> {
    let mut bytes = Vec::new();
    mark.seek(SeekFrom::Start(0))?;
    mark.take(MARK_BYTES as u64).read_to_end(&mut bytes)?;
    let Ok(bytes) = <[u8; MARK_BYTES]>::try_from(bytes) else { return Ok(None) };
    let [s0, s1, s2, s3, r0, r1, r2, r3, check @ ..] = bytes;
    let spot =
        Spot { stage: u32::from_le_bytes([s0, s1, s2, s3]), round: u32::from_le_bytes([r0, r1, r2, r3]) };
    Ok((check == crc(&bytes[..8])).then_some(spot))
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

fn lock(state: &Mutex<Stored>) -> std::sync::MutexGuard<'_, Stored> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name that the cursor is stored under. No stage has it: they are called `family/name` of a kernel.
fn cursor_name() -> KernelId {
    match KernelId::new("job/cursor") {
        Ok(name) => name,
        Err(_) => unreachable!("it is a kernel id"),
    }
}

/// The newest may be damaged.
const RETENTION: usize = 3;
/// Notes that may be unstored before the job waits: the most that is done twice, but for the stage's current round.
pub const MOST_TWICE: u64 = 16;
/// How long the job waits then, and at its end.
const PATIENCE: Duration = Duration::from_secs(10);
const MARK_BYTES: usize = 12;

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("request", &self.request).finish_non_exhaustive()
    }
}
