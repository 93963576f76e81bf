//! What nodes owed when they left the ring. They may return, and an integer or a plain value has no epoch by which it
//! would be too old then.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::wire::node::{Debts, Node};

use super::lock::lock;

/// Nodes remembered, at most.
const MAX_NODES: usize = 256;

/// The debts of nodes that left, by label, the one that left last at the end.
#[derive(Debug, Default)]
pub(super) struct Departed(Mutex<VecDeque<(String, Debts)>>);

impl Departed {
    /// Remembers what these nodes owe, which left.
    pub(super) fn remember<'n>(&self, left: impl Iterator<Item = &'n Node>) {
        left.for_each(|node| self.add(node));
    }

    fn add(&self, node: &Node) {
        let debts = node.debts();
        if debts.are_none() {
            return;
        }
        let mut departed = lock(&self.0);
        departed.retain(|(label, _)| label != node.label());
        departed.push_back((node.label().to_owned(), debts));
        if departed.len() <= MAX_NODES {
            return;
        }
        if let Some((label, _)) = departed.pop_front() {
            tracing::warn!(target: "larder::ring", event = "debts_forgotten", node = label,
                "too many nodes left while they owed deletes: if this one returns, counters and plain values may be old");
        }
    }

    /// What a node owed that comes back.
    pub(super) fn take(&self, label: &str) -> Option<Debts> {
        let mut departed = lock(&self.0);
        let at = departed.iter().position(|(known, _)| known == label)?;
        departed.remove(at).map(|(_, debts)| debts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ConnectionSettings, NodeAddr};

    #[test]
    fn few_are_remembered_and_each_until_it_is_back() {
        let departed = Departed::default();
        let node = |port: usize| {
            let addr = NodeAddr::parse(&format!("redis://h:{port}/0")).unwrap();
            Node::new(addr, &ConnectionSettings::default())
        };
        departed.add(&node(1));
        assert!(departed.take("h:1/0").is_none(), "it owes nothing");
        for port in 1..=MAX_NODES + 1 {
            let node = node(port);
            node.owe("k");
            departed.add(&node);
            departed.add(&node);
        }
        assert!(departed.take("h:1/0").is_none(), "the oldest");
        let debts = departed.take("h:2/0").unwrap();
        let addr = NodeAddr::parse("redis://:other@h:2/0").unwrap();
        let back = Node::indebted(addr, &ConnectionSettings::default(), debts);
        assert_eq!(back.status().owed, 1);
        assert!(departed.take("h:2/0").is_none(), "it is back");
    }
}
