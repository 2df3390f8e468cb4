//! How much has to be made anew after a fault.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How deep a restart has to go. The deeper one is the greater one, and takes all of the shallower ones with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartDepth {
    /// Nothing is made anew.
    None,
    /// The same work is launched again.
    Relaunch,
    /// Stream, module, function and graph are made anew, in the same context.
    Module,
    /// The context is destroyed and made anew in the same process; all kernels of it restart together.
    Context,
    /// The worker process is killed and another one is started.
    Process,
    /// The work goes to another device, or to a replica there.
    Device,
    /// No restart helps before an operator has acted.
    Operator,
}

impl RestartDepth {
    /// What to try when this depth has not helped. After the operator there is nobody.
    #[must_use]
    pub const fn deeper(self) -> Self {
        match self {
            Self::None => Self::Relaunch,
            Self::Relaunch => Self::Module,
            Self::Module => Self::Context,
            Self::Context => Self::Process,
            Self::Process => Self::Device,
            Self::Device | Self::Operator => Self::Operator,
        }
    }
}

impl fmt::Display for RestartDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Relaunch => "relaunch",
            Self::Module => "module",
            Self::Context => "context",
            Self::Process => "process",
            Self::Device => "device",
            Self::Operator => "operator",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_is_shallower_than_the_next_and_the_operator_is_the_last() {
        let mut depth = RestartDepth::None;
        let mut passed = 0;
        while depth != RestartDepth::Operator {
            assert!(depth < depth.deeper(), "{depth}");
            depth = depth.deeper();
            passed += 1;
        }
        assert_eq!(passed, 6);
        assert_eq!(depth.deeper(), RestartDepth::Operator);
    }
}
