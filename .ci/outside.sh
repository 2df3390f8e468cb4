#!/usr/bin/env bash
# Two small crates outside the workspace, as users have them: one whose graph turns ractor's features on, one that
# aborts on panic and has to be told so when the runtime starts.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
outside=$root/target/outside
mkdir -p "$outside/src"
cp Cargo.lock "$outside/Cargo.lock"
cat >"$outside/Cargo.toml" <<TOML
[package]
name = "outside"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
rustkernel = { path = "$root", default-features = false }
ractor = { version = "0.16.5", features = ["cluster", "monitors", "output-port-v2"] }
tokio = { version = "1", features = ["macros", "rt"] }

[profile.dev]
debug = false

[profile.abort]
inherits = "dev"
panic = "abort"
TOML
cat >"$outside/src/main.rs" <<'RUST'
use rustkernel::prelude::*;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match Runtime::builder().build().await {
        Ok(_) => println!("started"),
        Err(error) => println!("refused: {error}"),
    }
}
RUST
export CARGO_TARGET_DIR=$root/target/outside-build
unwind=$(cargo run --quiet --manifest-path "$outside/Cargo.toml")
abort=$(cargo run --quiet --profile abort --manifest-path "$outside/Cargo.toml")
echo "unwind: $unwind"
echo "abort:  $abort"
[ "$unwind" = "started" ]
case "$abort" in "refused: built with panic"*) ;; *) exit 1 ;; esac
