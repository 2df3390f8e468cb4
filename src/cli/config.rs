//! `rustkernel config`.

use std::fmt::Write;
use std::path::PathBuf;

use toml::{Table, Value};

use super::args::ConfigCommand;
use super::{Exit, print, say};
use crate::config::{ConfigError, ConfigFault, Document, JobConfig, Overlay, Place};
use crate::job::Plan;

pub(super) fn config(command: &ConfigCommand) -> Exit {
    let told = match command {
        ConfigCommand::Check { pipeline } => check(pipeline.as_ref()),
        ConfigCommand::Show { pipeline, origin } => show(pipeline.as_ref(), *origin),
    };
    match told {
        Ok(text) => print(&text).exit(Exit::Done),
        Err(error) => {
            say(format_args!("error: {error}"));
            Exit::Config
        }
    }
}

/// The job as `run` would have it, environment included.
pub(super) fn load(pipeline: Option<&PathBuf>) -> Result<(JobConfig, Document), ConfigError> {
    let overlay = Overlay::from_env().map_err(|(variable, fault)| ConfigError {
        place: Box::new(Place { file: variable, ..Place::default() }),
        fault: ConfigFault::Overlay(fault),
    })?;
    JobConfig::load(pipeline.map(PathBuf::as_path), &overlay)
}

fn check(pipeline: Option<&PathBuf>) -> Result<String, ConfigError> {
    let (config, document) = load(pipeline)?;
    let plan = Plan::new(config, &document)?;
    let config = plan.config();
    let stages: Vec<&str> = config.stages.iter().map(|stage| stage.id()).collect();
    Ok(format!("{}: {} stages: {}\n", config.job.name, stages.len(), stages.join(", ")))
}

fn show(pipeline: Option<&PathBuf>, origin: bool) -> Result<String, ConfigError> {
    let (config, document) = load(pipeline)?;
    Plan::new(config.clone(), &document)?;
    let table = Table::try_from(&config).unwrap_or_default();
    if !origin {
        return Ok(table.to_string());
    }
    let mut rows = Vec::new();
    leaves("", &Value::Table(table), &mut rows);
    let width = rows.iter().map(|(field, value)| field.len() + value.len()).max().unwrap_or(0).min(MOST_WIDE);
    let mut text = String::new();
    for (field, value) in rows {
        let origin = document.origin(&field).unwrap_or_else(|| "default".to_owned());
        let setting = format!("{field} = {value}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{setting:<width$}  # {origin}", width = width + 3);
    }
    Ok(text)
}

/// Every field that is no section, with its path and its value as TOML.
fn leaves(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{}", crate::config::quoted(key)), value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                leaves(&format!("{path}[{index}]"), item, rows);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => rows.push((path.to_owned(), value.to_string())),
    }
}

/// Beyond it, an origin stands where it falls.
const MOST_WIDE: usize = 60;
