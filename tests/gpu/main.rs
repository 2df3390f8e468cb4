//! The GPU suite: the rows of the fault model, the built-in kernels and what supervision costs, on a real device.
//!
//! `cargo test --release --test gpu -- [--out FILE] [--only ROW,ROW] [--quick]`; docs/gpu/README.md says what each row shows.
//!
//! ```text
//! parent          makes no CUDA call; one JSON object a line, as rows end
//!  `- row         a child process a row, killed at its limit: a fault ends its process, not the suite
//!      |- worker  a worker process of a `Domain`
//!      `- act     what a row needs in one more process: a cold start, something to kill
//! ```
//!
//! All of them are this program again. It needs no file of the repository and no network.

#[path = "../support/device.rs"]
mod device;
#[path = "../support/stages.rs"]
mod stages;

mod act;
mod chain;
mod child;
mod completion;
mod context;
mod coredump;
mod correct;
mod environment;
mod faults;
mod figures;
mod floor;
mod hang;
mod host_memory;
mod images;
mod kernels;
mod launches;
mod neighbour;
mod options;
mod owner;
mod parent;
mod pressure;
mod rates;
mod raw;
mod rebuild;
mod recovery;
mod row;
mod rows;
mod scene;
mod siblings;
mod start;
mod tracking;
mod waits;
mod xid;

use std::process::ExitCode;

use options::Mode;

fn main() -> ExitCode {
    rustkernel::worker::init(kernels::register);
    let mode = match options::read(std::env::args().skip(1)) {
        Ok(mode) => mode,
        Err(reason) => {
            eprintln!("{reason}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match mode {
        Mode::Parent(options) => parent::run(&options),
        Mode::List => list(),
        Mode::Row { name, bench } => row::run(&name, bench),
        Mode::Act(arguments) => act::run(&arguments),
    }
}

/// As `cargo test -- --list` wants it.
fn list() -> ExitCode {
    rows::ROWS.iter().for_each(|row| println!("{}: test", row.name));
    ExitCode::SUCCESS
}
