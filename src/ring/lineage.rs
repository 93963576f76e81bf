//! Since which epoch each key has belonged to its owner, without a break.
//!
//! A node that left the ring and came back may hold values that were rewritten elsewhere meanwhile, and so may the
//! nodes that stood in for it. Both wrote them before the present owner took the key over: an entry that is older
//! than that is not the key's value.
//!
//! The maps themselves are not kept. Between two neighbouring positions of all of them the owners are the same for
//! every hash, so one list of stretches tells all there is to tell, and a lookup is one binary search.

use std::collections::HashMap;
use std::fmt;

use crate::ringmap::{Ring, label};

/// Stretches kept, at most: 16 MiB. Past that all keys are taken as moved at the last change, which costs misses only.
const MAX_STRETCHES: usize = 1 << 20;

/// For each hash the first epoch of its owner's present run. Nodes are told apart by label, not by password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The first hash of each stretch with its epoch. The first stretch begins at 0; neighbours differ.
    stretches: Vec<(u32, u64)>,
    /// The greatest epoch among them: what is no older needs no lookup.
    latest: u64,
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.stretches.len();
        write!(f, "Lineage({count} stretches, latest {})", self.latest)
    }
}

impl Default for Lineage {
    /// Nothing is known, and nothing too old.
    fn default() -> Self {
        Self::since(0)
    }
}

impl Lineage {
    /// Every key belongs to its owner since `epoch`, as far as anybody knows.
    pub(super) fn since(epoch: u64) -> Self {
        Self {
            stretches: vec![(0, epoch)],
            latest: epoch,
        }
    }

    /// The lineage of maps in a row, oldest first, each with its epoch.
    pub(super) fn of<'r>(maps: impl IntoIterator<Item = (u64, &'r Ring)>) -> Self {
        let mut maps = maps.into_iter();
        match maps.next() {
            Some((oldest, first)) => Self::since(oldest).followed_by(first, maps),
            None => Self::default(),
        }
    }

    /// After `before` was replaced by maps in a row, oldest first, each with its epoch.
    pub(super) fn followed_by<'r>(
        &self,
        mut before: &'r Ring,
        maps: impl IntoIterator<Item = (u64, &'r Ring)>,
    ) -> Self {
        let mut lineage = self.clone();
        for (epoch, ring) in maps {
            lineage = lineage.then(before, ring, epoch);
            before = ring;
        }
        lineage
    }

    /// After `before` was replaced by `now` in `epoch`.
    pub(super) fn then(&self, before: &Ring, now: &Ring, epoch: u64) -> Self {
        if before.has_hash_tags() != now.has_hash_tags() && !before.is_empty() {
            // Some keys moved, and which is not told by their hashes.
            return Self::since(self.latest.max(epoch));
        }
        let mut names = HashMap::new();
        let (old, new) = (numbered(before, &mut names), numbered(now, &mut names));
        let positions = before.iter().chain(now.iter());
        self.redrawn(positions.map(|(position, _)| position), |start, since| {
            let before = before.owner_of_hash(start).and_then(|owner| old.get(owner));
            let now = now.owner_of_hash(start).and_then(|owner| new.get(owner));
            // Later edits of one epoch are no younger than the first.
            if before == now {
                since
            } else {
                since.max(epoch)
            }
        })
    }

    /// What two tellings of one lineage agree on: the younger epoch of each stretch.
    pub(super) fn and(&self, other: &Self) -> Self {
        let starts = other.stretches.iter().map(|(start, _)| *start);
        self.redrawn(starts, |start, since| since.max(other.of_hash(start)))
    }

    /// The same with another count: what `other` says belongs to its owner since later than `known` does so since `now`.
    pub(super) fn moved_since(&self, other: &Self, known: u64, now: u64) -> Self {
        let starts = other.stretches.iter().map(|(start, _)| *start);
        self.redrawn(starts, |start, since| {
            if other.of_hash(start) > known {
                since.max(now)
            } else {
                since
            }
        })
    }

    /// Whether an entry of `epoch` was written before the present owner took its key over, which has this hash.
    pub(super) fn outdates(&self, hash: impl FnOnce() -> u32, epoch: u64) -> bool {
        epoch != 0 && epoch < self.latest && epoch < self.of_hash(hash())
    }

    /// The epoch of the latest change.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// The stretches, each with its first hash.
    pub(super) fn stretches(&self) -> &[(u32, u64)] {
        &self.stretches
    }

    /// The lineage of these stretches, unless they are none.
    pub(super) fn of_stretches(stretches: Vec<(u32, u64)>) -> Option<Self> {
        let sound = stretches.first().is_some_and(|(start, _)| *start == 0)
            && stretches.windows(2).all(|pair| pair[0].0 < pair[1].0);
        sound.then(|| Self::merged(stretches))
    }

    /// The first epoch of the present run of the owner of keys of this hash; 0 where there are no epochs.
    pub(super) fn of_hash(&self, hash: u32) -> u64 {
        let after = self.stretches.partition_point(|(start, _)| *start <= hash);
        let stretch = after.checked_sub(1).and_then(|at| self.stretches.get(at));
        stretch.map_or(self.latest, |(_, since)| *since)
    }

    /// Cut at further places, each piece with what `judge` says of its first hash and its epoch so far.
    fn redrawn(&self, cuts: impl Iterator<Item = u32>, judge: impl Fn(u32, u64) -> u64) -> Self {
        let own = self.stretches.iter().map(|(start, _)| *start);
        let mut starts: Vec<u32> = own.chain(cuts).collect();
        starts.sort_unstable();
        starts.dedup();
        let pieces = starts.into_iter();
        Self::merged(
            pieces
                .map(|start| (start, judge(start, self.of_hash(start))))
                .collect(),
        )
    }

    fn merged(mut stretches: Vec<(u32, u64)>) -> Self {
        stretches.dedup_by(|later, kept| later.1 == kept.1);
        let latest = stretches.iter().map(|(_, since)| *since).max();
        let latest = latest.unwrap_or_default();
        if stretches.len() > MAX_STRETCHES {
            return Self::since(latest);
        }
        Self { stretches, latest }
    }
}

/// A number for each node of a ring, the same for one label in all rings.
fn numbered(ring: &Ring, names: &mut HashMap<String, usize>) -> Vec<usize> {
    let number = |url: &String| {
        let next = names.len();
        *names.entry(label(url)).or_insert(next)
    };
    ring.nodes().iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ringmap::{Order, key_hash, positions_for};

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        /// A ring of some of six nodes, now and then with another password, or read as text.
        fn ring(&mut self) -> Ring {
            let mut nodes = Vec::new();
            for node in 0..6 {
                if self.below(3) > 0 {
                    nodes.push(format!("redis://:pass{}@n{node}:1/0", self.below(2)));
                }
            }
            let per_node = 1 + self.below(4) as usize;
            let map = positions_for(&nodes, per_node);
            if self.below(4) > 0 {
                return Ring::from_map(map);
            }
            let fields = map.into_iter().map(|(at, url)| (at.to_string(), url));
            Ring::from_fields(fields, Order::Lexicographic).unwrap()
        }
    }

    fn owner(ring: &Ring, hash: u32) -> Option<String> {
        let owner = ring.owner_of_hash(hash)?;
        Some(label(&ring.nodes()[owner]))
    }

    /// By the definition: from the newest map back, as long as the owner is the same.
    fn naive(maps: &[(u64, Ring)], hash: u32) -> u64 {
        let (latest, now) = maps.last().expect("a map");
        let mut since = *latest;
        for (epoch, ring) in maps.iter().rev() {
            if owner(ring, hash) != owner(now, hash) {
                break;
            }
            since = *epoch;
        }
        since
    }

    fn hashes(random: &mut Random, maps: &[(u64, Ring)]) -> Vec<u32> {
        let mut hashes: Vec<u32> = (0..200).map(|_| random.next() as u32).collect();
        hashes.extend([0, u32::MAX]);
        for (position, _) in maps.iter().flat_map(|(_, ring)| ring.iter()) {
            hashes.extend([position.wrapping_sub(1), position, position.wrapping_add(1)]);
        }
        hashes
    }

    /// Maps with rising epochs, one in three an edit in the epoch that the next publication takes.
    fn history(random: &mut Random) -> Vec<(u64, Ring)> {
        let mut epoch = 1 + random.below(3);
        let mut maps = vec![(epoch, random.ring())];
        for _ in 0..random.below(20) {
            let edited = random.below(3) == 0;
            let last = maps.last().map_or(0, |(epoch, _)| *epoch);
            if edited {
                maps.push((epoch + 1, random.ring()));
            } else {
                epoch = (epoch + 1).max(last);
                maps.push((epoch, random.ring()));
            }
        }
        maps
    }

    #[test]
    fn it_says_what_the_definition_says() {
        for seed in 0..150 {
            let mut random = Random(seed);
            let maps = history(&mut random);
            let lineage = Lineage::of(maps.iter().map(|(epoch, ring)| (*epoch, ring)));
            for hash in hashes(&mut random, &maps) {
                let expected = naive(&maps, hash);
                assert_eq!(lineage.of_hash(hash), expected, "seed {seed}, hash {hash}");
            }
            let greatest = lineage.stretches.iter().map(|(_, since)| *since).max();
            assert_eq!(Some(lineage.latest), greatest, "seed {seed}");
        }
    }

    #[test]
    fn a_truncated_telling_raises_what_is_older_and_nothing_else() {
        for seed in 0..100 {
            let mut random = Random(seed);
            let maps = history(&mut random);
            let told = |maps: &[(u64, Ring)]| Lineage::of(maps.iter().map(|(e, ring)| (*e, ring)));
            let cut = random.below(maps.len() as u64) as usize;
            let both = told(&maps).and(&told(&maps[cut..]));
            for hash in hashes(&mut random, &maps) {
                let expected = naive(&maps, hash).max(maps[cut].0);
                assert_eq!(both.of_hash(hash), expected, "seed {seed}, hash {hash}");
            }
        }
    }

    #[test]
    fn only_an_epoch_below_the_run_is_too_old() {
        let map = |node: &str| Ring::from_map([(1 << 31, format!("redis://{node}:1/0"))]);
        let (a, b) = (map("a"), map("b"));
        let lineage = Lineage::of([(4, &a), (5, &b), (6, &b), (7, &a)]);
        assert_eq!(lineage.of_hash(key_hash("k")), 7);
        let judged = [0, 4, 6, 7, 8].map(|epoch| lineage.outdates(|| key_hash("k"), epoch));
        assert_eq!(judged, [false, true, true, false, false]);
        assert!(!Lineage::default().outdates(|| key_hash("k"), 1));
        assert!(!Lineage::since(1).outdates(|| key_hash("k"), 1));
    }

    #[test]
    fn passwords_do_not_make_another_node() {
        let map = |user: &str| Ring::from_map([(9, format!("redis://{user}h:1/0"))]);
        let lineage = Lineage::of([(1, &map("")), (2, &map(":secret@"))]);
        assert_eq!(lineage.stretches(), [(0, 1)]);
    }

    #[test]
    fn too_many_stretches_are_one_of_the_latest_epoch() {
        let many = (0..=MAX_STRETCHES as u32).map(|at| (at, u64::from(at % 2)));
        let lineage = Lineage::of_stretches(many.collect()).unwrap();
        assert_eq!(lineage.stretches(), [(0, 1)]);
        for wrong in [vec![], vec![(1, 1)], vec![(0, 1), (0, 2)]] {
            assert_eq!(Lineage::of_stretches(wrong), None);
        }
    }
}
