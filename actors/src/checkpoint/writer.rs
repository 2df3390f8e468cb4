//! Saves checkpoints off the hot path, on one OS thread for all kernels of a runtime.
//!
//! A kernel hands in how to encode its state and goes on. The thread encodes, saves and tells the outcome, one job after the other: two
//! of one kernel are never under way at once, and their order is that in which they came. Of each kernel at most one job waits; see
//! [`Pending`]. A job that is replaced before it begins is counted and has no outcome of its own.
//!
//! An encoding, a store or a listener that panics costs its own checkpoint, never the thread. One that blocks holds up the
//! others' checkpoints, but no kernel: submitting never waits for the store.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustkernel_core::KernelId;

use super::StoreError;
use super::archive::Archive;
use super::pending::Pending;
use crate::contain::{Contained, contain};

/// How long a dropped writer waits for its thread: as long as a kernel has to shut down.
const DROP_GRACE: Duration = Duration::from_secs(5);

/// The thread that saves.
///
/// Dropping it finishes what was submitted and then ends the thread; it never panics. It waits for that at most five seconds: a store that
/// blocks for longer keeps its thread, which ends when the store returns, and what has not begun by then is dropped unsaved and
/// logged. Dropped by its own thread, as by the last owner in a listener, it waits for nothing, and the thread finishes by itself.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    grace: Duration,
}

/// One checkpoint to be saved.
pub(crate) struct SaveJob {
    pub(crate) sequence: u64,
    /// Makes the payload, on the writer's thread; an error's text goes into [`SaveError::Encode`].
    pub(crate) payload: Encode,
}

type Encode = Box<dyn FnOnce() -> Result<Vec<u8>, String> + Send>;

/// Why a checkpoint was not saved. Those before it are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The state did not become bytes.
    #[error("the checkpoint cannot be encoded: {reason}")]
    Encode {
        /// Why, in the words of what encodes.
        reason: String,
    },
    /// The store did not keep it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Shared {
    state: Mutex<State>,
    /// Something came, was done, or the phase changed.
    changed: Condvar,
}

struct State {
    pending: Pending<SaveJob>,
    /// The ticket of the job under way.
    under_way: Option<u64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The writer was dropped: finish, then end.
    Closing,
    /// The thread is gone, and all it owned.
    Ended,
}

impl Writer {
    /// Starts the thread. `on_outcome` is called on it once for every job that was begun, when the job is done; it may submit.
    ///
    /// # Errors
    /// When the operating system starts no further thread.
    pub(crate) fn start(
        archive: Archive,
        on_outcome: impl Fn(&KernelId, u64, Result<(), SaveError>) + Send + 'static,
    ) -> io::Result<Self> {
        let state = State { pending: Pending::new(), under_way: None, phase: Phase::Open };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let work = Work { archive, on_outcome, end: EndOfThread(Arc::clone(&shared)) };
        let thread =
            thread::Builder::new().name("rustkernel-checkpoints".into()).spawn(move || work.run())?;
        Ok(Self { shared, thread: Some(thread), grace: DROP_GRACE })
    }

    /// Has `job` saved; it takes the place of one of the same kernel that has not begun.
    pub(crate) fn submit(&self, kernel: &KernelId, job: SaveJob) {
        let replaced = self.shared.lock().pending.submit(kernel, job);
        self.shared.changed.notify_all();
        drop(replaced.map(Contained::new));
    }

    /// Waits until what was submitted so far is done, for at most `limit`; `false` if something is still to be done.
    pub(crate) fn flush_within(&self, limit: Duration) -> bool {
        let last = self.shared.lock().pending.last_ticket();
        self.wait_for(last, limit)
    }

    /// Waits until the job of this ticket and all before it are done.
    fn wait_for(&self, ticket: u64, limit: Duration) -> bool {
        let is_busy = |state: &State| state.first_ticket().is_some_and(|first| first <= ticket);
        if self.is_this_thread() {
            !is_busy(&self.shared.lock())
        } else {
            self.shared.wait_while(limit, is_busy)
        }
    }

    /// Jobs that were replaced by newer ones before they began.
    pub(crate) fn replaced_count(&self) -> u64 {
        self.shared.lock().pending.replaced_count()
    }

    fn is_this_thread(&self) -> bool {
        self.thread.as_ref().is_some_and(|handle| handle.thread().id() == thread::current().id())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.set_phase(Phase::Closing);
        if self.is_this_thread() {
            return;
        }
        let Some(thread) = self.thread.take() else { return };
        if self.shared.wait_while(self.grace, |state| state.phase != Phase::Ended) {
            // It has nothing left to do; a panic of it would be an error of this file, and dropping goes on.
            let _ = thread.join();
            return;
        }
        let unsaved = self.shared.lock().pending.clear();
        let unsaved: Vec<_> = unsaved.into_iter().map(Contained::new).collect();
        tracing::warn!(unsaved = unsaved.len(), "the checkpoint store blocks; its thread is left behind");
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl fmt::Debug for SaveJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaveJob").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `condition` holds, for at most `limit`; `false` if it still does.
    fn wait_while(&self, limit: Duration, condition: impl Fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |state| condition(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !condition(&state)
    }

    fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
        self.changed.notify_all();
    }

    /// The next job, when there is one; `None` when the writer was dropped and nothing is left.
    fn next(&self) -> Option<(KernelId, SaveJob)> {
        let is_idle =
            |state: &mut State| state.phase == Phase::Open && state.pending.first_ticket().is_none();
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let (ticket, kernel, job) = state.pending.take()?;
        state.under_way = Some(ticket);
        Some((kernel, job))
    }

    fn done(&self) {
        self.lock().under_way = None;
        self.changed.notify_all();
    }
}

impl State {
    /// The ticket of the oldest job that is not done.
    fn first_ticket(&self) -> Option<u64> {
        self.under_way.or_else(|| self.pending.first_ticket())
    }
}

/// What the thread owns, dropped in this order: the thread has ended when all of it is gone.
struct Work<F> {
    archive: Archive,
    on_outcome: F,
    end: EndOfThread,
}

impl<F: Fn(&KernelId, u64, Result<(), SaveError>)> Work<F> {
    fn run(&self) {
        let shared = &self.end.0;
        while let Some((kernel, job)) = shared.next() {
            let sequence = job.sequence;
            let outcome = save(&self.archive, &kernel, job);
            contain("a checkpoint's listener", || (self.on_outcome)(&kernel, sequence, outcome));
            shared.done();
        }
    }
}

struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        self.0.set_phase(Phase::Ended);
    }
}

fn save(archive: &Archive, kernel: &KernelId, job: SaveJob) -> Result<(), SaveError> {
    let encoded = contain("a checkpoint's encoding", job.payload);
    let payload = encoded.unwrap_or_else(|| Err("its encoding panicked".into()));
    let payload = payload.map_err(|reason| SaveError::Encode { reason })?;
    let saved = archive.save(kernel, job.sequence, &payload)?;
    if let Some(error) = saved.unpruned {
        tracing::warn!(%kernel, error = &error as &dyn std::error::Error, "an old checkpoint was not removed");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
