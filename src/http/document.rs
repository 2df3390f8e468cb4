//! What the health endpoints say.

use std::collections::BTreeMap;

use rustkernel_core::resilience::HealthStatus;
use serde::{Deserialize, Serialize};

/// The version of [`HealthDocument`]: it grows when a field changes its meaning or goes.
pub const HEALTH_SCHEMA: u32 = 1;

/// A node's health, component by component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthDocument {
    /// [`HEALTH_SCHEMA`].
    pub schema: u32,
    /// The worst of all components.
    pub status: HealthStatus,
    /// Whether a restart of the process would help nothing.
    pub live: bool,
    /// Whether the node takes work.
    pub ready: bool,
    /// Whether its kernels have been started.
    pub started: bool,
    /// `runtime` first, then every kernel in start order, then what the node reported itself.
    pub components: Vec<Component>,
}

/// One part of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// `runtime`, a kernel's id, or what the node called it.
    pub name: String,
    /// How it is.
    pub status: HealthStatus,
    /// Why, or what it is doing; for people.
    pub reason: Option<String>,
    /// Whether the node is ready only while this one is well.
    #[serde(default)]
    pub needed: bool,
    /// Whether it takes work: a kernel whose breaker is open is well enough for its node, and takes none.
    #[serde(default)]
    pub takes: bool,
}

/// The shape of `application/health+json`.
#[derive(Serialize)]
pub(super) struct Verbose<'a> {
    status: &'static str,
    checks: BTreeMap<String, [Check<'a>; 1]>,
}

#[derive(Serialize)]
struct Check<'a> {
    status: &'static str,
    #[serde(rename = "observedValue")]
    observed: HealthStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
}

impl HealthDocument {
    pub(super) fn verbose(&self, holds: bool) -> Verbose<'_> {
        let checks = self.components.iter().map(|part| {
            let status = word(part.status);
            let check = Check { status, observed: part.status, output: part.reason.as_deref() };
            (format!("{}:health", part.name), [check])
        });
        let status = match (holds, self.status) {
            (false, _) => "fail",
            (true, HealthStatus::Healthy) => "pass",
            (true, _) => "warn",
        };
        Verbose { status, checks: checks.collect() }
    }
}

fn word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Healthy => "pass",
        HealthStatus::Degraded => "warn",
        HealthStatus::Unhealthy | HealthStatus::Unknown => "fail",
    }
}

/// Reasons come from kernels, and names from whoever asks: what would begin a line, or move a terminal's cursor, is shown as what it is.
pub(crate) fn one_line(text: &str) -> String {
    let show = |character: char| {
        if character.is_control() { character.escape_default().collect() } else { String::from(character) }
    };
    text.chars().map(show).collect()
}
