//! Health: what is checked, how results become a state, and how many states become one.

mod config;
mod status;

pub use config::{HealthCheckConfig, HealthProbeConfig};
pub use status::{HealthAggregation, HealthCheckResult, HealthStatus, aggregate};
