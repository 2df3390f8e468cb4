//! The transition table row by row, and a random walk against the invariants.

use proptest::prelude::*;

use super::super::config::{RateWindow, WindowSpan};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(7);
const SLOW: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(seconds)
}

fn machine(failure_threshold: u32, success_threshold: u32) -> BreakerMachine {
    let window = RateWindow {
        span: WindowSpan::Calls(10),
        minimum_calls: 4,
        failure_ratio: 0.75,
        slow_call: Some(SLOW),
        slow_ratio: 0.5,
    };
    let config = CircuitBreakerConfig {
        failure_threshold,
        success_threshold,
        timeout: TIMEOUT,
        half_open_timeout: Some(LIMIT),
        window: Some(window),
    };
    BreakerMachine::try_new(config, at(0)).unwrap()
}

fn call(machine: &mut BreakerMachine, outcome: Outcome, now: Timestamp) -> Option<Transition> {
    let permit = machine.try_acquire(now).unwrap();
    machine.on_outcome(permit, outcome, Duration::ZERO, now)
}

fn opened(machine: &mut BreakerMachine, now: Timestamp) {
    assert_eq!(machine.trip(TripCause::Crashed, now).unwrap().to, BreakerMode::Open);
}

#[test]
fn each_transition_says_where_from_where_to_and_why() {
    let mut machine = machine(2, 1);
    assert_eq!(call(&mut machine, Outcome::Failure, at(1)), None);
    let open = call(&mut machine, Outcome::Failure, at(2)).unwrap();
    let expected = Transition {
        from: BreakerMode::Closed,
        to: BreakerMode::Open,
        cause: TransitionCause::Failures,
        generation: 1,
        at: at(2),
    };
    assert_eq!(open, expected);
    assert_eq!(machine.next_deadline(), Some(at(32)));
    assert_eq!(machine.on_timer(at(31)), None);
    assert_eq!(machine.on_timer(at(32)).unwrap().cause, TransitionCause::OpenElapsed);
    let close = call(&mut machine, Outcome::Success, at(33)).unwrap();
    assert_eq!((close.to, close.cause), (BreakerMode::Closed, TransitionCause::ProbesSucceeded));
    assert_eq!(machine.generation(), 3);
}

#[test]
fn a_refusal_knows_how_long_the_breaker_stays_open() {
    let mut machine = machine(1, 1);
    opened(&mut machine, at(0));
    let refusal = machine.try_acquire(at(10)).unwrap_err();
    let expected = Refusal {
        cause: RejectionCause::Failures,
        generation: 1,
        retry_after: Some(Duration::from_secs(20)),
    };
    assert_eq!(refusal, expected);
    assert_eq!(machine.refusal(at(10)), Some(expected));
}

#[test]
fn a_probe_that_does_not_come_back_opens_at_the_half_open_limit() {
    let mut machine = machine(1, 2);
    opened(&mut machine, at(0));
    let lost = machine.try_acquire(at(30)).unwrap();
    assert!(lost.probe);
    assert_eq!(machine.next_deadline(), Some(at(37)));
    assert_eq!(machine.on_timer(at(37)).unwrap().cause, TransitionCause::ProbesOverdue);
    assert_eq!(machine.on_outcome(lost, Outcome::Success, Duration::ZERO, at(38)), None);
    assert_eq!((machine.mode(), machine.totals().stale), (BreakerMode::Open, 1));
}

#[test]
fn an_idle_half_open_breaker_waits_for_its_first_probe() {
    let mut machine = machine(1, 1);
    opened(&mut machine, at(0));
    assert!(machine.on_timer(at(30)).is_some());
    assert_eq!(machine.next_deadline(), None);
    assert_eq!(machine.on_timer(at(9_999)), None);
    assert!(machine.try_acquire(at(9_999)).unwrap().probe);
}

#[test]
fn a_neutral_and_an_inconclusive_probe_give_the_slot_back() {
    for outcome in [Outcome::Neutral, Outcome::Inconclusive] {
        let mut machine = machine(1, 1);
        opened(&mut machine, at(0));
        assert_eq!(call(&mut machine, outcome, at(30)), None);
        assert_eq!((machine.mode(), machine.probes_in_flight()), (BreakerMode::HalfOpen, 0));
    }
}

#[test]
fn a_slow_probe_is_a_bad_one() {
    let mut machine = machine(1, 2);
    opened(&mut machine, at(0));
    let permit = machine.try_acquire(at(30)).unwrap();
    let transition = machine.on_outcome(permit, Outcome::Success, SLOW + Duration::from_nanos(1), at(31));
    assert_eq!(transition.unwrap().cause, TransitionCause::ProbeSlow);
}

#[test]
fn a_running_slow_probe_opens_at_once_and_its_end_is_stale() {
    let mut machine = machine(1, 2);
    opened(&mut machine, at(0));
    let mut permit = machine.try_acquire(at(30)).unwrap();
    assert_eq!(machine.on_slow(&mut permit, at(31)).unwrap().cause, TransitionCause::ProbeSlow);
    assert_eq!(machine.on_outcome(permit, Outcome::Success, SLOW * 2, at(32)), None);
    assert_eq!(machine.totals().stale, 1);
}

#[test]
fn work_that_is_slow_while_it_runs_is_counted_once() {
    let mut machine = machine(9, 1);
    let mut permit = machine.try_acquire(at(0)).unwrap();
    assert_eq!(machine.on_slow(&mut permit, at(1)), None);
    assert_eq!(machine.on_slow(&mut permit, at(2)), None);
    assert_eq!(machine.on_outcome(permit, Outcome::Success, SLOW * 3, at(3)), None);
    assert_eq!(machine.totals().slow, 1);
}

#[test]
fn running_work_alone_can_reach_the_slow_rate() {
    let mut machine = machine(9, 1);
    let mut permits: Vec<_> = (0..4).map(|_| machine.try_acquire(at(0)).unwrap()).collect();
    let causes: Vec<_> =
        permits.iter_mut().filter_map(|permit| machine.on_slow(permit, at(1))).map(|t| t.cause).collect();
    assert_eq!(causes, [TransitionCause::SlowRate]);
    assert_eq!(machine.state(), CircuitState::Open);
}

#[test]
fn a_rate_opens_where_no_run_of_failures_does() {
    let mut machine = machine(4, 1);
    let outcomes = [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure];
    let causes: Vec<_> =
        outcomes.into_iter().filter_map(|o| call(&mut machine, o, at(0))).map(|t| t.cause).collect();
    assert_eq!(causes, [TransitionCause::FailureRate]);
}

#[test]
fn a_restart_begins_a_new_half_open_cycle() {
    let mut machine = machine(1, 1);
    opened(&mut machine, at(0));
    assert_eq!(machine.force_half_open(at(1)).unwrap().cause, TransitionCause::Restarted);
    let old = machine.try_acquire(at(1)).unwrap();
    let again = machine.force_half_open(at(2)).unwrap();
    assert_eq!((again.from, again.to), (BreakerMode::HalfOpen, BreakerMode::HalfOpen));
    assert_eq!(machine.on_outcome(old, Outcome::Failure, Duration::ZERO, at(3)), None);
    assert_eq!(call(&mut machine, Outcome::Success, at(4)).unwrap().to, BreakerMode::Closed);
}

#[test]
fn what_is_held_moves_only_by_hand() {
    let mut machine = machine(1, 1);
    assert_eq!(machine.isolate(at(1)).unwrap().to, BreakerMode::Isolated);
    assert_eq!(machine.isolate(at(2)), None);
    assert_eq!(machine.trip(TripCause::Hung, at(3)), None);
    assert_eq!(machine.force_half_open(at(4)), None);
    assert_eq!(machine.on_timer(Timestamp::NEVER), None);
    assert_eq!(machine.disable(at(5)).unwrap().from, BreakerMode::Isolated);
    assert_eq!(call(&mut machine, Outcome::Failure, at(6)), None);
    assert_eq!(machine.close(at(7)).unwrap().to, BreakerMode::Closed);
}

#[test]
fn a_trip_while_open_does_not_extend_the_open_time() {
    let mut machine = machine(1, 1);
    opened(&mut machine, at(0));
    assert_eq!(machine.trip(TripCause::DeviceFault, at(20)), None);
    assert_eq!(machine.next_deadline(), Some(at(30)));
}

/// What a walk keeps beside the machine.
struct Walk {
    rng: fastrand::Rng,
    machine: BreakerMachine,
    now: Timestamp,
    permits: Vec<Permit>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let machine = machine(rng.u32(1..5), rng.u32(1..4));
        Self { rng, machine, now: at(0), permits: Vec::new() }
    }

    /// One random event; the transition it reported.
    fn step(&mut self) -> Option<Transition> {
        self.now = self.now + Duration::from_millis(self.rng.u64(0..9_000));
        let now = self.now;
        match self.rng.u32(0..100) {
            0..40 => {
                let moved = self.machine.on_timer(now);
                self.permits.extend(self.machine.try_acquire(now).ok());
                moved
            }
            40..80 if !self.permits.is_empty() => {
                let permit = self.permits.swap_remove(self.rng.usize(0..self.permits.len()));
                let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Neutral, Outcome::Inconclusive];
                let outcome = outcomes[self.rng.usize(0..outcomes.len())];
                let took = Duration::from_millis(self.rng.u64(0..1_100));
                self.machine.on_outcome(permit, outcome, took, now)
            }
            80..85 if !self.permits.is_empty() => {
                let index = self.rng.usize(0..self.permits.len());
                self.machine.on_slow(&mut self.permits[index], now)
            }
            85 => self.machine.trip(TripCause::Crashed, now),
            86 => self.machine.force_half_open(now),
            87 => self.machine.isolate(now),
            88 => self.machine.disable(now),
            89..92 => self.machine.close(now),
            92 => self.machine.reset(now),
            _ => self.machine.on_timer(now),
        }
    }

    fn live_probes(&self) -> usize {
        let generation = self.machine.generation();
        self.permits.iter().filter(|permit| permit.probe && permit.generation == generation).count()
    }
}

proptest! {
    /// Replay a failure with its seed: `WALK_SEED=<seed> cargo test -p rustkernel-core no_walk_breaks`.
    #[test]
    fn no_walk_breaks_an_invariant(drawn: u64) {
        let seed = std::env::var("WALK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(drawn);
        let replay = format!("WALK_SEED={seed} cargo test -p rustkernel-core no_walk_breaks");
        let mut walk = Walk::new(seed);
        for _ in 0..300 {
            let (mode, generation, deadline) =
                (walk.machine.mode(), walk.machine.generation(), walk.machine.next_deadline());
            let moved = walk.step();
            let machine = &walk.machine;
            // One report per change, and none without one.
            prop_assert_eq!(machine.generation() - generation, u64::from(moved.is_some()), "{}", replay);
            let Some(transition) = moved else {
                prop_assert_eq!(machine.mode(), mode, "{}", replay);
                if mode == BreakerMode::Open {
                    prop_assert_eq!(machine.next_deadline(), deadline, "the open time is extended: {}", replay);
                }
                // Every slot in use belongs to a permit that is out, and there are never too many.
                prop_assert_eq!(machine.probes_in_flight() as usize, walk.live_probes(), "{}", replay);
                prop_assert!(walk.live_probes() <= machine.config().success_threshold as usize, "{}", replay);
                prop_assert!(machine.failure_count() < machine.config().failure_threshold, "{}", replay);
                continue;
            };
            prop_assert_eq!(transition.from, mode, "{}", replay);
            prop_assert_eq!(transition.to, machine.mode(), "{}", replay);
            prop_assert_eq!(machine.failure_count(), 0, "{}", replay);
            // Only success or a hand closes.
            if transition.to == BreakerMode::Closed && mode == BreakerMode::HalfOpen {
                let closing = [TransitionCause::ProbesSucceeded, TransitionCause::Closed, TransitionCause::Reset];
                prop_assert!(closing.contains(&transition.cause), "{}", replay);
            }
        }
        // Never a breaker that cannot recover: with nobody holding it, waiting and good probes close it.
        while let Some(permit) = walk.permits.pop() {
            let _moved = walk.machine.on_outcome(permit, Outcome::Neutral, Duration::ZERO, walk.now);
        }
        if !matches!(walk.machine.mode(), BreakerMode::Isolated | BreakerMode::Disabled) {
            let mut later = walk.now + TIMEOUT;
            for _ in 0..8 {
                later = later + TIMEOUT;
                while let Ok(permit) = walk.machine.try_acquire(later) {
                    let _moved = walk.machine.on_outcome(permit, Outcome::Success, Duration::ZERO, later);
                    if walk.machine.mode() == BreakerMode::Closed {
                        break;
                    }
                }
            }
            prop_assert_eq!(walk.machine.mode(), BreakerMode::Closed, "{}", replay);
        }
    }
}
