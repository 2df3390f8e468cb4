//! What a supervisor that died without ending its children leaves behind: told to die, waited for, and where it does not, fenced and
//! counted. Nothing is started in its place before.
//!
//! ractor kills the children of a dead actor, but waits for none of them, and tells of none of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustkernel_core::clock::Timestamp;
use rustkernel_core::error::DownReason;

use super::Env;
use super::node::{Alive, Body, Node};
use crate::cause::Cause;
use crate::contain::contain;
use crate::operator::Fact;

/// How long everything that a dead supervisor leaves behind may take to die.
const PATIENCE: Duration = Duration::from_secs(5);

type Reaping = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Node {
    /// Ends everything below a node whose actor is dead. Its guests are gone for good.
    pub(crate) fn reap(self: Arc<Self>, env: Env) -> Reaping {
        let until = env.links.timer.clock().now() + PATIENCE;
        self.reap_until(env, until)
    }

    fn reap_until(self: Arc<Self>, env: Env, until: Timestamp) -> Reaping {
        Box::pin(async move {
            // Its supervisor may die meanwhile; whoever reaps that one waits here.
            let _alone = self.reaping.lock().await;
            let remains = self.remains();
            remains.iter().for_each(Alive::fence);
            for alive in remains {
                // It stays in the books until it is gone, so that nobody overlooks it.
                alive.clone().gone(&env, until).await;
                self.take_alive(alive.actor.get_id());
            }
            for guest in self.take_guests() {
                guest.close(DownReason::SupervisorGone);
                guest.free_names();
                contain("dropping a child's spec", || drop(guest));
            }
            self.take_ended();
        })
    }
}

impl Alive {
    /// Whatever it and those below it do from now on is void, and they are told to die.
    fn fence(&self) {
        self.actor.kill();
        match &self.body {
            Body::Kernel(plan, incarnation) => {
                incarnation.dismiss();
                // One that was prepared may not take over any more.
                plan.kernel.forget_prepared(incarnation.number);
                plan.kernel.bury_present(&Cause::Killed);
            }
            Body::Task => {}
            Body::Supervisor(node) => node.remains().iter().for_each(Self::fence),
        }
    }

    /// Resolves when it is gone, or has been left to itself.
    async fn gone(self, env: &Env, until: Timestamp) {
        tokio::select! {
            _ = self.actor.wait(None) => {}
            () = env.links.pause_until(until) => {}
        }
        match self.body {
            Body::Kernel(plan, _) => {
                let Some(lane) = self.lane else { return };
                let until = until.min(env.links.timer.clock().now() + plan.grace);
                tokio::select! {
                    biased;
                    () = lane.over() => {}
                    () = env.links.pause_until(until) => {}
                }
                if lane.abandon() {
                    let fact = Fact::ThreadAbandoned { alive: env.abandoned.alive() };
                    env.links.operator.tell(Some(plan.kernel.id()), fact);
                }
            }
            Body::Task => {}
            Body::Supervisor(node) => node.reap_until(env.clone(), until).await,
        }
    }
}
