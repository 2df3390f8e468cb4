//! How quickly a kernel in a worker answers, and so how many of its requests are sent before their turns.
//!
//! A kernel that takes long gains nothing by that: the way there is short beside its work. And what waits here can be withdrawn, or go
//! elsewhere.

use std::time::Duration;

use rustkernel_core::clock::{Clock, Timestamp};

/// One that answers within this is quick. The way there and back alone is a tenth of it, and on a busy machine half.
const QUICK: Duration = Duration::from_micros(200);
/// So many requests are under way at most.
const WINDOW: usize = 64;
const RESTS: u32 = 64;

#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    quick: bool,
    /// Looks for room that find none, before the next ones may.
    rests: u32,
    since: Timestamp,
    /// Since then.
    answers: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        let (clock, since) = (Clock::system(), Timestamp::ZERO);
        Self { clock, quick: false, rests: 0, since, answers: 0 }
    }

    /// How many more may be sent where so many are under way. More than one at a time, or none: that is what makes it worth it.
    pub(super) fn room(&mut self, under_way: usize) -> usize {
        if self.rests > 0 {
            self.rests -= 1;
            return 0;
        }
        if self.quick && under_way <= WINDOW / 2 { WINDOW - under_way } else { 0 }
    }

    /// From now on until [`end`](Self::end), or the next one, so many are answered.
    pub(super) fn begin(&mut self) {
        (self.since, self.answers) = (self.clock.now(), 0);
    }

    /// One is sent alone. Should its caller leave, it was not quick.
    pub(super) fn begin_alone(&mut self) {
        self.quick = false;
        self.begin();
    }

    /// An answer has come: that of the request in hand, or of one that nobody waits for.
    pub(super) fn answered(&mut self, in_hand: bool) {
        self.answers += u32::from(in_hand);
    }

    /// Whether it has answered quickly since it began.
    pub(super) fn end(&mut self) -> bool {
        self.quick = self.clock.now() - self.since < QUICK * self.answers;
        self.quick
    }

    /// What was looked at cannot be sent ahead: it is longer than it seemed, for example. That costs as much as sending it.
    pub(super) fn rest_long(&mut self) {
        self.rests = RESTS;
    }

    /// Nothing more before the next one that is sent alone.
    pub(super) fn rest(&mut self) {
        self.quick = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_answers_quickly_is_asked_ahead_and_by_many_at_once() {
        let (clock, hand) = Clock::manual();
        let mut pace = Pace { clock, ..Pace::new() };
        assert_eq!(pace.room(0), 0, "nothing is known");
        let answers = |pace: &mut Pace, count: u32, each: Duration| {
            pace.begin();
            (0..count).for_each(|_| pace.answered(true));
            hand.advance(each * count);
            pace.end()
        };
        assert!(answers(&mut pace, 1, Duration::from_micros(9)));
        assert_eq!([0, 1, 32, 33, 64].map(|under_way| pace.room(under_way)), [64, 63, 32, 0, 0]);
        assert!(answers(&mut pace, 32, Duration::from_micros(199)));
        assert!(!answers(&mut pace, 32, Duration::from_micros(200)));
        assert_eq!(pace.room(0), 0);
        assert!(answers(&mut pace, 1, Duration::from_micros(9)));
        pace.rest_long();
        assert!((0..RESTS).all(|_| pace.room(0) == 0) && pace.room(0) == WINDOW);
        pace.rest();
        assert_eq!(pace.room(0), 0);
    }

    #[test]
    fn one_whose_caller_leaves_and_answers_that_nobody_waits_for_do_not_make_it_quick() {
        let (clock, hand) = Clock::manual();
        let mut pace = Pace { clock, quick: true, ..Pace::new() };
        pace.begin_alone();
        assert_eq!(pace.room(0), 0, "until it has answered");
        (0..50).for_each(|_| pace.answered(false));
        hand.advance(QUICK);
        assert!(!pace.end());
    }
}
