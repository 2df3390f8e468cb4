//! Trees of supervisors: OTP's supervisor_SUITE through the public API, with tasks, kernels and supervisors as children.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "tree/admin.rs"]
mod admin;
#[path = "tree/boot.rs"]
mod boot;
#[path = "tree/cast.rs"]
#[allow(dead_code, reason = "the random trees use the rest")]
mod cast;
#[path = "tree/escalation.rs"]
mod escalation;
#[path = "tree/killed.rs"]
mod killed;
#[path = "support/kit.rs"]
mod kit;
#[path = "tree/restart.rs"]
mod restart;
#[path = "tree/stop.rs"]
mod stop;
