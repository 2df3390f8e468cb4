//! What is sent about one fact.

use rustkernel_actors::{Event, Fact};
use rustkernel_core::clock::unix_millis;
use rustkernel_core::excerpt::{MAX_REASON_BYTES, excerpt};
use rustkernel_core::resilience::BreakerMode;
use serde::Serialize;

/// The document of one fact. A new field does not change the schema; one that goes or changes its meaning does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Document {
    schema: u32,
    /// The kernel or other child; `null` for the runtime itself.
    child: Option<String>,
    fact: &'static str,
    /// For people.
    detail: String,
    /// When the hook was told.
    unix_millis: u64,
}

impl Document {
    /// The document about `event`, if an operator has to hear of it.
    pub(super) fn about(event: &Event) -> Option<Self> {
        let detail = match &event.fact {
            Fact::Isolated { cause } => excerpt(cause, MAX_REASON_BYTES),
            Fact::GaveUp => "the runtime gave up: every kernel is down".to_owned(),
            Fact::DeadLetter { letter, id } => {
                format!("request {id} was given up for good: dead letter {letter}")
            }
            Fact::ThreadAbandoned { alive } => format!("abandoned threads that still run: {alive}"),
            Fact::Degraded => "the degraded path answers".to_owned(),
            Fact::FailedOver { to } => format!("moved to the backup device {to}"),
            Fact::ChildAbandoned => "it did not end when it was killed, and was left to itself".to_owned(),
            Fact::PlaceUnfit { reason } => excerpt(reason, MAX_REASON_BYTES),
            Fact::CheckpointRefused { sequence, reason } => {
                format!("checkpoint {sequence}: {}", excerpt(reason, MAX_REASON_BYTES))
            }
            Fact::Breaker(transition) if transition.to == BreakerMode::Open => {
                let cause = serde_json::to_string(&transition.cause).unwrap_or_default();
                format!("generation {}, because of {cause}", transition.generation)
            }
            Fact::Started { .. }
            | Fact::Failed { .. }
            | Fact::Restarting { .. }
            | Fact::TookOver { .. }
            | Fact::StandbyReady { .. }
            | Fact::StandbyFailed { .. }
            | Fact::Recovered
            | Fact::Resumed
            | Fact::Stopped
            | Fact::Breaker(_)
            | Fact::CheckpointFailed { .. }
            | Fact::Health(_)
            | _ => return None,
        };
        let fact = event.fact.name();
        let child = event.child.as_deref().map(str::to_owned);
        Some(Self { schema: SCHEMA, child, fact, detail, unix_millis: unix_millis() })
    }

    pub(super) fn to_json(&self) -> String {
        // No type of ours fails, so there is always a document.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What it tells, as a label with few values.
    pub(super) fn fact(&self) -> &'static str {
        self.fact
    }
}

const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use rustkernel_actors::{Cause, Variant};
    use rustkernel_core::clock::Timestamp;
    use rustkernel_core::resilience::{HealthStatus, Transition, TransitionCause};
    use rustkernel_core::{DeviceId, KernelId};

    use super::*;

    fn about(fact: Fact) -> Option<Document> {
        let kernel = Some(KernelId::new("a/b").unwrap());
        Document::about(&Event { at: Timestamp::ZERO, kernel, child: Some("a/b".into()), fact })
    }

    fn breaker(to: BreakerMode) -> Fact {
        let (from, cause) = (BreakerMode::Closed, TransitionCause::FailureRate);
        Fact::Breaker(Transition { from, to, cause, generation: 2, at: Timestamp::ZERO })
    }

    /// Every fact there is, with what is sent about it if anything is.
    fn facts() -> Vec<(Fact, Option<(&'static str, &'static str)>)> {
        let cause = Cause::Panicked("no".to_owned());
        let reason = "no".to_owned();
        let abandoned = "it did not end when it was killed, and was left to itself";
        vec![
            (Fact::Isolated { cause: cause.clone() }, Some(("isolated", "panicked: no"))),
            (Fact::GaveUp, Some(("gave_up", "the runtime gave up: every kernel is down"))),
            (
                Fact::DeadLetter { letter: 1, id: 2 },
                Some(("dead_letter", "request 2 was given up for good: dead letter 1")),
            ),
            (
                Fact::ThreadAbandoned { alive: 3 },
                Some(("thread_abandoned", "abandoned threads that still run: 3")),
            ),
            (Fact::Degraded, Some(("degraded", "the degraded path answers"))),
            (
                Fact::FailedOver { to: DeviceId::CPU },
                Some(("failed_over", "moved to the backup device cpu:0")),
            ),
            (Fact::ChildAbandoned, Some(("child_abandoned", abandoned))),
            (Fact::PlaceUnfit { reason: reason.clone() }, Some(("place_unfit", "no"))),
            (
                Fact::CheckpointRefused { sequence: 4, reason: reason.clone() },
                Some(("checkpoint_refused", "checkpoint 4: no")),
            ),
            (
                breaker(BreakerMode::Open),
                Some(("breaker_opened", "generation 2, because of \"failure_rate\"")),
            ),
            (breaker(BreakerMode::HalfOpen), None),
            (breaker(BreakerMode::Closed), None),
            (Fact::Started { incarnation: 1, restored: false }, None),
            (Fact::Failed { incarnation: 1, cause: cause.clone() }, None),
            (Fact::StopFailed { incarnation: 1, cause: cause.clone() }, None),
            (Fact::Restarting { delay: Duration::ZERO, in_window: 1 }, None),
            (Fact::TookOver { incarnation: 1, variant: Variant::Main }, None),
            (Fact::StandbyReady { incarnation: 1 }, None),
            (Fact::StandbyFailed { incarnation: 1, cause }, None),
            (Fact::Recovered, None),
            (Fact::Resumed, None),
            (Fact::Stopped, None),
            (Fact::CheckpointFailed { reason }, None),
            (Fact::Health(HealthStatus::Unhealthy), None),
        ]
    }

    #[test]
    fn what_an_operator_has_to_hear_of_is_told_and_nothing_else() {
        for (fact, expected) in facts() {
            let told = about(fact.clone());
            let told = told.as_ref().map(|document| (document.fact(), document.detail.as_str()));
            assert_eq!(told, expected, "{fact:?}");
        }
    }

    /// Five of nine were in the table, and five in the test.
    #[test]
    fn the_table_of_facts_is_whole_and_so_is_this_test() {
        let rows = include_str!("../webhook.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let named: BTreeSet<_> =
            rows.filter_map(|row| row.split("| `").nth(1)?.strip_suffix("` |")).collect();
        let sent: BTreeSet<_> = facts().iter().filter_map(|(_, sent)| sent.map(|(fact, _)| fact)).collect();
        assert_eq!(named, sent);

        // The type may grow, and no match outside its crate has to say so.
        let source = include_str!("../../actors/src/operator.rs").split("pub enum Fact {\n").nth(1).unwrap();
        let variants =
            source.split("\n}").next().unwrap().lines().filter_map(|line| line.strip_prefix("    "));
        let variants = variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
        let word =
            |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("").to_owned();
        let variants: BTreeSet<_> = variants.map(word).collect();
        let tested: BTreeSet<_> = facts().iter().map(|(fact, _)| word(&format!("{fact:?}"))).collect();
        assert_eq!(tested, variants);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let cause = Cause::Panicked("x".repeat(1 << 20));
        let refused = Fact::CheckpointRefused { sequence: 1, reason: "x".repeat(1 << 20) };
        for fact in [Fact::Isolated { cause }, refused] {
            let document = about(fact).unwrap();
            assert!(document.to_json().len() < 2 * MAX_REASON_BYTES);
        }
    }
}
