//! Invalidations of tags that a node still owes.

use std::collections::HashMap;

use super::{Replay, common};

/// A namespace, and a tag in it.
pub(in crate::wire) type TagName = (Box<str>, Box<str>);

/// Tags that are owed an invalidation, at most; past that their values are removed.
const MAX_TAGS: usize = 1024;

/// How things stand with one of them.
#[derive(Debug, Default)]
struct Debts {
    under_way: u32,
    /// How many have failed; 0 once it is made up for all of them.
    failed: u64,
}

/// Tags that are being invalidated, or are to be again.
#[derive(Debug, Default)]
pub(super) struct Tags(HashMap<TagName, Debts, ahash::RandomState>);

impl Tags {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those to be invalidated again, and how many have failed.
    pub(super) fn owed(&self) -> impl Iterator<Item = (&TagName, u64)> {
        let owed = self.0.iter().filter(|(_, debts)| debts.failed > 0);
        owed.map(|(name, debts)| (name, debts.failed))
    }
}

impl Replay {
    /// Begins to invalidate a tag. Dropped without being settled, that is owed.
    pub(in crate::wire) fn invalidate(&self, namespace: &str, tag: &str) -> TagDebt<'_> {
        let name: TagName = (namespace.into(), tag.into());
        self.change(|state| state.tags.0.entry(name.clone()).or_default().under_way += 1);
        TagDebt {
            replay: self,
            name,
            failed: true,
        }
    }

    /// Whether values with a tag should be nothing.
    pub(in crate::wire) fn owes_tag(&self, namespace: &str, tag: &str) -> bool {
        let name = || (namespace.into(), tag.into());
        !self.is_clear() && self.lock().tags.0.contains_key(&name())
    }

    /// Some tag that is owed an invalidation, and how many have failed.
    pub(in crate::wire) fn owed_tag(&self) -> Option<(TagName, u64)> {
        let state = self.lock();
        state
            .tags
            .owed()
            .next()
            .map(|(name, failed)| (name.clone(), failed))
    }

    /// A tag was invalidated after so many had failed, or never can be.
    pub(in crate::wire) fn tag_told(&self, name: &TagName, failed: u64) {
        self.change(|state| {
            if let Some(debts) = state
                .tags
                .0
                .get_mut(name)
                .filter(|debts| debts.failed == failed)
            {
                debts.failed = 0;
                if debts.under_way == 0 {
                    state.tags.0.remove(name);
                }
            }
        });
    }

    fn tag_ended(&self, name: &TagName, failed: bool) {
        self.change(|state| {
            if let Some(debts) = state.tags.0.get_mut(name) {
                debts.under_way -= 1;
                debts.failed = if failed { debts.failed + 1 } else { 0 };
                if debts.under_way == 0 && debts.failed == 0 {
                    state.tags.0.remove(name);
                }
            }
            if state.tags.owed().nth(MAX_TAGS).is_some() {
                let namespaces = state
                    .tags
                    .owed()
                    .map(|((namespace, _), _)| namespace.to_string());
                let all = namespaces.reduce(common).unwrap_or_default();
                state.tags.0.retain(|_, debts| debts.under_way > 0);
                state.owe_all(all);
            }
        });
    }
}

/// A tag that is being invalidated.
#[must_use]
pub(in crate::wire) struct TagDebt<'r> {
    replay: &'r Replay,
    name: TagName,
    failed: bool,
}

impl TagDebt<'_> {
    /// The node was told, or never can be.
    pub(in crate::wire) fn settle(mut self) {
        self.failed = false;
    }
}

impl Drop for TagDebt<'_> {
    fn drop(&mut self) {
        self.replay.tag_ended(&self.name, self.failed);
    }
}
