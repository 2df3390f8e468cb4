//! `rustkernel config`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;
use toml::{Table, Value};

use super::args::{ConfigCommand, Format};
use super::{Exit, line, print, say};
use crate::config::{ConfigError, ConfigFault, Document, JobConfig, Overlay, Place};
use crate::job::Plan;

pub(super) fn config(command: &ConfigCommand) -> Exit {
    let told = match command {
        ConfigCommand::Check { pipeline, format } => check(pipeline.as_ref(), *format),
        ConfigCommand::Show { pipeline, origin, format } => show(pipeline.as_ref(), *origin, *format),
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

fn check(pipeline: Option<&PathBuf>, format: Format) -> Result<String, ConfigError> {
    let (config, document) = load(pipeline)?;
    let plan = Plan::new(config, &document)?;
    let config = plan.config();
    let stages: Vec<&str> = config.stages.iter().map(|stage| stage.id()).collect();
    let name = &config.job.name;
    Ok(match format {
        Format::Human => format!("{name}: {} stages: {}\n", stages.len(), stages.join(", ")),
        Format::Json => line(&json!({ "schema": SCHEMA, "job": name, "stages": stages })),
    })
}

fn show(pipeline: Option<&PathBuf>, origin: bool, format: Format) -> Result<String, ConfigError> {
    let (config, document) = load(pipeline)?;
    Plan::new(config.clone(), &document)?;
    let table = Table::try_from(&config).unwrap_or_default();
    if !origin {
        return Ok(match format {
            Format::Human => table.to_string(),
            Format::Json => line(&json!({ "schema": SCHEMA, "config": table })),
        });
    }
    let mut rows = Vec::new();
    leaves("", &Value::Table(table), &mut rows);
    if format == Format::Json {
        let fields: Vec<_> = rows
            .iter()
            .map(|(field, value)| json!({ "field": field, "value": value, "origin": document.origin(field) }))
            .collect();
        return Ok(line(&json!({ "schema": SCHEMA, "fields": fields })));
    }
    let rows: Vec<_> = rows.into_iter().map(|(field, value)| (field, value.to_string())).collect();
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
fn leaves(path: &str, value: &Value, rows: &mut Vec<(String, Value)>) {
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
        | Value::Array(_) => rows.push((path.to_owned(), value.clone())),
    }
}

/// The shape of what is printed as JSON; a field without an origin has its default.
const SCHEMA: u32 = 1;
/// Beyond it, an origin stands where it falls.
const MOST_WIDE: usize = 60;
