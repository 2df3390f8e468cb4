//! A row: what it is called, what it shows, what it is expected to find, and what finds it.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use rustkernel::core::KernelError;
use rustkernel::cuda::CudaError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::child;
use crate::rows::ROWS;

/// One row of the suite.
pub(crate) struct Row {
    /// What `--only` knows it by: `E8.spare` is of the family `E8`.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// What it has to find. `recorded` where no document decides: then whatever is found is a finding.
    pub(crate) expected: &'static str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Whether a stand-in for the driver could not show it.
    pub(crate) needs_hardware: bool,
    pub(crate) find: fn(Bench) -> Outcome,
}

/// How a row is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    pub(crate) quick: bool,
    pub(crate) is_standin: bool,
}

impl Bench {
    /// `full` repetitions, or a tenth of them.
    pub(crate) fn times(self, full: usize) -> usize {
        if self.quick || self.is_standin { full.div_ceil(10) } else { full }
    }
}

/// What a row has found, or why it has ended before that.
pub(crate) type Outcome = Result<Found, Halt>;

/// What a row has found, in words and in numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) figures: Map<String, Value>,
}

impl Found {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), figures: Map::new() }
    }

    /// A number or a name beside the words; its unit is the end of its name.
    pub(crate) fn figure(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }
}

/// Why a row has ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Something is not as it has to be.
    Fail(String),
    /// It cannot be asked here.
    Skip(String),
}

impl Halt {
    pub(crate) fn fail(reason: impl fmt::Display) -> Self {
        Self::Fail(reason.to_string())
    }

    pub(crate) fn lacks(function: &str) -> Self {
        Self::Skip(format!("the driver has no `{function}`"))
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(reason) | Self::Skip(reason) => f.write_str(reason),
        }
    }
}

impl From<CudaError> for Halt {
    fn from(error: CudaError) -> Self {
        Self::fail(error)
    }
}

impl From<KernelError> for Halt {
    fn from(error: KernelError) -> Self {
        Self::fail(error)
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        Self::fail(error)
    }
}

/// Ends the row as failed unless `holds`.
pub(crate) fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), Halt> {
    if holds { Ok(()) } else { Err(Halt::Fail(reason())) }
}

/// How a row has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Pass,
    Fail,
    Skipped,
    Timeout,
}

/// What the process of a row tells the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) state: State,
    pub(crate) found: Found,
}

impl Told {
    pub(crate) fn new(state: State, text: impl Into<String>) -> Self {
        Self { state, found: Found::new(text) }
    }
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(found) => Self { state: State::Pass, found },
            Err(Halt::Fail(reason)) => Self::new(State::Fail, reason),
            Err(Halt::Skip(reason)) => Self::new(State::Skipped, reason),
        }
    }
}

/// The process of one row. A panic is left to end it: the parent hears of that.
pub(crate) fn run(name: &str, bench: Bench) -> ExitCode {
    child::end_with_parent();
    let Some(row) = ROWS.iter().find(|row| row.name == name) else {
        eprintln!("no row is called `{name}`");
        return ExitCode::from(2);
    };
    child::tell(&Told::from((row.find)(bench)));
    ExitCode::SUCCESS
}
