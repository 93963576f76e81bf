//! How memory learns of writes by others, and how long it may be believed without.
//!
//! A store tells its [`Subscriber`]s which keys were written, whoever wrote them. A store over a network can do so only
//! while it hears of them itself: a [`Source`] is a place that tells of its writes, such as one server, and remembers until
//! when it was surely heard. A copy in memory carries its [`Origin`]: which source it came from, and how things stood there
//! when it was read. Once that is no longer so, the copy is not answered any more, without anybody having to look for it.
//!
//! ```
//! use std::collections::BTreeSet;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//! use larder::coherence::{Interest, Invalidation};
//! use larder::{Backend, Cache};
//!
//! # fn main() -> larder::Result<()> {
//! # #[cfg(feature = "moka")]
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let cache = larder::Moka::new(100);
//! let heard = Arc::new(Mutex::new(BTreeSet::new()));
//! let subscription = cache.subscribe("user:", {
//!     let heard = Arc::clone(&heard);
//!     Interest::new(Arc::new(move |what: Invalidation<'_>| {
//!         heard.lock().unwrap().insert(format!("{what:?}"));
//!     }))
//! });
//! let minute = Duration::from_secs(60);
//! cache.set("user:1", 1, minute).await?;
//! cache.set("group:1", 1, minute).await?;
//! drop(subscription);
//! cache.set("user:2", 1, minute).await?;
//! assert_eq!(*heard.lock().unwrap(), [r#"Keys(["user:1"])"#.to_owned()].into());
//! # Ok::<_, larder::Error>(())
//! # })?;
//! # Ok(())
//! # }
//! ```

mod slot;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use source::{Hearing, Origin, Source, SourceStatus};
pub(crate) use source::{Standing, WeakSource};

/// How long memory may be behind its store, unless set otherwise.
pub const MAX_STALENESS: Duration = Duration::from_secs(1);

/// What a store tells of writes. Keys are as stored, with all prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation<'a> {
    /// These keys were written, by whomever.
    Keys(&'a [&'a str]),
    /// Every key that begins with this may have been written.
    Under(&'a str),
    /// Every key of a source may have been written.
    All,
    /// Writes may have happened at a source that nobody was told of. Said when that begins to be so and again when it is over:
    /// what was read there in between may be older than such a write.
    Gap,
}

/// Who hears of writes.
///
/// Called at once, by whoever writes or on the task that hears of it, with the key closed to readers' copies: it must not
/// wait, nor call the store.
pub trait Subscriber: Send + Sync {
    /// Something was written.
    fn hear(&self, what: Invalidation<'_>);
}

impl<F: Fn(Invalidation<'_>) + Send + Sync> Subscriber for F {
    fn hear(&self, what: Invalidation<'_>) {
        self(what);
    }
}

/// How things stood with a key before its value was computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    /// Of its stripe; nothing while somebody wrote.
    pub(crate) generation: Option<u32>,
    pub(crate) clears: u64,
    pub(crate) origin: Origin,
}

/// What a subscriber asks for.
#[derive(Clone)]
pub struct Interest {
    pub(crate) subscriber: Arc<dyn Subscriber>,
    pub(crate) max_staleness: Duration,
}

impl Interest {
    /// To be told of each write.
    #[must_use]
    pub fn new(subscriber: Arc<dyn Subscriber>) -> Self {
        Self {
            subscriber,
            max_staleness: MAX_STALENESS,
        }
    }

    /// Sets within what time a store that is not heard any more must be noticed: it is asked for a sign of life several
    /// times as often. 1 second unless set.
    #[must_use]
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = bound;
        self
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest")
            .field("max_staleness", &self.max_staleness)
            .finish_non_exhaustive()
    }
}

/// A subscription, which ends when this is dropped.
#[must_use = "the subscription ends when this is dropped"]
pub struct Subscription(Vec<Box<dyn FnOnce() + Send + Sync>>);

impl Subscription {
    /// One that runs `end` when it is dropped.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(vec![Box::new(end)])
    }

    /// The same, which runs `end` too, after what it runs already.
    pub fn and(mut self, end: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.0.push(Box::new(end));
        self
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|end| end());
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}
