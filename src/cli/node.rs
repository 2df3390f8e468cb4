//! The commands that ask a node, or have it do something.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustkernel_core::resilience::HealthStatus;
use serde::Serialize;

use super::args::{ActArgs, AskArgs, Format, LetterCommand, NamedArgs, NodeAddress};
use super::remote::{self, RemoteError};
use super::{Exit, line, part, print};
use crate::http::{
    Acted, Action, Child, DeadLetters, Failure, Kind, Letter, LetterList, NodeSnapshot, Word, one_line,
};

/// `rustkernel tree`.
pub(super) fn tree(args: &AskArgs) -> Exit {
    ask(args, |snapshot| {
        let text = match args.format {
            Format::Human => drawn(snapshot),
            Format::Json => part("tree", &snapshot.tree),
        };
        Ok((text, exit_of(snapshot)))
    })
}

/// `rustkernel status` and `rustkernel status NAME`.
pub(super) fn status(args: &NamedArgs) -> Exit {
    ask(&args.ask, |snapshot| match &args.name {
        None => {
            let text = match args.ask.format {
                Format::Human => overview(snapshot, &args.ask.addr),
                Format::Json => line(snapshot),
            };
            Ok((text, exit_of(snapshot)))
        }
        Some(name) => {
            let child = find(snapshot, name)?;
            let text = match args.ask.format {
                Format::Human => details(&child, remote::failures(&args.ask, Some(name))?.len()),
                Format::Json => part("child", &child),
            };
            Ok((text, if child.troubled { Exit::NotReady } else { Exit::Done }))
        }
    })
}

/// `rustkernel kernels`.
pub(super) fn kernels(args: &AskArgs) -> Exit {
    ask(args, |snapshot| {
        let kernels: Vec<Child> = flat(snapshot)
            .into_iter()
            .map(|(child, _)| child)
            .filter(|child| child.kind == Kind::Kernel)
            .collect();
        let text = match args.format {
            Format::Human => table(&HEAD, kernels.iter().map(|kernel| cells(kernel, kernel.name.clone()))),
            Format::Json => part("kernels", &kernels),
        };
        Ok((text, exit_of(snapshot)))
    })
}

/// `rustkernel failures [NAME]`.
pub(super) fn failures(args: &NamedArgs) -> Exit {
    ask(&args.ask, |snapshot| {
        if let Some(name) = &args.name {
            find(snapshot, name)?;
        }
        let failures = remote::failures(&args.ask, args.name.as_deref())?;
        let text = match args.ask.format {
            Format::Human => reports(&failures, snapshot.unix_millis),
            Format::Json => part("failures", &failures),
        };
        Ok((text, Exit::Done))
    })
}

/// `rustkernel restart`, `resume`, `isolate` and `drain`.
pub(super) fn act(args: &ActArgs, action: &Action) -> Exit {
    match remote::act(args, action) {
        Ok(acted) => print(&told(&acted, args.ask.format)).exit(Exit::Done),
        Err(error) => error.tell(),
    }
}

/// `rustkernel dead-letters`.
pub(super) fn dead_letters(command: &LetterCommand) -> Exit {
    match command {
        LetterCommand::List(args) => tell_letters(args, |kept| {
            Ok(match args.format {
                Format::Human => letters(&kept.dead_letters, kept.unix_millis),
                Format::Json => part("dead_letters", &kept.dead_letters),
            })
        }),
        LetterCommand::Show { letter, ask: args } => tell_letters(args, |kept| {
            let found = kept.dead_letters.letters.iter().find(|found| found.letter == *letter);
            let found =
                found.ok_or_else(|| RemoteError::Unknown(format!("there is no dead letter {letter}")))?;
            Ok(match args.format {
                Format::Human => letter_details(found, kept.unix_millis),
                Format::Json => part("letter", found),
            })
        }),
        LetterCommand::Replay { letter, act: args } => act(args, &Action::Replay { letter: *letter }),
        LetterCommand::Drop { letter, act: args } => act(args, &Action::Drop { letter: *letter }),
    }
}

fn ask(node: &AskArgs, tell: impl FnOnce(&NodeSnapshot) -> Result<(String, Exit), RemoteError>) -> Exit {
    match remote::snapshot(node).and_then(|snapshot| tell(&snapshot)) {
        Ok((text, exit)) => print(&text).exit(exit),
        Err(error) => error.tell(),
    }
}

fn tell_letters(node: &AskArgs, tell: impl FnOnce(&LetterList) -> Result<String, RemoteError>) -> Exit {
    match remote::dead_letters(node).and_then(|kept| tell(&kept)) {
        Ok(text) => print(&text).exit(Exit::Done),
        Err(error) => error.tell(),
    }
}

fn exit_of(snapshot: &NodeSnapshot) -> Exit {
    let is_good = snapshot.health.ready && snapshot.health.status == HealthStatus::Healthy;
    if is_good { Exit::Done } else { Exit::NotReady }
}

/// The whole tree, each child with its depth.
fn flat(snapshot: &NodeSnapshot) -> Vec<(Child, usize)> {
    let mut all = Vec::new();
    if let Some(root) = &snapshot.tree {
        root.walk(&mut |child, depth| all.push((Child { children: Vec::new(), ..child.clone() }, depth)));
    }
    all
}

fn find(snapshot: &NodeSnapshot, name: &str) -> Result<Child, RemoteError> {
    let all = flat(snapshot);
    let known: Vec<&str> = all.iter().take(20).map(|(child, _)| child.name.as_str()).collect();
    let found = all.iter().find(|(child, _)| child.name == name);
    found
        .map(|(child, _)| child.clone())
        .ok_or_else(|| RemoteError::Unknown(format!("the node has no `{name}`; it has {}", known.join(", "))))
}

const HEAD: [&str; 8] =
    ["NAME", "STATE", "SINCE", "RESTARTS", "BREAKER", "QUEUE", "ANSWERED", "LAST FAILURE"];

/// The same columns wherever a child is shown.
fn cells(child: &Child, name: String) -> [String; 8] {
    let of = |kernel: Option<String>| kernel.unwrap_or_default();
    let budget = match (child.restarts_in_window, child.max_restarts) {
        (Some(used), Some(most)) => format!("{} ({used}/{most})", child.restarts),
        (Some(_) | None, _) => child.restarts.to_string(),
    };
    let kernel = child.kernel.as_ref();
    let failure = child.last_failure.as_ref();
    [
        name,
        child.state.to_string(),
        of(child.since_s.map(span)),
        budget,
        of(kernel.map(|kernel| kernel.breaker.to_string())),
        of(kernel.map(|kernel| kernel.waiting.to_string())),
        of(kernel.map(|kernel| format!("{}/{}", kernel.answered, kernel.accepted))),
        of(failure.map(|failure| format!("{}: {}", failure.class, first_line(&failure.message, 60)))),
    ]
}

fn drawn(snapshot: &NodeSnapshot) -> String {
    let rows = flat(snapshot).into_iter().map(|(child, depth)| {
        let rule = child.supervisor.as_ref().map(|rules| {
            let strategy = serde_json::to_value(rules.strategy).unwrap_or_default();
            format!(" ({})", strategy.as_str().unwrap_or_default())
        });
        let name = format!("{:indent$}{}{}", "", child.name, rule.unwrap_or_default(), indent = 2 * depth);
        cells(&child, name)
    });
    table(&HEAD, rows)
}

fn overview(snapshot: &NodeSnapshot, address: &NodeAddress) -> String {
    let ready = if snapshot.health.ready { "ready" } else { "not ready" };
    let all = flat(snapshot);
    let kernels = all.iter().filter(|(child, _)| child.kind == Kind::Kernel);
    let (count, troubled) = kernels
        .fold((0, 0), |(count, troubled), (child, _)| (count + 1, troubled + usize::from(child.troubled)));
    let mut text = format!(
        "{address}: {}, {}, {ready}; up for {}; version {}\n{count} kernels, {troubled} in trouble; {} failures in the history; {} dead letters\n",
        snapshot.state,
        snapshot.health.status,
        span(snapshot.uptime_s),
        snapshot.version,
        snapshot.failures_kept,
        snapshot.dead_letters.total,
    );
    let wrong: Vec<_> = all.iter().filter(|(child, _)| child.troubled).collect();
    if !wrong.is_empty() {
        text.push('\n');
        text += &table(&HEAD, wrong.iter().map(|(child, _)| cells(child, child.name.clone())));
    }
    text
}

fn details(child: &Child, failures: usize) -> String {
    let mut text = String::new();
    // Writing to a string does not fail; so below.
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {}", one_line(&value));
    };
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    row("name", child.name.clone());
    row("state", format!("{}, for {}", child.state, known(child.since_s.map(span))));
    row("restarts", cells(child, String::new())[3].clone());
    if let Some(rules) = &child.supervisor {
        row("budget period", span(rules.period_s));
    }
    if let Some(kernel) = &child.kernel {
        row("device", kernel.device.clone());
        row("incarnation", kernel.incarnation.to_string());
        let place =
            kernel.refused_by.map(|scope| format!(", that of its {} open", word(&scope))).unwrap_or_default();
        row("breaker", format!("{}{place}, {} refused", kernel.breaker, kernel.rejected));
        row(
            "requests",
            format!(
                "{} accepted, {} answered, {} failed, {} run again, {} late",
                kernel.accepted, kernel.answered, kernel.failed, kernel.reruns, kernel.discarded
            ),
        );
        let kinds = |kinds: &BTreeMap<Word, u64>| {
            let told: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            (!told.is_empty()).then(|| told.join(", "))
        };
        row("failed", known(kinds(&kernel.failed_kinds)));
        row("not accepted", known(kinds(&kernel.refused_kinds)));
        row("queue", format!("{} waiting, {} bytes", kernel.waiting, kernel.waiting_bytes));
        row("running for", known(kernel.running_s.map(span)));
        let latency = kernel.latency.as_ref().map(|latency| {
            let [p50, p90, p99] =
                [latency.p50_s, latency.p90_s, latency.p99_s].map(|seconds| known(seconds.map(span)));
            format!("p50 {p50}, p90 {p90}, p99 {p99}")
        });
        row("executions take", known(latency));
        row("checkpoint", known(kernel.checkpoint.map(|number| format!("number {number}"))));
    }
    if let Some(failure) = &child.last_failure {
        row("last failure", format!("{}: {}", failure.class, failure.message));
        row("advice", failure.advice.to_string());
    }
    row("failures", format!("{failures} in the history"));
    text
}

fn reports(failures: &[Failure], now: u64) -> String {
    if failures.is_empty() {
        return "nothing has failed\n".to_owned();
    }
    let head = ["WHEN", "OFFENDER", "LIFE", "SUPERVISOR", "CONTEXT", "CLASS", "REASON"];
    table(
        &head,
        failures.iter().map(|failure| {
            [
                ago(failure.unix_millis, now),
                failure.offender.clone(),
                failure.incarnation.to_string(),
                failure.supervisor.clone(),
                word(&failure.context),
                failure.class.label().to_owned(),
                first_line(&failure.reason, 80),
            ]
        }),
    )
}

fn letters(letters: &DeadLetters, now: u64) -> String {
    if letters.letters.is_empty() {
        return format!("no dead letters are kept; there have been {}\n", letters.total);
    }
    let head = ["LETTER", "WHEN", "KERNEL", "ATTEMPTS", "PHASE", "ERROR"];
    table(
        &head,
        letters.letters.iter().map(|letter| {
            [
                letter.letter.to_string(),
                ago(letter.unix_millis, now),
                letter.kernel.clone(),
                letter.attempts.to_string(),
                word(&letter.phase),
                first_line(&letter.error, 80),
            ]
        }),
    )
}

fn letter_details(letter: &Letter, now: u64) -> String {
    let input = letter.input_bytes.map_or_else(
        || "not kept: it cannot be replayed".to_owned(),
        |bytes| format!("{bytes} bytes: `rustkernel dead-letters replay {}` tries it again", letter.letter),
    );
    format!(
        "letter     {}\nrequest    {}\nkernel     {}\ngiven up   {}\nattempts   {}\nphase      {}\nerror      {}\ninput      {input}\n",
        letter.letter,
        letter.id,
        letter.kernel,
        ago(letter.unix_millis, now),
        letter.attempts,
        word(&letter.phase),
        one_line(&letter.error),
    )
}

fn told(acted: &Acted, format: Format) -> String {
    match format {
        Format::Human => format!("{}\n", acted.message),
        Format::Json => part("acted", acted),
    }
}

/// Columns as wide as their widest cell; the last one is as long as it is.
fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows.map(|row| row.map(|cell| one_line(&cell))));
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A span in two digits or three.
fn span(seconds: f64) -> String {
    // A unit begins where the one below it would be rounded up to it.
    let (whole, minutes) = (seconds.round(), (seconds / 60.0).round());
    match seconds {
        s if s < 0.000_999_5 => format!("{:.0}us", s * 1e6),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1}s"),
        _ if whole < 3_600.0 => format!("{:.0}m{:02.0}s", (whole / 60.0).floor(), whole % 60.0),
        _ if minutes < 1_440.0 => format!("{:.0}h{:02.0}m", (minutes / 60.0).floor(), minutes % 60.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}

fn ago(then: u64, now: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let seconds = now.saturating_sub(then) as f64 / 1e3;
    format!("{} ago", span(seconds))
}

fn first_line(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(most).collect();
    if short.len() < line.len() { format!("{short}...") } else { short }
}

fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_ordered() {
        let spans = [0.000_05, 0.25, 2.0, 75.0, 7_260.0, 200_000.0].map(span);
        assert_eq!(spans, ["50us", "250ms", "2.0s", "1m15s", "2h01m", "2.3d"]);
        let rounded = [0.000_999_6, 0.999_6, 59.97, 119.7, 3_599.7, 7_199.9, 86_399.0].map(span);
        assert_eq!(rounded, ["1ms", "1.0s", "1m00s", "2m00s", "1h00m", "2h00m", "1.0d"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(&["N", "S"], rows.into_iter()), "N     S\na     x\nlong\n");
    }

    /// A kernel's reason made a row that looked like another kernel's.
    #[test]
    fn a_cell_begins_no_row_of_its_own() {
        let rows = [["a".to_owned(), "x\nb  healthy".to_owned()]];
        assert_eq!(table(&["N", "S"], rows.into_iter()), "N  S\na  x\\nb  healthy\n");
    }
}
