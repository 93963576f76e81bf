//! The map in use: immutable, swapped whole.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring, label};
use crate::wire::node::Node;
use crate::wire::{ConnectionSettings, NodeAddr, NodeStatus};

use super::map::{GoodMap, RawMap};

/// A ring with a connection for each of its nodes.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) ring: Ring,
    pub(super) epoch: u64,
    pub(super) raw: Option<RawMap>,
    /// In the order of `ring.nodes()`. A url that does not parse is a node that is down.
    nodes: Vec<Option<Node>>,
    by_addr: HashMap<NodeAddr, Node, ahash::RandomState>,
}

impl Snapshot {
    /// No map at all: every key is a miss, every write an error.
    pub(super) fn empty() -> Self {
        Self {
            ring: Ring::from_map([]),
            epoch: 0,
            raw: None,
            nodes: Vec::new(),
            by_addr: HashMap::default(),
        }
    }

    /// The next map. Nodes that stay keep their connections; those that left lose them with the last user of `self`.
    pub(super) fn next(&self, good: GoodMap, raw: RawMap, settings: &ConnectionSettings) -> Self {
        let mut by_addr = HashMap::default();
        let mut nodes = Vec::with_capacity(good.ring.nodes().len());
        for url in good.ring.nodes() {
            let node = match NodeAddr::parse(url) {
                Ok(addr) => {
                    let node = self.by_addr.get(&addr).cloned();
                    let node = node.unwrap_or_else(|| started(addr.clone(), settings));
                    by_addr.insert(addr, node.clone());
                    Some(node)
                }
                Err(error) => {
                    tracing::warn!(target: "larder::ring", event = "node_unusable", node = label(url), error = %error);
                    None
                }
            };
            nodes.push(node);
        }
        Self {
            ring: good.ring,
            epoch: good.epoch,
            raw: Some(raw),
            nodes,
            by_addr,
        }
    }

    /// The index of the node that a key belongs to.
    pub(super) fn owner(&self, key: &str) -> Result<usize> {
        self.ring
            .owner(key)
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the ring has no nodes yet"))
    }

    /// A node by its index.
    pub(super) fn node(&self, index: usize) -> Result<&Node> {
        match self.nodes.get(index) {
            Some(Some(node)) => Ok(node),
            _ => {
                let label = self
                    .ring
                    .nodes()
                    .get(index)
                    .map_or_else(|| "?".to_owned(), |url| label(url));
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the node's url in the map cannot be used",
                )
                .with("node", label))
            }
        }
    }

    /// The node that a key belongs to.
    pub(super) fn node_of(&self, key: &str) -> Result<&Node> {
        self.node(self.owner(key)?)
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn statuses(&self) -> Vec<NodeStatus> {
        let nodes = self.nodes.iter().zip(self.ring.nodes());
        let unusable = |url| NodeStatus {
            label: label(url),
            up: false,
            timeouts: 0,
            reconnects: 0,
        };
        nodes
            .map(|(node, url)| node.as_ref().map_or_else(|| unusable(url), Node::status))
            .collect()
    }
}

/// A node that connects already, so that its first key does not wait for it.
fn started(addr: NodeAddr, settings: &ConnectionSettings) -> Node {
    let node = Node::new(addr, settings.clone());
    if let Err(error) = node.connection().start() {
        tracing::debug!(target: "larder::ring", event = "node_not_started", error = %error);
    }
    node
}

/// How things stand with the map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapStatus {
    /// The map's epoch, 0 where it has none.
    pub epoch: u64,
    /// How many positions it has, each counted once.
    pub positions: usize,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// By which rule it is read.
    pub order: Order,
    /// How long ago the manager last confirmed it; nothing before the first time.
    pub age: Option<Duration>,
    /// How often the map changed since the start.
    pub changes: u64,
    /// How often a map was refused, and the last good one kept.
    pub refused: u64,
    /// Why the last reading failed; nothing if it did not.
    pub last_error: Option<String>,
}

/// What the follower learns while it reads.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) confirmed: Option<Moment>,
    pub(super) changes: u64,
    pub(super) refused: u64,
    pub(super) last_error: Option<String>,
    pub(super) warned: bool,
}
