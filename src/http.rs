//! Health endpoints over HTTP, to be mounted in a service of one's own.
//!
//! | path | 200 while | 503 when |
//! |---|---|---|
//! | `/health/live` | a restart of the process would help nothing | the runtime gave up |
//! | `/health/ready` | the node takes work | starting, draining, a kernel is down, the runtime is gone |
//! | `/health/startup` | the kernels have been started | before |
//! | `/health` | as ready | as ready |
//!
//! The first three answer in a word, or with `?verbose` in the shape of `application/health+json` (an expired Internet-Draft that
//! many probes read). `/health` answers with a [`HealthDocument`] of all components, which the command `rustkernel health` reads.
//! A look reads the slots' own state; it asks no actor and waits for no kernel.
//!
//! [`health_router`] is a plain [`Router`]: nest it, put it behind your own authentication. [`HealthServer`] serves it
//! alone, on a thread of its own, which a blocked async worker cannot hold up.

mod document;
mod node;
mod server;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

pub use document::{Component, HEALTH_SCHEMA, HealthDocument};
pub use node::Node;
pub use server::HealthServer;

/// The health endpoints of `node`.
pub fn health_router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(startup))
        .with_state(node)
}

#[derive(Deserialize)]
struct Asked {
    verbose: Option<String>,
}

async fn health(State(node): State<Arc<Node>>) -> Response {
    let document = node.document();
    (code(document.ready), Json(document)).into_response()
}

async fn live(State(node): State<Arc<Node>>, Query(asked): Query<Asked>) -> Response {
    answer(&node.document(), "live", |document| document.live, &asked)
}

async fn ready(State(node): State<Arc<Node>>, Query(asked): Query<Asked>) -> Response {
    answer(&node.document(), "ready", |document| document.ready, &asked)
}

async fn startup(State(node): State<Arc<Node>>, Query(asked): Query<Asked>) -> Response {
    answer(&node.document(), "started", |document| document.started, &asked)
}

fn answer(
    document: &HealthDocument,
    word: &str,
    holds: impl Fn(&HealthDocument) -> bool,
    asked: &Asked,
) -> Response {
    let holds = holds(document);
    if asked.verbose.is_some() {
        let kind = [(header::CONTENT_TYPE, "application/health+json")];
        return (code(holds), kind, Json(document.verbose(holds))).into_response();
    }
    let text = if holds { format!("{word}\n") } else { format!("not {word}\n") };
    (code(holds), text).into_response()
}

fn code(holds: bool) -> StatusCode {
    if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
