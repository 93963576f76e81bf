//! Writes. The map may change while one is under way: then it is done again at the key's new node, whose former one has
//! just been written. One that failed is not, or it would take twice as long to say so: its key is owed a delete.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::Instant;

use crate::core::Core;
use crate::entry::{Claim, Draft, Lease, Right, Stored, Ticket, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::node::Node;

use super::snapshot::Snapshot;
use super::spread::{Former, all_failed, on_each, owned};
use super::store::DistributedRedis;

/// How often a write is done again, at most. A map that changes more often is not followed by anybody.
const AGAIN: usize = 2;

impl DistributedRedis {
    pub(super) async fn remove_key(&self, key: &str) -> Result<bool> {
        self.follower.recent.note([key]);
        let mut snapshot = self.snapshot();
        let remove = remove_by(&snapshot, key);
        let mut removed = self.with_former(&snapshot, key, remove).await?;
        for _ in 0..AGAIN {
            let Some(next) = self.overtaken(&snapshot, key) else {
                break;
            };
            snapshot = next;
            removed |= remove_by(&snapshot, key).await?;
        }
        Ok(removed)
    }

    pub(super) async fn store_key(&self, key: &str, draft: Draft) -> Result<Stored> {
        if draft.computed {
            // It changes nothing that others would have to hear of.
            return self.store_by(&self.snapshot(), key, draft).await;
        }
        self.follower.recent.note([key]);
        let mut snapshot = self.snapshot();
        let store = self.store_by(&snapshot, key, draft.clone());
        let mut stored = self.with_former(&snapshot, key, store).await?;
        for _ in 0..AGAIN {
            let Some(next) = self.overtaken(&snapshot, key) else {
                break;
            };
            snapshot = next;
            stored = self.store_by(&snapshot, key, draft.clone()).await?;
        }
        Ok(stored)
    }

    async fn store_by(&self, snapshot: &Snapshot, key: &str, draft: Draft) -> Result<Stored> {
        let node = snapshot.node_of(key)?;
        let draft = self.dated(snapshot, key, draft)?;
        self.store_over_leftover(snapshot, node, key, draft).await
    }

    /// Adds once only: a counter that moves meanwhile begins anew.
    pub(super) async fn add_to_key(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.follower.recent.note([key]);
        let snapshot = self.snapshot();
        let add = async {
            let node = snapshot.node_of(key)?;
            match node.add_to(key, by, namespace).await {
                Err(error) if error.kind() == ErrorKind::NotACounter => {
                    if self.remove_leftover(&snapshot, node, key).await? {
                        return node.add_to(key, by, namespace).await;
                    }
                    Err(error)
                }
                sum => sum,
            }
        };
        self.with_former(&snapshot, key, add).await
    }

    pub(super) async fn retime_key(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
        self.follower.recent.note([key]);
        let snapshot = self.snapshot();
        let retime = async {
            let node = snapshot.node_of(key)?;
            if self.leftover(&snapshot, node, key).await.is_some() {
                return Ok(false);
            }
            node.retime(key, ttl).await
        };
        self.with_former(&snapshot, key, retime).await
    }

    pub(super) async fn retract_key(&self, key: &str, draft: &Draft) -> Result<bool> {
        let snapshot = self.snapshot();
        let former = snapshot.former_owners(key);
        let former = former.iter().map(|node| node.retract(key, draft));
        let present = async {
            let node = snapshot.node_of(key)?;
            if node.retract(key, draft).await? {
                return Ok(true);
            }
            // It may have been stored after the map changed.
            let dated = self.dated(&snapshot, key, draft.clone())?;
            if dated.sealed == draft.sealed {
                return Ok(false);
            }
            node.retract(key, &dated).await
        };
        // It may have been stored before the map changed. What becomes of it there is owed by that node.
        let (present, former) = join(present, join_all(former)).await;
        let elsewhere = former
            .into_iter()
            .any(|retracted| retracted.is_ok_and(|done| done));
        present.map(|retracted| retracted || elsewhere)
    }

    pub(super) async fn wipe_all(&self, prefix: &str) -> Result<()> {
        self.follower.recent.note_wipe(prefix);
        self.at_all("clear", |node| async move { node.wipe(prefix).await })
            .await
    }

    pub(super) async fn invalidate_all(&self, namespace: &str, tag: &str) -> Result<()> {
        self.follower.recent.note_tag(namespace, tag);
        let invalidate = |node: Node| async move { node.invalidate(namespace, tag).await };
        self.at_all("invalidate", invalidate).await
    }

    /// Empties nodes of these names.
    pub(super) async fn flush(&self, names: Vec<&str>) -> Result<()> {
        let snapshot = self.snapshot();
        let mut nodes = Vec::with_capacity(names.len());
        for name in &names {
            let node = snapshot.present_nodes().find(|node| node.label() == *name);
            nodes.push(node.cloned().ok_or_else(|| {
                let why = "this is no node of the map";
                Error::new(ErrorKind::Config, why).with("node", name)
            })?);
        }
        // Its keys would go too.
        for node in &nodes {
            self.spares_map_at(node).await?;
        }
        let core = &self.core;
        let mut clearing = core.flights().clear("");
        let _clear = core.fence().clear("");
        let until = Instant::now() + core.settings().store_timeout;
        clearing.settled(until).await;
        let flushed = join_all(nodes.iter().map(Node::flush)).await;
        let failed = flushed.into_iter().filter_map(Result::err).collect();
        all_done(failed, nodes.len())
    }

    /// Does something at every node, all at once, and at those that come while it is done.
    async fn at_all<F: Future<Output = Result<()>> + Send>(
        &self,
        operation: &'static str,
        act: impl Fn(Node) -> F + Sync,
    ) -> Result<()> {
        let act = &act;
        let (mut reached, mut failed) = (HashSet::new(), Vec::new());
        for _ in 0..=AGAIN {
            let snapshot = self.snapshot();
            let urls = snapshot.ring.nodes().iter().enumerate();
            let fresh: Vec<usize> = urls
                .filter(|(_, url)| reached.insert((*url).clone()))
                .map(|(index, _)| index)
                .collect();
            if fresh.is_empty() {
                break;
            }
            let present = fresh.into_iter().map(|index| {
                let node = snapshot.node(index).cloned();
                async move { act(node?).await }
            });
            // They are asked by those who have not heard of the change.
            let former = snapshot.former_nodes();
            let told = former.into_iter().map(act);
            let (done, _) = join(join_all(present), join_all(told)).await;
            failed.extend(done.into_iter().filter_map(Result::err));
        }
        if reached.is_empty() {
            // The keys are somewhere; they are only out of reach.
            let why = "the ring has no nodes yet";
            return Err(Error::new(ErrorKind::Unavailable, why).during(operation));
        }
        all_done(failed, reached.len())
    }

    /// Notes how things stand with keys that are computed next, each at its node.
    pub(super) async fn begin_each(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        let snapshot = self.snapshot();
        let ask = |node: Node, keys: Vec<_>| async move { node.begin(&keys, namespace).await };
        let begun = match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => on_each(items, &snapshot, ask).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        begun
            .into_iter()
            .map(|ticket| ticket.unwrap_or_else(Ticket::lost))
            .collect()
    }

    /// What stands under keys and who may compute them, each at its node.
    pub(super) async fn claim_each(
        &self,
        keys: &[&str],
        want: Want,
        lease: Lease,
    ) -> Vec<Result<Claim>> {
        let (snapshot, core) = (self.snapshot(), &self.core);
        let ask =
            |node: Node, keys: Vec<_>| async move { node.claim(core, &keys, want, lease).await };
        let claims = match owned(&snapshot, keys.iter().copied(), |key| key) {
            Ok(items) => on_each(items, &snapshot, ask).await,
            Err(error) => return all_failed(keys.len(), &error),
        };
        let mut judged = Vec::with_capacity(keys.len());
        for (key, claim) in keys.iter().zip(claims) {
            judged.push(match claim {
                Ok(claim) => self.judged_claim(&snapshot, key, claim, want, lease).await,
                Err(error) => Err(error),
            });
        }
        judged
    }

    /// A value that is too old for its node is none: the right to compute it is asked for then.
    async fn judged_claim(
        &self,
        snapshot: &Snapshot,
        key: &str,
        claim: Claim,
        want: Want,
        lease: Lease,
    ) -> Result<Claim> {
        let stood = claim.answer.entry.is_some();
        let answer = self.judged_now(key, claim.answer);
        if !stood || answer.entry.is_some() || !matches!(claim.right, Right::NotNeeded) {
            return Ok(Claim::new(answer, claim.right));
        }
        let node = snapshot.node_of(key)?;
        let again = node.claim(&self.core, &[key], want, lease.anew()).await;
        match again.into_iter().next() {
            Some(again) => {
                let Claim { answer, right } = again?;
                Ok(Claim::new(self.judged_now(key, answer), right))
            }
            None => Ok(Claim::new(answer, claim.right)),
        }
    }

    pub(super) async fn store_each(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let set = drafts.iter().filter(|(_, draft)| !draft.computed);
        let set: Vec<&str> = set.map(|(key, _)| &**key).collect();
        self.follower.recent.note(set.iter().copied());
        let mut snapshot = self.snapshot();
        let former = Former::of(&snapshot, set).forget(self.follower.patience());
        let store = self.store_each_by(&snapshot, drafts.clone());
        let mut stored = join(store, former).await.0;
        for _ in 0..AGAIN {
            let keys = drafts.iter().zip(&stored);
            let keys =
                keys.map(|((key, draft), stored)| (&**key, !draft.computed && stored.is_ok()));
            let Some((next, moved)) = self.some_overtaken(&snapshot, keys) else {
                break;
            };
            snapshot = next;
            let some = moved.iter().map(|at| drafts[*at].clone()).collect();
            let again = self.store_each_by(&snapshot, some).await;
            for (at, again) in moved.into_iter().zip(again) {
                stored[at] = again;
            }
        }
        stored
    }

    async fn store_each_by(
        &self,
        snapshot: &Snapshot,
        drafts: Vec<(String, Draft)>,
    ) -> Vec<Result<Stored>> {
        let (core, total) = (&self.core, drafts.len());
        let dated = |(key, draft): (String, Draft)| {
            let draft = self.dated(snapshot, &key, draft)?;
            Ok((key, draft))
        };
        let drafts: Result<Vec<_>> = drafts.into_iter().map(dated).collect();
        let items = drafts.and_then(|drafts| owned(snapshot, drafts, |(key, _)| key));
        let ask = |node: Node, drafts: Vec<(String, Draft)>| async move {
            node.store_many(core, &drafts).await
        };
        match items {
            Ok(items) => on_each(items, snapshot, ask).await,
            Err(error) => all_failed(total, &error),
        }
    }

    pub(super) async fn remove_each(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.follower.recent.note(keys.iter().copied());
        let mut snapshot = self.snapshot();
        let former = Former::of(&snapshot, keys.iter().copied());
        let former = former.forget(self.follower.patience());
        let mut removed = join(remove_each_by(&self.core, &snapshot, keys), former)
            .await
            .0;
        for _ in 0..AGAIN {
            let done = keys.iter().zip(&removed);
            let done = done.map(|(key, removed)| (*key, removed.is_ok()));
            let Some((next, moved)) = self.some_overtaken(&snapshot, done) else {
                break;
            };
            snapshot = next;
            let some: Vec<&str> = moved.iter().map(|at| keys[*at]).collect();
            let again = remove_each_by(&self.core, &snapshot, &some).await;
            for (at, again) in moved.into_iter().zip(again) {
                let before = matches!(removed[at], Ok(true));
                removed[at] = again.map(|again| again || before);
            }
        }
        removed
    }

    /// A write, and at the same time a word to the nodes that the key belonged to lately.
    async fn with_former<R>(
        &self,
        snapshot: &Snapshot,
        key: &str,
        write: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        let former = Former::of(snapshot, [key]);
        join(write, former.forget(self.follower.patience())).await.0
    }

    /// The map of now, if a key that was written by another one belongs to another node in it.
    fn overtaken(&self, written: &Arc<Snapshot>, key: &str) -> Option<Arc<Snapshot>> {
        let now = self.snapshot();
        (!Arc::ptr_eq(&now, written) && written.moves(&now, key)).then_some(now)
    }

    /// The same for many keys, with the places of those that moved and that are to be written again.
    fn some_overtaken<'k>(
        &self,
        written: &Arc<Snapshot>,
        keys: impl Iterator<Item = (&'k str, bool)>,
    ) -> Option<(Arc<Snapshot>, Vec<usize>)> {
        let now = self.snapshot();
        if Arc::ptr_eq(&now, written) {
            return None;
        }
        let moved = keys
            .enumerate()
            .filter(|(_, (key, again))| *again && written.moves(&now, key));
        let moved: Vec<usize> = moved.map(|(at, _)| at).collect();
        (!moved.is_empty()).then_some((now, moved))
    }
}

/// An error that names the nodes that failed, of so many in all.
fn all_done(failed: Vec<Error>, of: usize) -> Result<()> {
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let node = |error: &Error| {
        let named = error.context().find(|(name, _)| *name == "node");
        named.map_or_else(|| "?".to_owned(), |(_, node)| node.to_owned())
    };
    let nodes: Vec<String> = failed.iter().map(node).collect();
    Err(
        Error::new(ErrorKind::Partial, "some nodes failed, the others are done")
            .with("failed", failed.len())
            .with("of", of)
            .with("nodes", nodes.join(" "))
            .with("first", first)
            .caused_by(first.clone()),
    )
}

async fn remove_by(snapshot: &Snapshot, key: &str) -> Result<bool> {
    snapshot.node_of(key)?.remove(key).await
}

async fn remove_each_by(core: &Core, snapshot: &Snapshot, keys: &[&str]) -> Vec<Result<bool>> {
    let ask = |node: Node, keys: Vec<_>| async move { node.remove_many(core, &keys).await };
    match owned(snapshot, keys.iter().copied(), |key| key) {
        Ok(items) => on_each(items, snapshot, ask).await,
        Err(error) => all_failed(keys.len(), &error),
    }
}
