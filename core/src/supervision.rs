//! Restart trees: what a supervisor does when a child starts, ends, or is told to.
//!
//! A [`SupervisorMachine`] is one node of a tree, as OTP's `supervisor` behaviour defines it, without processes: events and
//! the time go in, [`Action`]s come out. The words are OTP's: permanent, transient and temporary children; one_for_one,
//! one_for_all and rest_for_one; intensity per period; significant children and auto-shutdown. `docs/semantics.md` names every rule
//! with its test.
//!
//! Where it is deliberately more than OTP: a restart may be delayed, by a backoff or by the child's own policy, and neither a
//! delay nor a slow start blocks the supervisor; periods are [`Duration`](std::time::Duration)s; a child that does not even end when
//! it is killed is let go and counted. What it does NOT do: it starts and kills nobody, and it knows nothing about what its
//! children are.

mod action;
mod child;
mod config;
mod intensity;
mod machine;

pub use action::{Action, End};
pub use child::{ChildKey, ChildKind, ChildRules, ChildSpec, ChildState, ChildView, Exit, Restart, Shutdown};
pub use config::{AutoShutdown, Strategy, SupervisorConfig};
pub use machine::{Counts, Refusal, SupervisorMachine};
