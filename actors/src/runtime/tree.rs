//! The whole tree, asked supervisor by supervisor, several of those below one at a time. Whoever asks walks; no supervisor waits for another.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::recovery::{Branch, KernelStatus, Node, Order, RecoveryMsg, SupervisorFacts, Tree};

type Asking = Pin<Box<dyn Future<Output = Option<Tree>> + Send>>;

/// What is below `node`; `None` if it is the root and gone. One below that is down is shown without its children. The supervisor has been
/// asked when this returns.
pub(super) fn of(node: Arc<Node>) -> Asking {
    let asked = node.home.put(|reply| RecoveryMsg::Order(Order::Describe { reply }));
    Box::pin(async move {
        let SupervisorFacts { restarts_in_period, restarts, children } = asked?.await.ok()?;
        let mut unasked =
            children.iter().filter_map(|(_, below)| below.clone()).collect::<Vec<_>>().into_iter();
        let mut asked: VecDeque<Asking> = unasked.by_ref().take(AHEAD).map(of).collect();
        let mut branches = Vec::with_capacity(children.len());
        for (child, below) in children {
            let supervisor = match below {
                Some(node) => {
                    let answer = asked.pop_front();
                    asked.extend(unasked.next().map(of));
                    let told = if let Some(answer) = answer { answer.await } else { None };
                    Some(told.unwrap_or_else(|| down(&node)))
                }
                None => None,
            };
            branches.push(Branch { child, supervisor });
        }
        let restarts_in_period = Some(restarts_in_period);
        Some(Tree { restarts_in_period, restarts, children: branches, ..down(&node) })
    })
}

/// So many siblings are asked before the first of them has answered: enough for every processor to have one, and what they tell is read while
/// it is in its caches.
const AHEAD: usize = 8;

fn down(node: &Node) -> Tree {
    let config = &node.config;
    Tree {
        name: node.name.to_string(),
        strategy: config.strategy,
        intensity: (config.intensity != u32::MAX).then_some(config.intensity),
        period: config.period,
        restarts_in_period: None,
        restarts: 0,
        children: Vec::new(),
    }
}

impl Tree {
    /// All kernels in it, in the order of the tree.
    #[must_use]
    pub fn into_kernels(self) -> Vec<KernelStatus> {
        let mut kernels = Vec::new();
        self.collect(&mut kernels);
        kernels
    }

    /// The name of the supervisor that has a child of this name; the first in the order of the tree.
    #[must_use]
    pub fn supervisor_of(&self, child: &str) -> Option<String> {
        if self.children.iter().any(|branch| branch.child.name == child) {
            return Some(self.name.clone());
        }
        self.children.iter().find_map(|branch| branch.supervisor.as_ref()?.supervisor_of(child))
    }

    fn collect(self, kernels: &mut Vec<KernelStatus>) {
        for branch in self.children {
            kernels.extend(branch.child.kernel);
            if let Some(below) = branch.supervisor {
                below.collect(kernels);
            }
        }
    }
}
