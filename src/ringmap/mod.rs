//! The map of a consistent-hash ring, as plain data: which node a key belongs to.
//!
//! Nothing here waits, reads a clock or talks to a server. A [`Ring`] is built whole from a map of positions to
//! node urls, never changes afterwards, and answers a lookup without a lock and without an allocation.
//!
//! The files: `order` names the two ways to sort a map, `index` is the lookup, `place` chooses positions for
//! nodes by hashes of their names, `layout` one node after the other, `moves` says what a change moves, `label` names a node without its password, `read` takes a map's entries in.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::error::Result;

mod index;
mod label;
mod layout;
mod moves;
mod order;
mod place;
mod read;
#[cfg(test)]
mod tests;

use index::Index;
pub use label::label;
pub use layout::Layout;
#[cfg(feature = "manager")]
pub(crate) use moves::arcs;
pub use moves::{Move, moves};
pub use order::Order;
pub use place::{fields_for_readers, positions_for, python_positions};
use read::{Urls, position, rank};

/// The hash that places a key: CRC-32 (the one of zlib and PNG) of all its bytes, prefix included.
///
/// ```
/// assert_eq!(larder::ring::key_hash("123456789"), 0xCBF4_3926);
/// ```
#[inline]
#[must_use]
pub fn key_hash(key: impl AsRef<[u8]>) -> u32 {
    crc32fast::hash(key.as_ref())
}

/// The part of a key that hash tags look at: what stands in its first braces, if something does, else all of it. As Redis Cluster
/// has it.
///
/// ```
/// use larder::ring::hash_tag;
///
/// assert_eq!(hash_tag("{user:42}:name"), b"user:42");
/// assert_eq!(hash_tag("{}:name"), b"{}:name");
/// assert_eq!(hash_tag("a}b{c}{d}"), b"c");
/// ```
#[must_use]
pub fn hash_tag(key: &(impl AsRef<[u8]> + ?Sized)) -> &[u8] {
    let key = key.as_ref();
    let place = |bytes: &[u8], brace| bytes.iter().position(|byte| *byte == brace);
    let tag = place(key, b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        rest.get(..place(rest, b'}')?)
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// An immutable map from keys to nodes.
///
/// A key belongs to the first position strictly greater than its [`key_hash`], past the end to the smallest
/// position. What "first" means is the [`Order`]'s matter.
///
/// A clone is another handle on the same data. `Debug` shows nodes by their [`label`], never a password. Two
/// rings are equal if order, positions and urls are, and every key goes to the same url.
///
/// Costs: 24 to 80 bytes a position and 32 KiB at least; 160,000 positions take 7 MB and some 10 ms to build. A lookup
/// is the hash of the key and, mostly, one read of memory.
///
/// ```
/// use larder::ring::Ring;
///
/// let ring = Ring::from_map([
///     (1_000_000_000, "redis://10.0.0.1:6379/0".to_owned()),
///     (3_000_000_000, "redis://10.0.0.2:6379/0".to_owned()),
/// ]);
/// // The first position greater than the key's hash is 3,000,000,000.
/// assert_eq!(larder::ring::key_hash("user:42"), 1_684_999_558);
/// assert_eq!(ring.node_for("user:42"), Some("redis://10.0.0.2:6379/0"));
/// ```
#[derive(Clone)]
pub struct Ring {
    order: Order,
    nodes: Arc<[String]>,
    /// Each position once with its node, in numeric order.
    points: Arc<[(u32, u32)]>,
    index: Index,
    hash_tags: bool,
}

impl Ring {
    /// A ring in numeric order. A position given twice keeps its last url.
    ///
    /// ```
    /// let ring = larder::ring::Ring::from_map([]);
    /// assert!(ring.is_empty());
    /// assert_eq!(ring.node_for("any"), None);
    /// ```
    #[must_use]
    pub fn from_map(map: impl IntoIterator<Item = (u32, String)>) -> Self {
        let mut urls = Urls::default();
        let mut points: Vec<_> = map
            .into_iter()
            .map(|(position, url)| (position, urls.id(url)))
            .collect();
        // A stable sort, so that of one position's entries the last given stands last.
        points.sort_by_key(|point| point.0);
        points.dedup_by(|later, kept| {
            later.0 == kept.0 && {
                *kept = *later;
                true
            }
        });
        let (nodes, ranks) = urls.ranked(&points);
        rank(&mut points, &ranks);
        let index = Index::build(points.iter().copied());
        Self::assemble(Order::Numeric, nodes, points, index)
    }

    /// A ring from the fields and values of the Redis hash `HASH_RING_MAP`, as spelt there.
    ///
    /// [`Order::Auto`] means [`Order::Numeric`]. A position may be spelt with leading zeros, and may stand there in
    /// several spellings as long as all name one url: Larder's manager writes it so (see [`fields_for_readers`]).
    ///
    /// In [`Order::Lexicographic`] the answer is the Python SDK's to the key, with one exception. That SDK looks the
    /// position it found up again, printed plainly, and raises `KeyError` where the map spells it with zeros
    /// alone. Such a key goes to the url of the spelling that is there.
    ///
    /// # Errors
    ///
    /// `ErrorKind::Config` if a field is no decimal number from 0 to 4,294,967,295 in ASCII digits, or if one
    /// position names two urls. One such field refuses the whole map: without it, its neighbour's keys would
    /// silently move.
    ///
    /// ```
    /// use larder::ring::{Order, Ring};
    ///
    /// let fields = [("5", "redis://a/0"), ("40", "redis://b/0")].map(|(f, u)| (f.to_owned(), u.to_owned()));
    /// let ring = Ring::from_fields(fields.clone(), Order::Numeric)?;
    /// assert_eq!(ring.owner_of_hash(4), Some(0));
    /// // As text "40" comes before "5", so the scan meets 40 first and never needs 5.
    /// let ring = Ring::from_fields(fields, Order::Lexicographic)?;
    /// assert_eq!(ring.owner_of_hash(4), Some(1));
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn from_fields(
        fields: impl IntoIterator<Item = (String, String)>,
        order: Order,
    ) -> Result<Self> {
        let mut urls = Urls::default();
        let mut points = Vec::new();
        let mut spelt = Vec::new();
        for (field, url) in fields {
            let point = (position(&field)?, urls.id(url));
            points.push(point);
            if order == Order::Lexicographic {
                spelt.push((field, point));
            }
        }
        points.sort_unstable();
        // The same position with the same url is one position; what is left twice is a contradiction.
        points.dedup();
        if let Some(pair) = points.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(urls.contradiction(pair[0], pair[1]));
        }
        let (nodes, ranks) = urls.ranked(&points);
        rank(&mut points, &ranks);
        if order != Order::Lexicographic {
            let index = Index::build(points.iter().copied());
            return Ok(Self::assemble(Order::Numeric, nodes, points, index));
        }
        spelt.sort_unstable();
        let mut scan: Vec<_> = spelt.into_iter().map(|(_, point)| point).collect();
        rank(&mut scan, &ranks);
        let index = Index::build(scan.into_iter());
        Ok(Self::assemble(order, nodes, points, index))
    }

    fn assemble(order: Order, nodes: Vec<String>, points: Vec<(u32, u32)>, index: Index) -> Self {
        Self {
            order,
            nodes: nodes.into(),
            points: points.into(),
            index,
            hash_tags: false,
        }
    }

    /// The same ring where keys are placed by their [hash tags](hash_tag), if they are to be: `{user:42}:name` and `{user:42}:mail` are on
    /// one node then. The Python SDK hashes whole keys, and so does a ring unless told otherwise.
    #[must_use]
    pub fn with_hash_tags(mut self, tags: bool) -> Self {
        self.hash_tags = tags;
        self
    }

    /// Whether keys are placed by their hash tags.
    #[must_use]
    pub fn has_hash_tags(&self) -> bool {
        self.hash_tags
    }

    /// By what this ring places a key: its [`key_hash`], or that of its [`hash_tag`].
    #[inline]
    #[must_use]
    pub fn place_hash(&self, key: impl AsRef<[u8]>) -> u32 {
        match self.hash_tags {
            false => key_hash(key),
            true => key_hash(hash_tag(&key)),
        }
    }

    /// The url of the node that `key` belongs to; `None` on an empty ring.
    ///
    /// The url may hold a password. For people, take its [`label`].
    #[inline]
    #[must_use]
    pub fn node_for(&self, key: &str) -> Option<&str> {
        let owner = self.owner(key)?;
        self.nodes.get(owner).map(String::as_str)
    }

    /// The node that `key` belongs to, as an index into [`nodes`](Self::nodes); `None` on an empty ring.
    #[inline]
    #[must_use]
    pub fn owner(&self, key: &str) -> Option<usize> {
        self.owner_of_hash(self.place_hash(key))
    }

    /// The node that keys of this [`place_hash`](Self::place_hash) belong to, as an index into [`nodes`](Self::nodes).
    #[inline]
    #[must_use]
    pub fn owner_of_hash(&self, hash: u32) -> Option<usize> {
        self.index.owner(hash).map(|owner| owner as usize)
    }

    /// The distinct urls that have a position, sorted as text: equal maps give equal lists.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// How many positions the ring has. Several spellings of one position count once.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.points.len()
    }

    /// Whether the ring has no position, and so no node for any key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The order that lookups follow: `Numeric` or `Lexicographic`, never `Auto`.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// Each position with its url, in numeric order of the positions.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.points.iter().filter_map(|&(position, owner)| {
            let url = self.nodes.get(owner as usize)?;
            Some((position, url.as_str()))
        })
    }

    /// The part of all hashes that belongs to each node, in the order of [`nodes`](Self::nodes). The sum is 1.
    ///
    /// A node whose positions are all hidden, as happens in lexicographic order, has 0.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let mut hashes = vec![0_u64; self.nodes.len()];
        for (owner, length) in self.index.lengths() {
            if let Some(sum) = hashes.get_mut(owner as usize) {
                *sum += length;
            }
        }
        let space = 2_f64.powi(32);
        hashes.into_iter().map(|sum| sum as f64 / space).collect()
    }

    /// A number that tells one map from another: XXH3-64, seed 0, of the map's canonical text.
    ///
    /// The canonical text has one line for each position, in numeric order of the positions: the position in
    /// decimal without leading zeros, one space (0x20), the url as it stands in the map, one line feed (0x0A). The
    /// last line has its line feed too. So the number depends neither on the spelling of positions, nor on the
    /// order in which the map was read, nor on [`Order`]. An empty ring has the hash of no bytes,
    /// 0x2D06800538D394C2.
    ///
    /// In lexicographic order two maps with one digest may still place keys differently, if one of them spells
    /// a position with zeros alone; `==` tells.
    ///
    /// It reads the whole map: 160,000 positions take about 5 ms. It does not authenticate a map.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut line = String::new();
        for (position, url) in self.iter() {
            line.clear();
            // Writing to a String cannot fail.
            let _ = writeln!(line, "{position} {url}");
            hasher.update(line.as_bytes());
        }
        hasher.digest()
    }
}

impl Default for Ring {
    /// The empty ring.
    fn default() -> Self {
        Self::from_map([])
    }
}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        let map =
            self.order == other.order && self.points == other.points && self.nodes == other.nodes;
        let map = map && self.hash_tags == other.hash_tags;
        // In lexicographic order the spelling of a position matters too, and `points` does not keep it.
        map && self.index == other.index
    }
}

impl Eq for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.nodes.iter().map(|url| label(url)).collect();
        f.debug_struct("Ring")
            .field("order", &self.order)
            .field("positions", &self.points.len())
            .field("nodes", &labels)
            .finish()
    }
}
