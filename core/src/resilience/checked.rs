//! Deserialisation that cannot skip validation.

/// Reads `$config` by way of `$raw`, which has the same fields: a missing field takes its default, and a value that
/// breaks a rule is refused with the field named.
macro_rules! checked {
    ($config:ident from $raw:ident { $($field:ident),* $(,)? }) => {
        impl Default for $raw {
            fn default() -> Self {
                let config = $config::default();
                Self { $($field: config.$field),* }
            }
        }

        impl TryFrom<$raw> for $config {
            type Error = InvalidConfig;

            fn try_from(raw: $raw) -> Result<Self, InvalidConfig> {
                let config = Self { $($field: raw.$field),* };
                config.validate()?;
                Ok(config)
            }
        }
    };
}

pub(crate) use checked;

use super::InvalidConfig;

/// `Ok` where `holds`; otherwise the error that names the field and its rule.
pub(crate) const fn rule(holds: bool, field: &'static str, rule: &'static str) -> Result<(), InvalidConfig> {
    if holds { Ok(()) } else { Err(InvalidConfig { field, rule }) }
}
