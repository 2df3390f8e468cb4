//! The whole tree, asked supervisor by supervisor. Whoever asks walks; no supervisor waits for another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::recovery::{Branch, KernelStatus, Node, Order, RecoveryMsg, Tree};

type Asking<'a> = Pin<Box<dyn Future<Output = Option<Tree>> + Send + 'a>>;

/// What is below `node`; `None` if it is the root and gone. One below that is down is shown without its children.
pub(super) fn of(node: &Arc<Node>) -> Asking<'_> {
    Box::pin(async move {
        let facts = node.home.ask(|reply| RecoveryMsg::Order(Order::Describe { reply })).await?;
        let mut children = Vec::with_capacity(facts.children.len());
        for (child, below) in facts.children {
            let supervisor = match &below {
                Some(node) => Some(of(node).await.unwrap_or_else(|| down(node))),
                None => None,
            };
            children.push(Branch { child, supervisor });
        }
        Some(Tree {
            restarts_in_period: Some(facts.restarts_in_period),
            restarts: facts.restarts,
            children,
            ..down(node)
        })
    })
}

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
