//! Hand-written ractor supervisors of several children: the least that restarts one of them, all of them, or all of them in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

use crate::restart::{Ask, FragileActor, Nothing};

/// Whom the supervisor spawns again when one has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    TheFailed,
    /// The others are killed at once, and all spawned as soon as the last is gone.
    All,
    /// The others are killed from the last to the first, each awaited, and all spawned from the first to the last, each when the one
    /// before it has started.
    AllInOrder,
}

/// Where a supervisor publishes its children.
#[derive(Clone)]
pub(crate) struct Children {
    current: Arc<Mutex<Vec<ActorRef<Ask>>>>,
    /// Changes when all that are to be up are.
    pub(crate) up: watch::Receiver<()>,
}

impl Children {
    pub(crate) async fn spawn(whom: Whom, children: usize) -> Self {
        let (told, up) = watch::channel(());
        let current = Arc::new(Mutex::new(Vec::with_capacity(children)));
        let owner = Owner { whom, children, current: Arc::clone(&current), told };
        Actor::spawn(None, owner, ()).await.unwrap();
        Self { current, up }
    }

    pub(crate) fn child(&self, index: usize) -> ActorRef<Ask> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)[index].clone()
    }
}

struct Owner {
    whom: Whom,
    children: usize,
    current: Arc<Mutex<Vec<ActorRef<Ask>>>>,
    told: watch::Sender<()>,
}

/// What it knows about them.
#[derive(Default)]
struct Known {
    /// Where each of them stands, if only the failed one is spawned again.
    places: HashMap<ActorId, usize>,
    step: Step,
}

#[derive(Default)]
enum Step {
    #[default]
    AllServe,
    /// So many ends are awaited.
    Killing {
        alive: usize,
    },
    /// Those before `next` live, except for the failed one.
    KillingInOrder {
        failed: ActorId,
        next: usize,
    },
    SpawningInOrder {
        fresh: Vec<ActorRef<Ask>>,
    },
}

impl Owner {
    async fn spawn_child(&self, myself: &ActorRef<Nothing>) -> Result<ActorRef<Ask>, ActorProcessingErr> {
        Ok(Actor::spawn_linked(None, FragileActor, (), myself.get_cell()).await?.0)
    }

    async fn spawn_all(&self, myself: &ActorRef<Nothing>) -> Result<Known, ActorProcessingErr> {
        let mut fresh = Vec::with_capacity(self.children);
        let mut places = HashMap::new();
        for place in 0..self.children {
            let child = self.spawn_child(myself).await?;
            if self.whom == Whom::TheFailed {
                places.insert(child.get_id(), place);
            }
            fresh.push(child);
        }
        self.publish(fresh);
        Ok(Known { places, step: Step::AllServe })
    }

    async fn spawn_one(
        &self,
        failed: ActorId,
        myself: &ActorRef<Nothing>,
        known: &mut Known,
    ) -> Result<(), ActorProcessingErr> {
        let child = self.spawn_child(myself).await?;
        if let Some(place) = known.places.remove(&failed) {
            known.places.insert(child.get_id(), place);
            self.lock()[place] = child;
        }
        Ok(())
    }

    fn kill_others(&self, failed: ActorId) {
        for child in self.lock().iter().filter(|child| child.get_id() != failed) {
            child.kill();
        }
    }

    /// Kills the last of those before `next`. `None` if there is none.
    fn kill_before(&self, next: usize, failed: ActorId) -> Option<usize> {
        let current = self.lock();
        let last = (0..next).rev().find(|place| current[*place].get_id() != failed)?;
        current[last].kill();
        Some(last)
    }

    async fn on_end(
        &self,
        failed: Option<ActorId>,
        myself: &ActorRef<Nothing>,
        known: &mut Known,
    ) -> Result<(), ActorProcessingErr> {
        match (&mut known.step, failed, self.whom) {
            (Step::AllServe, Some(failed), Whom::TheFailed) => self.spawn_one(failed, myself, known).await?,
            (Step::AllServe, Some(failed), Whom::All) => {
                known.step = Step::Killing { alive: self.children - 1 };
                self.kill_others(failed);
            }
            (Step::AllServe, Some(failed), Whom::AllInOrder) => {
                if let Some(next) = self.kill_before(self.children, failed) {
                    known.step = Step::KillingInOrder { failed, next };
                }
            }
            (Step::Killing { alive }, ..) => {
                *alive -= 1;
                if *alive == 0 {
                    *known = self.spawn_all(myself).await?;
                }
            }
            (Step::KillingInOrder { failed, next }, ..) => match self.kill_before(*next, *failed) {
                Some(last) => *next = last,
                None => {
                    known.step = Step::SpawningInOrder { fresh: vec![self.spawn_child(myself).await?] };
                }
            },
            (Step::AllServe | Step::SpawningInOrder { .. }, ..) => {}
        }
        Ok(())
    }

    async fn on_start(
        &self,
        myself: &ActorRef<Nothing>,
        known: &mut Known,
    ) -> Result<(), ActorProcessingErr> {
        if let Step::SpawningInOrder { fresh } = &mut known.step {
            if fresh.len() < self.children {
                fresh.push(self.spawn_child(myself).await?);
            } else {
                self.publish(std::mem::take(fresh));
                known.step = Step::AllServe;
            }
        }
        Ok(())
    }

    fn publish(&self, fresh: Vec<ActorRef<Ask>>) {
        *self.lock() = fresh;
        self.told.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ActorRef<Ask>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Actor for Owner {
    type Msg = Nothing;
    type State = Known;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Nothing>, (): ()) -> Result<Known, ActorProcessingErr> {
        self.spawn_all(&myself).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Nothing>,
        event: SupervisionEvent,
        known: &mut Known,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, _) => {
                self.on_end(Some(child.get_id()), &myself, known).await
            }
            SupervisionEvent::ActorTerminated(..) => self.on_end(None, &myself, known).await,
            SupervisionEvent::ActorStarted(_) => self.on_start(&myself, known).await,
            SupervisionEvent::ProcessGroupChanged(_) | SupervisionEvent::PidLifecycleEvent(_) => Ok(()),
        }
    }
}
