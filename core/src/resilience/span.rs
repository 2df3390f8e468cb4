//! Durations in human form, "30s" or "1m 30s", in every configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*span))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// The same for an optional duration.
pub(super) mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Human(#[serde(with = "super")] Duration);

    pub(in crate::resilience) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(Human).serialize(serializer)
    }

    pub(in crate::resilience) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Human>::deserialize(deserializer)?.map(|human| human.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Both {
        #[serde(with = "super")]
        span: Duration,
        #[serde(with = "super::optional")]
        limit: Option<Duration>,
    }

    #[test]
    fn durations_read_and_write_in_human_form() {
        let both = Both { span: Duration::from_millis(90_500), limit: Some(Duration::from_micros(3)) };
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, r#"{"span":"1m 30s 500ms","limit":"3us"}"#);
        assert_eq!(serde_json::from_str::<Both>(&text).unwrap(), both);
    }

    #[test]
    fn the_endless_duration_survives_the_round_trip() {
        let both = Both { span: Duration::MAX, limit: None };
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Both>(&text).unwrap(), both);
    }
}
