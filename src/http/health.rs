//! The health endpoints; see [the table](super).

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::document::{Component, HealthDocument, one_line};
use super::node::Node;

/// The health endpoints of `node`.
pub fn health_router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/{probe}", get(detailed))
        .route("/livez", get(|node, asked| worded(Probe::Live, node, asked)))
        .route("/readyz", get(|node, asked| worded(Probe::Ready, node, asked)))
        .route("/startupz", get(|node, asked| worded(Probe::Startup, node, asked)))
        .route("/livez/{*name}", get(|node, name| component(Probe::Live, node, name)))
        .route("/readyz/{*name}", get(|node, name| component(Probe::Ready, node, name)))
        .route("/startupz/{*name}", get(|node, name| component(Probe::Startup, node, name)))
        .route("/v2/health/{probe}", get(bare))
        .route("/v2/models/{*rest}", get(model))
        .with_state(node)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Probe {
    Live,
    Ready,
    Startup,
}

impl Probe {
    const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Startup => "started",
        }
    }

    const fn holds(self, document: &HealthDocument) -> bool {
        match self {
            Self::Live => document.live,
            Self::Ready => document.ready,
            Self::Startup => document.started,
        }
    }
}

/// What stands behind the question mark: `verbose`, and `exclude=NAME` as often as one likes, or with commas between names.
struct Asked {
    is_verbose: bool,
    excluded: Vec<String>,
}

/// Each is compared with every component; whoever needs more asks for the components one by one.
const MOST_EXCLUDED: usize = 64;

type Pairs = Query<Vec<(String, String)>>;

impl From<Pairs> for Asked {
    fn from(Query(pairs): Pairs) -> Self {
        let excluded = pairs.iter().filter(|(key, _)| key == "exclude");
        Self {
            is_verbose: pairs.iter().any(|(key, _)| key == "verbose"),
            excluded: excluded
                .flat_map(|(_, names)| names.split(',').map(str::to_owned))
                .take(MOST_EXCLUDED)
                .collect(),
        }
    }
}

async fn health(State(node): State<Arc<Node>>) -> Response {
    let document = node.document();
    (code(document.ready), Json(document)).into_response()
}

async fn detailed(State(node): State<Arc<Node>>, Path(probe): Path<Probe>, pairs: Pairs) -> Response {
    let document = node.document();
    let holds = probe.holds(&document);
    if Asked::from(pairs).is_verbose {
        let kind = [(header::CONTENT_TYPE, "application/health+json")];
        return (code(holds), kind, Json(document.verbose(holds))).into_response();
    }
    word(probe, holds)
}

async fn worded(probe: Probe, State(node): State<Arc<Node>>, pairs: Pairs) -> Response {
    let document = node.document();
    let Asked { is_verbose, excluded } = Asked::from(pairs);
    let excluded: Vec<&str> = excluded.iter().map(String::as_str).collect();
    let is_asked = |part: &&Component| !excluded.contains(&part.name.as_str());
    let holds = match probe {
        Probe::Ready => node.ready_without(&excluded),
        Probe::Live | Probe::Startup => probe.holds(&document),
    };
    if !is_verbose {
        return word(probe, holds);
    }
    let mut text = String::new();
    for part in document.components.iter().filter(is_asked) {
        let mark = if part.status.is_serving() { '+' } else { '-' };
        // Writing to a string does not fail; so below.
        let _ = writeln!(text, "[{mark}]{} {}{}", part.name, part.status, reason_of(part));
    }
    let _ = writeln!(text, "{}{}", if holds { "" } else { "not " }, probe.word());
    (code(holds), text).into_response()
}

async fn component(probe: Probe, State(node): State<Arc<Node>>, Path(name): Path<String>) -> Response {
    let document = node.document();
    let Some(part) = document.components.iter().find(|part| part.name == name) else {
        return (StatusCode::NOT_FOUND, format!("there is no component {}\n", one_line(&name)))
            .into_response();
    };
    let holds = if probe == Probe::Ready { part.takes } else { part.status.is_serving() };
    (code(holds), format!("{}{}\n", part.status, reason_of(part))).into_response()
}

fn reason_of(part: &Component) -> String {
    part.reason.as_ref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default()
}

async fn bare(State(node): State<Arc<Node>>, Path(probe): Path<Probe>) -> StatusCode {
    match probe {
        Probe::Live | Probe::Ready => code(probe.holds(&node.document())),
        Probe::Startup => StatusCode::NOT_FOUND,
    }
}

/// `NAME/ready`, where names have slashes in them.
async fn model(State(node): State<Arc<Node>>, Path(rest): Path<String>) -> StatusCode {
    let health = node.runtime().health();
    let name = rest.strip_suffix("/ready");
    let found = name.and_then(|name| health.kernels.iter().find(|kernel| kernel.id.as_str() == name));
    found.map_or(StatusCode::NOT_FOUND, |kernel| code(kernel.takes))
}

fn word(probe: Probe, holds: bool) -> Response {
    let text = if holds { format!("{}\n", probe.word()) } else { format!("not {}\n", probe.word()) };
    (code(holds), text).into_response()
}

fn code(holds: bool) -> StatusCode {
    if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
