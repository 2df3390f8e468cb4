//! Answers on their way out of a worker: several in one write, where the next request is there already and its kernel is quick.
//!
//! A write, and the wake-up of whoever reads it, take longer than a small execution. An answer is held back for as long as that saves
//! something: while its kernel has more to do, has been quick so far, and nothing has been held for long. Should the next execution take
//! long after all, a thread of the worker's sends what is held, so that it is late by [`LATEST`] at most.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustkernel_core::clock::{Clock, Timestamp};
use serde::Serialize;

use super::wire::{KEPT_BYTES, WireError, append};

/// One that took longer is sent at once.
const QUICK: Duration = Duration::from_micros(20);
/// Nothing is held for longer, as long as its kernel is quick.
const HOLD: Duration = Duration::from_micros(20);
/// Nothing is held for longer than twice this, whatever its kernel does.
const LATEST: Duration = Duration::from_millis(1);
const MAX_HELD_BYTES: usize = 16 << 10;

/// The answers of one kernel.
pub(super) struct Outbox {
    held: Arc<Held>,
    sender: Arc<Sender>,
    clock: Clock,
    /// When the last answer was ready, or the kernel had nothing to do.
    last: Timestamp,
    /// When the first one that is held was.
    since: Timestamp,
    /// Whether its kernel has more to do than what it does now.
    more: bool,
}

struct Held {
    socket: UnixStream,
    bytes: Mutex<Vec<u8>>,
}

/// Sends what is held for too long, from a thread of its own.
#[derive(Default)]
pub(super) struct Sender {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    outboxes: Vec<Weak<Held>>,
    /// Whether it looks at them now and then.
    looks: bool,
}

impl Outbox {
    pub(super) fn new(socket: UnixStream, sender: &Arc<Sender>) -> Self {
        let held = Arc::new(Held { socket, bytes: Mutex::default() });
        sender.lock().outboxes.push(Arc::downgrade(&held));
        let clock = Clock::system();
        let last = clock.now();
        Self { held, sender: Arc::clone(sender), clock, last, since: last, more: false }
    }

    /// Whether there are more requests behind the one whose answer comes next.
    pub(super) fn expect(&mut self, more: bool) {
        self.more = more;
    }

    /// Sends an answer, and before it what is held; or holds it, if its kernel has more to do.
    pub(super) fn put(&mut self, head: &impl Serialize, body: &[u8]) -> Result<(), WireError> {
        let now = if self.more { self.clock.now() } else { self.last };
        let quick = self.more && now - self.last < QUICK;
        self.last = now;
        let mut bytes = self.held.lock();
        let first = bytes.is_empty();
        if first {
            self.since = now;
        }
        append(&mut bytes, head, body)?;
        if !quick || now - self.since >= HOLD || bytes.len() >= MAX_HELD_BYTES {
            return Ok(self.held.send(bytes)?);
        }
        drop(bytes);
        if first {
            self.sender.wake();
        }
        Ok(())
    }

    /// The kernel has nothing to do: sends what is held.
    pub(super) fn flush(&mut self) -> Result<(), WireError> {
        Ok(self.held.send(self.held.lock())?)
    }

    /// There is something to do again.
    pub(super) fn begin(&mut self) {
        self.last = self.clock.now();
    }
}

impl Held {
    fn send(&self, mut bytes: MutexGuard<'_, Vec<u8>>) -> std::io::Result<()> {
        let sent = (&self.socket).write_all(&bytes);
        bytes.clear();
        if bytes.capacity() > KEPT_BYTES {
            *bytes = Vec::new();
        }
        sent
    }

    /// Sends what the socket has room for, unless its kernel is about to send it itself.
    fn send_now(&self) {
        let Ok(mut bytes) = self.bytes.try_lock() else { return };
        while !bytes.is_empty() {
            match send(&self.socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(bytes.drain(..sent)),
                Err(Errno::INTR) => {}
                // If it is for good, its kernel finds out, too.
                Err(_) => return,
            }
        }
    }

    /// Whether something is held, or about to be.
    fn is_in_use(&self) -> bool {
        self.bytes.try_lock().map_or(true, |bytes| !bytes.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Starts its thread, which lasts as long as the process.
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let sender = Arc::new(Self::default());
        let own = Arc::clone(&sender);
        thread::Builder::new().name("late answers".to_owned()).spawn(move || own.run())?;
        Ok(sender)
    }

    /// Waits for nobody but for what is held: neither for a kernel that has its outbox in hand, nor for one that is not read.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            state.outboxes.retain(|held| held.strong_count() > 0);
            let outboxes: Vec<_> = state.outboxes.iter().filter_map(Weak::upgrade).collect();
            // Whoever holds something from now on finds that nobody looks, and says so.
            state.looks = outboxes.iter().any(|held| held.is_in_use());
            drop(outboxes);
            if !state.looks {
                state =
                    self.bell.wait_while(state, |state| !state.looks).unwrap_or_else(PoisonError::into_inner);
            }
            state = self.bell.wait_timeout(state, LATEST).unwrap_or_else(PoisonError::into_inner).0;
            let outboxes: Vec<_> = state.outboxes.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            outboxes.iter().for_each(|held| held.send_now());
            state = self.lock();
        }
    }

    /// Something is held.
    fn wake(&self) {
        let mut state = self.lock();
        if !state.looks {
            state.looks = true;
            self.bell.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{FromKernel, Inbox, Load, read};
    use super::*;

    fn pair() -> (Outbox, UnixStream) {
        let (socket, there) = UnixStream::pair().unwrap();
        there.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (Outbox::new(socket, &Sender::start().unwrap()), there)
    }

    fn done(request: u64) -> FromKernel {
        FromKernel::Done { request, result: Ok(()), load: Load::none() }
    }

    fn arrived(there: &mut UnixStream, inbox: &mut Inbox) -> u64 {
        match read(there, inbox).unwrap() {
            Some((FromKernel::Done { request, .. }, _)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_held_goes_out_though_its_kernel_does_not_come_back() {
        let (mut outbox, mut there) = pair();
        let mut inbox = Inbox::default();
        for round in 0..3 {
            outbox.begin();
            outbox.expect(true);
            let first = round * 3;
            (first..first + 3).for_each(|request| outbox.put(&done(request), &[]).unwrap());
            let came: Vec<_> = (0..3).map(|_| arrived(&mut there, &mut inbox)).collect();
            assert_eq!(came, [first, first + 1, first + 2]);
        }
    }

    #[test]
    fn one_that_is_not_read_holds_up_nobody_else() {
        let sender = Sender::start().unwrap();
        let (socket, unread) = UnixStream::pair().unwrap();
        let mut full = Outbox::new(socket, &sender);
        full.expect(false);
        let blocked = thread::spawn(move || {
            (0..).try_for_each(|request| full.put(&done(request), &[7; 4 << 10])).unwrap_err();
        });
        let (socket, mut there) = UnixStream::pair().unwrap();
        there.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut outbox, mut inbox) = (Outbox::new(socket, &sender), Inbox::default());
        for request in 0..20 {
            outbox.begin();
            outbox.expect(true);
            outbox.put(&done(request), &[]).unwrap();
            assert_eq!(arrived(&mut there, &mut inbox), request);
        }
        drop(unread);
        blocked.join().unwrap();
    }

    #[test]
    fn answers_go_out_in_their_order_however_they_go() {
        let (mut outbox, mut there) = pair();
        let mut inbox = Inbox::default();
        for request in 0..2_000_u64 {
            outbox.expect(request % 7 != 0);
            outbox.put(&done(request), &vec![7; usize::try_from(request % 900).unwrap()]).unwrap();
            if request % 31 == 0 {
                outbox.flush().unwrap();
            }
            if request % 50 == 49 {
                outbox.flush().unwrap();
                assert!((request - 49..=request).all(|request| arrived(&mut there, &mut inbox) == request));
            }
        }
    }

    #[test]
    fn one_whose_reader_is_gone_is_told() {
        let (mut outbox, there) = pair();
        drop(there);
        outbox.expect(false);
        assert!(outbox.put(&done(1), &[]).is_err());
    }
}
