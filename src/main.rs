//! The `rustkernel` command.

fn main() {}
