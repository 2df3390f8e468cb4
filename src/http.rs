//! What a node serves over HTTP, to be mounted in a service of one's own: health, state, actions, metrics.
//!
//! | path | 200 while | 503 when |
//! |---|---|---|
//! | `/livez`, `/health/live`, `/v2/health/live` | a restart of the process would help nothing | the runtime gave up |
//! | `/readyz`, `/health/ready`, `/v2/health/ready` | the node takes work | starting, draining, a kernel is down, the runtime is gone |
//! | `/startupz`, `/health/startup` | the kernels have been started | before |
//! | `/health` | as ready | as ready |
//! | `/livez/NAME`, `/startupz/NAME` | that component is not unhealthy | it is; 404 where there is none |
//! | `/readyz/NAME` | that component takes requests | it does not, also because its breaker refuses them; 404 where there is none |
//! | `/v2/models/NAME/ready` | that kernel takes requests | it does not; 404 where there is none |
//!
//! Those of Kubernetes' names answer in a word; with `?verbose` in a line for each component, those that `?exclude=NAME` names left out, also in
//! the answer. Those under `/health/` answer with `?verbose` in the shape of `application/health+json` (an expired Internet-Draft that
//! many probes read). `/health` answers with a [`HealthDocument`] of all components, which the command `rustkernel health` reads. Those
//! under `/v2/` are the health part of the KServe protocol, without a body.
//! A look at health reads the slots' own state; it asks no actor and waits for no kernel.
//!
//! [`health_router`] and [`api_router`] are plain [`Router`]s: nest them, put them behind your own authentication. [`HealthServer`] serves one
//! alone, on a thread of its own, which a blocked async worker cannot hold up.

mod access;
mod action;
mod api;
mod document;
mod health;
mod node;
mod page;
mod peers;
mod seats;
mod server;
mod snapshot;
#[cfg(feature = "tls")]
mod tls;

use std::sync::Arc;

use axum::Router;

pub use access::{BURST, MIN_TOKEN_BYTES, PER_SECOND, Token, TokenError};
pub use action::{Acted, Action};
pub use api::{MAX_BODY_BYTES, MAX_WATCHERS, api_router};
#[cfg(feature = "cli")]
pub(crate) use document::one_line;
pub use document::{Component, HEALTH_SCHEMA, HealthDocument};
#[cfg(feature = "metrics")]
pub(crate) use node::FRESH;
pub use node::{Node, SNAPSHOT_LIMIT};
pub use page::page_router;
pub use peers::{REQUESTS_AT_ONCE, REQUESTS_PER_SECOND};
pub use server::{CLOSE_LIMIT, HEAD_LIMIT, HealthServer, MAX_CONNECTIONS, WRITE_LIMIT};
pub use snapshot::{
    Child, DeadLetters, Failure, FailureList, KernelView, Kind, LastFailure, LatencyView, Letter, LetterList,
    MAX_REPORTS, NodeSnapshot, PipelineView, SNAPSHOT_SCHEMA, StageView, SupervisorView, Word,
};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};

pub use health::health_router;

/// Everything that a node serves: its health, its state, the live page, and actions by whoever has the token.
pub fn node_router(node: Arc<Node>, token: Option<Token>) -> Router {
    health_router(Arc::clone(&node)).merge(api_router(node, token)).merge(page_router())
}
