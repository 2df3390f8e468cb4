//! The kernel that the soak breaks, and what all lives of all its versions share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustkernel::actors::{Lifeline, Loss};
use rustkernel::core::traits::{CheckpointableKernel, Context, Kernel, Payload};
use rustkernel::core::{KernelError, Result};

use crate::kit::Do;
use crate::tally::{Living, Script};

/// An execution that was answered: between which two ticks of a clock that all lives share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) life: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Payload for Span {
    fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn schema() -> String {
        "span".into()
    }
}

/// What all lives of one kernel share.
#[derive(Debug)]
pub(crate) struct World {
    ticks: AtomicU64,
    /// Factories panic while this is above zero, and take one off.
    pub(crate) bad_starts: AtomicU64,
    pub(crate) bad_restores: AtomicU64,
    pub(crate) bad_checkpoints: AtomicU64,
    /// Who lives elsewhere.
    lifelines: Mutex<Vec<Lifeline>>,
    script: Arc<Script>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ticks: AtomicU64::new(0),
            bad_starts: AtomicU64::new(0),
            bad_restores: AtomicU64::new(0),
            bad_checkpoints: AtomicU64::new(0),
            lifelines: Mutex::default(),
            script: Script::new(),
        })
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Nothing fails any more.
    pub(crate) fn mend(&self) {
        for faults in [&self.bad_starts, &self.bad_restores, &self.bad_checkpoints] {
            faults.store(0, Ordering::Release);
        }
    }

    pub(crate) fn living(&self) -> usize {
        self.script.living()
    }

    /// Everybody who lives elsewhere, oldest first, is lost. Those that are gone already hear nothing of it.
    pub(crate) fn lose(&self, loss: &Loss) {
        let lives: Vec<_> = self.lifelines.lock().unwrap().drain(..).collect();
        lives.iter().for_each(|life| life.lost(loss.clone()));
    }

    fn make(self: &Arc<Self>) -> Worker {
        assert!(!take_one(&self.bad_starts), "a bad start");
        Worker { _living: self.script.begin(), world: Arc::clone(self), served: 0 }
    }

    pub(crate) fn maker(self: &Arc<Self>) -> impl Fn() -> Worker + Send + Sync + use<> {
        let world = Arc::clone(self);
        move || world.make()
    }

    pub(crate) fn maker_elsewhere(
        self: &Arc<Self>,
    ) -> impl Fn(Lifeline) -> std::future::Ready<Result<Worker>> + Send + Sync + use<> {
        let world = Arc::clone(self);
        move |lifeline| {
            if take_one(&world.bad_starts) {
                return std::future::ready(Err(KernelError::permanent("a bad start there")));
            }
            world.lifelines.lock().unwrap().push(lifeline);
            std::future::ready(Ok(world.make()))
        }
    }
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

pub(crate) struct Worker {
    _living: Living,
    world: Arc<World>,
    served: u64,
}

impl Kernel for Worker {
    type Input = Do;
    type Output = Span;

    async fn execute(&mut self, input: &Do, cx: &mut Context<'_>) -> Result<Span> {
        let from = self.world.tick();
        let attempt = cx.header().attempt;
        match input {
            Do::Panic => panic!("told to panic"),
            Do::Fail(kind) => return Err(KernelError::kernel(*kind, "told to fail")),
            Do::Block(latch) => latch.block(),
            Do::Wait(latch) => latch.pass().await,
            Do::PanicUntil(first) => assert!(attempt > *first, "told to panic"),
            Do::FailUntil(first) if attempt <= *first => return Err(KernelError::transient("told to fail")),
            Do::Double(_) | Do::Incarnation | Do::Attempt | Do::FailUntil(_) => {}
        }
        self.served += 1;
        Ok(Span { life: cx.incarnation(), from, to: self.world.tick() })
    }
}

impl CheckpointableKernel for Worker {
    type Checkpoint = u64;

    async fn checkpoint(&self) -> Result<u64> {
        if take_one(&self.world.bad_checkpoints) {
            return Err(KernelError::transient("a bad checkpoint"));
        }
        Ok(self.served)
    }

    async fn restore(&mut self, served: u64) -> Result<()> {
        assert!(!take_one(&self.world.bad_restores), "a bad restore");
        self.served = served;
        Ok(())
    }
}
