//! How a worker process ended.
//!
//! For an end that nobody asked for. Whoever has stopped or killed a process knows why it ended and does not ask here.
//!
//! | end | class |
//! |---|---|
//! | exit 0: a worker that was to go on has ended | crash |
//! | exit 1, 70, 101 (a Rust panic) and every other code | crash |
//! | exit 75: it says that its device is poisoned or lost | domain lost |
//! | exit 2 (usage), 78 (configuration), 126 and 127 (no such program or library) | configuration |
//! | exit 128 + n: a shell in between reports signal n | as signal n |
//! | SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGXCPU, SIGXFSZ | killed |
//! | SIGILL | unknown |
//! | every other signal | crash |
//! | not known | unknown |
//!
//! Numbers of signals are those of Linux on x86-64 and AArch64. 70, 75 and 78 are the command's own exit codes, in the sense of
//! `sysexits.h`. Every end loses the domain, for it has ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fault, FaultClass, FaultCode};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnd {
    /// It ended with this exit code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
    /// It is gone, and nobody knows how: the connection to it closed, or somebody else has waited for it.
    Unknown,
}

/// The fault that the unasked end of a worker process tells of.
#[must_use]
pub const fn classify(end: ProcessEnd) -> Fault {
    let (name, class) = match end {
        ProcessEnd::Code(code) => exited(code),
        ProcessEnd::Signal(signal) => signalled(signal),
        ProcessEnd::Unknown => ("gone", FaultClass::Unknown),
    };
    Fault { class, code: FaultCode::Process(end), name }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown end"),
        }
    }
}

const fn exited(code: i32) -> (&'static str, FaultClass) {
    match code {
        0 => ("ended unasked", FaultClass::Crash),
        1 => ("failure", FaultClass::Crash),
        2 => ("wrong usage", FaultClass::Configuration),
        70 => ("gave up", FaultClass::Crash),
        75 => ("device poisoned or lost", FaultClass::DomainLost),
        78 => ("bad configuration", FaultClass::Configuration),
        101 => ("panic", FaultClass::Crash),
        126 => ("not executable", FaultClass::Configuration),
        127 => ("program or library not found", FaultClass::Configuration),
        129..=192 => signalled(code - 128),
        _ => ("other exit code", FaultClass::Crash),
    }
}

const fn signalled(signal: i32) -> (&'static str, FaultClass) {
    match signal {
        1 => ("SIGHUP", FaultClass::Killed),
        2 => ("SIGINT", FaultClass::Killed),
        3 => ("SIGQUIT", FaultClass::Killed),
        // A number read as an enum that does not have it ends so: the device's code is not known.
        4 => ("SIGILL", FaultClass::Unknown),
        5 => ("SIGTRAP", FaultClass::Crash),
        6 => ("SIGABRT", FaultClass::Crash),
        7 => ("SIGBUS", FaultClass::Crash),
        8 => ("SIGFPE", FaultClass::Crash),
        // Nothing of our own sent it: most often the system, which ran out of memory.
        9 => ("SIGKILL", FaultClass::Killed),
        10 => ("SIGUSR1", FaultClass::Crash),
        11 => ("SIGSEGV", FaultClass::Crash),
        12 => ("SIGUSR2", FaultClass::Crash),
        13 => ("SIGPIPE", FaultClass::Crash),
        14 => ("SIGALRM", FaultClass::Crash),
        15 => ("SIGTERM", FaultClass::Killed),
        24 => ("SIGXCPU", FaultClass::Killed),
        25 => ("SIGXFSZ", FaultClass::Killed),
        31 => ("SIGSYS", FaultClass::Crash),
        _ => ("other signal", FaultClass::Crash),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RestartDepth;
    use super::*;

    fn class(end: ProcessEnd) -> FaultClass {
        classify(end).class
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_crash_even_with_code_0() {
        for code in [0, 1, 3, 70, 101, 255, -1] {
            assert_eq!(class(ProcessEnd::Code(code)), FaultClass::Crash, "{code}");
        }
    }

    #[test]
    fn a_worker_that_says_its_device_is_lost_is_restarted() {
        let fault = classify(ProcessEnd::Code(75));
        assert_eq!((fault.class, fault.class.depth()), (FaultClass::DomainLost, RestartDepth::Process));
    }

    #[test]
    fn what_would_fail_the_same_way_again_is_for_the_operator() {
        for code in [2, 78, 126, 127] {
            let fault = classify(ProcessEnd::Code(code));
            assert_eq!(fault.class.depth(), RestartDepth::Operator, "{fault}");
            assert!(fault.class.alerts_operator(), "{fault}");
        }
    }

    #[test]
    fn signals_are_named_and_tell_a_crash_from_a_kill() {
        let expected = [
            (4, "SIGILL", FaultClass::Unknown),
            (6, "SIGABRT", FaultClass::Crash),
            (7, "SIGBUS", FaultClass::Crash),
            (9, "SIGKILL", FaultClass::Killed),
            (11, "SIGSEGV", FaultClass::Crash),
            (15, "SIGTERM", FaultClass::Killed),
            (64, "other signal", FaultClass::Crash),
        ];
        for (signal, name, class) in expected {
            let fault = classify(ProcessEnd::Signal(signal));
            assert_eq!((fault.name, fault.class), (name, class));
        }
    }

    #[test]
    fn a_shell_in_between_hides_no_signal() {
        for signal in 1..=64 {
            let shell = classify(ProcessEnd::Code(128 + signal));
            let direct = classify(ProcessEnd::Signal(signal));
            assert_eq!((shell.name, shell.class), (direct.name, direct.class));
            assert_eq!(shell.code, FaultCode::Process(ProcessEnd::Code(128 + signal)));
        }
    }

    proptest! {
        #[test]
        fn every_end_loses_the_domain(number: i32) {
            for end in [ProcessEnd::Code(number), ProcessEnd::Signal(number), ProcessEnd::Unknown] {
                prop_assert!(class(end).poisons(), "{end}");
            }
        }
    }
}
