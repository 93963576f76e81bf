//! From a hash to its owner.
//!
//! Both orders come down to one shape: the hash space cut into spans, each with an owner. A table over the top bits
//! of the hash has a bucket for each stretch of it. A bucket with one cut or none holds the whole answer, so that
//! most lookups are one read and no branch that a processor could guess wrong. The others say where to search.

use std::sync::Arc;

/// Buckets for each span, at least. More of them leave fewer lookups to search, and cost 8 bytes each.
const BUCKETS_PER_SPAN: usize = 4;

/// From 2^12 buckets, 32 KiB, to 2^19, 4 MiB: bounds on memory, and on a cold table after each change of the map.
const BITS: std::ops::RangeInclusive<u32> = 12..=19;

/// How many spans a search tries one by one. Only a lopsided map has more of them in one bucket.
const NEAR: usize = 8;

/// In place of an owner: search. Owners from here on are found by search alone.
const SEARCH: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq)]
struct Span {
    /// The first hash that is no longer of this span. The last span holds all hashes that are left.
    end: u32,
    owner: u32,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Hashes below belong to `before`, the others to `after`. Of a bucket to search: the index of its first span.
    cut: u32,
    before: u16,
    after: u16,
}

#[derive(Clone)]
pub(super) struct Index {
    /// In ascending order. Both are empty on an empty ring.
    spans: Arc<[Span]>,
    buckets: Arc<[Bucket]>,
    shift: u32,
}

impl Index {
    /// Compiles a scan: a hash belongs to the first of these points, in the order given, that is greater, and to
    /// the first point of all if none is.
    pub(super) fn build(scan: impl Iterator<Item = (u32, u32)>) -> Self {
        let spans = spans(scan);
        let wanted = (spans.len() * BUCKETS_PER_SPAN).next_power_of_two();
        let bits = wanted.trailing_zeros().clamp(*BITS.start(), *BITS.end());
        let shift = u32::BITS - bits;
        Self {
            buckets: buckets(&spans, shift),
            spans: spans.into(),
            shift,
        }
    }

    #[inline]
    pub(super) fn owner(&self, hash: u32) -> Option<u32> {
        let bucket = self.buckets.get((hash >> self.shift) as usize)?;
        if bucket.before == SEARCH {
            return self.search(bucket.cut as usize, hash);
        }
        let owner = if hash < bucket.cut {
            bucket.before
        } else {
            bucket.after
        };
        Some(u32::from(owner))
    }

    #[inline]
    fn search(&self, start: usize, hash: u32) -> Option<u32> {
        let rest = self.spans.get(start..)?;
        let near = rest.iter().take(NEAR).position(|span| span.end > hash);
        let found = near.unwrap_or_else(|| rest.partition_point(|span| span.end <= hash));
        rest.get(found).or(rest.last()).map(|span| span.owner)
    }

    /// Each span's owner and how many hashes it holds.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (u32, u64)> {
        let mut start = 0;
        self.spans.iter().enumerate().map(move |(i, span)| {
            let last = i + 1 == self.spans.len();
            let end = if last { 1 << 32 } else { u64::from(span.end) };
            let length = end - start;
            start = end;
            (span.owner, length)
        })
    }
}

impl PartialEq for Index {
    /// The spans are the whole content; the buckets follow from them.
    fn eq(&self, other: &Self) -> bool {
        self.spans == other.spans
    }
}

fn spans(scan: impl Iterator<Item = (u32, u32)>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut wrap = None;
    for (end, owner) in scan {
        wrap.get_or_insert(owner);
        match spans.last_mut() {
            // A scan stops at an earlier, greater point before it gets here: only prefix maxima are ever answers.
            Some(last) if last.end >= end => {}
            // Neighbours with one owner are one span.
            Some(last) if last.owner == owner => last.end = end,
            _ => spans.push(Span { end, owner }),
        }
    }
    spans.extend(wrap.map(|owner| Span {
        end: u32::MAX,
        owner,
    }));
    spans
}

fn buckets(spans: &[Span], shift: u32) -> Arc<[Bucket]> {
    if spans.is_empty() {
        return Arc::default();
    }
    let mut next = 0;
    (0..=u32::MAX >> shift)
        .map(|number| {
            let first = number << shift;
            let last = first | ((1 << shift) - 1);
            // A span that ends at the bucket's very start has no hash in it.
            while next + 1 < spans.len() && spans[next].end <= first {
                next += 1;
            }
            bucket(next, last, spans)
        })
        .collect()
}

/// The bucket that begins in span number `start` and ends with the hash `last`.
fn bucket(start: usize, last: u32, spans: &[Span]) -> Bucket {
    let cuts = &spans[start..spans.len() - 1];
    let inside = cuts
        .iter()
        .take(2)
        .take_while(|span| span.end <= last)
        .count();
    let owner = |index: usize| u16::try_from(spans[index].owner).unwrap_or(SEARCH);
    let (before, after) = (owner(start), owner(start + inside));
    if inside == 2 || before == SEARCH || after == SEARCH {
        return Bucket {
            cut: start as u32,
            before: SEARCH,
            after: SEARCH,
        };
    }
    Bucket {
        cut: spans[start].end,
        before,
        after,
    }
}
