//! What has to hold when nothing goes wrong any more.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use rustkernel::actors::{ChildPhase, KernelState, RuntimeState};
use rustkernel::core::error::{DownReason, KernelErrorKind, Phase};
use rustkernel::core::supervision::Restart;

use crate::kit::{Do, NONE, assert_balanced, ms};
use crate::play::{Actor, Play, in_time};

/// Where a kernel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// On its way.
    Moving,
    Serves {
        standbys: usize,
    },
    /// Until it is resumed.
    Held,
    /// Until it is started again.
    Down,
    /// It is no child any more.
    Gone,
    /// The supervisor at this level is down, or is no child any more.
    Above(usize),
    /// The runtime has given up.
    Over,
}

impl Play {
    async fn look(&self, actor: &Actor) -> Standing {
        let Some(mut tree) = self.runtime.tree().await else { return Standing::Over };
        for (level, rules) in self.scene.above.iter().enumerate() {
            let found = tree.children.into_iter().find(|branch| branch.child.name == rules.name);
            let Some(branch) = found else { return Standing::Above(level) };
            match (branch.child.state, branch.supervisor) {
                (ChildPhase::Up, Some(below)) if below.restarts_in_period.is_some() => tree = below,
                (ChildPhase::Down, _) => return Standing::Above(level),
                _ => return Standing::Moving,
            }
        }
        let own = tree.children.into_iter().find(|branch| branch.child.name == actor.part.id);
        let Some(status) = own.and_then(|branch| branch.child.kernel) else { return Standing::Gone };
        match status.state {
            KernelState::Serving | KernelState::Degraded => Standing::Serves { standbys: status.standbys },
            KernelState::Isolated | KernelState::OutOfThreads => Standing::Held,
            KernelState::Stopped => Standing::Down,
            KernelState::Starting
            | KernelState::Restarting
            | KernelState::Draining
            | KernelState::Stopping => Standing::Moving,
        }
    }

    /// Everything is well again, or as it was told to be.
    pub(crate) async fn calm(&self, rng: &mut Rng) {
        for actor in &self.actors {
            self.is_well(actor).await;
        }
        // What waits for its time comes.
        for _ in 0..30 {
            self.moment(ms(100)).await;
        }
        for actor in &self.actors {
            self.count_lives(actor).await;
            check_books(actor);
        }
        self.check_supervisors();
        if rng.bool() {
            self.terminate(&self.actors[rng.usize(..self.actors.len())]).await;
        }
    }

    async fn is_well(&self, actor: &Actor) {
        let recovering = self.in_time("", self.recover(actor));
        if tokio::time::timeout(ms(10_000), recovering).await.is_err() {
            let answer = tokio::time::timeout(ms(1_000), self.ask(actor)).await;
            panic!("{:?} stays {:?}, {answer:?}", actor.part, self.runtime.tree().await);
        }
    }

    /// The kernel serves, or is where it may be and says so.
    async fn recover(&self, actor: &Actor) {
        loop {
            let standing = self.look(actor).await;
            self.check_standing(actor, standing);
            if standing == Standing::Moving {
                tokio::task::yield_now().await;
                continue;
            }
            let answer = self.ask(actor).await;
            if self.look(actor).await != standing {
                continue;
            }
            let Err(kind) = answer else { return };
            if matches!(kind, KernelErrorKind::Rejected(_)) {
                // The breaker is asked first, whatever is behind it.
                tokio::task::yield_now().await;
                continue;
            }
            match standing {
                Standing::Moving => {}
                Standing::Serves { .. } => {
                    // Its breaker is not convinced yet, or it was on its way down.
                    tokio::task::yield_now().await;
                }
                Standing::Held => {
                    let held = [DownReason::Isolated, DownReason::AbandonedThreads];
                    assert!(held.map(KernelErrorKind::Down).contains(&kind), "{kind:?}");
                    self.runtime.resume(actor.part.id).await;
                }
                Standing::Down | Standing::Above(_) | Standing::Gone | Standing::Over => {
                    let down = [DownReason::Stopped, DownReason::SupervisorGone];
                    assert!(down.map(KernelErrorKind::Down).contains(&kind), "{standing:?}: {kind:?}");
                    if !self.start_again(actor, standing).await {
                        return;
                    }
                }
            }
        }
    }

    async fn ask(&self, actor: &Actor) -> Result<(), KernelErrorKind> {
        let result = actor.kernel.call(Do::Double(1), NONE).await;
        let mut seen = actor.seen.lock().unwrap();
        match result {
            Ok(span) => {
                seen.answers.push(span);
                Ok(())
            }
            Err(error) => {
                seen.failed += u64::from(error.phase() != Phase::Admission);
                Err(error.kind().clone())
            }
        }
    }

    /// Only who was told to end, or may end, is down.
    fn check_standing(&self, actor: &Actor, standing: Standing) {
        let temporary = actor.part.restart == Restart::Temporary;
        let stopped = actor.stopped.load(Ordering::Acquire) || actor.part.guest;
        let terminated = actor.terminated.load(Ordering::Acquire);
        let allowed = match standing {
            Standing::Moving | Standing::Serves { .. } | Standing::Held => true,
            Standing::Down => terminated,
            Standing::Gone => stopped || temporary,
            Standing::Above(level) => {
                let permanent = self.scene.above[level].restart == Restart::Permanent;
                self.ended[level].load(Ordering::Acquire) || !permanent
            }
            Standing::Over => self.scene.may_give_up(),
        };
        assert!(allowed, "{} is {standing:?}", actor.part.id);
    }

    /// `false` if it is gone for good.
    async fn start_again(&self, actor: &Actor, standing: Standing) -> bool {
        match standing {
            Standing::Down => {
                let Some(group) = self.supervisor(self.scene.group()) else { return true };
                drop(group.restart_child(actor.part.id).await);
                true
            }
            Standing::Above(level) => {
                let Some(above) = self.above(level) else { return true };
                let again = above.restart_child(self.scene.above[level].name).await;
                // One that is no child any more is not started again.
                again.is_ok() || self.look(actor).await != standing
            }
            Standing::Gone | Standing::Over => false,
            Standing::Moving | Standing::Serves { .. } | Standing::Held => true,
        }
    }

    /// As many instances are alive as serve and stand by.
    async fn count_lives(&self, actor: &Actor) {
        let mut last = None;
        let counted = async {
            let mut alike = 0;
            while alike < 10 {
                let standing = self.look(actor).await;
                let wanted = match standing {
                    Standing::Moving => None,
                    Standing::Serves { standbys } => Some(1 + standbys),
                    Standing::Held | Standing::Down | Standing::Gone => Some(0),
                    Standing::Above(_) | Standing::Over => Some(0),
                };
                let living = actor.world.living();
                alike = if wanted == Some(living) { alike + 1 } else { 0 };
                last = Some((standing, living));
                self.moment(ms(1)).await;
            }
        };
        let in_time = tokio::time::timeout(ms(20_000), counted).await.is_ok();
        assert!(in_time, "{}: {last:?} alive", actor.part.id);
    }

    /// When it is answered nothing is left of it, and it can be started again.
    async fn terminate(&self, actor: &Actor) {
        let Some(group) = self.supervisor(self.scene.group()) else { return };
        if !matches!(self.look(actor).await, Standing::Serves { .. } | Standing::Held | Standing::Down) {
            return;
        }
        actor.terminated.store(true, Ordering::Release);
        self.in_time("a child is terminated", group.terminate_child(actor.part.id)).await.unwrap();
        self.nothing_is_left_of(actor).await;
        let kind = self.in_time("an answer", self.ask(actor)).await.unwrap_err();
        let stopped = kind == KernelErrorKind::Down(DownReason::Stopped);
        assert!(stopped || matches!(kind, KernelErrorKind::Rejected(_)), "{kind:?}");
        self.is_well(actor).await;
        self.count_lives(actor).await;
    }

    /// Whoever was told that it is gone finds nothing of it, but for a thread that outlasted its grace time: the clock is turned faster
    /// here than threads are scheduled.
    async fn nothing_is_left_of(&self, actor: &Actor) {
        let threads = async {
            while self.runtime.abandoned_threads() > 0 {
                tokio::task::yield_now().await;
            }
        };
        in_time("abandoned threads have ended", threads).await;
        assert_eq!(actor.world.living(), 0, "of {:?}", actor.part);
    }

    /// Stops everything. Nothing is left.
    pub(crate) async fn end(&self, rng: &mut Rng) {
        for actor in &self.actors {
            if rng.bool() && self.runtime.kernel::<Do, crate::world::Span>(actor.part.id).is_some() {
                self.in_time("a stop", self.runtime.stop(actor.part.id, rng.bool())).await;
                let standing = self.look(actor).await;
                assert!(!matches!(standing, Standing::Serves { .. } | Standing::Held), "{standing:?}");
                self.nothing_is_left_of(actor).await;
                let kind = self.in_time("an answer", self.ask(actor)).await.unwrap_err();
                let refused = matches!(kind, KernelErrorKind::Down(_) | KernelErrorKind::Rejected(_));
                assert!(refused, "{kind:?}");
            }
        }
        if self.runtime.state() == RuntimeState::GaveUp {
            assert!(self.scene.may_give_up());
        } else {
            self.in_time("the shutdown", self.runtime.shutdown(ms(1_000))).await;
        }
        for actor in &self.actors {
            let gone = async {
                while actor.world.living() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            in_time("nothing is left", gone).await;
            check_books(actor);
        }
        for actor in &self.actors {
            self.nothing_is_left_of(actor).await;
        }
        self.check_supervisors();
    }
}

/// Every accepted request was answered once, by one life at a time.
fn check_books(actor: &Actor) {
    let seen = &mut *actor.seen.lock().unwrap();
    seen.answers.sort_by_key(|span| span.from);
    for pair in seen.answers.windows(2) {
        assert!(pair[0].to < pair[1].from, "two lives were answered for at the same time: {pair:?}");
    }
    let mut lives: Vec<u64> = seen.answers.iter().map(|span| span.life).collect();
    lives.dedup();
    let served = lives.iter().collect::<HashSet<_>>().len();
    assert_eq!(lives.len(), served, "who was replaced served again: {lives:?}");
    assert_balanced(&actor.kernel);
    let accounts = actor.kernel.accounts();
    let answers = seen.answers.len() as u64;
    assert_eq!(accounts.accepted, answers + seen.failed + seen.dropped, "{accounts:?}");
    assert!((answers..=answers + seen.dropped).contains(&accounts.answered), "{accounts:?}");
}
