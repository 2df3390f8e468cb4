//! `rustkernel health`.

use std::io::Read;
use std::net::SocketAddr;

use rustkernel_core::resilience::HealthStatus;
use serde::Serialize;

use super::args::{Format, HealthArgs, Probe};
use super::{Exit, print, say};
use crate::http::{Component, HEALTH_SCHEMA, HealthDocument};

/// Why there is no answer about a node's health.
#[derive(Debug, thiserror::Error)]
enum HealthError {
    #[error("no node answers at {address}: {source}")]
    Unreachable { address: SocketAddr, source: minreq::Error },
    #[error("what answers at {address} is no rustkernel node: {source}")]
    Foreign { address: SocketAddr, source: serde_json::Error },
    #[error("unknown component `{name}`; the node has {known}")]
    UnknownComponent { name: String, known: String },
}

#[derive(Serialize)]
struct ComponentDocument<'a> {
    schema: u32,
    #[serde(flatten)]
    component: &'a Component,
}

pub(super) fn health(args: &HealthArgs) -> Exit {
    let told = match args.probe {
        Some(probe) => asked(args, probe),
        None => ask(args.addr).and_then(|document| tell(&document, args)),
    };
    match told {
        Ok(exit) => exit,
        Err(error) => {
            say(format_args!("error: {error}"));
            match error {
                HealthError::Unreachable { .. } => Exit::Unreachable,
                HealthError::Foreign { .. } => Exit::Failure,
                HealthError::UnknownComponent { .. } => Exit::Usage,
            }
        }
    }
}

/// One word, however large the node is.
fn asked(args: &HealthArgs, probe: Probe) -> Result<Exit, HealthError> {
    let (path, word) = match probe {
        Probe::Live => ("livez", "live"),
        Probe::Ready => ("readyz", "ready"),
        Probe::Startup => ("startupz", "started"),
    };
    let address = args.addr;
    let request = minreq::get(format!("http://{address}/{path}")).with_timeout(PATIENCE_SECONDS);
    let answer = request.send().map_err(|source| HealthError::Unreachable { address, source })?;
    let holds = answer.status_code == 200;
    let text = match args.format {
        Format::Human if holds => format!("{word}\n"),
        Format::Human => format!("not {word}\n"),
        Format::Json => line(&serde_json::json!({ "schema": HEALTH_SCHEMA, word: holds })),
    };
    Ok(print(&text).exit(if holds { Exit::Done } else { Exit::NotReady }))
}

fn ask(address: SocketAddr) -> Result<HealthDocument, HealthError> {
    let request = minreq::get(format!("http://{address}/health")).with_timeout(PATIENCE_SECONDS);
    let unreachable = |source| HealthError::Unreachable { address, source };
    let answer = request.send_lazy().map_err(unreachable)?;
    let mut body = Vec::new();
    answer.take(MAX_BODY_BYTES).read_to_end(&mut body).map_err(|error| unreachable(error.into()))?;
    serde_json::from_slice(&body).map_err(|source| HealthError::Foreign { address, source })
}

fn tell(document: &HealthDocument, args: &HealthArgs) -> Result<Exit, HealthError> {
    let Some(name) = &args.component else {
        let text = match args.format {
            Format::Human => table(document, args.addr),
            Format::Json => line(document),
        };
        let good = document.status == HealthStatus::Healthy && document.ready;
        return Ok(print(&text).exit(if good { Exit::Done } else { Exit::NotReady }));
    };
    let Some(component) = document.components.iter().find(|component| component.name == *name) else {
        let known: Vec<String> =
            document.components.iter().map(|component| format!("`{}`", component.name)).collect();
        return Err(HealthError::UnknownComponent { name: name.clone(), known: known.join(", ") });
    };
    let text = match args.format {
        Format::Human => row(component, component.name.len()),
        Format::Json => line(&ComponentDocument { schema: HEALTH_SCHEMA, component }),
    };
    let good = component.status == HealthStatus::Healthy;
    Ok(print(&text).exit(if good { Exit::Done } else { Exit::NotReady }))
}

fn table(document: &HealthDocument, address: SocketAddr) -> String {
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
        Some(reason) => format!("{name:<width$}  {status:<9}  {reason}\n"),
        None => format!("{name:<width$}  {status}\n"),
    }
}

fn line(document: &impl Serialize) -> String {
    // No type of ours fails, so there is always a document.
    let mut text = serde_json::to_string(document).unwrap_or_default();
    text.push('\n');
    text
}

const PATIENCE_SECONDS: u64 = 5;
/// What the health of a hundred thousand kernels takes.
const MAX_BODY_BYTES: u64 = 64 << 20;
