//! Health: what is checked, how results become a state, and how many states become one.

mod config;
mod machine;
mod probe;
mod status;

pub use config::{HealthCheckConfig, HealthProbeConfig};
pub use machine::ProbeMachine;
pub use probe::{HealthProbe, HealthTarget};
pub use status::{HealthAggregation, HealthCheckResult, HealthStatus, aggregate};
