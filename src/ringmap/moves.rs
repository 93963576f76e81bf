//! What a change of the map moves.

use std::collections::BTreeMap;

use super::Ring;
use super::label::label;

/// Keys that a change of the map moves from one node to another.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Move {
    /// The [`label`](crate::ring::label) of the node that has them before; `None` where there is none.
    pub from: Option<String>,
    /// That of the node that has them afterwards.
    pub to: Option<String>,
    /// Which part of all hashes that is, from 0 to 1.
    pub share: f64,
}

/// What moves when one map follows the other, large parts first. Nodes are told apart by their labels: a changed password moves nothing.
///
/// ```
/// use larder::ring::{Ring, moves};
///
/// let before = Ring::from_map([(1_u32 << 31, "redis://a/0".to_owned()), (3_u32 << 30, "redis://b/0".to_owned())]);
/// let after = Ring::from_map([(1_u32 << 31, "redis://a/0".to_owned())]);
/// let moved = moves(&before, &after);
/// assert_eq!((moved.len(), moved[0].share), (1, 0.25));
/// assert_eq!(moved[0].to.as_deref(), Some("a:6379/0"));
/// ```
#[must_use]
pub fn moves(before: &Ring, after: &Ring) -> Vec<Move> {
    let labels = |ring: &Ring| {
        ring.nodes()
            .iter()
            .map(|url| label(url))
            .collect::<Vec<_>>()
    };
    let (old, new) = (labels(before), labels(after));
    let positions = before.iter().chain(after.iter()).map(|(at, _)| at);
    let cuts = cuts(positions);
    let ends = cuts
        .iter()
        .skip(1)
        .map(|end| u64::from(*end))
        .chain([1 << 32]);
    let mut moved: BTreeMap<(Option<&str>, Option<&str>), u64> = BTreeMap::new();
    for (start, end) in cuts.iter().zip(ends) {
        let of = |ring: &Ring| ring.owner_of_hash(*start);
        let from = of(before)
            .and_then(|node| old.get(node))
            .map(String::as_str);
        let to = of(after).and_then(|node| new.get(node)).map(String::as_str);
        if from != to {
            *moved.entry((from, to)).or_default() += end - u64::from(*start);
        }
    }
    let owned = |node: Option<&str>| node.map(str::to_owned);
    let moves = moved.into_iter().map(|((from, to), hashes)| Move {
        from: owned(from),
        to: owned(to),
        share: hashes as f64 / 2_f64.powi(32),
    });
    let mut moves: Vec<Move> = moves.collect();
    moves.sort_by(|one, other| other.share.total_cmp(&one.share));
    moves
}

/// Where each stretch of a ring begins, from 0 on, and which of its nodes it is of; neighbours are of different ones.
#[cfg(feature = "manager")]
pub(crate) fn arcs(ring: &Ring) -> Vec<(u32, usize)> {
    let owned = |start: u32| Some((start, ring.owner_of_hash(start)?));
    let mut arcs: Vec<(u32, usize)> = cuts(ring.iter().map(|(at, _)| at))
        .into_iter()
        .filter_map(owned)
        .collect();
    arcs.dedup_by_key(|(_, node)| *node);
    arcs
}

/// Between two of them, all hashes have one owner.
fn cuts(positions: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut cuts: Vec<u32> = positions.chain([0]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}
