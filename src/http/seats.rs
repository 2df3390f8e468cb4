//! The places of a server's connections, and who leaves when all of them are taken.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// So many connections at once. Whoever has a place and says nothing gives it up to whoever comes: nobody keeps others out by waiting.
pub(super) struct Seats {
    places: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Place>>>,
    hush: Arc<Hush>,
}

/// How the silent are found.
#[derive(Default)]
struct Hush {
    turns: AtomicU64,
    /// One more is silent.
    fell: Notify,
}

/// The place of one connection.
#[derive(Clone)]
pub(super) struct Seat(Arc<Place>);

struct Place {
    /// Since which turn it has asked for nothing; 0 while it is being answered.
    silent_since: AtomicU64,
    hush: Arc<Hush>,
    /// Somebody else is to have it.
    wanted: Notify,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(count)), taken: Mutex::default(), hush: Arc::default() }
    }

    /// A free place, or that of the connection which has been silent for longest. Waits where there is neither.
    ///
    /// # Cancel safety
    /// A dropped wait takes nothing.
    pub(super) async fn take(&self) -> Seat {
        let place = loop {
            let fell = self.hush.fell.notified();
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                break place;
            }
            let freed = Arc::clone(&self.places).acquire_owned();
            if self.dismiss_one() {
                if let Ok(place) = freed.await {
                    break place;
                }
            } else {
                tokio::select! {
                    Ok(place) = freed => break place,
                    () = fell => {}
                }
            }
        };
        let seat = Seat(Arc::new(Place {
            silent_since: AtomicU64::new(0),
            hush: Arc::clone(&self.hush),
            wanted: Notify::new(),
            _place: place,
        }));
        seat.falls_silent();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|place| place.strong_count() > 0);
        taken.push(Arc::downgrade(&seat.0));
        seat
    }

    /// Tells the one that has been silent for longest to leave. `false` where all are being answered.
    fn dismiss_one(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |place: &Arc<Place>| place.silent_since.load(Ordering::Relaxed);
        let silent = taken.iter().filter_map(Weak::upgrade).filter(|place| since(place) > 0);
        silent.min_by_key(since).inspect(|place| place.wanted.notify_one()).is_some()
    }
}

impl Seat {
    fn falls_silent(&self) {
        let turn = self.0.hush.turns.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.silent_since.store(turn, Ordering::Relaxed);
        self.0.hush.fell.notify_one();
    }

    /// It has asked for something, until this is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.0.silent_since.store(0, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Serves the connection until its end, or until its place is wanted.
    pub(super) async fn while_wanted(self, served: impl Future) {
        tokio::select! {
            _ = served => {}
            () = self.0.wanted.notified() => {}
        }
    }
}

/// A connection that is being answered.
pub(super) struct Busy(Seat);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.falls_silent();
    }
}

/// An answer, until all of it has been taken.
pub(super) struct Answering {
    pub(super) body: Body,
    /// Held until the answer is gone.
    pub(super) _busy: Busy,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
