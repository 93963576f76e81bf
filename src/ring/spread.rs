//! Many keys at once: one command to each node, all nodes at once.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::wire::node::Node;
use crate::wire::{Asked, scatter};

use super::snapshot::Snapshot;

/// Each item with the index of its key's node, or the same error for all where there are no nodes.
pub(super) fn owned<K>(
    snapshot: &Snapshot,
    items: impl IntoIterator<Item = K>,
    key: impl Fn(&K) -> &str,
) -> Result<Vec<(usize, K)>> {
    let items = items.into_iter();
    let mut owned = Vec::with_capacity(items.size_hint().0);
    for item in items {
        owned.push((snapshot.owner(key(&item))?, item));
    }
    Ok(owned)
}

/// Groups items by node and asks all nodes at once; the answers are in the order of the items.
pub(super) async fn on_each<K, R, F>(
    items: Vec<(usize, K)>,
    owners: &Snapshot,
    ask: impl Fn(Node, Vec<K>) -> F,
) -> Vec<Result<R>>
where
    F: Future<Output = Vec<Result<R>>>,
{
    asking(items, owners, ask).answers().await
}

/// As [`on_each`], in two steps.
pub(super) fn asking<K, R, A, F>(
    items: Vec<(usize, K)>,
    owners: &Snapshot,
    ask: impl Fn(Node, Vec<K>) -> F,
) -> Asked<impl Future<Output = A>>
where
    A: IntoIterator<Item = Result<R>> + From<Vec<Result<R>>>,
    F: Future<Output = A>,
{
    scatter(items, owners.node_count(), |owner, items| {
        let count = items.len();
        let answers = owners.node(owner).map(|node| ask(node.clone(), items));
        async move {
            match answers {
                Ok(answers) => answers.await,
                Err(error) => all_failed(count, &error).into(),
            }
        }
    })
}

/// The same error for each of some keys.
pub(super) fn all_failed<R>(count: usize, error: &Error) -> Vec<Result<R>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// The nodes that owned some keys lately, for those who still follow an earlier map.
pub(super) struct Former(Vec<(Node, Vec<String>)>);

impl Former {
    pub(super) fn of<'k>(snapshot: &Snapshot, keys: impl IntoIterator<Item = &'k str>) -> Self {
        let mut nodes: HashMap<String, (Node, Vec<String>), ahash::RandomState> =
            HashMap::default();
        for key in keys {
            for node in snapshot.former_owners(key) {
                let label = node.label().to_owned();
                let (_, keys) = nodes.entry(label).or_insert_with(|| (node, Vec::new()));
                keys.push(key.to_owned());
            }
        }
        Self(nodes.into_values().collect())
    }

    /// Removes the keys there, within `bound`. As well as it goes, and nothing is owed: a node that left is down more
    /// often than not, and what it keeps is too old for the ring once it is back.
    pub(super) async fn forget(self, bound: Duration) {
        if self.0.is_empty() {
            return;
        }
        let removals = self.0.into_iter().map(|(node, keys)| async move {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            node.forget(&keys).await;
        });
        let _ = timeout(bound, join_all(removals)).await;
    }
}
