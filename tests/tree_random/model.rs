//! OTP's rules for a whole tree as straight-line code: whoever is told to end has ended when the call returns, and only slow
//! starts and delays take time.

use std::collections::{HashMap, HashSet};

use rustkernel::actors::ChildPhase;
use rustkernel::core::supervision::{AutoShutdown, Restart, Strategy};

use crate::plant::{Kind, Plant, Rules};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Down,
    Queued,
    Starting,
    Up,
    Delayed(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Normal,
    Shutdown,
    Abnormal,
}

/// Who asked for the start that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nobody,
    ToAdd,
    ToRestart,
}

/// A group that is being started, or waits for that.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Waiting { from: usize, at: u64 },
    Starting { next: usize },
}

/// A node as it is now. A supervisor's part is empty while it is not there.
#[derive(Clone, Debug)]
struct Node {
    plant: Plant,
    declared: Vec<usize>,
    is: Is,
    life: u64,
    asked: Asked,
    /// Its end is waiting to be read.
    dead: bool,
    kids: Vec<usize>,
    booting: bool,
    turn: Option<Turn>,
    restarts: Vec<u64>,
    ended: Option<Exit>,
}

#[derive(Debug)]
pub(crate) struct Model {
    nodes: Vec<Node>,
    pub(crate) now: u64,
    /// What the children write: the lines of one entry in whatever order.
    pub(crate) log: Vec<Vec<String>>,
    pub(crate) failing: HashMap<usize, usize>,
    pub(crate) held: HashSet<usize>,
    pub(crate) over: bool,
    /// A dead child of this supervisor, not yet noticed, would wait this long.
    joining: Option<(usize, u64)>,
}

impl Model {
    pub(crate) fn new(plants: &[Plant]) -> Self {
        let node = |(number, plant): (usize, &Plant)| Node {
            plant: plant.clone(),
            declared: (1..plants.len()).filter(|child| plants[*child].parent == number).collect(),
            is: Is::Down,
            life: 0,
            asked: Asked::Nobody,
            dead: false,
            kids: Vec::new(),
            booting: false,
            turn: None,
            restarts: Vec::new(),
            ended: None,
        };
        let mut nodes: Vec<_> = plants.iter().enumerate().map(node).collect();
        nodes[0].is = Is::Up;
        let (failing, held) = (HashMap::new(), HashSet::new());
        Self { nodes, now: 0, log: Vec::new(), failing, held, over: false, joining: None }
    }

    /// Somebody adds the tree below the root.
    pub(crate) fn add_the_tree(&mut self) {
        self.nodes[0].kids.push(1);
        self.nodes[1].asked = Asked::ToAdd;
        self.launch(1);
        self.report(0);
    }

    pub(crate) fn exit(&mut self, kid: usize, exit: Exit) {
        if self.has_another(kid) {
            return;
        }
        self.die(kid);
        self.read_exit(kid, exit);
    }

    /// Two children of one supervisor die before it hears of either.
    pub(crate) fn exits(&mut self, first: (usize, Exit), second: (usize, Exit)) {
        self.die(first.0);
        self.die(second.0);
        // In a group that is being restarted the second one is restarted with it: after the longer delay of the two, if its end is
        // read before it was its turn to be stopped.
        let mut younger = self.nodes[self.parent(second.0)].kids.iter().filter(|kid| **kid > second.0);
        let joins = self.comes_back(second.0, second.1)
            && younger.any(|kid| self.lives(*kid) && !self.nodes[*kid].dead);
        self.joining = joins.then(|| (self.parent(second.0), self.delay(second.0)));
        self.read_exit(first.0, first.1);
        self.joining = None;
        if self.nodes[second.0].dead && self.nodes[second.0].is == Is::Up {
            self.read_exit(second.0, second.1);
        }
        self.nodes[second.0].dead = false;
    }

    /// It dies without a word, and all below it with it.
    pub(crate) fn kill(&mut self, kid: usize) {
        if self.has_another(kid) {
            return;
        }
        let mut lines = Vec::new();
        self.wipe(kid, &mut lines);
        self.log.push(lines);
        self.nodes[kid].dead = true;
        self.read_exit(kid, Exit::Abnormal);
    }

    pub(crate) fn ready(&mut self, kid: usize) {
        self.is_up(kid);
        self.carry_on(self.parent(kid));
    }

    pub(crate) fn terminate(&mut self, kid: usize) {
        if self.nodes[kid].is == Is::Down {
            return;
        }
        self.stop(kid);
        let added = self.nodes[kid].asked == Asked::ToAdd;
        self.nodes[kid].asked = Asked::Nobody;
        if self.is_temporary(kid) || added {
            self.drop_kid(kid);
        }
        self.carry_on(self.parent(kid));
    }

    pub(crate) fn restart(&mut self, kid: usize) {
        let above = self.parent(kid);
        if self.nodes[above].booting || self.nodes[kid].is != Is::Down {
            return;
        }
        self.nodes[kid].asked = Asked::ToRestart;
        let comes = match self.nodes[above].turn {
            Some(Turn::Waiting { from, .. }) => kid >= from,
            Some(Turn::Starting { next }) => kid >= next,
            None => false,
        };
        if comes {
            self.nodes[kid].is = Is::Queued;
        } else {
            self.launch(kid);
        }
        self.carry_on(above);
    }

    pub(crate) fn delete(&mut self, kid: usize) {
        let above = self.parent(kid);
        if self.nodes[above].booting || self.nodes[kid].is != Is::Down {
            return;
        }
        self.drop_kid(kid);
        self.nodes[above].declared.retain(|other| *other != kid);
    }

    pub(crate) fn shut_down(&mut self) {
        self.end(0, Exit::Shutdown);
        self.over = true;
    }

    /// The next time at which something happens by itself, and how many things at once.
    pub(crate) fn next_due(&self) -> Option<(u64, usize)> {
        let delays = self.nodes.iter().filter_map(|node| match node.is {
            Is::Delayed(at) => Some(at),
            Is::Down | Is::Queued | Is::Starting | Is::Up => None,
        });
        let turns = self.nodes.iter().filter_map(|node| match node.turn {
            Some(Turn::Waiting { at, .. }) => Some(at),
            Some(Turn::Starting { .. }) | None => None,
        });
        let due: Vec<u64> = delays.chain(turns).collect();
        let first = *due.iter().min()?;
        Some((first, due.iter().filter(|at| **at == first).count()))
    }

    pub(crate) fn advance_to(&mut self, at: u64) {
        self.now = at;
        for above in 0..self.nodes.len() {
            for kid in self.nodes[above].kids.clone() {
                if matches!(self.nodes[kid].is, Is::Delayed(due) if due <= at)
                    && self.nodes[above].kids.contains(&kid)
                {
                    self.launch(kid);
                }
            }
            let waits = matches!(self.nodes[above].turn, Some(Turn::Waiting { at: due, .. }) if due <= at);
            if waits || !self.nodes[above].kids.is_empty() || self.nodes[above].ended.is_some() {
                self.carry_on(above);
            }
        }
    }

    /// Depth, name, phase and life of every child that can be seen, in the order of the tree.
    pub(crate) fn view(&self) -> Vec<(usize, String, ChildPhase, u64)> {
        let mut seen = Vec::new();
        if !self.over {
            self.look(0, 0, &mut seen);
        }
        seen
    }

    fn look(&self, above: usize, depth: usize, seen: &mut Vec<(usize, String, ChildPhase, u64)>) {
        for kid in &self.nodes[above].kids {
            let node = &self.nodes[*kid];
            let phase = match node.is {
                Is::Down => ChildPhase::Down,
                Is::Queued | Is::Delayed(_) => ChildPhase::Restarting,
                Is::Starting => ChildPhase::Starting,
                Is::Up => ChildPhase::Up,
            };
            seen.push((depth, node.plant.name.clone(), phase, node.life));
            self.look(*kid, depth + 1, seen);
        }
    }

    /// Everybody who is somebody's child now.
    pub(crate) fn present(&self) -> Vec<usize> {
        let mut present: Vec<usize> = self.nodes.iter().flat_map(|node| node.kids.iter().copied()).collect();
        present.sort_unstable();
        present
    }

    pub(crate) fn is(&self, node: usize) -> Is {
        self.nodes[node].is
    }

    pub(crate) fn parent(&self, node: usize) -> usize {
        self.nodes[node].plant.parent
    }

    pub(crate) fn rules(&self, node: usize) -> &Rules {
        match &self.nodes[node].plant.kind {
            Kind::Supervisor(rules) => rules,
            Kind::Task | Kind::Announcer | Kind::Kernel | Kind::Twin => panic!("a leaf has no rules"),
        }
    }

    /// The intensity is never exceeded.
    pub(crate) fn check(&self) {
        for node in self.nodes.iter().filter(|node| !node.kids.is_empty()) {
            let Kind::Supervisor(rules) = &node.plant.kind else { continue };
            assert!(node.restarts.len() as u64 <= u64::from(rules.intensity), "{node:?}");
        }
    }

    fn is_supervisor(&self, node: usize) -> bool {
        matches!(self.nodes[node].plant.kind, Kind::Supervisor(_))
    }

    fn is_twin(&self, node: usize) -> bool {
        matches!(self.nodes[node].plant.kind, Kind::Twin)
    }

    /// Whether its standby takes over and its supervisor hears of nothing.
    fn has_another(&self, node: usize) -> bool {
        self.is_twin(node) && !self.is_temporary(node)
    }

    /// Twins that are up. Each has a standby.
    pub(crate) fn twins(&self) -> usize {
        let present = self.present().into_iter();
        present.filter(|node| self.is_twin(*node) && self.is(*node) == Is::Up).count()
    }

    fn is_temporary(&self, node: usize) -> bool {
        self.nodes[node].plant.restart == Restart::Temporary
    }

    fn lives(&self, node: usize) -> bool {
        matches!(self.nodes[node].is, Is::Up | Is::Starting)
    }

    fn drop_kid(&mut self, kid: usize) {
        let above = self.parent(kid);
        self.nodes[above].kids.retain(|other| *other != kid);
    }

    fn write(&mut self, sign: char, node: usize) {
        if self.is_twin(node) {
            return;
        }
        self.log.push(vec![format!("{sign}{}", self.nodes[node].plant.name)]);
    }

    /// A leaf's life is over; its supervisor does not know yet.
    fn die(&mut self, leaf: usize) {
        self.write('-', leaf);
        self.nodes[leaf].dead = true;
    }

    fn wipe(&mut self, node: usize, lines: &mut Vec<String>) {
        if self.lives(node) && !self.is_supervisor(node) && !self.is_twin(node) {
            lines.push(format!("-{}", self.nodes[node].plant.name));
        }
        for kid in std::mem::take(&mut self.nodes[node].kids) {
            self.wipe(kid, lines);
            self.nodes[kid].is = Is::Down;
        }
        self.nodes[node].turn = None;
    }

    fn read_exit(&mut self, kid: usize, exit: Exit) {
        let back = self.comes_back(kid, exit);
        self.nodes[kid].dead = false;
        match self.nodes[kid].is {
            Is::Starting => self.has_not_started(kid),
            Is::Up if back => self.fail(kid),
            Is::Up => self.is_done(kid),
            Is::Down | Is::Queued | Is::Delayed(_) => panic!("{kid} does not live"),
        }
        self.carry_on(self.parent(kid));
    }

    fn comes_back(&self, kid: usize, exit: Exit) -> bool {
        match self.nodes[kid].plant.restart {
            Restart::Permanent => true,
            Restart::Transient => exit == Exit::Abnormal,
            Restart::Temporary => false,
        }
    }

    /// How long it is waited before the child is started again. A kernel brings its own delay: none.
    fn delay(&self, kid: usize) -> u64 {
        let is_kernel = matches!(self.nodes[kid].plant.kind, Kind::Kernel | Kind::Twin);
        if is_kernel { 0 } else { self.rules(self.parent(kid)).delay_ms }
    }

    fn is_done(&mut self, kid: usize) {
        let above = self.parent(kid);
        self.nodes[kid].is = Is::Down;
        let significant = |model: &Self, kid: usize| model.nodes[kid].plant.significant;
        let others = |model: &Self| {
            let mut kids = model.nodes[above].kids.iter();
            kids.any(|other| {
                *other != kid && significant(model, *other) && model.nodes[*other].is != Is::Down
            })
        };
        let ends = match self.rules(above).auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => significant(self, kid),
            AutoShutdown::AllSignificant => significant(self, kid) && !others(self),
        };
        if self.is_temporary(kid) {
            self.drop_kid(kid);
        }
        if ends {
            self.end(above, Exit::Shutdown);
        }
    }

    fn is_up(&mut self, kid: usize) {
        self.nodes[kid].is = Is::Up;
        self.nodes[kid].asked = Asked::Nobody;
    }

    fn has_not_started(&mut self, kid: usize) {
        let above = self.parent(kid);
        self.nodes[kid].is = Is::Down;
        match std::mem::replace(&mut self.nodes[kid].asked, Asked::Nobody) {
            Asked::ToAdd => self.drop_kid(kid),
            Asked::ToRestart => {}
            Asked::Nobody if self.nodes[above].booting && self.nodes[kid].life == 1 => {
                self.end(above, Exit::Abnormal);
            }
            Asked::Nobody => self.fail(kid),
        }
    }

    fn fail(&mut self, failed: usize) {
        let above = self.parent(failed);
        let Rules { strategy, intensity, period_ms, .. } = *self.rules(above);
        self.nodes[failed].is = Is::Down;
        let now = self.now;
        let restarts = &mut self.nodes[above].restarts;
        restarts.retain(|at| now - at < period_ms);
        if restarts.len() as u64 >= u64::from(intensity) {
            return self.end(above, Exit::Shutdown);
        }
        restarts.push(now);
        let delay = self.delay(failed);
        let from = match strategy {
            Strategy::OneForOne | Strategy::Dynamic if delay == 0 => return self.launch(failed),
            Strategy::OneForOne | Strategy::Dynamic => {
                self.nodes[failed].is = Is::Delayed(now + delay);
                return;
            }
            Strategy::OneForAll => 0,
            Strategy::RestForOne => failed,
        };
        let joining = self.joining.filter(|(node, _)| *node == above).map_or(0, |(_, delay)| delay);
        let at = now + delay.max(joining);
        let (from, at) = match self.nodes[above].turn {
            Some(Turn::Waiting { from: earlier, at: later }) => (from.min(earlier), at.max(later)),
            Some(Turn::Starting { .. }) | None => (from, at),
        };
        let group: Vec<usize> = self.nodes[above].kids.iter().copied().filter(|kid| *kid >= from).collect();
        for kid in group.into_iter().rev() {
            if self.lives(kid) {
                self.stop(kid);
                if self.is_temporary(kid) {
                    self.drop_kid(kid);
                    continue;
                }
            }
            self.nodes[kid].is = Is::Queued;
        }
        self.nodes[above].turn = Some(Turn::Waiting { from, at });
    }

    /// The supervisor stops everybody, the youngest first, and is gone.
    fn end(&mut self, node: usize, exit: Exit) {
        self.stop_below(node);
        self.nodes[node].ended = Some(exit);
    }

    fn stop_below(&mut self, node: usize) {
        for kid in std::mem::take(&mut self.nodes[node].kids).into_iter().rev() {
            self.stop(kid);
        }
        self.nodes[node].turn = None;
    }

    fn stop(&mut self, node: usize) {
        if self.is_supervisor(node) {
            self.stop_below(node);
        } else if self.lives(node) && !std::mem::take(&mut self.nodes[node].dead) {
            self.write('-', node);
        }
        self.nodes[node].is = Is::Down;
    }

    fn launch(&mut self, node: usize) {
        self.nodes[node].life += 1;
        self.nodes[node].is = Is::Starting;
        let fails = self.failing.get_mut(&node).filter(|left| **left > 0);
        let fails = fails.map(|left| *left -= 1).is_some();
        match self.nodes[node].plant.kind {
            Kind::Supervisor(_) => return self.boot(node),
            Kind::Kernel if fails => return self.has_not_started(node),
            Kind::Task | Kind::Announcer | Kind::Kernel | Kind::Twin => self.write('+', node),
        }
        if fails {
            self.write('-', node);
            self.has_not_started(node);
        } else if !self.held.contains(&node) {
            self.is_up(node);
        }
    }

    fn boot(&mut self, node: usize) {
        for kid in self.nodes[node].declared.clone() {
            let fresh = &mut self.nodes[kid];
            (fresh.is, fresh.life, fresh.asked, fresh.dead) = (Is::Queued, 0, Asked::Nobody, false);
        }
        let fresh = &mut self.nodes[node];
        fresh.kids = fresh.declared.clone();
        (fresh.booting, fresh.ended) = (true, None);
        fresh.restarts.clear();
        fresh.turn = Some(Turn::Starting { next: 0 });
        self.start_those_whose_turn_it_is(node);
        if self.nodes[node].ended.take().is_some() {
            self.has_not_started(node);
        } else if self.nodes[node].turn.is_none() {
            self.nodes[node].booting = false;
            self.is_up(node);
        }
    }

    fn start_those_whose_turn_it_is(&mut self, node: usize) {
        while let Some(turn) = self.nodes[node].turn {
            let next = match turn {
                Turn::Waiting { at, .. } if at > self.now => return,
                Turn::Waiting { from, .. } => from,
                Turn::Starting { next } => next,
            };
            let is_next =
                |kid: &usize| *kid >= next && matches!(self.nodes[*kid].is, Is::Queued | Is::Starting);
            let kid = self.nodes[node].kids.iter().copied().find(|kid| is_next(kid));
            self.nodes[node].turn = kid.map(|next| Turn::Starting { next });
            match kid {
                Some(kid) if self.nodes[kid].is == Is::Queued => self.launch(kid),
                Some(_) | None => return,
            }
        }
    }

    /// Something has happened below the supervisor: it does what follows, and so do those above it.
    fn carry_on(&mut self, node: usize) {
        self.start_those_whose_turn_it_is(node);
        self.report(node);
    }

    fn report(&mut self, node: usize) {
        if let Some(exit) = self.nodes[node].ended.take() {
            if node == 0 {
                self.over = true;
            } else {
                self.read_exit(node, exit);
            }
        } else if self.nodes[node].booting
            && self.nodes[node].turn.is_none()
            && self.nodes[node].is == Is::Starting
        {
            self.nodes[node].booting = false;
            self.is_up(node);
            self.carry_on(self.parent(node));
        }
    }
}
