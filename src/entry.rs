//! A value with what the cache must know of it.

mod draft;
mod lease;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::coherence::Origin;
use crate::generation::Tags;
use crate::refusal::Refusal;
use crate::ttl::Remaining;
use crate::validator::Validator;
use crate::value::{Kind, Value};

pub(crate) use draft::Noted;
pub use draft::{Draft, Stored, Ticket, When};
pub use lease::{Claim, Lease, Right};

/// A value plus its deadline, age and origin. Small, and cloned by reference count: memory stores hold it as it is.
#[derive(Clone, Debug)]
pub struct Entry {
    value: Value,
    /// When the value's life ends.
    fresh_until: Moment,
    /// When it is gone: at the end of its grace, or before the end of its life where it is a copy that is kept for less.
    expires: Moment,
    born: Moment,
    ring_epoch: u64,
    compute_us: u32,
    /// Encoded length in bytes, where memory is bound by bytes.
    weight: u32,
    /// Of a copy in memory.
    origin: Origin,
    tags: Option<Arc<Tags>>,
    validator: Option<Arc<Validator>>,
    bare: bool,
    rearmed: bool,
}

impl Entry {
    /// An entry born at `now` that lives for `ttl`, `None` for ever.
    #[must_use]
    pub fn new(value: Value, now: Moment, ttl: Option<Duration>) -> Self {
        let expires = ttl.map_or(Moment::NEVER, |ttl| now.after(ttl));
        Self {
            value,
            fresh_until: expires,
            expires,
            born: now,
            ring_epoch: 0,
            compute_us: 0,
            weight: 0,
            origin: Origin::OWN,
            tags: None,
            validator: None,
            bare: false,
            rearmed: false,
        }
    }

    /// Keeps it for so long past its life, in which it is stale: answered only to who asks for that. What lives for ever has
    /// none. Kept to milliseconds and at most 49 days.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        let longest = Duration::from_millis(u32::MAX.into());
        self.expires = self.fresh_until.after(grace.min(longest));
        self
    }

    /// The same value past its life, to be answered as it is for `span` before anybody computes it again. It is gone when it
    /// would have been.
    #[must_use]
    pub fn rearmed(mut self, now: Moment, span: Duration) -> Self {
        self.fresh_until = now.after(span).min(self.expires);
        self.rearmed = true;
        self
    }

    /// Whether its life is over and it was [rearmed](Self::rearmed).
    #[must_use]
    pub fn is_rearmed(&self) -> bool {
        self.rearmed
    }

    /// Marks the value as one that may be stored without an envelope: an integer that `INCR` and other languages read.
    #[must_use]
    pub fn bare(mut self, bare: bool) -> Self {
        self.bare = bare;
        self
    }

    /// Sets how long the compute took, kept to microseconds and at most 71 minutes.
    #[must_use]
    pub fn computed_in(mut self, time: Duration) -> Self {
        self.compute_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self
    }

    /// Sets the ring epoch of the writer, 0 where there is none.
    #[must_use]
    pub fn in_ring_epoch(mut self, epoch: u64) -> Self {
        self.ring_epoch = epoch;
        self
    }

    /// The same entry with another value.
    #[must_use]
    pub fn with_value(mut self, value: Value) -> Self {
        self.value = value;
        self
    }

    /// The same entry with another deadline, at which it is gone, whatever is left of its life.
    #[must_use]
    pub fn with_deadline(mut self, expires: Moment) -> Self {
        self.expires = expires;
        self
    }

    /// The same entry with another life, and its grace after that.
    #[must_use]
    pub fn with_life(mut self, now: Moment, ttl: Option<Duration>) -> Self {
        let grace = self.grace();
        self.fresh_until = ttl.map_or(Moment::NEVER, |ttl| now.after(ttl));
        self.rearmed = false;
        self.with_grace(grace)
    }

    /// An entry that is gone at `expires`, and stale for its grace before that.
    #[must_use]
    pub fn ending(mut self, expires: Moment, grace: Duration) -> Self {
        self.fresh_until = expires.before(grace);
        self.expires = expires;
        self
    }

    pub(crate) fn with_wire_fields(
        mut self,
        ring_epoch: u64,
        compute_us: u32,
        rearmed: bool,
    ) -> Self {
        (self.ring_epoch, self.compute_us, self.rearmed) = (ring_epoch, compute_us, rearmed);
        self
    }

    /// Sets how much of a bound in bytes the entry takes.
    #[must_use]
    pub fn weighing(mut self, bytes: usize) -> Self {
        self.weight = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Makes it a copy of what stands in another store.
    #[must_use]
    pub(crate) fn copied_from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Where it was copied from; [`Origin::OWN`] for what is no copy.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    #[cfg(any(feature = "moka", feature = "redis"))]
    pub(crate) fn with_tags(mut self, tags: Option<Arc<Tags>>) -> Self {
        self.tags = tags;
        self
    }

    /// Keeps with it what its origin calls its version.
    #[must_use]
    pub fn validated(mut self, validator: Option<Arc<Validator>>) -> Self {
        self.validator = validator.filter(|validator| !validator.is_empty());
        self
    }

    /// What its origin calls its version, where it was said.
    #[must_use]
    pub fn validator(&self) -> Option<&Arc<Validator>> {
        self.validator.as_ref()
    }

    /// Its tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().flat_map(|tags| tags.names())
    }

    /// Whether none of its tags was invalidated, as far as this process knows.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.tags.as_ref().is_none_or(|tags| tags.are_current())
    }

    /// How much of a bound in bytes the entry takes, 0 where nobody weighed it.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value, by itself.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The object, if it is a `T`.
    ///
    /// # Errors
    ///
    /// The entry itself, if it holds bytes or another type.
    pub fn downcast<T: Any + Send + Sync>(self) -> Result<Arc<T>, Self> {
        match self.value.downcast() {
            Ok(object) => Ok(object),
            Err(value) => Err(Self { value, ..self }),
        }
    }

    /// When the entry is gone: at the end of its life and its grace, or earlier where it is a copy.
    #[must_use]
    pub fn expires(&self) -> Moment {
        self.expires
    }

    /// When the value's life ends. From here on it is stale, if it is not gone.
    #[must_use]
    pub fn fresh_until(&self) -> Moment {
        self.fresh_until
    }

    /// Until when it may be answered without a word: the earlier of both.
    #[must_use]
    #[inline]
    pub fn answered_until(&self) -> Moment {
        self.fresh_until.min(self.expires)
    }

    /// When it was made or, for one that came from a server, read.
    #[must_use]
    pub fn born(&self) -> Moment {
        self.born
    }

    /// How long it is kept past its life.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.expires.since(self.fresh_until)
    }

    /// How long the compute took, in microseconds.
    #[must_use]
    pub fn compute_us(&self) -> u32 {
        self.compute_us
    }

    /// The ring epoch of the writer, 0 where there was none.
    #[must_use]
    pub fn ring_epoch(&self) -> u64 {
        self.ring_epoch
    }

    /// Whether the value may be stored without an envelope.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Whether it is gone at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Moment) -> bool {
        self.expires <= now
    }

    /// Whether its life, or the time for which it was rearmed, is over at `now`.
    #[must_use]
    pub fn is_stale(&self, now: Moment) -> bool {
        self.answered_until() <= now
    }

    /// Whether it is within its life at `now`.
    #[must_use]
    pub fn is_live(&self, now: Moment) -> bool {
        !self.rearmed && !self.is_stale(now)
    }

    /// What is left of its life at `now`.
    #[must_use]
    pub fn remaining(&self, now: Moment) -> Remaining {
        left(self.answered_until(), now)
    }

    /// How long it is kept from `now` on, its grace included.
    #[must_use]
    pub fn kept(&self, now: Moment) -> Remaining {
        left(self.expires, now)
    }
}

/// What is left until a moment.
pub(crate) fn left(until: Moment, now: Moment) -> Remaining {
    if until == Moment::NEVER {
        Remaining::Forever
    } else {
        Remaining::For(until.since(now))
    }
}

/// What a store answers to a read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The entry, if there is one.
    pub entry: Option<Entry>,
    /// Why what stands there is no value for this reader, if that is why there is none.
    pub refusal: Option<Refusal>,
    /// Since when what it was judged by is known, where others may have changed that unheard: it is no fresher.
    pub(crate) as_of: Option<Moment>,
}

impl Answer {
    /// Nothing, because what stands there is no value for this reader.
    #[must_use]
    pub fn refused(why: Refusal) -> Self {
        Self {
            entry: None,
            refusal: Some(why),
            as_of: None,
        }
    }
}

impl From<Option<Entry>> for Answer {
    fn from(entry: Option<Entry>) -> Self {
        Self {
            entry,
            refusal: None,
            as_of: None,
        }
    }
}

impl From<Entry> for Answer {
    fn from(entry: Entry) -> Self {
        Some(entry).into()
    }
}

/// What a reader wants of a store.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Want {
    /// The type to decode to. Without one the answer is bytes as they stand on the wire.
    pub kind: Option<&'static Kind>,
    /// Whether the entry's deadline is wanted too; without it a remote store may answer an entry without one.
    pub deadline: bool,
    /// As in a [`Draft`]: how much of the key is the cache's own prefix.
    pub namespace: usize,
    /// How long ago something may have been invalidated by others that is answered still, if less than the store's own bound.
    pub max_staleness: Option<Duration>,
    /// Whether an entry past its life is wanted too, as long as its grace lasts.
    pub stale: bool,
}

impl Want {
    /// A value of this type.
    #[must_use]
    pub fn of(kind: &'static Kind) -> Self {
        Self {
            kind: Some(kind),
            deadline: false,
            namespace: 0,
            max_staleness: None,
            stale: false,
        }
    }

    /// The same, and stale ones too, with their deadline.
    #[must_use]
    pub fn or_stale(mut self) -> Self {
        (self.stale, self.deadline) = (true, true);
        self
    }

    /// The same, by a cache whose own prefix is so many bytes of the key.
    #[must_use]
    pub fn within(mut self, namespace: usize) -> Self {
        self.namespace = namespace;
        self
    }

    /// The same, not behind by more than this.
    #[must_use]
    pub fn fresher_than(mut self, bound: Duration) -> Self {
        let known = self.max_staleness.unwrap_or(Duration::MAX);
        self.max_staleness = Some(known.min(bound));
        self
    }

    /// The same, with the deadline.
    #[must_use]
    pub fn with_deadline(mut self) -> Self {
        self.deadline = true;
        self
    }
}
