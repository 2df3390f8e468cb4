//! What happens to several children in order: boot, group restart, and the end of them all.

use super::{BEYOND, Child, Due, FIRST, Mode, Stage, SupervisorMachine, Then};
use crate::clock::Timestamp;
use crate::supervision::action::{Action, End};
use crate::supervision::child::ChildKey;
use crate::supervision::config::Strategy;

/// A group being restarted, or booted: all children from one on.
#[derive(Debug)]
pub(super) struct Plan {
    from: ChildKey,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing from `below` on is alive any more. What is alive before it is stopped next.
    Stopping { below: ChildKey, at: Timestamp },
    /// All are down until the delay is over.
    Waiting { at: Timestamp },
    /// Everything before `next` is up, or not to be started.
    Starting { next: ChildKey },
}

impl Plan {
    pub(super) fn boot() -> Self {
        Self { from: FIRST, step: Step::Starting { next: FIRST } }
    }

    /// Whether the child's turn to be started is still to come.
    fn will_start(&self, child: ChildKey) -> bool {
        match self.step {
            Step::Stopping { .. } | Step::Waiting { .. } => child >= self.from,
            Step::Starting { next } => child >= next,
        }
    }
}

impl SupervisorMachine {
    /// Restarts everything from `from` on, because `failed` has failed, at `at` or when all have stopped.
    pub(super) fn plan_restart(&mut self, from: ChildKey, failed: ChildKey, at: Timestamp) {
        let (mut earliest, mut latest) = (from, at);
        match self.plan.take() {
            Some(Plan { from, step: Step::Stopping { at, .. } }) => {
                (earliest, latest) = (earliest.min(from), latest.max(at));
            }
            Some(Plan { from, step: Step::Waiting { at } }) => {
                self.timers.remove(&(at, Due::Plan));
                (earliest, latest) = (earliest.min(from), latest.max(at));
            }
            // What comes before the next one is up, and stays so.
            Some(Plan { step: Step::Starting { next }, .. }) => earliest = earliest.min(next),
            None => {}
        }
        self.set_stage(failed, Stage::Planned);
        // Ended transient children, and those that somebody stopped earlier, come back with their group.
        let down = self.children.range(earliest..).filter(|(_, child)| child.stage == Stage::Down);
        for key in down.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.set_stage(key, Stage::Planned);
        }
        self.plan = Some(Plan { from: earliest, step: Step::Stopping { below: BEYOND, at: latest } });
    }

    /// A child has failed whose group is being stopped: it comes back with the others.
    pub(super) fn join_plan(&mut self, failed: ChildKey, at: Timestamp) {
        if let Some(Plan { step: Step::Stopping { at: latest, .. }, .. }) = &mut self.plan {
            *latest = at.max(*latest);
        }
        self.set_stage(failed, Stage::Planned);
    }

    pub(super) fn is_stopping_group_of(&self, child: ChildKey) -> bool {
        let stops = |plan: &Plan| matches!(plan.step, Step::Stopping { .. }) && child >= plan.from;
        self.plan.as_ref().is_some_and(stops)
    }

    /// Starts a child that is down: at once, or when its turn in the group comes.
    pub(super) fn start_in_turn(&mut self, child: ChildKey, now: Timestamp) {
        self.set_stage(child, Stage::Planned);
        if !self.plan.as_ref().is_some_and(|plan| plan.will_start(child)) {
            self.start(child);
        }
        self.advance(now);
    }

    /// Does what can be done now, one child at a time.
    pub(super) fn advance(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Ending(end, below) => self.advance_end(end, below, now),
            Mode::Booting | Mode::Running => self.advance_plan(now),
            Mode::Ended => {}
        }
    }

    fn advance_plan(&mut self, now: Timestamp) {
        while let Some(Plan { from, step }) = &mut self.plan {
            let from = *from;
            match *step {
                Step::Stopping { below, at } => {
                    let last = self.children.range(from..below).rev().find(|(_, child)| child.is_alive());
                    let Some((key, stage)) = last.map(|(key, child)| (*key, child.stage)) else {
                        if at > now {
                            self.timers.insert((at, Due::Plan));
                        }
                        *step = Step::Waiting { at };
                        continue;
                    };
                    *step = Step::Stopping { below: ChildKey(key.0 + 1), at };
                    if !matches!(stage, Stage::Stopping { .. }) {
                        self.stop(key, Then::Restart, now);
                    }
                    return;
                }
                Step::Waiting { at } if at > now => return,
                Step::Waiting { at } => {
                    self.timers.remove(&(at, Due::Plan));
                    *step = Step::Starting { next: from };
                }
                Step::Starting { next } => {
                    let turn = self
                        .children
                        .range(next..)
                        .find(|(_, child)| child.is_alive_but_not_up() || child.stage == Stage::Planned);
                    let Some((key, stage)) = turn.map(|(key, child)| (*key, child.stage)) else {
                        self.plan = None;
                        if self.mode == Mode::Booting {
                            self.mode = Mode::Running;
                            self.actions.push_back(Action::Booted);
                        }
                        return;
                    };
                    *step = Step::Starting { next: key };
                    if stage == Stage::Planned {
                        self.start(key);
                    }
                    return;
                }
            }
        }
    }

    /// The supervisor ends: no delay is waited for any more, and what is alive or held is stopped, the youngest first.
    pub(super) fn end(&mut self, end: End, now: Timestamp) {
        if matches!(self.mode, Mode::Ending(..) | Mode::Ended) {
            return;
        }
        self.mode = Mode::Ending(end, BEYOND);
        if let Some(Plan { step: Step::Waiting { at }, .. }) = self.plan.take() {
            self.timers.remove(&(at, Due::Plan));
        }
        let waiting = |stage| matches!(stage, Stage::Delayed { .. } | Stage::Planned);
        let waits = self.children.iter().filter(|(_, child)| waiting(child.stage)).map(|(key, _)| *key);
        for key in waits.collect::<Vec<_>>() {
            self.lay_down(key);
        }
        if self.config.strategy == Strategy::Dynamic {
            // In no order, so all at once: the slowest decides, not the sum.
            let up = |stage| matches!(stage, Stage::Starting | Stage::Up | Stage::Held);
            let alive = self.children.iter().filter(|(_, child)| up(child.stage)).map(|(key, _)| *key);
            for key in alive.collect::<Vec<_>>() {
                self.stop(key, Then::Stay, now);
            }
        }
    }

    fn advance_end(&mut self, end: End, below: ChildKey, now: Timestamp) {
        let is_left = |child: &Child| child.is_alive() || child.stage == Stage::Held;
        let last = self.children.range(..below).rev().find(|(_, child)| is_left(child));
        let Some((key, stage)) = last.map(|(key, child)| (*key, child.stage)) else {
            self.mode = Mode::Ended;
            self.actions.push_back(Action::End(end));
            return;
        };
        self.mode = Mode::Ending(end, ChildKey(key.0 + 1));
        if !matches!(stage, Stage::Stopping { .. }) {
            self.stop(key, Then::Stay, now);
        }
    }
}
