//! The parent: starts the rows one after the other, and reports each as it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustkernel::core::clock::Clock;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::child::{self, End, Started, command};
use crate::environment::{HEADER, Header};
use crate::options::{ACT, Options, QUICK, ROW, STANDIN};
use crate::row::{Row, State, Told};
use crate::rows::ROWS;

/// One line of the report.
#[derive(Serialize)]
struct Line<'a> {
    row: &'a str,
    about: &'a str,
    expected: &'a str,
    found: &'a str,
    state: State,
    ms: u64,
    #[serde(skip_serializing_if = "Map::is_empty")]
    figures: &'a Map<String, Value>,
}

/// Where lines go.
struct Report(Option<File>);

/// How long the driver may take to say what it drives.
const HEADER_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> ExitCode {
    match rows(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no row has failed.
fn rows(options: &Options) -> io::Result<bool> {
    let (end, said) = Started::start(&mut command(&[ACT, HEADER]))?.end(HEADER_LIMIT)?;
    let header: Header = match child::told(&said) {
        Some(Ok(header)) => header,
        Some(Err(reason)) => {
            let reason: String = reason;
            println!("skipped: no CUDA device ({reason})");
            return Ok(true);
        }
        None => return Err(io::Error::other(format!("nothing is known of the device: {}", ended(end)))),
    };
    let mut report = Report::open(options)?;
    report.line(&header)?;
    let mut is_well = true;
    for row in ROWS.iter().filter(|row| options.wants(row.name)) {
        let clock = Clock::system();
        let before = clock.now();
        let told = run_row(row, options, header.is_standin())?;
        is_well &= matches!(told.state, State::Pass | State::Skipped);
        report.line(&Line {
            row: row.name,
            about: row.about,
            expected: row.expected,
            found: &told.found.text,
            state: told.state,
            ms: u64::try_from((clock.now() - before).as_millis()).unwrap_or(u64::MAX),
            figures: &told.found.figures,
        })?;
    }
    Ok(is_well)
}

fn run_row(row: &Row, options: &Options, is_standin: bool) -> io::Result<Told> {
    if row.needs_hardware && is_standin {
        return Ok(Told::new(State::Skipped, "stand-in driver"));
    }
    let mut command = command(&[ROW, row.name]);
    command.args(options.quick.then_some(QUICK)).args(is_standin.then_some(STANDIN));
    let (end, said) = Started::start(&mut command)?.end(row.limit)?;
    let told = child::told(&said);
    Ok(match end {
        End::Code(0) => told.unwrap_or_else(|| Told::new(State::Fail, "its process has told nothing")),
        End::Limit(_) => Told::new(State::Timeout, format!("not done after {:?}: {}", row.limit, ended(end))),
        End::Code(_) | End::Signal(_) => Told::new(State::Fail, ended(end)),
    })
}

fn ended(end: End) -> String {
    match end {
        End::Code(code) => format!("its process has ended with code {code}"),
        End::Signal(signal) => format!("its process was ended by signal {signal}"),
        End::Limit(true) => "its process was killed".to_owned(),
        End::Limit(false) => "its process was killed and does not end".to_owned(),
    }
}

impl Report {
    fn open(options: &Options) -> io::Result<Self> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        options.out.as_ref().map(open).transpose().map(Self)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(line)? + "\n";
        io::stdout().write_all(text.as_bytes())?;
        io::stdout().flush()?;
        // At once: whatever stops the suite loses nothing.
        self.0.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()))
    }
}
