//! A kernel's name: `family/name`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest accepted name, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// A kernel's name, `family/name`, for example `graph/pagerank`.
///
/// Both halves start with an ASCII letter or digit and go on with letters, digits, `_`, `-` or `.`. A clone
/// shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelId(Arc<str>);

impl KernelId {
    /// Parses `family/name`.
    ///
    /// # Errors
    /// [`InvalidKernelId`] says which rule the text breaks.
    pub fn new(id: &str) -> Result<Self, InvalidKernelId> {
        let refuse = |rule| Err(InvalidKernelId { id: id.chars().take(MAX_ID_BYTES).collect(), rule });
        if id.len() > MAX_ID_BYTES {
            return refuse("a kernel id has at most 128 bytes");
        }
        let Some((family, name)) = id.split_once('/') else {
            return refuse("a kernel id is `family/name`");
        };
        for half in [family, name] {
            if !half.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return refuse("family and name start with an ASCII letter or digit");
            }
            if !half.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
                return refuse("family and name hold only ASCII letters, digits, `_`, `-` and `.`");
            }
        }
        Ok(Self(Arc::from(id)))
    }

    /// The whole id, `family/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    #[must_use]
    pub fn family(&self) -> &str {
        self.0.split_once('/').map_or("", |(family, _)| family)
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelId({})", self.0)
    }
}

impl AsRef<str> for KernelId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for KernelId {
    type Err = InvalidKernelId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<String> for KernelId {
    type Error = InvalidKernelId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(&id)
    }
}

impl From<KernelId> for String {
    fn from(id: KernelId) -> Self {
        id.0.to_string()
    }
}

/// Why a text is not a kernel id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid kernel id {id:?}: {rule}")]
pub struct InvalidKernelId {
    /// The refused text, cut to 128 characters.
    pub id: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_family_and_a_name() {
        let id = KernelId::new("graph/pagerank").unwrap();
        assert_eq!((id.family(), id.name(), id.as_str()), ("graph", "pagerank", "graph/pagerank"));
    }

    #[test]
    fn what_is_not_family_slash_name_is_refused() {
        for bad in
            ["", "pagerank", "/x", "x/", "a/b/c", "a b/c", "a/\u{fc}", "a/b\n", "../etc", &"x/".repeat(99)]
        {
            assert!(KernelId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn serde_goes_through_the_same_rules() {
        let id: KernelId = serde_json::from_str("\"graph/load\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"graph/load\"");
        assert!(serde_json::from_str::<KernelId>("\"load\"").is_err());
    }
}
