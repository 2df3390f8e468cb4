//! The command line, and what this process is by it.

use std::path::PathBuf;

use crate::row::Bench;

pub(crate) const USAGE: &str = "usage: gpu [--out FILE] [--only ROW,ROW] [--quick] [--list]";

/// What this process is.
pub(crate) enum Mode {
    /// Runs the rows, each in a process of its own.
    Parent(Options),
    /// Names them.
    List,
    /// Is one of them.
    Row { name: String, bench: Bench },
    /// Does one thing for a row.
    Act(Vec<String>),
}

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Where lines go beside the standard output. Default `gpu.jsonl` in the folder that the variable OUT names, if it does.
    pub(crate) out: Option<PathBuf>,
    /// Rows to run: by their names, or by the part before the point. Default all.
    pub(crate) only: Vec<String>,
    /// Few and short repetitions: to see that everything runs.
    pub(crate) quick: bool,
}

impl Options {
    pub(crate) fn wants(&self, row: &str) -> bool {
        let family = row.split_once('.').map_or(row, |(family, _)| family);
        self.only.is_empty() || self.only.iter().any(|name| name == row || name == family)
    }
}

/// How a process of a row is told what it is; the parent writes these, nobody else.
pub(crate) const ROW: &str = "--row";
pub(crate) const ACT: &str = "--act";
pub(crate) const QUICK: &str = "--quick";
pub(crate) const STANDIN: &str = "--standin";

/// What `cargo test` may pass on to every test program. Words without a dash are its filter, which is not for us either.
const LIBTEST: [&str; 12] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "-q",
    "--quiet",
    "--exact",
    "--ignored",
    "--include-ignored",
    "--test-threads",
    "--skip",
    "--color",
    "--format",
];

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Mode, String> {
    let out = std::env::var_os("OUT").map(|folder| PathBuf::from(folder).join("gpu.jsonl"));
    let mut options = Options { out, ..Options::default() };
    let (mut row, mut is_standin, mut lists) = (None, false, false);
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            Some(_) | None => (argument.as_str(), None),
        };
        let mut value =
            || value.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{option} needs a value"));
        match option {
            "--out" => options.out = Some(PathBuf::from(value()?)),
            "--only" => options.only.extend(value()?.split(',').map(|name| name.trim().to_owned())),
            QUICK => options.quick = true,
            "--list" => lists = true,
            ROW => row = Some(value()?),
            STANDIN => is_standin = true,
            ACT => return Ok(Mode::Act(arguments.collect())),
            option if LIBTEST.contains(&option) || !option.starts_with('-') => {}
            option => return Err(format!("what is `{option}`?")),
        }
    }
    let known = |name: &&String| crate::rows::ROWS.iter().any(|row| only(name).wants(row.name));
    if let Some(unknown) = options.only.iter().find(|name| !known(name)) {
        return Err(format!("no row is called `{unknown}`"));
    }
    Ok(match row {
        Some(name) => Mode::Row { name, bench: Bench { quick: options.quick, is_standin } },
        None if lists => Mode::List,
        None => Mode::Parent(options),
    })
}

fn only(name: &str) -> Options {
    Options { only: vec![name.to_owned()], ..Options::default() }
}
