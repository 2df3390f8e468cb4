//! Durations in human form, "250ms" or "1m 30s".

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format_args!(
            "`{text}` is no duration, as \"250ms\" or \"1m 30s\" are: {error}"
        ))
    })
}

pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    plain(deserializer).map(Some)
}

pub(super) fn written<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*span))
}

pub(super) fn written_if<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => written(span, serializer),
        None => serializer.serialize_none(),
    }
}
