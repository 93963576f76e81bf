//! What is written.

use std::sync::Arc;

use bytes::Bytes;

use super::Entry;
use crate::coherence::Before;
use crate::error::Error;

/// An entry on its way into a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Draft {
    /// The entry.
    pub entry: Entry,
    /// When it may be written.
    pub when: When,
    /// Its bytes as they will stand on the wire, once a store that needs them has encoded them in
    /// [`Backend::prepare`](crate::Backend::prepare).
    pub sealed: Option<Bytes>,
    /// Whether the cache computed the value because there was none. What it stands in for was a miss already, so nothing
    /// is out of date if it does not get there.
    pub computed: bool,
    /// How much of the key, as it is stored at the very bottom, is the cache's own prefix: its namespace. In bytes.
    pub namespace: usize,
    /// The tags of the value.
    pub tags: Arc<[Box<str>]>,
    /// What [`Backend::begin`](crate::Backend::begin) answered before the value was computed.
    pub ticket: Ticket,
}

/// How things stood with a key before its value was computed. A store that was given it by
/// [`Backend::begin`](crate::Backend::begin) gets it back with the value, and tells whether something was invalidated since.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    #[cfg_attr(not(any(feature = "moka", feature = "redis")), allow(dead_code))]
    pub(crate) noted: Noted,
    /// What was known of it in this process.
    pub(crate) before: Option<Before>,
}

impl From<Noted> for Ticket {
    fn from(noted: Noted) -> Self {
        Self {
            noted,
            before: None,
        }
    }
}

// Memory and servers use a part of it each.
#[cfg_attr(not(all(feature = "moka", feature = "redis")), allow(dead_code))]
#[derive(Clone, Debug, Default)]
pub(crate) enum Noted {
    /// Nothing was noted: the store takes the value as it is.
    #[default]
    Nothing,
    /// So many invalidations of tags there were in a store of this process.
    Own(u64),
    /// What the key's node said, and the lease that it gave.
    #[cfg(feature = "redis")]
    Node {
        fingerprint: Box<[u8]>,
        count: i64,
        lease: Option<Box<[u8]>>,
    },
    /// It could not be noted, so the value is not stored.
    Lost(Error),
}

impl Ticket {
    /// Of a store that could not be asked: it refuses the value with this error.
    #[must_use]
    pub fn lost(error: Error) -> Self {
        Noted::Lost(error).into()
    }
}

impl Draft {
    /// A draft of an entry.
    #[must_use]
    pub fn new(entry: Entry, when: When) -> Self {
        Self {
            entry,
            when,
            sealed: None,
            computed: false,
            namespace: 0,
            tags: Arc::default(),
            ticket: Ticket::default(),
        }
    }

    /// Whether an older value that stays in its place would be out of date.
    #[cfg(feature = "redis")]
    pub(crate) fn replaces(&self) -> bool {
        !self.computed && self.when == When::Always
    }
}

impl From<Entry> for Draft {
    /// To be written in any case.
    fn from(entry: Entry) -> Self {
        Self::new(entry, When::Always)
    }
}

/// What a store answers to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// It is done.
    Done,
    /// The key holds something, and the draft was [`When::IfAbsent`].
    Present,
    /// Something that the value depends on was invalidated after its compute began: it is not stored.
    Outrun,
}

/// When a store may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// In any case.
    Always,
    /// Only if the key holds nothing, decided in one step.
    IfAbsent,
}
