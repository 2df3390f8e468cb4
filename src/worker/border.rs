//! What crosses between a supervising process and a worker without being copied: each side lends the other what lies on its own.
//!
//! A thing is lent under a number, and kept until the other side has returned that number, or is gone. Whoever sends a value says of each
//! thing in it where it lies; whoever receives it has a [`Loan`], which returns the number when it is dropped. What comes back to the side
//! that has lent it is that side's own thing again.
//!
//! A value says where its things lie while it is written, and finds them while it is read: [`Border::write`] and [`Border::read`] say which border
//! that is. A message carries all its numbers beside its value, so that whoever drops it unread, or half-read, returns them
//! ([`Arrival`]). What is in messages that the other side never reads is [forgotten](Border::forget) when it says how far it has read.
//!
//! Numbers are returned over the control socket, before whatever is sent next, or with a heartbeat.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustkernel_core::error::KernelError;
use serde::{Deserialize, Serialize};

use super::held::Held;
use super::memory::Memory;
use super::pool::Pool;

/// Between two processes, as one of them sees it.
pub(crate) struct Border {
    /// What this side writes first.
    own: Arc<Pool>,
    /// What the other side does.
    theirs: Memory,
    lent: Mutex<Lent>,
    /// Numbers that are to be returned.
    returned: Mutex<Vec<u64>>,
    /// Whether there may be some: most messages find none.
    has_returns: AtomicBool,
    /// Returns them, if the other side has room for that now.
    returns: Box<Returns>,
}

pub(super) type Returns = dyn Fn(Vec<u64>) -> bool + Send + Sync;

#[derive(Default)]
struct Lent {
    last: u64,
    things: HashMap<u64, (Thing, Message)>,
    /// The other side is gone.
    is_closed: bool,
}

/// The message that takes something along: its kernel, and the number of its execution there. 0 for one that is not on its way yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kernel: u64,
    pub(super) request: u64,
}

/// What can be lent.
#[derive(Clone)]
pub(crate) enum Thing {
    Memory(Arc<Held>),
    /// On the worker's device, as the worker has it.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there are no devices then"))]
    Device(Arc<dyn Any + Send + Sync>),
    /// The same, as the supervising process has it.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there are no devices then"))]
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
    Device(#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there are no devices then"))] Loan),
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
    /// Why the value cannot be written, if that is not its own doing.
    failure: Option<KernelError>,
}

/// What a message that has arrived has brought along, and nobody has found yet. Dropped, it is returned.
pub(super) struct Arrival {
    border: Arc<Border>,
    numbers: VecDeque<u64>,
}

/// The value that a thread writes or reads just now.
enum Crossing {
    Writing(Lending),
    Reading(Arrival),
}

/// The other side has named something that is not there.
#[derive(Debug, thiserror::Error)]
#[error("it names something that is not there")]
pub(crate) struct NotThere;

/// Numbers that one message returns at most: so many have room in a packet.
const RETURNS_EACH: usize = 4_000;

/// Packets that go out at once, at most.
const PACKETS: usize = 4;

thread_local! {
    static CROSSING: RefCell<Option<Crossing>> = const { RefCell::new(None) };
}

/// A worker's border with its supervising process.
static WORKERS: OnceLock<Arc<Border>> = OnceLock::new();

impl Border {
    pub(super) fn new(own: Arc<Pool>, theirs: Memory, returns: Box<Returns>) -> Arc<Self> {
        Arc::new(Self {
            own,
            theirs,
            lent: Mutex::default(),
            returned: Mutex::default(),
            has_returns: AtomicBool::new(false),
            returns,
        })
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
    #[cfg(feature = "cuda")]
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

    /// Has `work` write a value that crosses here. What it lends is taken back unless its message is [sent](Lending::sent).
    pub(super) fn write<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> (T, Lending) {
        let lending = || Lending { border: Arc::clone(self), numbers: Vec::new(), failure: None };
        match cross(Crossing::Writing(lending()), work) {
            (done, Some(Crossing::Writing(lending))) => (done, lending),
            (done, Some(Crossing::Reading(_)) | None) => (done, lending()),
        }
    }

    /// Has `work` read a value that has come across here, with what it has brought along. What it does not find is returned.
    pub(super) fn read<T>(arrival: Arrival, work: impl FnOnce() -> T) -> T {
        cross(Crossing::Reading(arrival), work).0
    }

    /// What a message has brought along, by its numbers.
    pub(super) fn arrive(self: &Arc<Self>, numbers: Vec<u64>) -> Arrival {
        Arrival { border: Arc::clone(self), numbers: numbers.into() }
    }

    /// The border that the value crosses which this thread writes or reads just now.
    pub(crate) fn crossing() -> Option<Arc<Self>> {
        CROSSING.with_borrow(|crossing| match crossing {
            Some(Crossing::Writing(lending)) => Some(Arc::clone(&lending.border)),
            Some(Crossing::Reading(arrival)) => Some(Arc::clone(&arrival.border)),
            None => None,
        })
    }

    /// The value that this thread writes cannot be written, for this reason.
    pub(crate) fn fail(reason: KernelError) {
        with_lending(|lending| lending.failure = Some(reason));
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
            Thing::DeviceLoan(_) => return None,
        };
        let mut lent = self.lent();
        lent.last += 1;
        let number = lent.last;
        if !lent.is_closed {
            // Otherwise the message arrives nowhere.
            lent.things.insert(number, (thing, Message::default()));
        }
        drop(lent);
        with_lending(|lending| lending.numbers.push(number));
        Some(Place { number, lies })
    }

    /// What the other side has said to lie there.
    pub(crate) fn find(self: &Arc<Self>, place: Place) -> Result<Found, NotThere> {
        // Whatever it is, its number is returned, and by nobody else.
        let loan = Loan { border: Arc::clone(self), number: place.number };
        CROSSING.with_borrow_mut(|crossing| match crossing {
            Some(Crossing::Reading(arrival)) => arrival.found(place),
            Some(Crossing::Writing(_)) | None => {}
        });
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
                let thing = self.lent().things.get(&number).map(|(thing, _)| thing.clone());
                thing.map(Found::Own).ok_or(NotThere)
            }
        }
    }

    /// Returns what is to be returned. What the other side has no room for now is returned the next time.
    pub(super) fn return_all(&self) {
        if !self.has_returns.load(Ordering::Relaxed) {
            return;
        }
        // No more than leaves room for what else is said there.
        for _ in 0..PACKETS {
            let mut numbers = {
                let mut returned = self.returned();
                if returned.is_empty() {
                    self.has_returns.store(false, Ordering::Relaxed);
                    return;
                }
                mem::take(&mut *returned)
            };
            let rest = numbers.split_off(numbers.len().min(RETURNS_EACH));
            let sent = (self.returns)(numbers.clone());
            self.return_soon(rest);
            if !sent {
                return self.return_soon(numbers);
            }
        }
    }

    fn return_soon(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut returned = self.returned();
        returned.extend(numbers);
        // Under the lock: whoever finds none says so there.
        self.has_returns.store(!returned.is_empty(), Ordering::Relaxed);
    }

    /// The other side has returned these: they are this side's again. A number that is none of those that are lent changes nothing.
    #[must_use = "dropping them may take its time"]
    pub(super) fn take_back(&self, numbers: &[u64]) -> Vec<Thing> {
        let mut lent = self.lent();
        numbers.iter().filter_map(|number| lent.things.remove(number)).map(|(thing, _)| thing).collect()
    }

    /// Of what was sent to a kernel, or by one, nothing is read any more that comes after this execution.
    #[must_use = "dropping them may take its time"]
    pub(super) fn forget(&self, kernel: u64, read: u64) -> Vec<Thing> {
        let is_unread = |message: &Message| message.kernel == kernel && message.request > read;
        let mut lent = self.lent();
        let unread = lent.things.extract_if(|_, (_, message)| is_unread(message));
        unread.map(|(_, (thing, _))| thing).collect()
    }

    /// The other side is gone: what it was lent is this side's alone, and nothing more is lent. What it has lent stays where it is.
    pub(super) fn close(&self) {
        let things = {
            let mut lent = self.lent();
            lent.is_closed = true;
            mem::take(&mut lent.things)
        };
        drop(things);
        self.returned().clear();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lent().is_closed
    }

    fn returned(&self) -> MutexGuard<'_, Vec<u64>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Place {
    /// The same, if it were so long.
    pub(super) fn with_bytes(self, bytes: u64) -> Self {
        let lies = match self.lies {
            Lies::Memory { offset, .. } => Lies::Memory { offset, bytes },
            lies @ (Lies::Device | Lies::Yours(_)) => lies,
        };
        Self { lies, ..self }
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
            self.border.return_soon([self.number]);
        }
    }
}

impl Lending {
    pub(super) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// The message is on its way: what is lent for it is returned by whoever reads it, or forgotten.
    pub(super) fn sent(mut self, message: Message) {
        let mut lent = self.border.lent();
        for number in &self.numbers {
            if let Some((_, of)) = lent.things.get_mut(number) {
                *of = message;
            }
        }
        drop(lent);
        self.numbers.clear();
    }

    pub(super) fn take_failure(&mut self) -> Option<KernelError> {
        self.failure.take()
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            drop(self.border.take_back(&self.numbers));
        }
    }
}

impl Arrival {
    /// Somebody has it.
    pub(super) fn found(&mut self, place: Place) {
        // They are found in the order in which they were lent.
        if let Some(at) = self.numbers.iter().position(|number| *number == place.number) {
            self.numbers.remove(at);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.numbers.is_empty() && !self.border.is_closed() {
            self.border.return_soon(self.numbers.iter().copied());
        }
    }
}

/// Has `work` done while this thread's value crosses, and gives back what became of that.
fn cross<T>(crossing: Crossing, work: impl FnOnce() -> T) -> (T, Option<Crossing>) {
    /// Puts back what was there, also where `work` panics.
    struct Before(Option<Crossing>);

    impl Drop for Before {
        fn drop(&mut self) {
            let _over = CROSSING.replace(self.0.take());
        }
    }

    let before = Before(CROSSING.replace(Some(crossing)));
    let done = work();
    let crossed = CROSSING.take();
    drop(before);
    (done, crossed)
}

/// What the value takes along that this thread is writing.
fn with_lending(note: impl FnOnce(&mut Lending)) {
    CROSSING.with_borrow_mut(|crossing| match crossing {
        Some(Crossing::Writing(lending)) => note(lending),
        Some(Crossing::Reading(_)) | None => {}
    });
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

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arrival").field(&self.numbers).finish()
    }
}

impl fmt::Debug for Lending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lending").field(&self.numbers).finish()
    }
}

#[cfg(test)]
pub(super) mod tests;
