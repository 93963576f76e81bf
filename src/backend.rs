//! The contract between the cache and its stores.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::coherence::{Interest, Origin, Subscription};
use crate::core::Core;
use crate::entry::{Answer, Claim, Draft, Entry, Lease, Right, Stored, Ticket, Want};
use crate::error::{Error, ErrorKind, Result};
use crate::explain::{Place, Trace};
use crate::ttl::Remaining;

/// A shared handle on any store: what an application keeps in its state.
///
/// ```
/// use larder::{Cache, Null, SharedCache};
/// let cache: SharedCache = std::sync::Arc::new(Null::new());
/// # let _ = cache;
/// ```
pub type SharedCache = Arc<dyn Backend>;

// So that an application's state that holds a `SharedCache` can derive `Debug`.
impl std::fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dyn Backend")
    }
}

/// What a store answers without waiting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Peek {
    /// It holds this, which is within its life, or [rearmed](Entry::is_rearmed) and within the time it was given.
    Hit(Entry),
    /// It holds nothing under this key.
    Miss,
    /// Only waiting can tell.
    Ask,
}

/// What a store implements. Applications use [`Cache`](crate::Cache), which every cloneable store is.
///
/// Required are [`core`](Self::core), [`fetch`](Self::fetch), [`store`](Self::store), [`remove`](Self::remove) and
/// [`wipe`](Self::wipe); the rest has defaults in terms of these. The names are unlike those of `Cache`, so that a call is never ambiguous.
///
/// # Contract
///
/// - An entry is never answered past its deadline, nor after `remove` or `wipe` of its key has returned. One that is
///   [stale](Entry::is_stale) need not be answered unless [wanted](Want::stale); to a write that depends on what is there, it is nothing.
/// - Every wait is bounded by the store itself. A store that fails, or is slow, answers an error; the cache makes it a miss.
/// - Bytes that are no value for the reader are a miss: count them with [`Core::refuse`].
/// - Keys arrive checked. What the methods do does not depend on who else holds the store.
/// - The cache above coalesces and fences writes. Calls of these methods by hand go around that: two tiers over one
///   store hear of writes made through a `Cache`, not of writes made here. A store that hears of writes by others tells its
///   core of them ([`Core::tell`]).
///
/// # Clones and wrappers
///
/// A clone is another handle on the same store and the same [`Core`]. A wrapper forwards every method, or the tiers
/// above lose memory, coalescing or fencing without a sign.
///
/// # Cancellation
///
/// Every future may be dropped at any point. What it was to write is then either written whole or not at all.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The settings, flights and counters of this store.
    fn core(&self) -> &Core;

    /// Answers from this process's memory. Called before any future is built, so it must neither block nor wait.
    fn peek(&self, _key: &str) -> Peek {
        Peek::Ask
    }

    /// This store as memory, if it is nothing but memory of this process.
    fn memory(&self) -> Option<&dyn Memory> {
        None
    }

    /// The key as it is stored at the very bottom, prefixes included.
    fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        Cow::Borrowed(key)
    }

    /// The key of this store that is stored as `stored`, if it is one of its keys.
    fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
        Some(stored)
    }

    /// Has a subscriber told of every write of a key under `prefix` from now on, until the answer is dropped: those made
    /// through a [`Cache`](crate::Cache) over this store, and those by others as far as the store hears of them.
    ///
    /// A store with a connection to where others write overrides it, so that it listens as long as somebody wants to know.
    /// It refuses nothing and does not wait: until others' writes are heard, copies carry an origin that says so.
    fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
        self.core().subscribe(&self.stored_key(prefix), interest)
    }

    /// Where a read of this key that begins now gets its answer, for the memory that keeps a copy. Must not wait.
    ///
    /// A store of this process alone, whose every write goes through a [`Cache`](crate::Cache), answers [`Origin::OWN`],
    /// and copies live as long as the value. Without that, memory keeps copies for no longer than they may be behind.
    fn origin(&self, _key: &str) -> Origin {
        Origin::UNHEARD
    }

    /// Whether a copy of this key that was read from `origin` is still one of the key's present source, where the map of
    /// sources has changed since it was read.
    fn vouches(&self, _key: &str, _origin: Origin) -> bool {
        true
    }

    /// Does what can fail before anything is touched: a store that needs bytes encodes here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] or [`ErrorKind::TooLarge`].
    fn prepare(&self, _key: &str, _draft: &mut Draft) -> Result<()> {
        Ok(())
    }

    /// Notes how things stand with keys whose values are computed next, by a cache whose own prefix is so many bytes of them. A
    /// store that others write to overrides it, so that what was invalidated anywhere meanwhile is not stored.
    ///
    /// One ticket for each key, in the same order. It refuses nothing: where the store does not answer, the ticket is one that
    /// stores nothing. Dropped under way, it leaves at most a note on the store that goes by itself.
    async fn begin(&self, keys: &[&str], _namespace: usize) -> Vec<Ticket> {
        keys.iter().map(|_| self.core().ticket()).collect()
    }

    /// What stands under keys, stale or not, and where that is nothing within its life, the right to compute it: for one process of
    /// all that share the store. One answer for each key, in their order. A store that others write to overrides it, and grants
    /// in the step in which it looks.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch). Dropped under way, it may leave a lease that ends by itself.
    async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
        // In this order: what was invalidated after it was read is not stored again.
        let tickets = self.begin(keys, want.namespace).await;
        let answers = self.fetch_many(keys, want.or_stale()).await;
        let now = self.core().now();
        let claim = |(answer, ticket): (Result<Answer>, Ticket)| {
            let answer = answer?;
            let live = answer
                .entry
                .as_ref()
                .is_some_and(|entry| !entry.is_stale(now));
            let right = if live && !lease.anew {
                Right::NotNeeded
            } else {
                Right::Granted(ticket)
            };
            Ok(Claim::new(answer, right))
        };
        answers.into_iter().zip(tickets).map(claim).collect()
    }

    /// Renews a lease for so long from now, or gives it back where no life is given, and tells whether it was still held. A ticket
    /// without a lease is held always.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from answering.
    async fn hold(&self, _key: &str, _ticket: &Ticket, _life: Option<Duration>) -> Result<bool> {
        Ok(true)
    }

    /// Whether values can have tags.
    fn keeps_tags(&self) -> bool {
        false
    }

    /// Makes every value with this tag nothing, of those stored by caches with this very prefix.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] unless the store [keeps tags](Self::keeps_tags); whatever keeps it from telling all of its
    /// places. What failed, or was dropped under way, is made up for, and the values are nothing to this process until then.
    async fn invalidate(&self, _prefix: &str, _tag: &str) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this store does not keep tags",
        ))
    }

    /// The entry under a key.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from answering.
    async fn fetch(&self, key: &str, want: Want) -> Result<Answer>;

    /// As [`fetch`](Self::fetch), told place by place: each that was asked, and what it came to. A store with several places, or one
    /// that knows why it has nothing, overrides it.
    async fn trace(&self, key: &str, want: Want) -> Trace {
        let answer = self.fetch(key, want.or_stale()).await;
        Trace::of(Place::of::<Self>(), answer, want, self.core().now())
    }

    /// Stores an entry, if the draft's `when` allows it. One that is expired already removes what stood there.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from storing.
    async fn store(&self, key: &str, draft: Draft) -> Result<Stored>;

    /// Removes what stands under a key, and tells whether anything did.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from removing.
    async fn remove(&self, key: &str) -> Result<bool>;

    /// Removes what stands under a key if it is this draft, which has been stored or perhaps not, and tells whether anything
    /// was removed. A store that cannot tell removes whatever stands there, as this one does: a cached value is lost then,
    /// and a counter that was begun since.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    async fn retract(&self, key: &str, _draft: &Draft) -> Result<bool> {
        self.remove(key).await
    }

    /// Removes every key that begins with `prefix`; all of them where it is empty.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from removing all of them.
    async fn wipe(&self, prefix: &str) -> Result<()>;

    /// Whether a key holds anything.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    async fn contains(&self, key: &str) -> Result<bool> {
        let (answer, now) = (self.fetch(key, Want::default()).await?, self.core().now());
        Ok(answer.entry.is_some_and(|entry| entry.is_live(now)))
    }

    /// What is left of the life of the entry under a key.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
        let answer = self.fetch(key, Want::default().with_deadline()).await?;
        let now = self.core().now();
        let live = answer.entry.filter(|entry| entry.is_live(now));
        Ok(live.map(|entry| entry.remaining(now)))
    }

    /// Gives the entry under a key a new life, `None` for ever, and tells whether there was one. A zero life removes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] unless the store offers it.
    async fn retime(&self, _key: &str, _ttl: Option<Duration>) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this store cannot change a deadline",
        ))
    }

    /// Adds to the integer under a key in one step, an absent one counting as 0 that lives for ever, and answers the sum.
    /// `namespace` is how much of the key, as stored at the very bottom, is the cache's own prefix.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotACounter`], [`ErrorKind::Overflow`]; [`ErrorKind::Unsupported`] unless the store offers it.
    async fn add_to(&self, _key: &str, _by: i64, _namespace: usize) -> Result<i64> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this store has no counters",
        ))
    }

    /// The entries under many keys, one answer for each, in their order.
    async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.fetch(key, want).await);
        }
        answers
    }

    /// Stores many entries, one answer for each, in their order.
    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let mut answers = Vec::with_capacity(drafts.len());
        for (key, draft) in drafts {
            answers.push(self.store(&key, draft).await);
        }
        answers
    }

    /// Removes many keys, one answer for each, in their order.
    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.remove(key).await);
        }
        answers
    }

    /// Ends the store's tasks and connections in good order. Dropping the last clone ends them too.
    async fn close(&self) {}
}

/// A store that is nothing but memory of this process, and so can be changed without waiting: the upper part of a tier.
pub trait Memory: Send + Sync {
    /// Puts an entry in. It may be refused or evicted at once; it is only a copy.
    fn insert(&self, key: &str, entry: Entry);

    /// Drops a key.
    fn evict(&self, key: &str);

    /// Drops every key that begins with `prefix`.
    fn evict_under(&self, prefix: &str);
}

macro_rules! forward {
    ($($(#[$attr:meta])* impl<$($param:ident: $($bound:path),+ $(,)?)?> for $handle:ty;)*) => {$(
        $(#[$attr])*
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<$($param: $($bound +)+ ?Sized)?> Backend for $handle {
            fn core(&self) -> &Core {
                (**self).core()
            }
            fn peek(&self, key: &str) -> Peek {
                (**self).peek(key)
            }
            fn memory(&self) -> Option<&dyn Memory> {
                (**self).memory()
            }
            fn stored_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
                (**self).stored_key(key)
            }
            fn own_key<'k>(&self, stored: &'k str) -> Option<&'k str> {
                (**self).own_key(stored)
            }
            fn subscribe(&self, prefix: &str, interest: Interest) -> Subscription {
                (**self).subscribe(prefix, interest)
            }
            fn origin(&self, key: &str) -> Origin {
                (**self).origin(key)
            }
            fn vouches(&self, key: &str, origin: Origin) -> bool {
                (**self).vouches(key, origin)
            }
            fn prepare(&self, key: &str, draft: &mut Draft) -> Result<()> {
                (**self).prepare(key, draft)
            }
            async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
                (**self).begin(keys, namespace).await
            }
            async fn claim(&self, keys: &[&str], want: Want, lease: Lease) -> Vec<Result<Claim>> {
                (**self).claim(keys, want, lease).await
            }
            async fn hold(&self, key: &str, ticket: &Ticket, life: Option<Duration>) -> Result<bool> {
                (**self).hold(key, ticket, life).await
            }
            fn keeps_tags(&self) -> bool {
                (**self).keeps_tags()
            }
            async fn invalidate(&self, prefix: &str, tag: &str) -> Result<()> {
                (**self).invalidate(prefix, tag).await
            }
            async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
                (**self).fetch(key, want).await
            }
            async fn trace(&self, key: &str, want: Want) -> Trace {
                (**self).trace(key, want).await
            }
            async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
                (**self).store(key, draft).await
            }
            async fn remove(&self, key: &str) -> Result<bool> {
                (**self).remove(key).await
            }
            async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
                (**self).retract(key, draft).await
            }
            async fn wipe(&self, prefix: &str) -> Result<()> {
                (**self).wipe(prefix).await
            }
            async fn contains(&self, key: &str) -> Result<bool> {
                (**self).contains(key).await
            }
            async fn remaining(&self, key: &str) -> Result<Option<Remaining>> {
                (**self).remaining(key).await
            }
            async fn retime(&self, key: &str, ttl: Option<Duration>) -> Result<bool> {
                (**self).retime(key, ttl).await
            }
            async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
                (**self).add_to(key, by, namespace).await
            }
            async fn fetch_many(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
                (**self).fetch_many(keys, want).await
            }
            async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
                (**self).store_many(drafts).await
            }
            async fn remove_many(&self, keys: &[&str]) -> Vec<Result<bool>> {
                (**self).remove_many(keys).await
            }
            async fn close(&self) {
                (**self).close().await;
            }
        }
    )*};
}

forward! {
    impl<B: Backend> for Arc<B>;
    impl<B: Backend> for Box<B>;
    impl<B: Backend> for &'static B;
}
