//! The restart tree of a job: which stages live and fail together.
//!
//! ```toml
//! [supervisor.gpu0]
//! strategy = "one_for_all"
//! intensity = 3
//! period = "5s"
//! children = ["graph/pagerank", "graph/top_k"]
//! ```
//!
//! A child is a stage, by the name it is supervised under, or another supervisor. What no supervisor names lives under the runtime's
//! root. Children start in the order of the list; a tree starts where the first of its stages stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{AutoShutdown, ChildRules, Restart, Shutdown, Strategy, SupervisorConfig};

use super::document::quoted;
use super::{ConfigError, ConfigFault, Document, JobConfig, list, nearest, span};

/// One supervisor of a job. Its settings are those of [`SupervisorConfig`], and what it is to the supervisor above.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorSection {
    /// Who is restarted when one child fails. Default one_for_one. Dynamic makes no sense here: a job's kernels are known.
    pub strategy: Strategy,
    /// Restarts allowed within `period`; one more ends the supervisor, and the one above decides. Default 3.
    pub intensity: u32,
    /// The sliding window in which restarts are counted. Default 5 s.
    #[serde(deserialize_with = "span::plain")]
    pub period: Duration,
    /// Whether the end of a significant child ends the supervisor. Default never.
    pub auto_shutdown: AutoShutdown,
    /// Children allowed at a time. Default 1,000,000.
    pub max_children: u32,
    /// The wait before supervisors below are started again.
    pub backoff: BackoffStrategy,
    /// Which of its own ends make the supervisor above start it again. Default permanent.
    pub restart: Restart,
    /// How the supervisor above stops it. Default: with all the time its children take.
    pub shutdown: Shutdown,
    /// Whether its own end may end the supervisor above. Default no.
    pub significant: bool,
    /// Stages and supervisors, in start order; at least one.
    pub children: Vec<String>,
}

impl SupervisorSection {
    /// How it treats its children.
    #[must_use]
    pub fn config(&self) -> SupervisorConfig {
        SupervisorConfig {
            strategy: self.strategy,
            intensity: self.intensity,
            period: self.period,
            auto_shutdown: self.auto_shutdown,
            max_children: self.max_children,
            backoff: self.backoff,
        }
    }

    /// What it is to the supervisor above.
    #[must_use]
    pub fn rules(&self) -> ChildRules {
        ChildRules { restart: self.restart, shutdown: self.shutdown, significant: self.significant }
    }
}

impl Default for SupervisorSection {
    fn default() -> Self {
        let SupervisorConfig { strategy, intensity, period, auto_shutdown, max_children, backoff } =
            SupervisorConfig::default();
        Self {
            strategy,
            intensity,
            period,
            auto_shutdown,
            max_children,
            backoff,
            restart: Restart::default(),
            shutdown: Shutdown::Infinity,
            significant: false,
            children: Vec::new(),
        }
    }
}

/// Checks the supervisors of a job: their settings, and that together they are a tree over its stages.
pub(super) fn check(job: &JobConfig, document: &Document) -> Result<(), ConfigError> {
    let mut parents = BTreeMap::new();
    for (name, section) in &job.supervisors {
        let at = |field: &str| format!("supervisor.{}.{field}", quoted(name));
        let refuse = |field: &str, rule| Err(document.at(&at(field), ConfigFault::Rule { rule }));
        section.config().validate().map_err(|invalid| {
            let field = invalid.field.rsplit('.').next().unwrap_or(invalid.field);
            document.at(&at(field), ConfigFault::Rule { rule: invalid.rule })
        })?;
        if section.strategy == Strategy::Dynamic {
            return refuse("strategy", "cannot be dynamic: a job's kernels are known");
        }
        if section.children.is_empty() {
            return refuse("children", "names at least one stage or supervisor");
        }
        if section.children.len() > section.max_children as usize {
            return refuse("children", "holds more than `max_children`");
        }
        for (index, child) in section.children.iter().enumerate() {
            let place = at(&format!("children[{index}]"));
            if !is_known(job, child) {
                return Err(document.at(&place, unknown(job, child)));
            }
            if parents.insert(child.as_str(), name.as_str()).is_some() {
                let fault = ConfigFault::ChildTaken { child: child.clone() };
                return Err(document.at(&place, fault));
            }
        }
        if let Some(parent) = job.supervisors.values().find(|parent| parent.children.contains(name)) {
            parent.config().validate_child(&section.rules()).map_err(|invalid| {
                document.at(&at("significant"), ConfigFault::Rule { rule: invalid.rule })
            })?;
        }
    }
    check_no_circle(job, document, &parents)
}

fn is_known(job: &JobConfig, child: &str) -> bool {
    job.supervisors.contains_key(child) || job.stages.iter().any(|stage| stage.id() == child)
}

fn unknown(job: &JobConfig, child: &str) -> ConfigFault {
    let stages = job.stages.iter().map(super::StageConfig::id);
    let known: Vec<&str> = stages.chain(job.supervisors.keys().map(String::as_str)).collect();
    ConfigFault::UnknownChild {
        child: child.to_owned(),
        nearest: nearest(child, known.iter().copied()),
        known: list(&known),
    }
}

/// Every way up ends: with one parent each, a way that comes back to its start is the only other thing there is.
fn check_no_circle(
    job: &JobConfig,
    document: &Document,
    parents: &BTreeMap<&str, &str>,
) -> Result<(), ConfigError> {
    for name in job.supervisors.keys() {
        let (mut seen, mut at) = (BTreeSet::new(), name.as_str());
        while let Some(parent) = parents.get(at) {
            if !seen.insert(at) {
                let rule = "is among its own descendants: supervisors are a tree";
                let field = format!("supervisor.{}", quoted(name));
                return Err(document.at(&field, ConfigFault::Rule { rule }));
            }
            at = parent;
        }
    }
    Ok(())
}
