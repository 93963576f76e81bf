//! Earlier maps, as the manager keeps them, and the lineage that they and the maps in use tell.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use crate::ringmap::{Order, Ring, label};

use super::lineage::Lineage;
use super::map::GoodMap;

/// Maps kept in the history.
pub(super) const KEPT: u64 = 16;

/// The epochs whose maps are asked for by one who has followed the map until the epoch `known`.
pub(super) fn missing(known: u64, newest: u64) -> RangeInclusive<u64> {
    // An epoch before the known one tells nothing that is new: none are asked for.
    oldest_kept(newest).max(known.saturating_add(1))..=newest
}

fn oldest_kept(newest: u64) -> u64 {
    newest.saturating_sub(KEPT - 1).max(1)
}

/// What is kept of a map: node labels, and the positions of each. Never a password.
pub(super) fn entry(ring: &Ring, hash_tags: Option<bool>, lookup: Order) -> String {
    let labels: Vec<String> = ring.nodes().iter().map(|url| label(url)).collect();
    let mut positions = vec![Vec::new(); labels.len()];
    let indexes: HashMap<&str, usize> = ring.nodes().iter().map(String::as_str).zip(0..).collect();
    for (position, url) in ring.iter() {
        if let Some(own) = indexes.get(url).and_then(|node| positions.get_mut(*node)) {
            own.push(position);
        }
    }
    let lookup = lookup.to_string();
    let mut entry =
        serde_json::json!({ "nodes": labels, "positions": positions, "lookup": lookup });
    // Otherwise each reader has chosen, then as now.
    if let Some(tags) = hash_tags {
        entry["hash_tags"] = tags.into();
    }
    entry.to_string()
}

/// What the manager keeps of earlier maps.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Oldest first, without a gap. The last one is the present epoch's.
    maps: Vec<(u64, Ring)>,
    /// The newest epoch whose entry is there and cannot be read: the history ends behind it.
    pub(super) unreadable: Option<u64>,
}

impl History {
    /// Reads the entries of some epochs, none where there is none. An entry that does not say by which rule its map is
    /// read was read by `order`.
    pub(super) fn read(
        epochs: RangeInclusive<u64>,
        entries: Vec<Option<Vec<u8>>>,
        order: Order,
        hash_tags: bool,
        max_fields: usize,
    ) -> Self {
        let mut maps = Vec::new();
        let mut unreadable = None;
        let entries: Vec<_> = epochs.zip(entries).collect();
        for (epoch, entry) in entries.into_iter().rev() {
            let Some(entry) = entry else { break };
            let Some(ring) = ring(&entry, order, hash_tags, max_fields) else {
                unreadable = Some(epoch);
                break;
            };
            maps.push((epoch, ring));
        }
        maps.reverse();
        Self { maps, unreadable }
    }

    /// The maps up to `good`, oldest first.
    fn up_to<'r>(&'r self, good: &'r GoodMap) -> impl Iterator<Item = (u64, &'r Ring)> {
        let past = self.maps.iter().map(|(epoch, ring)| (*epoch, ring));
        // An edited map follows on its epoch's own; one that was not edited is its epoch's own.
        let past = past.filter(|(epoch, _)| *epoch < good.stated || good.edited);
        past.chain([(from(good), &good.ring)])
    }
}

/// The next epoch; for an edit of the map of `epoch` a local generation, as the entries of that epoch are older.
fn after(epoch: u64) -> u64 {
    epoch.saturating_add(1)
}

/// From which epoch on a map's entries are its own.
fn from(good: &GoodMap) -> u64 {
    if good.edited {
        after(good.stated)
    } else {
        good.stated
    }
}

/// The map that an entry of the history describes, its urls made of the labels.
fn ring(entry: &[u8], order: Order, hash_tags: bool, max_fields: usize) -> Option<Ring> {
    let mut entry: serde_json::Value = serde_json::from_slice(entry).ok()?;
    let nodes: Vec<String> = serde_json::from_value(entry.get_mut("nodes")?.take()).ok()?;
    let positions: Vec<Vec<u32>> =
        serde_json::from_value(entry.get_mut("positions")?.take()).ok()?;
    let count: usize = positions.iter().map(Vec::len).sum();
    if nodes.len() != positions.len() || count == 0 || count > max_fields {
        return None;
    }
    let order = match entry.get("lookup") {
        None => order,
        Some(rule) => rule.as_str()?.parse().ok()?,
    };
    let hash_tags = match entry.get("hash_tags") {
        None => hash_tags,
        Some(tags) => tags.as_bool()?,
    };
    let points = nodes.iter().zip(positions).flat_map(|(node, positions)| {
        let url = format!("redis://{node}");
        positions.into_iter().map(move |at| (at, url.clone()))
    });
    if order == Order::Lexicographic {
        let fields = points.map(|(at, url)| (at.to_string(), url));
        let ring = Ring::from_fields(fields, order).ok()?;
        return Some(ring.with_hash_tags(hash_tags));
    }
    let ring = Ring::from_map(points).with_hash_tags(hash_tags);
    // Fewer, and one position had two nodes.
    (ring.positions() == count).then_some(ring)
}

/// The lineage of the map that comes to be used, and the epoch at which it stands. `before` is what was used until
/// now: lineage, epoch and ring. `history` holds the epochs [`missing`] between the two.
pub(super) fn lineage(
    before: (&Lineage, u64, &Ring),
    good: &GoodMap,
    history: &History,
) -> (Lineage, u64) {
    let (known, epoch, ring) = before;
    if good.stated == 0 {
        if epoch == 0 {
            return (Lineage::default(), 0);
        }
        // The meta is gone: somebody changed the map who does not know it.
        return (known.then(ring, &good.ring, after(epoch)), epoch);
    }
    if good.stated == epoch {
        return (known.then(ring, &good.ring, from(good)), epoch);
    }
    if good.stated < epoch {
        // The manager lost its last publications, or begins anew. What was stored meanwhile was stored all the same, so
        // it is an edit: what moved is younger than any epoch until now.
        return (known.then(ring, &good.ring, after(epoch)), epoch);
    }
    let told = Lineage::of(history.up_to(good));
    if epoch == 0 {
        return (told, good.stated);
    }
    // What this process saw itself, edits above all, stands in no history.
    let begins = history.up_to(good).next().map(|(epoch, _)| epoch);
    let lineage = if begins == Some(after(epoch)) {
        known.followed_by(ring, history.up_to(good))
    } else {
        known.then(ring, &good.ring, from(good)).and(&told)
    };
    let kept = Lineage::since(oldest_kept(good.stated));
    (lineage.and(&kept), good.stated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ringmap::key_hash;

    const A: &str = r#"{"nodes":["a:1/0"],"positions":[[7]]}"#;
    const B: &str = r#"{"nodes":["b:1/0"],"positions":[[7]]}"#;

    fn good(node: &str, stated: u64, edited: bool) -> GoodMap {
        GoodMap {
            ring: Ring::from_map([(7, format!("redis://:secret@{node}:1/0"))]),
            epoch: if edited { 0 } else { stated },
            stated,
            rule_unknown: false,
            edited,
        }
    }

    /// The history up to `newest`, its entries newest first, for one who knows nothing.
    fn history(newest: u64, entries: &[&str]) -> History {
        after_epoch(0, newest, entries)
    }

    fn after_epoch(known: u64, newest: u64, entries: &[&str]) -> History {
        let mut entries: Vec<_> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let epochs = missing(known, newest);
        entries.resize(epochs.clone().count(), String::new());
        let entries = entries.into_iter().rev();
        let entries = entries.map(|entry| (!entry.is_empty()).then(|| entry.into_bytes()));
        History::read(epochs, entries.collect(), Order::Numeric, false, 100)
    }

    fn fresh(good: &GoodMap, history: &History) -> u64 {
        let nothing = (&Lineage::default(), 0, &Ring::default());
        let (lineage, epoch) = lineage(nothing, good, history);
        assert_eq!(epoch, good.stated);
        lineage.of_hash(key_hash("k"))
    }

    #[test]
    fn the_run_of_an_owner_is_read_from_the_history() {
        for (entries, since) in [
            (vec![A, A, A], 1),
            (vec![A, A, B], 2),
            (vec![A, B, A], 3),
            // What is missing or unreadable ends it.
            (vec![A, A, ""], 2),
            (vec![A, "", A], 3),
            (vec!["", A, A], 3),
            (vec![A, "{}", A], 3),
        ] {
            let history = history(3, &entries);
            assert_eq!(fresh(&good("a", 3, false), &history), since, "{entries:?}");
        }
        // As far as it reaches.
        assert_eq!(fresh(&good("a", 40, false), &history(40, &[A; 16])), 25);
    }

    #[test]
    fn garbage_is_unreadable_and_bounded() {
        for entry in [
            "",
            "[]",
            r#"{"nodes":[],"positions":[]}"#,
            r#"{"nodes":["a:1/0"],"positions":[[7],[8]]}"#,
            r#"{"nodes":["a:1/0"],"positions":[[4294967296]]}"#,
            r#"{"nodes":["a:1/0"],"positions":[[-1]]}"#,
            r#"{"nodes":["a:1/0","b:1/0"],"positions":[[7],[7]]}"#,
            r#"{"nodes":["a:1/0"],"positions":[[7]],"lookup":"backwards"}"#,
        ] {
            assert_eq!(
                ring(entry.as_bytes(), Order::Numeric, false, 100),
                None,
                "{entry}"
            );
        }
        assert!(ring(A.as_bytes(), Order::Numeric, false, 1).is_some());
        assert!(ring(A.as_bytes(), Order::Numeric, false, 0).is_none());
        assert_eq!(history(2, &[A, "x"]).unreadable, Some(1));
        for (known, newest, epochs) in [
            (0, 3, 1..=3),
            (0, 40, 25..=40),
            (30, 40, 31..=40),
            (39, 40, 40..=40),
            (1, 40, 25..=40),
            (0, u64::MAX, u64::MAX - 15..=u64::MAX),
        ] {
            assert_eq!(missing(known, newest), epochs);
        }
        assert!(missing(3, 3).is_empty() && missing(0, 0).is_empty());
        assert!(missing(50, 3).is_empty() && missing(50, 49).is_empty());
        assert!(missing(u64::MAX, u64::MAX).count() <= 1);
    }

    #[test]
    fn an_entry_is_read_by_its_own_rule_or_the_present_one() {
        // As text, 40 stands before 5.
        let entry = r#"{"nodes":["a:1/0","b:1/0"],"positions":[[5],[40]]}"#;
        let named = entry.replacen('{', r#"{"lookup":"lexicographic","#, 1);
        let owner = |entry: &str, order| {
            let ring = ring(entry.as_bytes(), order, false, 100).unwrap();
            ring.nodes()[ring.owner_of_hash(3).unwrap()].clone()
        };
        assert_eq!(owner(entry, Order::Numeric), "redis://a:1/0");
        assert_eq!(owner(entry, Order::Lexicographic), "redis://b:1/0");
        assert_eq!(owner(&named, Order::Numeric), "redis://b:1/0");
    }

    #[test]
    fn an_edit_is_a_generation_of_its_own_and_remembered() {
        let at = |node, stated, edited| good(node, stated, edited);
        // A process that starts during the edit judges by the history.
        assert_eq!(fresh(&at("b", 5, true), &history(5, &[A; 5])), 6);
        assert_eq!(fresh(&at("a", 5, true), &history(5, &[A; 5])), 1);
        assert_eq!(fresh(&at("a", 5, true), &history(5, &[])), 6);
        // One that was there remembers it when the next map is published.
        let (before, ring, none) = (
            Lineage::since(1),
            at("a", 5, false).ring,
            History::default(),
        );
        let (edited, epoch) = lineage((&before, 5, &ring), &at("b", 5, true), &none);
        assert_eq!((edited.of_hash(key_hash("k")), epoch), (6, 5));
        let ring = at("b", 5, true).ring;
        let told = after_epoch(5, 6, &[A]);
        let (back, epoch) = lineage((&edited, 5, &ring), &at("a", 6, false), &told);
        assert_eq!((back.of_hash(key_hash("k")), epoch), (6, 6));
        // And when the edit is taken back by hand.
        let (back, epoch) = lineage((&edited, 5, &ring), &at("a", 5, false), &none);
        assert_eq!((back.of_hash(key_hash("k")), epoch), (6, 5));
    }

    #[test]
    fn who_followed_the_map_asks_for_what_it_missed_alone() {
        let (before, ring) = (Lineage::since(3), good("a", 5, false).ring);
        for (newest, entries, since) in [
            (6, vec![A], 3),
            (8, vec![A, A, A], 3),
            (8, vec![A, A, B], 7),
            (8, vec![A, B, A], 8),
            // The next map needs none.
            (6, vec![""], 3),
            // A gap ends what is known.
            (8, vec![A, A, ""], 7),
            (8, vec![""], 8),
            // What the manager keeps no longer counts no longer.
            (19, vec![A; 14], 4),
            (60, vec![A; 16], 45),
        ] {
            let told = after_epoch(5, newest, &entries);
            let now = good("a", newest, false);
            let (lineage, epoch) = lineage((&before, 5, &ring), &now, &told);
            assert_eq!(
                (lineage.of_hash(key_hash("k")), epoch),
                (since, newest),
                "{entries:?}"
            );
        }
    }

    #[test]
    fn a_lost_meta_is_an_edit_and_so_are_epochs_that_go_back() {
        let ring = good("a", 5, false).ring;
        let before = Lineage::since(3);
        let nothing = History::default();
        let (lost, epoch) = lineage((&before, 5, &ring), &good("b", 0, true), &nothing);
        assert_eq!((lost.of_hash(key_hash("k")), epoch), (6, 5));
        // Back to an older map, as from a snapshot, and to one that begins anew.
        for stated in [1, 4] {
            let told = history(stated, &[A]);
            let (moved, epoch) = lineage((&before, 5, &ring), &good("b", stated, false), &told);
            assert_eq!((moved.of_hash(key_hash("k")), epoch), (6, 5));
            let (stayed, epoch) = lineage((&before, 5, &ring), &good("a", stated, false), &told);
            assert_eq!((stayed.of_hash(key_hash("k")), epoch), (3, 5));
        }
        // The epochs that were lost are published again, with other maps.
        let ring_b = good("b", 4, false).ring;
        let (moved, _) = lineage((&before, 5, &ring), &good("b", 4, false), &nothing);
        let (back, epoch) = lineage((&moved, 5, &ring_b), &good("a", 5, false), &nothing);
        assert_eq!((back.of_hash(key_hash("k")), epoch), (6, 5));
        let told = after_epoch(5, 6, &[B]);
        let (again, epoch) = lineage((&back, 5, &ring), &good("b", 6, false), &told);
        assert_eq!((again.of_hash(key_hash("k")), epoch), (6, 6));
        let never = (&Lineage::default(), 0, &ring);
        let (none, epoch) = lineage(never, &good("b", 0, false), &nothing);
        assert_eq!((none.latest(), epoch), (0, 0));
    }
}
