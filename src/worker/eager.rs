//! Looking for what comes before sleeping for it: to be woken takes longer than most answers.
//!
//! A look lasts [`LOOK_FOR`] and lets others run meanwhile. Whether it is worth it is learnt: looks that find nothing become rare, so that a
//! kernel that takes long, or is asked seldom, costs no processor.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustkernel_core::clock::{Clock, Timestamp};

/// Twice what a quick answer takes.
const LOOK_FOR: Duration = Duration::from_micros(50);
/// Looks in a row that may find nothing.
const CREDIT: u32 = 8;
/// How many times it sleeps at once before it looks again.
const REST: u32 = 64;

/// Whether looking has been worth it lately.
#[derive(Debug)]
pub(super) struct Eagerness {
    credit: u32,
    rest: u32,
    clock: Clock,
}

impl Eagerness {
    pub(super) fn new() -> Self {
        Self { credit: CREDIT, rest: 0, clock: Clock::system() }
    }

    /// Begins to wait for something. Until when to look for it; `None` to sleep at once.
    pub(super) fn begin(&mut self) -> Option<Timestamp> {
        if self.credit == 0 {
            self.rest += 1;
            if self.rest < REST {
                return None;
            }
            (self.credit, self.rest) = (1, 0);
        }
        Some(self.clock.now() + LOOK_FOR)
    }

    /// Whether a look that has found nothing so far goes on.
    pub(super) fn goes_on(&self, until: Timestamp) -> bool {
        self.clock.now() < until
    }

    /// A look has ended: with what it was for, or in vain.
    pub(super) fn note(&mut self, found: bool) {
        self.credit = if found { CREDIT } else { self.credit.saturating_sub(1) };
    }
}

/// A socket that is looked at before its thread sleeps in a read.
pub(super) struct Eager<'a> {
    pub(super) socket: &'a UnixStream,
    pub(super) eagerness: &'a mut Eagerness,
}

impl Read for Eager<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.eagerness.begin() {
            loop {
                match recv(self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                    Err(Errno::WOULDBLOCK) if self.eagerness.goes_on(until) => thread::yield_now(),
                    Err(Errno::WOULDBLOCK) => break,
                    read => {
                        self.eagerness.note(true);
                        return read.map(|(_, length)| length).map_err(io::Error::from);
                    }
                }
            }
            self.eagerness.note(false);
        }
        let mut socket = self.socket;
        socket.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_become_rare_and_one_that_does_brings_them_back() {
        let mut eagerness = Eagerness::new();
        let mut looks = |found: bool, waits: usize| {
            let mut looks = 0;
            for _ in 0..waits {
                if eagerness.begin().is_some() {
                    looks += 1;
                    eagerness.note(found);
                }
            }
            looks
        };
        assert_eq!(looks(false, 1_000), 8 + (1_000 - 8) / 64);
        assert_eq!(looks(true, 1_000), 1_000 - looks_before_the_next(1_000 - 8));
        assert_eq!(looks(true, 10), 10);
    }

    /// Of so many waits since the last credit was used up, those that are left of the rest.
    fn looks_before_the_next(waits: usize) -> usize {
        63 - waits % 64
    }
}
