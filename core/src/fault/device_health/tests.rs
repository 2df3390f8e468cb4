use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn after(span: Duration) -> Timestamp {
    START + span
}

fn seconds(seconds: u64) -> Timestamp {
    after(Duration::from_secs(seconds))
}

fn action(action: RecoveryAction) -> DeviceSample {
    DeviceSample { recovery_action: Some(action), ..DeviceSample::default() }
}

fn ecc(count: u64) -> DeviceSample {
    DeviceSample { uncorrected_ecc_count: Some(count), ..DeviceSample::default() }
}

const fn healthy() -> Verdict {
    Verdict { state: DeviceState::Healthy, trips: false, alerts_operator: false }
}

const fn unhealthy(reason: UnhealthyReason) -> DeviceState {
    DeviceState::Unhealthy(reason)
}

#[test]
fn a_recovery_action_keeps_the_device_out_until_it_is_none_and_is_told_once() {
    let mut health = DeviceHealth::new();
    let state = unhealthy(UnhealthyReason::RecoveryAction(RecoveryAction::GpuReset));
    let first = health.on_sample(&action(RecoveryAction::GpuReset), START);
    assert_eq!(first, Verdict { state, trips: true, alerts_operator: true });
    let again = health.on_sample(&action(RecoveryAction::GpuReset), seconds(9999));
    assert_eq!(again, Verdict { state, trips: false, alerts_operator: false });
    let unsaid = health.on_sample(&DeviceSample::default(), seconds(99_999));
    assert_eq!(unsaid.state, state, "an answer that is missing changes nothing");
    let worse = health.on_sample(&action(RecoveryAction::NodeReboot), seconds(99_999));
    assert!(worse.trips && worse.alerts_operator);
    assert_eq!(health.on_sample(&action(RecoveryAction::None), seconds(100_000)), healthy());
}

#[test]
fn the_first_count_of_errors_is_the_baseline_and_every_rise_trips() {
    let mut health = DeviceHealth::new();
    assert_eq!(health.on_sample(&ecc(7), START), healthy());
    assert_eq!(health.on_sample(&ecc(7), seconds(1)), healthy());
    let rise = health.on_sample(&ecc(8), seconds(2));
    let state = DeviceState::Degraded(DegradedReason::UncorrectedEcc { count: 8 });
    assert_eq!(rise, Verdict { state, trips: true, alerts_operator: false });
    assert!(!health.on_sample(&ecc(8), seconds(3)).trips);
    assert!(!health.on_sample(&ecc(0), seconds(4)).trips, "the counter began anew");
    assert!(health.on_sample(&ecc(1), seconds(5)).trips);
    assert_eq!(health.state(seconds(5) + CONTAINED_WINDOW), DeviceState::Healthy);
}

#[test]
fn xids_that_cost_a_process_are_faults_and_leave_the_device_healthy() {
    let mut health = DeviceHealth::new();
    for (at, xid) in [13, 31, 39, 43, 45, 63, 154, 9999].into_iter().enumerate() {
        assert_eq!(health.on_xid(xid, seconds(at as u64)), healthy(), "{xid}");
    }
    for xid in [13, 31, 39, 45] {
        assert!(health.fault_of(xid, START).is_some(), "{xid}");
    }
}

#[test]
fn the_echo_of_our_own_kill_is_not_counted_within_the_window() {
    let mut health = DeviceHealth::new();
    health.on_kill(START);
    assert_eq!(health.on_xid(45, after(KILL_WINDOW)), healthy());
    assert_eq!(health.fault_of(45, after(KILL_WINDOW)), None);
    let late = after(KILL_WINDOW + Duration::from_nanos(1));
    assert_eq!(health.on_xid(45, late), healthy());
    assert!(health.fault_of(45, late).is_some());
    assert!(health.on_xid(119, after(KILL_WINDOW)).trips, "a kill excuses no other Xid");
}

#[test]
fn one_contained_error_costs_its_process_and_a_second_within_the_window_the_device() {
    let mut health = DeviceHealth::new();
    assert_eq!(health.on_xid(94, START), healthy());
    assert_eq!(health.on_xid(94, START), healthy(), "the same error, told for another channel");
    let second = health.on_xid(94, seconds(60));
    let state = unhealthy(UnhealthyReason::RepeatedContained);
    assert_eq!(second, Verdict { state, trips: true, alerts_operator: true });
    assert_eq!(health.state(seconds(59) + CONTAINED_WINDOW), state);
    assert_eq!(health.state(seconds(60) + CONTAINED_WINDOW), DeviceState::Healthy);
    let late = health.on_xid(94, seconds(61) + CONTAINED_WINDOW);
    assert_eq!(late, healthy(), "the one before is too long ago");
}

#[test]
fn an_xid_of_the_device_is_unhealthy_at_once_and_a_storm_of_them_alerts_once() {
    let mut health = DeviceHealth::new();
    let state = unhealthy(UnhealthyReason::Xid(119));
    assert_eq!(health.on_xid(119, START), Verdict { state, trips: true, alerts_operator: true });
    for xid in [120, 74, 95, 119] {
        let storm = health.on_xid(xid, START);
        assert_eq!(storm, Verdict { state, trips: true, alerts_operator: false }, "{xid}");
    }
}

#[test]
fn after_an_xid_the_device_comes_back_when_the_action_was_asked_for_and_is_done() {
    let mut health = DeviceHealth::new();
    let _ = health.on_sample(&action(RecoveryAction::None), START);
    let _ = health.on_xid(79, seconds(1));
    let early = health.on_sample(&action(RecoveryAction::None), seconds(1));
    assert_eq!(early.state, unhealthy(UnhealthyReason::Xid(79)), "the driver is not that fast");
    let _ = health.on_sample(&action(RecoveryAction::NodeReboot), seconds(2));
    assert_eq!(health.on_sample(&action(RecoveryAction::None), seconds(3)), healthy());
}

#[test]
fn after_an_xid_the_driver_that_asks_for_nothing_is_believed_after_a_while() {
    let mut health = DeviceHealth::new();
    let _ = health.on_xid(109, START);
    let none = action(RecoveryAction::None);
    let state = unhealthy(UnhealthyReason::Xid(109));
    assert_eq!(health.on_sample(&none, seconds(5)).state, state);
    let _ = health.on_xid(109, seconds(20));
    assert_eq!(health.on_sample(&none, seconds(21)).state, state, "the while begins anew");
    assert_eq!(health.on_sample(&none, seconds(50)).state, state);
    assert_eq!(health.on_sample(&none, seconds(51)), healthy());
}

#[test]
fn without_the_number_only_an_operator_brings_the_device_back() {
    let mut health = DeviceHealth::new();
    let _ = health.on_xid(62, START);
    let sample = health.on_sample(&ecc(0), seconds(1_000_000));
    assert_eq!(sample.state, unhealthy(UnhealthyReason::Xid(62)));
    assert_eq!(health.on_reset(seconds(1_000_000)), healthy());
    assert_eq!(health.on_sample(&ecc(5), seconds(1_000_001)), healthy(), "a new baseline");
}

#[test]
fn a_device_is_suspect_while_a_process_that_was_killed_holds_it() {
    let mut health = DeviceHealth::new();
    let suspect = |processes| unhealthy(UnhealthyReason::Suspect { processes });
    let first = health.on_stuck(true, START);
    assert_eq!(first, Verdict { state: suspect(1), trips: false, alerts_operator: true });
    assert_eq!(health.on_stuck(true, START).state, suspect(2));
    assert_eq!(health.on_reset(START).state, suspect(2), "they hold it still");
    assert_eq!(health.on_stuck(false, START).state, suspect(1));
    assert_eq!(health.on_stuck(false, START), healthy());
    assert_eq!(health.on_stuck(false, START), healthy());
}

#[test]
fn a_device_that_is_gone_trips_once_however_often_it_is_said() {
    let mut health = DeviceHealth::new();
    let _ = health.on_xid(79, START);
    let state = unhealthy(UnhealthyReason::Gone);
    assert_eq!(health.on_gone(START), Verdict { state, trips: true, alerts_operator: true });
    assert_eq!(health.on_gone(seconds(1)), Verdict { state, trips: false, alerts_operator: false });
}

#[test]
fn heat_many_corrected_errors_and_a_pending_remapping_degrade_and_never_trip() {
    let mut health = DeviceHealth::new();
    let throttle = Throttle { hardware_thermal: true, hardware_slowdown: true, ..Throttle::default() };
    let hot = DeviceSample { throttle: Some(throttle), ..DeviceSample::default() };
    let verdict = health.on_sample(&hot, START);
    let text = "degraded: slowed down: hardware thermal slowdown, hardware slowdown";
    assert_eq!((verdict.trips, verdict.alerts_operator), (false, false));
    assert_eq!(verdict.state.to_string(), text);
    let verdict = health.on_xid(92, START);
    assert_eq!(verdict.state, DeviceState::Degraded(DegradedReason::ManyCorrectedErrors));
    let pending = DeviceSample { remap_pending: Some(true), ..DeviceSample::default() };
    let state = DeviceState::Degraded(DegradedReason::RemapPending);
    assert_eq!(health.on_sample(&pending, START), Verdict { state, trips: false, alerts_operator: true });
    assert_eq!(health.on_sample(&pending, START), Verdict { state, trips: false, alerts_operator: false });
    assert!(state.to_string().contains("drain the device when you can"));
}

#[derive(Clone, Debug)]
enum Input {
    Kill,
    Xid(u32),
    Sample(DeviceSample),
    Gone,
    Reset,
    Stuck(bool),
}

fn sample() -> impl Strategy<Value = DeviceSample> {
    let throttle = (any::<bool>(), any::<bool>()).prop_map(|(thermal, slowdown)| Throttle {
        software_thermal: thermal,
        hardware_slowdown: slowdown,
        ..Throttle::default()
    });
    let action = prop::option::of((0_u32..7).prop_map(RecoveryAction::from));
    let parts =
        (prop::option::of(0_u64..4), action, prop::option::of(throttle), prop::option::of(any::<bool>()));
    parts.prop_map(|(uncorrected_ecc_count, recovery_action, throttle, remap_pending)| DeviceSample {
        uncorrected_ecc_count,
        recovery_action,
        throttle,
        remap_pending,
    })
}

fn input() -> impl Strategy<Value = Input> {
    let xid = prop_oneof![Just(45), Just(94), Just(92), Just(119), Just(79), 0_u32..200, any::<u32>()];
    prop_oneof![
        Just(Input::Kill),
        xid.prop_map(Input::Xid),
        sample().prop_map(Input::Sample),
        sample().prop_map(Input::Sample),
        Just(Input::Gone),
        Just(Input::Reset),
        any::<bool>().prop_map(Input::Stuck),
    ]
}

/// Inputs, each so many milliseconds after the start: time may go back.
fn inputs() -> impl Strategy<Value = Vec<(Input, u64)>> {
    let at = prop_oneof![0_u64..100_000, Just(u64::MAX / 1_000_000)];
    prop::collection::vec((input(), at), 0..80)
}

fn at(millis: u64) -> Timestamp {
    after(Duration::from_millis(millis))
}

proptest! {
    #[test]
    fn an_action_makes_it_unhealthy_exactly_until_none(inputs in inputs()) {
        let mut health = DeviceHealth::new();
        let mut asked = None;
        for (input, millis) in inputs {
            let now = at(millis);
            match input {
                Input::Kill => health.on_kill(now),
                Input::Reset => {
                    let _ = health.on_reset(now);
                    asked = None;
                }
                Input::Stuck(is_stuck) => drop(health.on_stuck(is_stuck, now)),
                Input::Gone => prop_assert!(matches!(health.on_gone(now).state, DeviceState::Unhealthy(_))),
                Input::Xid(xid) => {
                    let verdict = health.on_xid(xid, now);
                    prop_assert!(!(verdict.trips && xid == 45), "Xid 45 alone never trips");
                }
                Input::Sample(sample) => {
                    let verdict = health.on_sample(&sample, now);
                    asked = sample.recovery_action.or(asked);
                    prop_assert_eq!(verdict.state, health.state(now));
                }
            }
            let expected = asked.filter(|action| *action != RecoveryAction::None);
            let state = health.state(now);
            if let Some(action) = expected {
                prop_assert_eq!(state, DeviceState::Unhealthy(UnhealthyReason::RecoveryAction(action)));
            } else {
                let says_one = matches!(state, DeviceState::Unhealthy(UnhealthyReason::RecoveryAction(_)));
                prop_assert!(!says_one, "nothing is asked for, and the state is {}", state);
            }
        }
    }

    #[test]
    fn whatever_went_before_the_echo_of_our_kill_neither_trips_nor_counts(
        inputs in inputs(),
        kill in 0_u64..100_000,
        echo in 0_u64..=10_000,
    ) {
        let mut health = DeviceHealth::new();
        for (input, millis) in inputs {
            let now = at(millis);
            match input {
                Input::Kill => health.on_kill(now),
                Input::Reset => drop(health.on_reset(now)),
                Input::Stuck(is_stuck) => drop(health.on_stuck(is_stuck, now)),
                Input::Gone => drop(health.on_gone(now)),
                Input::Xid(xid) => drop(health.on_xid(xid, now)),
                Input::Sample(sample) => drop(health.on_sample(&sample, now)),
            }
        }
        health.on_kill(at(kill));
        let before = health.state(at(kill + echo));
        prop_assert_eq!(health.fault_of(45, at(kill + echo)), None);
        let verdict = health.on_xid(45, at(kill + echo));
        prop_assert_eq!(verdict, Verdict { state: before, trips: false, alerts_operator: false });
    }

    #[test]
    fn the_breaker_opens_for_whatever_makes_the_device_unhealthy(inputs in inputs()) {
        let mut health = DeviceHealth::new();
        let mut now = START;
        for (input, millis) in inputs {
            now = now + Duration::from_millis(millis % 10_000);
            let was = matches!(health.state(now), DeviceState::Unhealthy(_));
            let verdict = match input {
                Input::Kill => { health.on_kill(now); continue }
                Input::Reset => { let _ = health.on_reset(now); continue }
                Input::Stuck(is_stuck) => { let _ = health.on_stuck(is_stuck, now); continue }
                Input::Gone => health.on_gone(now),
                Input::Xid(xid) => health.on_xid(xid, now),
                Input::Sample(sample) => health.on_sample(&sample, now),
            };
            let is = matches!(verdict.state, DeviceState::Unhealthy(_));
            prop_assert!(was || !is || (verdict.trips && verdict.alerts_operator));
        }
    }
}

fn met(code: i32) -> Fault {
    crate::fault::cuda::classify(code)
}

#[test]
fn errors_of_the_hardware_that_processes_meet_count_as_the_drivers_own_do() {
    for code in [214, 220, 226, 100, 304, 802] {
        let mut health = DeviceHealth::new();
        let first = health.on_fault(met(code), START);
        assert!(!first.trips && !matches!(first.state, DeviceState::Unhealthy(_)), "{code}: {first:?}");
        let degraded = matches!(first.state, DeviceState::Degraded(DegradedReason::UncorrectedEcc { .. }));
        assert_eq!(degraded, [214, 220].contains(&code), "{code}");
        let at_once = health.on_fault(met(code), after(Duration::from_millis(5)));
        // What loses the device itself is met by several processes at a time.
        let is_another = [214, 220, 226].contains(&code);
        assert_eq!(at_once.trips, is_another, "{code}");
        let second = if is_another { at_once } else { health.on_fault(met(code), seconds(2)) };
        let state = unhealthy(UnhealthyReason::RepeatedContained);
        assert_eq!(second, Verdict { state, trips: true, alerts_operator: true }, "{code}");
        assert_eq!(health.state(after(CONTAINED_WINDOW + Duration::from_secs(3))), DeviceState::Healthy);
    }
    let mut health = DeviceHealth::new();
    for code in [700, 710, 719, 2, 0] {
        assert_eq!(health.on_fault(met(code), START), healthy(), "{code} is no error of the hardware");
    }
}

#[test]
fn an_error_that_a_process_meets_and_the_driver_tells_of_is_one() {
    let (a_little, later) = (after(Duration::from_millis(300)), seconds(2));
    for driver_first in [false, true] {
        let mut health = DeviceHealth::new();
        let tell = |health: &mut DeviceHealth, met_it: bool, now| match met_it {
            true => health.on_fault(met(226), now),
            false => health.on_xid(94, now),
        };
        assert!(!tell(&mut health, !driver_first, START).trips);
        assert!(!tell(&mut health, driver_first, a_little).trips, "it is the same one");
        assert!(!health.on_xid(94, a_little).trips, "on another channel");
        assert!(tell(&mut health, true, later).trips);
    }
}
