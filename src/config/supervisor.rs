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
//! root. Children start in the order of the list; a tree starts where the first of its stages stands. What a child is to the
//! supervisor above (`restart`, `shutdown`, `significant`) stands with the child, a `[[stage]]` as well as a supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rustkernel_core::resilience::BackoffStrategy;
use rustkernel_core::supervision::{AutoShutdown, ChildRules, Restart, Shutdown, Strategy, SupervisorConfig};

use super::document::quoted;
use super::{ConfigError, ConfigFault, Document, JobConfig, list, nearest, span};

/// One supervisor of a job. Its settings are those of [`SupervisorConfig`], and its [`ChildRules`]: what it is to the supervisor above.
// Written out, not flattened: serde reads flattened fields from a buffer that has lost their places in the text, so that an error would
// have neither line nor field, and both types refuse the other's keys as unknown. The methods below name every field of both.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorSection {
    /// Who is restarted when one child fails. Default one_for_one: stages that share nothing need not end together. Dynamic makes no sense here: a job's kernels are known.
    pub strategy: Strategy,
    /// Restarts allowed within `period`; one more ends the supervisor, and the one above decides. Default 3,
    /// as Elixir's: OTP's 1 would end it where a lost process takes two kernels at once.
    pub intensity: u32,
    /// The sliding window in which restarts are counted. Default 5 s, as in OTP.
    #[serde(deserialize_with = "span::plain", serialize_with = "span::written")]
    pub period: Duration,
    /// Whether the end of a significant child ends the supervisor. Default never, as in OTP.
    pub auto_shutdown: AutoShutdown,
    /// Children allowed at a time. Default 1,000,000: a job's are counted in its file, and the bound is the memory's.
    pub max_children: u32,
    /// The wait before supervisors below are started again. Default: 10 ms, doubling up to 1 s, with jitter, so that one that cannot start does not
    /// use up the intensity at once.
    pub backoff: BackoffStrategy,
    /// Which of its own ends make the supervisor above start it again. Default permanent: what is below is
    /// needed.
    pub restart: Restart,
    /// How the supervisor above stops it. Default: with all the time its children take, as in OTP; each of them has its own limit.
    pub shutdown: Shutdown,
    /// Whether its own end may end the supervisor above. Default no, as in OTP.
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

/// Checks the supervisors of a job: their names and settings, and that together they are a tree over its stages.
pub(super) fn check(job: &JobConfig, document: &Document) -> Result<(), ConfigError> {
    let mut parents = BTreeMap::new();
    for (name, section) in &job.supervisors {
        let at = |field: &str| format!("supervisor.{}.{field}", quoted(name));
        let refuse = |field: &str, rule| Err(document.at(&at(field), ConfigFault::Rule { rule }));
        if let Err(rule) = check_name(name) {
            let field = format!("supervisor.{}", quoted(name));
            return Err(document.at(&field, ConfigFault::Rule { rule }));
        }
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
    }
    check_rules(job, document, &parents)?;
    check_no_circle(job, document, &parents)
}

/// Checks what every child is to the supervisor above.
fn check_rules(
    job: &JobConfig,
    document: &Document,
    parents: &BTreeMap<&str, &str>,
) -> Result<(), ConfigError> {
    let sections = job.supervisors.iter();
    let sections = sections
        .map(|(name, section)| (name.as_str(), section.rules(), format!("supervisor.{}", quoted(name))));
    let stages = job.stages.iter().enumerate();
    let stages = stages.map(|(index, stage)| (stage.id(), stage.rules(), format!("stage[{index}]")));
    for (name, rules, place) in sections.chain(stages) {
        let above = parents.get(name).and_then(|parent| job.supervisors.get(*parent));
        // What no supervisor names is under the root, which the end of no child ends.
        let above = above.map_or_else(SupervisorConfig::default, SupervisorSection::config);
        above.validate_child(&rules).map_err(|invalid| {
            let field = invalid.field.rsplit('.').next().unwrap_or(invalid.field);
            document.at(&format!("{place}.{field}"), ConfigFault::Rule { rule: invalid.rule })
        })?;
    }
    Ok(())
}

/// The rule that the runtime has for names, and its own name: it tells them while it starts a tree, when stages before it are running.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let rules = [
        (name.len() <= MAX_NAME_BYTES, "is no name: it has at most 128 bytes"),
        (
            name.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "is no name: it starts with an ASCII letter or digit",
        ),
        (name.chars().all(is_known), "is no name: it holds only ASCII letters, digits, `_`, `-` and `.`"),
        (name != ROOT, "is the runtime's own supervisor; call this one otherwise"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
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

const MAX_NAME_BYTES: usize = 128;
/// What a runtime calls the supervisor that it brings.
const ROOT: &str = "root";
