//! How a job's end is printed.

use std::collections::HashMap;
use std::fmt::{self, Write};

use serde::Serialize;

use rustkernel_actors::pipeline::{PipelineReport, StageReport};
use rustkernel_actors::{Cause, KernelState, KernelStatus};
use rustkernel_core::KernelId;
use rustkernel_core::error::{KernelError, KernelErrorKind, Phase};

use super::line;
use crate::job::{Counts, Resumed, Spot};
use crate::kernels::graph::Ranking;

/// Everything there is to say about a job that ended.
pub(super) struct Report {
    pub(super) name: String,
    pub(super) result: Result<Ranking, KernelError>,
    pub(super) stages: PipelineReport,
    pub(super) counts: Counts,
    /// Where an earlier process had stopped.
    pub(super) resumed: Option<Resumed>,
    pub(super) kernels: Vec<KernelStatus>,
    /// Threads that were left behind and still block.
    pub(super) blocked_threads: usize,
    /// What the nodes are called, where they have names.
    pub(super) names: HashMap<u64, String>,
}

/// The document of `--format json`. `result` depends on the input and the settings alone, never on what went wrong on the way.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    result: Option<&'a Ranking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDocument<'a>>,
    stages: Vec<StageDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<Resumed>,
    supervision: SupervisionDocument<'a>,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    kind: &'a KernelErrorKind,
    phase: Phase,
    kernel: Option<&'a KernelId>,
    message: String,
}

#[derive(Serialize)]
struct StageDocument<'a> {
    kernel: &'a KernelId,
    calls: u64,
    failures: u64,
    reruns: u64,
    degraded: u64,
    total_seconds: f64,
    slowest_seconds: f64,
}

#[derive(Serialize)]
struct SupervisionDocument<'a> {
    #[serde(flatten)]
    counts: &'a Counts,
    retries: u64,
    blocked_threads: usize,
    kernels: Vec<KernelDocument<'a>>,
}

#[derive(Serialize)]
struct KernelDocument<'a> {
    id: &'a KernelId,
    state: KernelState,
    restarts: u64,
    max_restarts: u32,
    last_failure: Option<&'a Cause>,
}

impl Report {
    /// The result as one line of JSON.
    pub(super) fn json(&self) -> String {
        let document = Document {
            schema: SCHEMA,
            result: self.result.as_ref().ok(),
            error: self.result.as_ref().err().map(ErrorDocument::of),
            stages: self.stages.stages.iter().map(StageDocument::of).collect(),
            resumed: self.resumed,
            supervision: SupervisionDocument {
                counts: &self.counts,
                retries: self.retries(),
                blocked_threads: self.blocked_threads,
                kernels: self.kernels.iter().map(KernelDocument::of).collect(),
            },
        };
        line(&document)
    }

    /// The result as tables.
    pub(super) fn human(&self) -> String {
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = self.write(&mut text);
        text
    }

    /// Whether supervision had anything to do.
    pub(super) fn is_eventful(&self) -> bool {
        self.counts != Counts::default() || self.retries() > 0
    }

    /// Re-runs of requests, after a crash, a hang or an error.
    fn retries(&self) -> u64 {
        self.kernels.iter().map(|kernel| kernel.accounts.reruns).sum()
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        if let Ok(ranking) = &self.result {
            self.write_ranking(ranking, out)?;
            writeln!(out)?;
        }
        if !self.stages.stages.is_empty() {
            let width = self.stages.stages.iter().map(|stage| stage.kernel.as_str().len()).max().unwrap_or(0);
            writeln!(
                out,
                "{:<width$}  {:>5}  {:>7}  {:>9}  {:>9}",
                "stage", "calls", "retries", "total", "slowest"
            )?;
            for stage in &self.stages.stages {
                let StageReport { kernel, calls, reruns, total, slowest, .. } = stage;
                let (total, slowest) = (format!("{total:.1?}"), format!("{slowest:.1?}"));
                writeln!(
                    out,
                    "{:<width$}  {calls:>5}  {reruns:>7}  {total:>9}  {slowest:>9}",
                    kernel.as_str()
                )?;
            }
            writeln!(out)?;
        }
        self.write_resumed(out)?;
        self.write_supervision(out)
    }

    fn write_resumed(&self, out: &mut String) -> fmt::Result {
        let Some(Resumed { from, reached, request: _ }) = self.resumed else { return Ok(()) };
        let place = |spot: Spot| format!("stage {}, round {}", spot.stage + 1, spot.round);
        write!(out, "resumed at {}", place(from))?;
        if reached > from {
            write!(
                out,
                "; the process before had come to {}: what lies between was done twice",
                place(reached)
            )?;
        }
        writeln!(out)
    }

    fn write_ranking(&self, ranking: &Ranking, out: &mut String) -> fmt::Result {
        let Ranking { entries, iterations, delta, nodes, edges } = ranking;
        let name = &self.name;
        writeln!(
            out,
            "{name}: {nodes} nodes, {edges} edges, {iterations} iterations, last change {delta:.1e}\n"
        )?;
        let label = |id| self.names.get(&id).map_or("", String::as_str);
        let width = entries.iter().map(|entry| label(entry.id).len()).max().unwrap_or(0);
        let header = if width == 0 { "" } else { "name" };
        writeln!(out, "{:>4}  {:>10}  {:<8}  {header}", "#", "id", "rank")?;
        for (place, entry) in entries.iter().enumerate() {
            let line = format!("{:>4}  {:>10}  {:.6}  {}", place + 1, entry.id, entry.rank, label(entry.id));
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn write_supervision(&self, out: &mut String) -> fmt::Result {
        let Counts {
            restarts,
            restored,
            failures,
            dead_letters,
            abandoned_threads: _,
            breakers_opened,
            takeovers,
            degraded,
            failovers,
            checkpoint_faults,
            isolated,
        } = &self.counts;
        write!(out, "supervision: {restarts} restarts")?;
        if !failures.is_empty() {
            let causes: Vec<String> =
                failures.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
            write!(out, " ({})", causes.join(", "))?;
        }
        writeln!(out, ", {} retries, {dead_letters} dead letters", self.retries())?;
        if *restored > 0 {
            writeln!(out, "             {restored} restarts went on from a checkpoint")?;
        }
        if self.blocked_threads > 0 {
            writeln!(out, "             {} threads were left behind and still block", self.blocked_threads)?;
        }
        if *breakers_opened > 0 {
            writeln!(out, "             breakers opened {breakers_opened} times")?;
        }
        let others = [
            (takeovers, "lives took over from another"),
            (degraded, "times a degraded path began to answer"),
            (failovers, "moves to a backup device"),
            (checkpoint_faults, "checkpoints could not be taken, stored or restored"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| **count > 0) {
            writeln!(out, "             {count} {what}")?;
        }
        for kernel in isolated {
            writeln!(
                out,
                "             {kernel} is isolated: its restart budget is used up, or too many of its threads block"
            )?;
        }
        Ok(())
    }
}

impl<'a> ErrorDocument<'a> {
    fn of(error: &'a KernelError) -> Self {
        Self {
            kind: error.kind(),
            phase: error.phase(),
            kernel: error.kernel_id(),
            message: error.to_string(),
        }
    }
}

impl<'a> StageDocument<'a> {
    fn of(stage: &'a StageReport) -> Self {
        let StageReport { kernel, calls, failures, reruns, degraded, total, slowest } = stage;
        Self {
            kernel,
            calls: *calls,
            failures: *failures,
            reruns: *reruns,
            degraded: *degraded,
            total_seconds: total.as_secs_f64(),
            slowest_seconds: slowest.as_secs_f64(),
        }
    }
}

impl<'a> KernelDocument<'a> {
    fn of(kernel: &'a KernelStatus) -> Self {
        Self {
            id: &kernel.id,
            state: kernel.state,
            restarts: kernel.restarts,
            max_restarts: kernel.max_restarts,
            last_failure: kernel.last_failure.as_ref(),
        }
    }
}

/// The version of the document: it grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;
