//! The map in use: immutable, swapped whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring, label};
use crate::wire::node::Node;
use crate::wire::{ConnectionSettings, NodeAddr, NodeStatus};

use super::departed::Departed;
use super::lineage::Lineage;
use super::map::{GoodMap, RawMap};

/// Earlier maps that are still served, at most.
const MAX_PREVIOUS: usize = 4;

/// A ring with a connection for each of its nodes.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) ring: Ring,
    /// What entries are written with, 0 where there is nothing to rely on.
    pub(super) epoch: u64,
    /// The epoch that the lineage stands at.
    pub(super) stated: u64,
    pub(super) lineage: Lineage,
    /// The number of this map among those that this process has followed, and since which of them each key has belonged to
    /// its node: memory knows nothing of what was written meanwhile where another owned it.
    pub(super) view: u64,
    pub(super) views: Lineage,
    pub(super) raw: Option<Arc<RawMap>>,
    /// Keys of the map itself that nobody's value may stand under: the manager may be a node too.
    own: Arc<[String]>,
    /// In the order of `ring.nodes()`. A url that does not parse is a node that is down.
    nodes: Vec<Option<Node>>,
    /// The maps before this one that others may still follow, newest first.
    previous: Vec<Previous>,
}

/// A map that was in use until lately.
#[derive(Clone, Debug)]
struct Previous {
    ring: Ring,
    nodes: Vec<Option<Node>>,
    until: Instant,
}

/// A map that was believed, with its place among the others.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) good: GoodMap,
    pub(super) raw: Arc<RawMap>,
    pub(super) stated: u64,
    pub(super) lineage: Lineage,
    pub(super) views: Lineage,
}

impl Snapshot {
    /// No map at all: every key is a miss, every write an error.
    pub(super) fn empty(own: Arc<[String]>) -> Self {
        Self {
            own,
            ring: Ring::from_map([]),
            epoch: 0,
            stated: 0,
            lineage: Lineage::default(),
            view: 0,
            views: Lineage::default(),
            raw: None,
            nodes: Vec::new(),
            previous: Vec::new(),
        }
    }

    /// The next map. Nodes that stay keep their connections; those that left lose them once this one is no longer
    /// served, `window` from now.
    pub(super) fn next(
        &self,
        placed: Placed,
        settings: &ConnectionSettings,
        window: Duration,
        departed: &Departed,
    ) -> Self {
        let good = placed.good;
        let known = self.by_label();
        let mut nodes = Vec::with_capacity(good.ring.nodes().len());
        for url in good.ring.nodes() {
            let node = match NodeAddr::parse(url) {
                Ok(addr) => Some(opened(addr, settings, &known, departed)),
                Err(error) => {
                    tracing::warn!(target: "larder::ring", event = "node_unusable", node = label(url), error = %error);
                    None
                }
            };
            nodes.push(node);
        }
        Self {
            own: Arc::clone(&self.own),
            previous: self.passed_on(&good.ring, window),
            ring: good.ring,
            epoch: good.epoch,
            stated: placed.stated,
            lineage: placed.lineage,
            view: self.view + 1,
            views: placed.views,
            raw: Some(placed.raw),
            nodes,
        }
    }

    /// All nodes that there is a connection to; the present ones come first where passwords differ.
    fn by_label(&self) -> HashMap<&str, Vec<&Node>, ahash::RandomState> {
        let mut known: HashMap<_, Vec<&Node>, _> = HashMap::default();
        for node in self.all_nodes() {
            known.entry(node.label()).or_default().push(node);
        }
        known
    }

    fn passed_on(&self, next: &Ring, window: Duration) -> Vec<Previous> {
        let now = Instant::now();
        let newest = (!self.ring.is_empty() && self.ring != *next).then(|| Previous {
            ring: self.ring.clone(),
            nodes: self.nodes.clone(),
            until: now + window,
        });
        let rest = self.previous.iter().filter(|map| map.until > now).cloned();
        newest.into_iter().chain(rest).take(MAX_PREVIOUS).collect()
    }

    /// The same without the earlier maps whose time is over; nothing if it is over for none.
    pub(super) fn without_expired(&self) -> Option<Self> {
        let now = Instant::now();
        if self.previous.iter().all(|map| map.until > now) {
            return None;
        }
        let previous = self.previous.iter().filter(|map| map.until > now);
        Some(Self {
            own: Arc::clone(&self.own),
            ring: self.ring.clone(),
            epoch: self.epoch,
            stated: self.stated,
            lineage: self.lineage.clone(),
            view: self.view,
            views: self.views.clone(),
            raw: self.raw.clone(),
            nodes: self.nodes.clone(),
            previous: previous.cloned().collect(),
        })
    }

    /// When the first of the earlier maps is served no longer.
    pub(super) fn first_end(&self) -> Option<Instant> {
        self.previous.iter().map(|map| map.until).min()
    }

    /// How many earlier maps are still served.
    pub(super) fn previous_count(&self) -> usize {
        self.previous.len()
    }

    /// The nodes that a key belonged to lately and does not belong to now: who has not heard of the change asks them.
    pub(super) fn former_owners(&self, key: &str) -> Vec<Node> {
        let mut former: Vec<Node> = Vec::new();
        if self.previous.is_empty() || self.is_own(key.as_bytes()) {
            return former;
        }
        // By label: another password makes no other node.
        let place = |node: &Node| node.label().to_owned();
        let present = self.node_of(key).map(place).ok();
        let now = Instant::now();
        for map in self.previous.iter().filter(|map| map.until > now) {
            let node = map.ring.owner(key).and_then(|owner| map.nodes.get(owner));
            let Some(Some(node)) = node else { continue };
            let label = place(node);
            let known = former.iter().any(|other| place(other) == label);
            if !known && present.as_ref() != Some(&label) {
                former.push(node.clone());
            }
        }
        former
    }

    /// What an entry written now under a key is marked with. A key that an edit moved within the epoch is not
    /// marked: its reader could not tell the entry from one that was written before the edit.
    pub(super) fn epoch_for(&self, key: &str) -> u64 {
        if self.outdates(key, self.epoch) {
            return 0;
        }
        self.epoch
    }

    /// Whether an entry of `epoch` was written before its key's present owner took the key over.
    pub(super) fn outdates(&self, key: &str, epoch: u64) -> bool {
        self.lineage.outdates(|| self.ring.place_hash(key), epoch)
    }

    /// Whether a copy of `view` was made while another node owned its key.
    pub(super) fn outdates_copy(&self, key: &str, view: u64) -> bool {
        self.views.outdates(|| self.ring.place_hash(key), view)
    }

    /// Since which epoch a key belongs to its node.
    pub(super) fn owned_since(&self, key: &str) -> u64 {
        self.lineage.of_hash(self.ring.place_hash(key))
    }

    /// The view that copies of what is read by this map carry.
    pub(super) fn view(&self) -> u32 {
        u32::try_from(self.view).unwrap_or(u32::MAX)
    }

    /// Since which view each key will have belonged to its node once `next` is followed, whose lineage tells of maps in
    /// between too that this process has not followed.
    pub(super) fn views_with(&self, next: &Ring, lineage: &Lineage) -> Lineage {
        let view = self.view + 1;
        let views = self.views.then(&self.ring, next, view);
        views.moved_since(lineage, self.stated, view)
    }

    /// Has the nodes listen to writes as the subscribers want it, and says which view they are of. Those that left too: what
    /// was copied from them belongs to others now.
    pub(super) fn listen(&self) {
        for node in self.all_nodes() {
            node.follow();
            node.set_view(self.view());
        }
    }

    /// Every node that there is a connection to.
    pub(super) fn all_nodes(&self) -> impl Iterator<Item = &Node> {
        let lately = self.previous.iter().flat_map(|map| map.nodes.iter());
        self.present_nodes().chain(lately.flatten())
    }

    /// Whether a key is one of the map itself.
    fn is_own(&self, key: &[u8]) -> bool {
        self.own.iter().any(|own| own.as_bytes() == key)
    }

    /// The nodes of this map.
    pub(super) fn present_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The nodes of earlier maps that are not of this one.
    pub(super) fn former_nodes(&self) -> Vec<Node> {
        let now = Instant::now();
        let lately = self.previous.iter().filter(|map| map.until > now);
        let mut former: Vec<Node> = Vec::new();
        for node in lately.flat_map(|map| map.nodes.iter().flatten()) {
            let known = |other: &Node| other.label() == node.label();
            if !self.has(node.label()) && !former.iter().any(known) {
                former.push(node.clone());
            }
        }
        former
    }

    /// Whether a node of this label is of this map.
    pub(super) fn has(&self, label: &str) -> bool {
        self.present_nodes().any(|node| node.label() == label)
    }

    /// Whether a key belongs to another node in `next`. Another password makes no other node.
    pub(super) fn moves(&self, next: &Self, key: &str) -> bool {
        let (now, then) = (self.ring.node_for(key), next.ring.node_for(key));
        now != then && now.map(label) != then.map(label)
    }

    /// The nodes of this one that the next one does not have.
    pub(super) fn lost_to<'s>(&'s self, next: &'s Self) -> impl Iterator<Item = &'s Node> {
        let kept = |node: &&Node| next.all_nodes().any(|other| other.label() == node.label());
        self.all_nodes().filter(move |node| !kept(node))
    }

    /// The index of the node that a key belongs to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Key`] for a key of the map itself; [`ErrorKind::Unavailable`] where there are no nodes.
    pub(super) fn owner(&self, key: &str) -> Result<usize> {
        self.owner_of(key.as_bytes())
    }

    /// The same of a key of whatever bytes.
    pub(super) fn owner_of(&self, key: &[u8]) -> Result<usize> {
        if self.is_own(key) {
            let why = "the ring's own map stands under this key";
            return Err(Error::new(ErrorKind::Key, why).with("key", String::from_utf8_lossy(key)));
        }
        self.ring
            .owner_of_hash(self.ring.place_hash(key))
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
        let unusable = |url| NodeStatus::of(label(url));
        nodes
            .map(|(node, url)| node.as_ref().map_or_else(|| unusable(url), Node::status))
            .collect()
    }
}

/// The node at an address: connected to already, known by another password, remembered for what it owes, or new.
fn opened(
    addr: NodeAddr,
    settings: &ConnectionSettings,
    known: &HashMap<&str, Vec<&Node>, ahash::RandomState>,
    departed: &Departed,
) -> Node {
    let label = addr.label();
    let known = known.get(label.as_str()).map_or(&[][..], Vec::as_slice);
    if let Some(node) = known.iter().find(|node| node.leads_to(&addr)) {
        return (*node).clone();
    }
    let debts = known.first().map(|node| node.debts());
    started(match debts.or_else(|| departed.take(&label)) {
        Some(debts) => Node::indebted(addr, settings, debts),
        None => Node::new(addr, settings),
    })
}

/// A node that connects already, so that its first key does not wait for it.
fn started(node: Node) -> Node {
    if let Err(error) = node.start() {
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
    /// How many earlier maps are still served: for a while after a change, deletes and writes of keys that moved are
    /// told to their former nodes too.
    pub previous_maps: usize,
    /// Whether the manager pushes changes. Otherwise the map is read every so often.
    pub pushes_heard: bool,
}

/// What the follower learns while it reads.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) confirmed: Option<Moment>,
    pub(super) changes: u64,
    pub(super) refused: u64,
    pub(super) last_error: Option<String>,
    pub(super) warned: bool,
    /// Whether the history was found unreadable, and said so.
    pub(super) history_warned: bool,
    /// Whether the last reading found no map.
    pub(super) empty: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testserver::TestServer;

    /// A map that names a node with another password makes a new node of it, which takes over what the old one owes.
    #[tokio::test]
    async fn a_new_password_in_the_map_forgets_no_failed_delete() {
        let server = TestServer::start(&[]);
        server.command("SET k old\r\n");
        let port = server.port();
        let placed = |user: &str| {
            let url = format!("redis://{user}127.0.0.1:{port}/0");
            let raw = RawMap {
                fields: Vec::new(),
                meta: None,
            };
            Placed {
                good: GoodMap {
                    ring: Ring::from_map([(7, url)]),
                    epoch: 1,
                    stated: 1,
                    rule_unknown: false,
                    edited: false,
                },
                raw: Arc::new(raw),
                stated: 1,
                lineage: Lineage::since(1),
                views: Lineage::since(1),
            }
        };
        let settings = ConnectionSettings::default();
        let (window, departed) = (Duration::from_secs(2), Departed::default());
        let first = Snapshot::empty(Arc::default()).next(placed(""), &settings, window, &departed);
        first.node(0).unwrap().ready().await.unwrap();
        // The password changes at the server, which then hangs up.
        server.command("CONFIG SET requirepass new\r\nAUTH new\r\nCLIENT KILL TYPE normal\r\n");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let failed = first.node(0).unwrap().remove("k").await;
        assert!(failed.is_err());
        assert_eq!(first.node(0).unwrap().status().owed, 1);
        let second = first.next(placed(":new@"), &settings, window, &departed);
        drop(first);
        let node = second.node(0).unwrap();
        node.ready().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let there = node.contains("k").await.unwrap();
        assert!(!there, "the delete that failed was forgotten");
    }
}
