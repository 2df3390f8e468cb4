//! The built-in kernels by name, so that a file can compose them.
//!
//! | kernel | takes | gives | settings |
//! |---|---|---|---|
//! | `graph/load` | `graph/edge_list` | `graph` | [`EdgeListLimits`] |
//! | `graph/pagerank` | `graph/ranks` | `graph/ranks` | [`PageRankConfig`] |
//! | `graph/top_k` | `graph/ranks` | `graph/ranking` | [`TopKConfig`] |
//!
//! Stages are matched by the schema names of their payloads. Where one fits only after a conversion that loses nothing, the
//! catalog converts: `graph` to `graph/ranks`, by [`PageRankState::start`].
//!
//! [`EdgeListLimits`]: crate::kernels::graph::EdgeListLimits
//! [`PageRankConfig`]: crate::kernels::graph::PageRankConfig
//! [`TopKConfig`]: crate::kernels::graph::TopKConfig

mod domains;
mod graph;
mod site;

use std::any::Any;
use std::fmt;

use rustkernel_actors::Pipeline;
use rustkernel_core::DeviceId;
use rustkernel_core::device::DeviceKind;
use rustkernel_core::error::KernelError;
use rustkernel_core::traits::Payload;

use crate::config::{ConfigFault, JobConfig, Placement};
use crate::kernels::graph::{Graph, PageRankState};
use crate::worker::Kernels;

pub(crate) use domains::Domains;
pub(crate) use site::{Made, Planted, Prepared, Site, Way};

/// A kernel that can be named in a file.
#[derive(Clone, Copy)]
pub struct CatalogEntry {
    name: &'static str,
    takes: fn() -> String,
    gives: fn() -> String,
    converges: bool,
    blocks: bool,
    keeps: bool,
    on_cuda: bool,
    prepare: Prepare,
}

/// A chain between two kernels whose types are known at run time only.
pub(crate) type AnyPipeline = Pipeline<Value, Value>;

/// Checks a kernel's own settings; what comes back makes it with them. An error names the section.
type Prepare = fn(&Sections<'_>) -> Result<Prepared, (&'static str, SettingsError)>;

/// The settings of a stage: of its kernel, and of its degraded path if it has one.
pub(crate) struct Sections<'a> {
    pub(crate) main: Settings<'a>,
    pub(crate) degraded: Option<Settings<'a>>,
}

/// A kernel's own settings as they stand in a file.
pub(crate) struct Settings<'a>(pub(crate) Option<toml::Spanned<toml::de::DeTable<'a>>>);

/// Why a kernel does not take its settings.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// They do not read as its type.
    Read(toml::de::Error),
    /// A value is out of its range.
    Value { field: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

/// A payload whose type is known at run time only.
pub(crate) struct Value(Box<dyn Any + Send>);

impl CatalogEntry {
    /// The kernel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The schema of its input.
    #[must_use]
    pub fn takes(&self) -> String {
        (self.takes)()
    }

    /// The schema of its output.
    #[must_use]
    pub fn gives(&self) -> String {
        (self.gives)()
    }

    /// Whether it knows when its answer has converged, so that it can be repeated until then.
    #[must_use]
    pub fn converges(&self) -> bool {
        self.converges
    }

    /// Whether it blocks its thread, so that it needs one of its own.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.blocks
    }

    /// Whether it keeps state between requests that a checkpoint can carry over.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Whether there is a version of it for CUDA devices.
    #[must_use]
    pub fn on_cuda(&self) -> bool {
        self.on_cuda
    }

    pub(crate) fn prepare(&self, sections: &Sections<'_>) -> Result<Prepared, (&'static str, SettingsError)> {
        (self.prepare)(sections)
    }
}

/// All kernels that can be named in a file, by name.
#[must_use]
pub fn entries() -> &'static [CatalogEntry] {
    &graph::ENTRIES
}

/// Registers them for worker processes: for [`worker::init`](crate::worker::init) in a program that runs jobs.
pub fn register(kernels: &mut Kernels) {
    graph::register(kernels);
}

/// Puts every stage of a job on `device` whose kernel has a version for it: on a CUDA device in that device's worker process, unless it is
/// on a thread because somebody has said so by `placement`. What the job says of the stage's domain holds for that process too.
pub fn move_to(job: &mut JobConfig, device: DeviceId, placement: Option<Placement>) {
    let is_cuda = device.kind() == DeviceKind::Cuda;
    for stage in &mut job.stages {
        // A kernel that there is not is refused in its turn.
        let goes = !is_cuda || entry(&stage.kernel).is_ok_and(CatalogEntry::on_cuda);
        let left = stage.domain();
        if goes {
            stage.device = device;
        }
        if goes && is_cuda {
            stage.placement = placement.unwrap_or(Placement::Process);
            stage.domain = None;
        }
        let section = job.domains.get(&left).filter(|_| stage.placement == Placement::Process).cloned();
        if let Some(section) = section {
            job.domains.entry(stage.domain()).or_insert(section);
        }
    }
}

/// The kernel called `name`.
pub(crate) fn entry(name: &str) -> Result<&'static CatalogEntry, ConfigFault> {
    entries().iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = entries().iter().map(|entry| entry.name).collect();
        ConfigFault::UnknownKernel {
            kernel: name.to_owned(),
            nearest: crate::config::nearest(name, known.iter().copied()),
            known: crate::config::list(&known),
        }
    })
}

/// What turns a value of schema `gives` into one of schema `takes`; `None` if nothing does.
pub(crate) fn conversion(gives: &str, takes: &str) -> Option<AnyPipeline> {
    if gives == takes {
        return Some(Pipeline::start());
    }
    if gives == Graph::schema() && takes == PageRankState::schema() {
        return Some(Pipeline::start().try_map(Value::take).map(PageRankState::start).map(Value::new));
    }
    None
}

impl Value {
    pub(crate) fn new<T: Payload>(value: T) -> Self {
        Self(Box::new(value))
    }

    /// # Errors
    /// A value of another type. Schemas are compared before anything runs, so that this is a defect of the catalog.
    pub(crate) fn take<T: Payload>(self) -> Result<T, KernelError> {
        self.0.downcast().map(|value| *value).map_err(|_| {
            KernelError::permanent(format!("the value between two stages is no `{}`", T::schema()))
        })
    }
}

impl fmt::Debug for CatalogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogEntry").field("name", &self.name).finish_non_exhaustive()
    }
}
