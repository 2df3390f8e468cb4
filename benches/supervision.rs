//! What supervision costs, beside the least that could do the same job.
//!
//! Every row runs its baseline and its contenders in one process, in short rounds whose order rotates, and compares them round by
//! round: a machine that slows down slows both. Nothing is asserted about time; docs/benchmarks.md says what was seen.
//!
//! `cargo bench --bench supervision -- [FILTER] [--quick] [--long] [--csv FILE] [--curves FOLDER] [--node HUNDREDS]`

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set itself up has nothing to report")]

#[path = "supervision/alloc.rs"]
mod alloc;
#[path = "supervision/breaker.rs"]
mod breaker;
#[path = "supervision/call.rs"]
mod call;
#[path = "supervision/checkpoint.rs"]
mod checkpoint;
#[path = "supervision/curves.rs"]
mod curves;
#[path = "supervision/deadline.rs"]
mod deadline;
#[path = "../actors/src/gate.rs"]
#[allow(
    dead_code,
    reason = "the runtime's gate is private; the benchmark compiles its source and uses a part of it"
)]
mod gate;
#[path = "supervision/group.rs"]
mod group;
#[path = "supervision/memory.rs"]
mod memory;
#[path = "supervision/overload.rs"]
mod overload;
#[path = "supervision/owner.rs"]
mod owner;
#[path = "supervision/pipeline.rs"]
mod pipeline;
#[path = "supervision/plot.rs"]
mod plot;
#[path = "supervision/replica.rs"]
mod replica;
#[path = "supervision/report.rs"]
mod report;
#[path = "supervision/restart.rs"]
mod restart;
#[path = "supervision/rounds.rs"]
mod rounds;
#[path = "supervision/sides.rs"]
mod sides;
#[path = "supervision/spawn.rs"]
mod spawn;
#[path = "supervision/tree.rs"]
mod tree;
#[path = "supervision/watch.rs"]
mod watch;
#[path = "supervision/worker.rs"]
mod worker;

/// What the gate's source expects of its crate.
mod sync {
    pub(crate) use std::sync::atomic::AtomicU64;
}

use report::Report;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() {
    rustkernel::worker::init(worker::kernels);
    if std::env::args().any(|argument| argument == worker::ECHO) {
        return worker::echo();
    }
    // A kernel that panics on request shall not fill the terminal.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("asked for") {
            told(panic);
        }
    }));
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => options.quick = true,
            "--long" => options.long = true,
            "--csv" => options.csv = arguments.next(),
            "--curves" => options.curves = arguments.next(),
            "--node" => {
                return watch::node(
                    arguments.next().and_then(|hundreds| hundreds.parse().ok()).unwrap_or(10),
                );
            }
            filter => options.filter = Some(filter.to_owned()),
        }
    }
    if let Some(folder) = &options.curves {
        return curves::run(std::path::Path::new(folder), options.quick);
    }
    let mut report = Report::new(options);
    call::run(&mut report);
    pipeline::run(&mut report);
    breaker::run(&mut report);
    deadline::run(&mut report);
    restart::run(&mut report);
    group::run(&mut report);
    replica::run(&mut report);
    checkpoint::run(&mut report);
    memory::run(&mut report);
    overload::run(&mut report);
    spawn::run(&mut report);
    tree::run(&mut report);
    worker::run(&mut report);
    watch::run(&mut report);
    report.finish();
}

/// The command line.
#[derive(Debug, Default)]
struct Options {
    /// Few and short rounds: to see that everything runs.
    quick: bool,
    /// A whole minute where drift is looked for.
    long: bool,
    csv: Option<String>,
    /// Writes cost curves into this folder and does nothing else.
    curves: Option<String>,
    /// Only the families whose name contains this.
    filter: Option<String>,
}
