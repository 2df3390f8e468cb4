//! The `rustkernel` command: `run`, which can serve, `doctor`, and those that ask a node or have it do something.
//!
//! Results go to stdout; progress, logs and errors go to stderr. Nothing is coloured, so `NO_COLOR` has nothing to switch off.
//! `RUST_LOG` sets the level of the logs, "warn" by default.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed: the input is at fault, the deadline passed, the job was cut short |
//! | 2 | wrong usage, or a component that the node does not have |
//! | 3 | degraded or not ready (`health`, `tree`, `status`, `kernels`) |
//! | 4 | no node answers |
//! | 70 | gave up: attempts or restarts are used up |
//! | 75 | a CUDA device is lost to this process, and another one would have it |
//! | 78 | the configuration is invalid |
//! | 130 | interrupted |

mod args;
mod bench;
mod config;
mod doctor;
mod exit;
mod health;
mod names;
mod node;
mod progress;
mod remote;
mod report;
mod run;
mod signal;
mod systemd;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::http::{Action, SNAPSHOT_SCHEMA};
use args::{Cli, Command, NodeCommand};
pub use exit::Exit;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    crate::worker::init(|kernels| {
        crate::catalog::register(kernels);
        bench::register(kernels);
    });
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout or stderr is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let exit = match cli.command {
        Command::Run(args) => {
            log_to_stderr(if args.inject.is_some() { QUIET_ABOUT_FAULTS } else { "warn" });
            run::run(args)
        }
        Command::Doctor(args) => {
            log_to_stderr("error");
            doctor::doctor(&args)
        }
        Command::Bench(args) => {
            // It fails what it measures.
            log_to_stderr("off");
            bench::bench(&args)
        }
        Command::Config(command) => {
            log_to_stderr("warn");
            config::config(&command)
        }
        Command::Completions { shell } => completions(shell),
        Command::Node(command) => {
            log_to_stderr("warn");
            talk(command)
        }
    };
    exit.into()
}

fn talk(command: NodeCommand) -> Exit {
    match command {
        NodeCommand::Health(args) => health::health(&args),
        NodeCommand::Tree(args) => node::tree(&args),
        NodeCommand::Status(args) => node::status(&args),
        NodeCommand::Kernels(args) => node::kernels(&args),
        NodeCommand::Failures(args) => node::failures(&args),
        NodeCommand::Restart(args) => node::act(&args.act, &Action::Restart { name: args.name }),
        NodeCommand::Resume(args) => node::act(&args.act, &Action::Resume { name: args.name }),
        NodeCommand::Isolate(args) => node::act(&args.act, &Action::Isolate { name: args.name }),
        NodeCommand::Drain(args) => node::act(&args, &Action::Drain {}),
        NodeCommand::DeadLetters(command) => node::dead_letters(&command),
    }
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rustkernel", &mut text);
    print(&String::from_utf8_lossy(&text)).exit(Exit::Done)
}

fn log_to_stderr(default: &str) {
    let filter = match env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty()) {
        None => EnvFilter::new(default),
        Some(wanted) => EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
            say(format_args!("warning: RUST_LOG={wanted} is no filter ({error}): logs are as without it"));
            EnvFilter::new(default)
        }),
    };
    let logs = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).with_env_filter(filter);
    // An error means that somebody else has set up logs.
    let _ = logs.try_init();
}

/// What became of a result that was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Printed {
    /// All of it is written.
    Whole,
    /// The reader has gone away.
    Unread,
    /// It cannot be written.
    Failed,
}

impl Printed {
    /// How to end where the result by itself means `exit`. A reader that has gone away ends nothing; a result that cannot be written is
    /// a failure.
    fn exit(self, exit: Exit) -> Exit {
        match self {
            Self::Whole | Self::Unread => exit,
            Self::Failed => Exit::Failure,
        }
    }
}

/// Writes a result to stdout.
#[must_use]
fn print(text: &str) -> Printed {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(harmless(text).as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Printed::Whole,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Printed::Unread,
        Err(error) => {
            say(format_args!("error: the result cannot be written: {error}"));
            Printed::Failed
        }
    }
}

/// One part of a node's snapshot as a document of its own, with the number of the snapshot's shape.
fn part(name: &str, value: &impl Serialize) -> String {
    line(&BTreeMap::from([(name, json!(value)), ("schema", json!(SNAPSHOT_SCHEMA))]))
}

/// A document on a line of its own.
fn line(document: &impl Serialize) -> String {
    // Every map has text keys and no type of ours fails, so there is always a document.
    let mut text = serde_json::to_string(document).unwrap_or_default();
    text.push('\n');
    text
}

/// An error with what is behind it, as far as it does not say that itself.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            let _ = write!(text, ": {told}");
        }
        next = cause.source();
    }
    text
}

/// Writes a line to stderr.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(&line.to_string()));
}

/// Names and messages come from kernels and from nodes: what would move a terminal's cursor, or more, is shown as what it is, in a way that JSON
/// has, too.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmful(character) {
            // Writing to a string does not fail. All of them are below 0xa0.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown.into()
}

/// Injected faults are counted in the report; one log line for each would bury it.
const QUIET_ABOUT_FAULTS: &str = "warn,rustkernel_actors=off,rustkernel::worker=off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_says_moves_no_cursor_and_json_stays_json() {
        assert_eq!(harmless("a\u{1b}[2J\u{7}\nb\u{9b}c\td"), "a\\u001b[2J\\u0007\nb\\u009bc\td");
        let said = "del \u{7f}, next line \u{85}, escape \u{1b}";
        let line = serde_json::to_string(said).unwrap();
        let shown = harmless(&line);
        assert!(!shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), said);
    }
}
