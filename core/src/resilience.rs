//! The book's resilience patterns.

mod error;

pub use error::{Classify, ErrorKind, InvalidConfig, ResilienceError};
