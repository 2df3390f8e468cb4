//! What goes wrong in a round: inputs that break kernels, and orders that come at the wrong moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use rustkernel::actors::{Loss, Suspicion};
use rustkernel::core::error::Phase;
use rustkernel::core::resilience::ErrorKind;
use tokio::task::JoinSet;

use crate::kit::{self, Do, NONE, ms};
use crate::play::{Play, in_time};
use crate::scene::Place;

const CALLS: usize = 60;

/// Callers and meddlers at once; over when all callers have been answered.
pub(crate) async fn round(play: &Arc<Play>, rng: &mut Rng) {
    play.over.store(false, Ordering::Release);
    let ticking = kit::spawn(tick(Arc::clone(play), rng.fork()));
    let meddling = kit::spawn(meddle(Arc::clone(play), rng.fork()));
    let callers = (0..play.actors.len()).flat_map(|at| [at, at]);
    let callers: Vec<_> = callers.map(|at| kit::spawn(call(Arc::clone(play), at, rng.fork()))).collect();
    for caller in callers {
        caller.await.expect("every caller is answered");
    }
    play.over.store(true, Ordering::Release);
    play.open();
    while !meddling.is_finished() {
        play.moment(ms(1)).await;
    }
    meddling.await.unwrap();
    ticking.await.unwrap();
    play.actors.iter().for_each(|actor| actor.world.mend());
    play.open();
}

/// Time passes, now and then a lot of it.
async fn tick(play: Arc<Play>, mut rng: Rng) {
    while !play.over.load(Ordering::Acquire) {
        let span = match rng.u32(..600) {
            0 => 3_000,
            1..6 => 100,
            _ => 1,
        };
        play.moment(ms(span)).await;
    }
}

fn input(play: &Play, at: usize, rng: &mut Rng, hangs: &mut u32) -> Do {
    match rng.u32(..100) {
        0..4 => Do::Panic,
        4..6 if play.actors[at].part.place == Place::Thread && *hangs > 0 => {
            *hangs -= 1;
            Do::Block(play.door())
        }
        6..9 => Do::Wait(play.door()),
        9..12 => Do::Fail(ErrorKind::Transient),
        12..13 => Do::Fail(ErrorKind::Permanent),
        13..15 => Do::PanicUntil(1),
        15..17 => Do::FailUntil(1),
        _ => Do::Double(1),
    }
}

async fn call(play: Arc<Play>, at: usize, mut rng: Rng) {
    let actor = &play.actors[at];
    let mut hangs = 2;
    for _ in 0..CALLS {
        let input = input(&play, at, &mut rng, &mut hangs);
        let deadline = if rng.bool() { NONE } else { ms(rng.u64(1..50)).into() };
        let reply = actor.kernel.try_call(input, deadline);
        if rng.u8(..8) == 0 {
            tokio::task::yield_now().await;
        }
        if rng.u8(..16) == 0 {
            actor.seen.lock().unwrap().dropped += u64::from(reply.is_ok());
            continue;
        }
        let result = match reply {
            Ok(reply) => in_time("an answer", reply).await,
            Err(refused) => {
                assert_eq!(refused.error.phase(), Phase::Admission, "{:?}", refused.error);
                // Whoever is refused tries again later, or is done before anything has happened.
                play.moment(ms(0)).await;
                continue;
            }
        };
        let mut seen = actor.seen.lock().unwrap();
        match result {
            Ok(span) => seen.answers.push(span),
            Err(_) => seen.failed += 1,
        }
    }
}

/// Gives orders at random until told to stop, and waits until all are answered.
async fn meddle(play: Arc<Play>, mut rng: Rng) {
    let mut orders = JoinSet::new();
    while !play.over.load(Ordering::Acquire) {
        let at = rng.usize(..play.actors.len());
        match rng.u32(..48) {
            0 => play.open(),
            1 => lose(&play, at, &mut rng),
            2 => play.actors[at].world.bad_starts.store(rng.u64(1..3), Ordering::Release),
            3 => play.actors[at].world.bad_restores.store(rng.u64(1..3), Ordering::Release),
            4 => play.actors[at].world.bad_checkpoints.store(1, Ordering::Release),
            order @ 5..17 if orders.len() < 8 => {
                let (play, rng) = (Arc::clone(&play), rng.fork());
                orders.spawn(async move {
                    let what = format!("order {order} to {} is answered", play.actors[at].part.id);
                    play.note(&what.replace("is answered", "is given"));
                    let given = tokio::time::timeout(ms(20_000), give(&play, at, order, rng)).await;
                    assert!(given.is_ok(), "it has not happened: {what} in {:?}", play.runtime.tree().await);
                    play.note(&what);
                });
            }
            _ => drop(play.runtime.status().await),
        }
        while let Some(order) = orders.try_join_next() {
            order.unwrap();
        }
        tokio::task::yield_now().await;
    }
    while let Some(order) = orders.join_next().await {
        order.unwrap();
    }
}

/// What some kernels live in elsewhere is lost, or one of them is.
fn lose(play: &Play, at: usize, rng: &mut Rng) {
    if rng.bool() {
        let loss = Loss::Panicked { reason: "there".into(), suspicion: Suspicion::Alone };
        return play.actors[at].world.lose(&loss);
    }
    let loss = Loss::Domain {
        reason: "signal 9".into(),
        suspicion: [Suspicion::None, Suspicion::Suspect, Suspicion::Alone][rng.usize(..3)],
    };
    play.actors.iter().for_each(|actor| actor.world.lose(&loss));
}

async fn give(play: &Play, at: usize, order: u32, mut rng: Rng) {
    let actor = &play.actors[at];
    let (runtime, id) = (&play.runtime, actor.part.id);
    match order {
        5 | 6 => drop(runtime.kill(id).await),
        7 => drop(runtime.replace(actor.part.version(&actor.world, &mut rng)).await),
        8 => drop(runtime.fail_back(id).await),
        9..=11 => drop(runtime.resume(id).await),
        12 | 13 => terminate(play, at, rng.u8(..4) > 0).await,
        14 => {
            let group = play.supervisor(play.scene.group());
            if let Some(group) = group {
                drop(group.restart_child(id).await);
            }
        }
        15 if rng.u8(..8) == 0 => {
            actor.stopped.store(true, Ordering::Release);
            runtime.stop(id, rng.bool()).await;
        }
        16 if !play.scene.above.is_empty() => {
            let level = rng.usize(..play.scene.above.len());
            end_supervisor(play, level, rng.u8(..4) == 0).await;
        }
        _ => {}
    }
}

async fn terminate(play: &Play, at: usize, restart: bool) {
    let actor = &play.actors[at];
    let Some(group) = play.supervisor(play.scene.group()) else { return };
    actor.terminated.store(true, Ordering::Release);
    drop(group.terminate_child(actor.part.id).await);
    if restart {
        drop(group.restart_child(actor.part.id).await);
    }
}

/// A supervisor is killed, or told to end and started again.
async fn end_supervisor(play: &Play, level: usize, in_order: bool) {
    let name = play.scene.above[level].name;
    let Some(above) = play.above(level) else { return };
    if !in_order {
        drop(above.kill_child(name).await);
        return;
    }
    play.ended[level].store(true, Ordering::Release);
    drop(above.terminate_child(name).await);
    drop(above.restart_child(name).await);
}
