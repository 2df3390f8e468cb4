//! The script: what the variable says, and how often what it counts has happened.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

use crate::code::Code;

/// What becomes of a kernel.
pub(crate) enum Fate {
    Runs,
    Faults(Code),
    Hangs,
}

/// A setting such as `count`.
pub(crate) fn number(setting: &str) -> Option<u64> {
    SCRIPT.settings.iter().find(|(name, _)| name == setting).map(|(_, value)| *value)
}

/// Counts a call of the function, and says what it answers instead of working.
pub(crate) fn answer(function: &'static str) -> Option<Code> {
    let number = count(function);
    let always = || {
        let entry = SCRIPT.always.iter().find(|(name, _)| name == function)?;
        is_late_enough().then_some(entry.1)
    };
    let code = nth(function, number).or_else(always)?;
    (code != 0).then_some(Code(code))
}

/// Counts a kernel that begins to run.
pub(crate) fn fate() -> Fate {
    let number = count(KERNEL);
    if nth(HANG, number).is_some() {
        return Fate::Hangs;
    }
    match nth(KERNEL, number) {
        Some(code) if code != 0 => Fate::Faults(Code(code)),
        Some(_) | None => Fate::Runs,
    }
}

struct Script {
    settings: Vec<(String, u64)>,
    always: Vec<(String, c_int)>,
    nth: Vec<Nth>,
    first: Option<PathBuf>,
    later: bool,
    loads: Option<PathBuf>,
}

/// An entry with `@`.
struct Nth {
    name: String,
    number: u64,
    code: c_int,
}

static SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::read(&std::env::var("STANDIN_DRIVER").unwrap_or_default()));

const SETTINGS: [&str; 4] = ["version", "count", "oom", "context_ms"];
const KERNEL: &str = "kernel";
const HANG: &str = "hang";

impl Script {
    fn read(text: &str) -> Self {
        let mut script = Self {
            settings: Vec::new(),
            always: Vec::new(),
            nth: Vec::new(),
            first: None,
            later: false,
            loads: None,
        };
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            assert!(script.take(entry).is_some(), "STANDIN_DRIVER: what is `{entry}`?");
        }
        script
    }

    fn take(&mut self, entry: &str) -> Option<()> {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        if key == "first" {
            self.first = Some(PathBuf::from(value));
        } else if key == "loads" {
            self.loads = Some(PathBuf::from(value));
        } else if entry == "later" {
            self.later = true;
        } else if SETTINGS.contains(&key) {
            self.settings.push((key.to_owned(), value.parse().ok()?));
        } else if let Some((name, number)) = key.split_once('@') {
            let code = if name == HANG && value.is_empty() { 0 } else { value.parse().ok()? };
            let known = name == HANG || name == KERNEL || name.starts_with("cu");
            self.nth.push(Nth { name: name.to_owned(), number: number.parse().ok()?, code });
            return known.then_some(());
        } else {
            self.always.push((key.to_owned(), value.parse().ok()?));
            return key.starts_with("cu").then_some(());
        }
        Some(())
    }
}

/// How often it has happened now, this time included.
fn count(what: &'static str) -> u64 {
    static COUNTS: LazyLock<Mutex<HashMap<&'static str, u64>>> = LazyLock::new(Mutex::default);
    let mut counts = COUNTS.lock().unwrap();
    let count = counts.entry(what).or_default();
    *count += 1;
    *count
}

fn nth(name: &str, number: u64) -> Option<c_int> {
    let entry = SCRIPT.nth.iter().find(|entry| entry.name == name && entry.number == number)?;
    is_for_this_process().then_some(entry.code)
}

/// Whether the entries with `@` are for this process.
fn is_for_this_process() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| SCRIPT.first.as_deref().is_none_or(claim))
}

/// A module with these functions has been loaded.
pub(crate) fn note_load(functions: &[String]) {
    let Some(path) = &SCRIPT.loads else { return };
    let line = format!("{} {}\n", std::process::id(), functions.join(" "));
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Whether the entries without `@` are for this process.
fn is_late_enough() -> bool {
    static IS_LATE: OnceLock<bool> = OnceLock::new();
    let is_there = || SCRIPT.first.as_deref().is_some_and(Path::exists);
    !SCRIPT.later || *IS_LATE.get_or_init(is_there)
}

fn claim(path: &Path) -> bool {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => panic!("STANDIN_DRIVER: {}: {error}", path.display()),
    }
}
