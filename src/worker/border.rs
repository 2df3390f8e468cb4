//! What crosses between a supervising process and a worker without being copied: each side lends the other what lies on its own.
//!
//! A thing is lent under a number, and kept until the other side has returned that number, or is gone. Whoever sends a value says of each
//! thing in it where it lies; whoever receives it has a [`Loan`], which returns the number when it is dropped. What comes back to the side
//! that has lent it is that side's own thing again. Numbers that are to be returned travel with whatever is sent next.
//!
//! A value says where its things lie while it is written, and finds them while it is read: [`Border::cross`] says which border that is.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::pool::Pool;
use super::shared::Held;

/// Between two processes, as one of them sees it.
pub(crate) struct Border {
    /// What this side writes first.
    own: Arc<Pool>,
    /// What the other side does.
    theirs: Memory,
    lent: Mutex<Lent>,
    /// Numbers that are to be returned.
    returned: Mutex<Vec<u64>>,
}

#[derive(Default)]
struct Lent {
    last: u64,
    things: HashMap<u64, Thing>,
    /// The other side is gone.
    is_closed: bool,
}

/// What can be lent.
#[derive(Clone)]
pub(crate) enum Thing {
    Memory(Arc<Held>),
    /// On the worker's device, as the worker has it.
    Device(Arc<dyn Any + Send + Sync>),
    /// The same, as the supervising process has it.
    DeviceLoan(Arc<Loan>),
}

/// Where a thing lies, as its sender says it, and under which number it is lent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    number: u64,
    lies: Lies,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Lies {
    /// In the sender's memory.
    Memory { offset: u64, bytes: u64 },
    /// On the sender's device.
    Device,
    /// With the receiver, who has lent it under this number.
    Yours(u64),
}

/// What a [`Place`] turns out to be.
pub(crate) enum Found {
    /// In the other side's memory, from here on.
    Memory { start: NonNull<u8>, bytes: usize, loan: Loan },
    /// On the other side's device.
    Device(Loan),
    /// This side's own.
    Own(Thing),
}

/// Something that the other side has lent. Dropped, it is returned.
pub(crate) struct Loan {
    border: Arc<Border>,
    number: u64,
}

/// What is lent for a message that has not been sent yet. Dropped, it is taken back.
pub(super) struct Lending {
    border: Arc<Border>,
    numbers: Vec<u64>,
    /// The value has something in it that was on the device of a worker which is not the one behind this border.
    is_lost: bool,
}

/// The other side has named something that is not there.
#[derive(Debug, thiserror::Error)]
#[error("it names something that is not there")]
pub(crate) struct NotThere;

/// Numbers that one message returns at most.
const RETURNS_EACH: usize = 1_000;

thread_local! {
    static CROSSING: RefCell<Option<Lending>> = const { RefCell::new(None) };
}

/// A worker's border with its supervising process.
static WORKERS: OnceLock<Arc<Border>> = OnceLock::new();

impl Border {
    pub(super) fn new(own: Arc<Pool>, theirs: Memory) -> Arc<Self> {
        Arc::new(Self { own, theirs, lent: Mutex::default(), returned: Mutex::default() })
    }

    /// Where this process is a worker, its border.
    pub(super) fn of_worker() -> Option<&'static Arc<Self>> {
        WORKERS.get()
    }

    /// This process is a worker, with this border.
    pub(super) fn set_of_worker(border: &Arc<Self>) {
        let _first = WORKERS.set(Arc::clone(border));
    }

    /// Whether this side of it is the worker's.
    pub(crate) fn is_workers(self: &Arc<Self>) -> bool {
        WORKERS.get().is_some_and(|workers| Arc::ptr_eq(workers, self))
    }

    #[cfg(feature = "cuda")]
    pub(super) fn theirs(&self) -> &Memory {
        &self.theirs
    }

    pub(super) fn own(&self) -> &Arc<Pool> {
        &self.own
    }

    /// Has `work` write or read a value that crosses here. What it lends is taken back unless the lending is [kept](Lending::keep).
    pub(super) fn cross<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> (T, Lending) {
        /// Puts back what was there, also where `work` panics.
        struct Before(Option<Lending>);

        impl Drop for Before {
            fn drop(&mut self) {
                CROSSING.set(self.0.take());
            }
        }

        let lending = || Lending { border: Arc::clone(self), numbers: Vec::new(), is_lost: false };
        let before = Before(CROSSING.replace(Some(lending())));
        let done = work();
        let taken_along = CROSSING.take();
        drop(before);
        (done, taken_along.unwrap_or_else(lending))
    }

    /// The border that the value crosses which this thread writes or reads just now.
    pub(crate) fn crossing() -> Option<Arc<Self>> {
        CROSSING.with_borrow(|crossing| crossing.as_ref().map(|lending| Arc::clone(&lending.border)))
    }

    /// Lends a thing along with the value that this thread is writing, and says where it lies. What the other side has lent goes back to
    /// it. `None` for what lies on neither side of this border.
    pub(crate) fn lend(self: &Arc<Self>, thing: Thing) -> Option<Place> {
        let lies = match &thing {
            Thing::Memory(held) => match (held.offset_in(&self.own), held.loan()) {
                (Some(offset), _) => Lies::Memory { offset: offset as u64, bytes: held.bytes() as u64 },
                (None, Some(loan)) if loan.is_of(self) => Lies::Yours(loan.number),
                (None, _) => return None,
            },
            Thing::Device(_) => Lies::Device,
            Thing::DeviceLoan(loan) if loan.is_of(self) && !self.is_closed() => Lies::Yours(loan.number),
            Thing::DeviceLoan(_) => {
                Self::with_lending(|lending| lending.is_lost = true);
                return None;
            }
        };
        let mut lent = self.lent();
        lent.last += 1;
        let number = lent.last;
        if !lent.is_closed {
            // Otherwise the message arrives nowhere.
            lent.things.insert(number, thing);
        }
        drop(lent);
        Self::with_lending(|lending| lending.numbers.push(number));
        Some(Place { number, lies })
    }

    /// What the value takes along that this thread is writing.
    fn with_lending(note: impl FnOnce(&mut Lending)) {
        CROSSING.with_borrow_mut(|crossing| crossing.as_mut().map(note));
    }

    /// What the other side has said to lie there.
    pub(crate) fn find(self: &Arc<Self>, place: Place) -> Result<Found, NotThere> {
        // Whatever it is, its number is returned.
        let loan = Loan { border: Arc::clone(self), number: place.number };
        match place.lies {
            Lies::Memory { offset, bytes } => {
                if !self.theirs.has(offset, bytes) || !offset.is_multiple_of(ALIGNED) {
                    return Err(NotThere);
                }
                let (Ok(offset), Ok(bytes)) = (usize::try_from(offset), usize::try_from(bytes)) else {
                    return Err(NotThere);
                };
                Ok(Found::Memory { start: self.theirs.at(offset), bytes, loan })
            }
            Lies::Device => Ok(Found::Device(loan)),
            Lies::Yours(number) => {
                let thing = self.lent().things.get(&number).cloned();
                thing.map(Found::Own).ok_or(NotThere)
            }
        }
    }

    /// Numbers to be returned with the next message. They are as good as returned: a message that does not arrive is the last one, or gives
    /// them [back](Self::return_later).
    pub(super) fn take_returned(&self) -> Vec<u64> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if returned.len() <= RETURNS_EACH {
            return mem::take(&mut returned);
        }
        let rest = returned.split_off(RETURNS_EACH);
        mem::replace(&mut returned, rest)
    }

    /// The message that was to return these was not sent.
    pub(super) fn return_later(&self, numbers: &[u64]) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(numbers);
    }

    /// The other side has returned these. A number that is none of those that are lent changes nothing.
    pub(super) fn take_back(&self, numbers: &[u64]) {
        if numbers.is_empty() {
            return;
        }
        let things: Vec<_> = {
            let mut lent = self.lent();
            numbers.iter().filter_map(|number| lent.things.remove(number)).collect()
        };
        // Outside the lock: it may be a loan, or make calls.
        drop(things);
    }

    /// The other side is gone: what it was lent is this side's alone, and nothing more is lent. What it has lent stays where it is.
    pub(super) fn close(&self) {
        let things = {
            let mut lent = self.lent();
            lent.is_closed = true;
            mem::take(&mut lent.things)
        };
        drop(things);
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lent().is_closed
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where blocks begin, at least.
const ALIGNED: u64 = 4 << 10;

impl Loan {
    /// Whether it is what the other side of this border has lent, and can have back.
    pub(crate) fn is_of(&self, border: &Arc<Border>) -> bool {
        Arc::ptr_eq(&self.border, border)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if !self.border.is_closed() {
            self.border.returned.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Lending {
    /// The message is on its way: what is lent for it will be returned.
    pub(super) fn keep(mut self) {
        self.numbers.clear();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.border.take_back(&self.numbers);
    }
}

impl fmt::Debug for Border {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Border").field("lent", &self.lent().things.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loan").field(&self.number).finish()
    }
}

impl fmt::Debug for Lending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lending").field(&self.numbers).finish()
    }
}
