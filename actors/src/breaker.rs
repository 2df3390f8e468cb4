//! The breaker actor: it alone decides the transitions of every gate of its runtime.
//!
//! Failures that matter arrive as reports of the gates, times as rings of the timer, commands from the operator. Each change of state is
//! decided by the kernel's [`BreakerMachine`], published to its gate, and told to the operator once.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use rustkernel_core::clock::{Clock, Timestamp};
use rustkernel_core::resilience::{BreakerMachine, BreakerMode, Outcome, Permit, Transition, TripCause};
use tokio::sync::oneshot;

use crate::counted::CountedMap;
use crate::gate::{Mode, Report, same_generation};
use crate::links::Links;
use crate::operator::Fact;
use crate::slot::Supervised;
use crate::timer::Alarm;

pub(crate) enum BreakerMsg {
    /// A new kernel with a breaker.
    Register { slot: u32, kernel: Arc<dyn Supervised>, machine: Box<BreakerMachine> },
    /// The kernel is gone.
    Remove { slot: u32 },
    /// What a gate could not decide by itself. `decided` is told when the decision is published.
    Report { slot: u32, report: Report, decided: Option<oneshot::Sender<()>> },
    /// A half-open gate of `generation` let a probe in.
    ProbeOut { slot: u32, generation: u64 },
    /// The timer rang for `generation`.
    Timer { slot: u32, generation: u64 },
    /// The kernel has a new incarnation, which proves itself with probes; with a `trusted` one a closed gate stays closed.
    Restarted { slot: u32, trusted: bool },
    /// The operator's word. `done` is told when it is published.
    Command { slot: u32, command: BreakerCommand, done: oneshot::Sender<bool> },
}

impl Message for BreakerMsg {}

/// What an operator can do to a breaker by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerCommand {
    /// Hold it open until [`Close`](Self::Close).
    Isolate,
    /// Close it.
    Close,
    /// Let everything pass and count nothing.
    Disable,
    /// Close it and forget all counts.
    Reset,
}

pub(crate) struct BreakerActor {
    pub(crate) links: Weak<Links>,
    pub(crate) clock: Clock,
}

#[derive(Default)]
pub(crate) struct Breakers(CountedMap<u32, Breaker>);

struct Breaker {
    kernel: Arc<dyn Supervised>,
    machine: Box<BreakerMachine>,
    /// Probes that the gate let in, as the machine knows them.
    probes: Vec<Permit>,
    alarm: Arc<BreakerAlarm>,
    /// What the alarm is set to, and for which generation: another one ignores the ring.
    armed: (Option<Timestamp>, u64),
}

struct BreakerAlarm {
    slot: u32,
    links: Weak<Links>,
}

impl Alarm for BreakerAlarm {
    fn ring(&self, _: Timestamp, generation: u64) {
        if let Some(links) = self.links.upgrade() {
            links.to_breaker(BreakerMsg::Timer { slot: self.slot, generation });
        }
    }
}

impl Actor for BreakerActor {
    type Msg = BreakerMsg;
    type State = Breakers;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<BreakerMsg>, (): ()) -> Result<Breakers, ActorProcessingErr> {
        Ok(Breakers::default())
    }

    async fn handle(
        &self,
        _: ActorRef<BreakerMsg>,
        message: BreakerMsg,
        Breakers(breakers): &mut Breakers,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.clock.now();
        match message {
            BreakerMsg::Register { slot, kernel, machine } => {
                let alarm = Arc::new(BreakerAlarm { slot, links: Weak::clone(&self.links) });
                breakers
                    .insert(slot, Breaker { kernel, machine, probes: Vec::new(), alarm, armed: (None, 0) });
            }
            BreakerMsg::Remove { slot } => {
                if let Some(breaker) = breakers.remove(&slot) {
                    // Nobody would open it again: whoever still calls hears from the slot that the kernel is gone.
                    let generation = breaker.machine.generation();
                    breaker.kernel.gate().publish(Mode::Disabled, 0, generation);
                }
            }
            BreakerMsg::Report { slot, report, decided } => {
                self.with(breakers, slot, |breaker| breaker.report(report, now));
                if let Some(decided) = decided {
                    // The reporter may be gone.
                    let _ = decided.send(());
                }
            }
            BreakerMsg::ProbeOut { slot, generation } => {
                self.with(breakers, slot, |breaker| breaker.probe_out(generation, now))
            }
            BreakerMsg::Timer { slot, generation } => self.with(breakers, slot, |breaker| {
                let current = breaker.machine.generation() == generation;
                if current { breaker.machine.on_timer(now) } else { None }
            }),
            BreakerMsg::Restarted { slot, trusted } => self.with(breakers, slot, |breaker| {
                let stays = trusted && breaker.machine.mode() == BreakerMode::Closed;
                if stays { None } else { breaker.machine.force_half_open(now) }
            }),
            BreakerMsg::Command { slot, command, done } => {
                let known = breakers.contains_key(&slot);
                self.with(breakers, slot, |breaker| breaker.command(command, now));
                if let Some(breaker) = breakers.get(&slot).filter(|_| command == BreakerCommand::Reset) {
                    // One that is closed already makes no transition, but its gate has counted failures.
                    breaker.publish();
                }
                // The operator may be gone.
                let _ = done.send(known);
            }
        }
        Ok(())
    }
}

impl BreakerActor {
    /// Lets `decide` work on a breaker, then publishes, tells and schedules what follows from it.
    fn with(
        &self,
        breakers: &mut CountedMap<u32, Breaker>,
        slot: u32,
        decide: impl FnOnce(&mut Breaker) -> Option<Transition>,
    ) {
        let Some(breaker) = breakers.get_mut(&slot) else { return };
        let transition = decide(breaker);
        let Some(links) = self.links.upgrade() else { return };
        if let Some(transition) = transition {
            breaker.probes.clear();
            breaker.publish();
            links.operator.tell(Some(breaker.kernel.id()), Fact::Breaker(transition));
        }
        let deadline = breaker.machine.next_deadline();
        let armed = (deadline, breaker.machine.generation());
        if armed != breaker.armed {
            breaker.armed = armed;
            let alarm: Weak<dyn Alarm> = Arc::downgrade(&breaker.alarm) as Weak<dyn Alarm>;
            links.timer.schedule(deadline.unwrap_or(Timestamp::NEVER), alarm, breaker.machine.generation());
        }
    }
}

impl Breaker {
    fn report(&mut self, report: Report, now: Timestamp) -> Option<Transition> {
        let generation = match report {
            Report::Tripped { generation }
            | Report::Probe { generation, .. }
            | Report::Sample { generation, .. } => generation,
        };
        if !same_generation(self.machine.generation(), generation) {
            return None;
        }
        match report {
            Report::Tripped { .. } => self.machine.trip(TripCause::Failures, now),
            Report::Probe { outcome, took, .. } => {
                let permit = self.probes.pop();
                self.count(permit, outcome, took, now)
            }
            Report::Sample { outcome, took, .. } => self.count(None, outcome, took, now),
        }
    }

    /// Mirrors a probe that the gate let in, so that the machine's own limits, the time limit above all, hold for it.
    fn probe_out(&mut self, generation: u64, now: Timestamp) -> Option<Transition> {
        if !same_generation(self.machine.generation(), generation) {
            return None;
        }
        // The half-open limit may have passed while the message was on its way.
        let moved = self.machine.on_timer(now);
        if moved.is_none() {
            self.probes.extend(self.machine.try_acquire(now).ok());
        }
        moved
    }

    /// Lets the machine count an outcome. Calls of a closed gate take their permit only now: the gate has admitted them.
    fn count(
        &mut self,
        permit: Option<Permit>,
        outcome: Outcome,
        took: Duration,
        now: Timestamp,
    ) -> Option<Transition> {
        let permit = permit.map_or_else(|| self.machine.try_acquire(now).ok(), Some)?;
        self.machine.on_outcome(permit, outcome, took, now)
    }

    fn command(&mut self, command: BreakerCommand, now: Timestamp) -> Option<Transition> {
        match command {
            BreakerCommand::Isolate => self.machine.isolate(now),
            BreakerCommand::Close => self.machine.close(now),
            BreakerCommand::Disable => self.machine.disable(now),
            BreakerCommand::Reset => self.machine.reset(now),
        }
    }

    fn publish(&self) {
        let (mode, count) = match self.machine.mode() {
            BreakerMode::Closed => (Mode::Closed, 0),
            BreakerMode::Open => (Mode::Open, 0),
            BreakerMode::HalfOpen => (Mode::HalfOpen, self.machine.config().success_threshold),
            BreakerMode::Isolated => (Mode::Isolated, 0),
            BreakerMode::Disabled => (Mode::Disabled, 0),
        };
        self.kernel.gate().publish(mode, count, self.machine.generation());
    }
}

impl fmt::Debug for BreakerMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Register { .. } => "Register",
            Self::Remove { .. } => "Remove",
            Self::Report { .. } => "Report",
            Self::ProbeOut { .. } => "ProbeOut",
            Self::Timer { .. } => "Timer",
            Self::Restarted { .. } => "Restarted",
            Self::Command { .. } => "Command",
        })
    }
}
