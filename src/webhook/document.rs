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
        let (fact, detail) = match &event.fact {
            Fact::Isolated { cause } => ("isolated", excerpt(cause, MAX_REASON_BYTES)),
            Fact::GaveUp => ("gave_up", "the runtime gave up: every kernel is down".to_owned()),
            Fact::DeadLetter { letter, id } => {
                ("dead_letter", format!("request {id} was given up for good: dead letter {letter}"))
            }
            Fact::ThreadAbandoned { alive } => {
                ("thread_abandoned", format!("abandoned threads that still run: {alive}"))
            }
            Fact::Degraded => ("degraded", "the degraded path answers".to_owned()),
            Fact::FailedOver { to } => ("failed_over", format!("moved to the backup device {to}")),
            Fact::ChildAbandoned => {
                ("child_abandoned", "it did not end when it was killed, and was left to itself".to_owned())
            }
            Fact::CheckpointRefused { sequence, reason } => (
                "checkpoint_refused",
                format!("checkpoint {sequence}: {}", excerpt(reason, MAX_REASON_BYTES)),
            ),
            Fact::Breaker(transition) if transition.to == BreakerMode::Open => {
                let cause = serde_json::to_string(&transition.cause).unwrap_or_default();
                let detail = format!("generation {}, because of {cause}", transition.generation);
                ("breaker_opened", detail)
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
    use rustkernel_actors::Cause;
    use rustkernel_core::KernelId;
    use rustkernel_core::clock::Timestamp;
    use rustkernel_core::resilience::{Transition, TransitionCause};

    use super::*;

    fn about(fact: Fact) -> Option<Document> {
        let kernel = Some(KernelId::new("a/b").unwrap());
        Document::about(&Event { at: Timestamp::ZERO, kernel, child: Some("a/b".into()), fact })
    }

    fn breaker(to: BreakerMode) -> Fact {
        let (from, cause) = (BreakerMode::Closed, TransitionCause::FailureRate);
        Fact::Breaker(Transition { from, to, cause, generation: 2, at: Timestamp::ZERO })
    }

    #[test]
    fn what_an_operator_has_to_hear_of_is_told_and_nothing_else() {
        let cause = Cause::Panicked("no".to_owned());
        let told = [
            Fact::Isolated { cause: cause.clone() },
            Fact::GaveUp,
            Fact::DeadLetter { letter: 1, id: 2 },
            Fact::ThreadAbandoned { alive: 3 },
            breaker(BreakerMode::Open),
        ];
        let facts: Vec<_> = told.into_iter().filter_map(about).map(|document| document.fact()).collect();
        assert_eq!(facts, ["isolated", "gave_up", "dead_letter", "thread_abandoned", "breaker_opened"]);
        for quiet in [
            Fact::Failed { incarnation: 1, cause },
            Fact::Resumed,
            Fact::Stopped,
            breaker(BreakerMode::HalfOpen),
        ] {
            assert_eq!(about(quiet), None);
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let cause = Cause::Panicked("x".repeat(1 << 20));
        let document = about(Fact::Isolated { cause }).unwrap();
        assert!(document.to_json().len() < 2 * MAX_REASON_BYTES);
    }
}
