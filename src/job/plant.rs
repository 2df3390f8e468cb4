//! Putting a job's kernels under supervision, as its configuration draws the tree.

use std::collections::BTreeMap;

use rustkernel_actors::{Runtime, SpawnError, Supervisor};

use crate::catalog::Planted;
use crate::config::JobConfig;

/// The kernels of a job that are not under supervision yet, by name.
pub(super) type Specs = BTreeMap<String, Box<dyn Planted>>;

/// Starts the kernels in the order of the stages; a supervisor with everything below it where the first of its stages stands.
pub(super) async fn plant(job: &JobConfig, mut specs: Specs, runtime: &Runtime) -> Result<(), SpawnError> {
    for stage in &job.stages {
        let Some(top) = topmost(job, stage.id()) else {
            if let Some(spec) = specs.remove(stage.id()) {
                spec.spawn(runtime.clone()).await?;
            }
            continue;
        };
        if specs.contains_key(stage.id()) {
            let tree = tree(job, top, &mut specs);
            runtime.supervise(tree).await?;
        }
    }
    Ok(())
}

/// The highest supervisor above a stage. The configuration has been checked: every way up ends.
fn topmost<'a>(job: &'a JobConfig, stage: &str) -> Option<&'a str> {
    let above = |child: &str| {
        let names = |(_, section): &(&String, &crate::config::SupervisorSection)| {
            section.children.iter().any(|name| name == child)
        };
        job.supervisors.iter().find(names).map(|(name, _)| name.as_str())
    };
    let mut top = above(stage)?;
    while let Some(higher) = above(top) {
        top = higher;
    }
    Some(top)
}

fn tree(job: &JobConfig, name: &str, specs: &mut Specs) -> Supervisor {
    let mut supervisor = Supervisor::new(name);
    let Some(section) = job.supervisors.get(name) else { return supervisor };
    supervisor = supervisor.config(section.config()).restart(section.restart).shutdown(section.shutdown);
    if section.significant {
        supervisor = supervisor.significant();
    }
    for child in &section.children {
        supervisor = match specs.remove(child) {
            Some(spec) => spec.plant(supervisor),
            None => supervisor.supervisor(tree(job, child, specs)),
        };
    }
    supervisor
}
