//! `rustkernel health`.

use rustkernel_core::resilience::HealthStatus;
use serde::Serialize;

use super::args::{Format, HealthArgs, NodeAddress, Probe};
use super::remote::{self, RemoteError};
use super::{Exit, line, print};
use crate::http::{Component, HEALTH_SCHEMA, HealthDocument, one_line};

#[derive(Serialize)]
struct ComponentDocument<'a> {
    schema: u32,
    #[serde(flatten)]
    component: &'a Component,
}

pub(super) fn health(args: &HealthArgs) -> Exit {
    let told = match args.probe {
        Some(probe) => probed(args, probe),
        None => remote::health(&args.ask).and_then(|document| tell(&document, args)),
    };
    told.unwrap_or_else(|error| error.tell())
}

/// One word, however large the node is.
fn probed(args: &HealthArgs, probe: Probe) -> Result<Exit, RemoteError> {
    let (path, word) = match probe {
        Probe::Live => ("livez", "live"),
        Probe::Ready => ("readyz", "ready"),
        Probe::Startup => ("startupz", "started"),
    };
    let holds = remote::probe(&args.ask, path)?;
    let text = match args.ask.format {
        Format::Human if holds => format!("{word}\n"),
        Format::Human => format!("not {word}\n"),
        Format::Json => line(&serde_json::json!({ "schema": HEALTH_SCHEMA, word: holds })),
    };
    Ok(print(&text).exit(if holds { Exit::Done } else { Exit::NotReady }))
}

fn tell(document: &HealthDocument, args: &HealthArgs) -> Result<Exit, RemoteError> {
    let Some(name) = &args.component else {
        let text = match args.ask.format {
            Format::Human => table(document, &args.ask.addr),
            Format::Json => line(document),
        };
        let good = document.status == HealthStatus::Healthy && document.ready;
        return Ok(print(&text).exit(if good { Exit::Done } else { Exit::NotReady }));
    };
    let Some(component) = document.components.iter().find(|component| component.name == *name) else {
        let known: Vec<String> =
            document.components.iter().map(|component| format!("`{}`", component.name)).collect();
        let known = known.join(", ");
        return Err(RemoteError::Unknown(format!("unknown component `{name}`; the node has {known}")));
    };
    let text = match args.ask.format {
        Format::Human => row(component, component.name.len()),
        Format::Json => line(&ComponentDocument { schema: HEALTH_SCHEMA, component }),
    };
    let good = component.status == HealthStatus::Healthy;
    Ok(print(&text).exit(if good { Exit::Done } else { Exit::NotReady }))
}

fn table(document: &HealthDocument, address: &NodeAddress) -> String {
    let ready = if document.ready { "ready" } else { "not ready" };
    let width = document.components.iter().map(|component| component.name.len()).max().unwrap_or(0);
    let mut text = format!("{address}: {}, {ready}\n", document.status);
    text.extend(document.components.iter().map(|component| format!("  {}", row(component, width))));
    text
}

fn row(component: &Component, width: usize) -> String {
    let Component { name, status, reason, .. } = component;
    let status = status.to_string();
    match reason {
        Some(reason) => format!("{name:<width$}  {status:<9}  {}\n", one_line(reason)),
        None => format!("{name:<width$}  {status}\n"),
    }
}
