//! K2K pipelines.
/// x
#[derive(Debug)]
pub struct Pipeline;
