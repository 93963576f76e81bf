//! How a ring is written.

use std::collections::BTreeSet;

use super::Cluster;
use crate::error::Result;
use crate::manager::event::Event;
use crate::ring::Publication;
use crate::ring::registry::Change;

impl Cluster {
    /// What has to be written; nothing where all is as it was found.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the map is none that readers would take.
    pub(in crate::manager) fn change(&self, lease: Option<&str>) -> Result<Option<Change>> {
        let mut change = match self.must_publish() {
            true => self.publication(),
            false => Ok(Change::default()),
        }?;
        for (name, member) in &self.members {
            let text = member.text();
            if self.found.nodes.get(name) != Some(&text) {
                change.nodes.insert(name.clone(), Some(text));
            }
        }
        let names: BTreeSet<&String> = self.members.keys().collect();
        let gone = |name: &&String| !names.contains(name) && !self.unread.contains_key(*name);
        for name in self.found.nodes.keys().filter(gone) {
            change.nodes.insert(name.clone(), None);
        }
        if change.map.is_none() && change.nodes.is_empty() && self.events.is_empty() {
            return Ok(None);
        }
        change.events = self.events.iter().map(Event::line).collect();
        change.lease = lease.map(str::to_owned);
        Ok(Some(change))
    }

    fn must_publish(&self) -> bool {
        // A map without a meta has no epoch, and is not what Python readers find their way by.
        let is_there = !self.layout.is_empty();
        let stands = |field: &str, text: String| self.found.meta.get(field) == Some(&text);
        let tags = self.hash_tags.map(|tags| u8::from(tags).to_string());
        let is_whole = ["digest", "epoch"]
            .iter()
            .all(|field| self.found.meta.contains_key(*field))
            && stands("lookup", self.order.to_string())
            && tags.is_none_or(|tags| stands("hash_tags", tags));
        // Where nothing is and nobody is known, there is nothing to be made good.
        let is_edited = self.found.is_edited() && (is_there || self.found.size > 0);
        is_there && !is_whole || is_edited || self.ring() != self.ring_before()
    }

    fn publication(&self) -> Result<Change> {
        let mut map = Publication::of_positions(self.positions())
            .lookup(self.order)
            .per_node(self.per_node)
            .writer(concat!("larder-manager/", env!("CARGO_PKG_VERSION")));
        if let Some(tags) = self.hash_tags {
            map = map.hash_tags(tags);
        }
        let mut change = map.change_to_any(&self.found)?;
        change
            .meta
            .insert("labels", Some(self.labels.as_str().to_owned()));
        Ok(change)
    }
}
