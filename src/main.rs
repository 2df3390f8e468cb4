//! The `rustkernel` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    rustkernel::cli::main()
}
