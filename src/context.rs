//! What a compute is told, and says.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::entry::Entry;
use crate::options::Options;
use crate::ttl::Ttl;

/// What a compute of [`get_or_set_many_with`](crate::Cache::get_or_set_many_with) is given: a [`Context`] for each of its keys.
#[derive(Clone, Debug)]
pub struct Contexts(Arc<HashMap<String, Context>>);

impl Contexts {
    pub(crate) fn new(contexts: HashMap<String, Context>) -> Self {
        Self(Arc::new(contexts))
    }

    /// That of one key; nothing for a key that is not to be computed.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<&Context> {
        self.0.get(key)
    }
}

/// What a compute of [`get_or_set_with`](crate::Cache::get_or_set_with) is given: the value that its own is to replace, where there is one, and the means
/// to say how its value is stored, by what it found.
///
/// Clones are the same context. What is said after the compute has ended counts for nothing.
#[derive(Clone, Debug)]
pub struct Context(Arc<Mutex<Said>>);

#[derive(Debug)]
struct Said {
    options: Options,
    previous: Option<Entry>,
    stored: bool,
}

impl Context {
    pub(crate) fn new(options: Options, previous: Option<Entry>) -> Self {
        let said = Said {
            options,
            previous,
            stored: true,
        };
        Self(Arc::new(Mutex::new(said)))
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the ttl.
    pub fn set_ttl(&self, ttl: impl Into<Ttl>) {
        self.lock().options.ttl = ttl.into();
    }

    /// Sets how long past its ttl the value is kept, as [`Options::grace`] does.
    pub fn set_grace(&self, grace: Duration) {
        self.lock().options.set_grace(grace);
    }

    /// Adds a tag, as [`Options::tag`] does. If it was invalidated since the compute began, the value is not stored.
    pub fn tag(&self, tag: impl Into<Box<str>>) {
        self.lock().options.add(tag.into());
    }

    /// Has the value not stored: it is answered to this caller and to those who wait for it, and computed again for the next.
    pub fn do_not_store(&self) {
        self.lock().stored = false;
    }

    /// The value that this compute's is to replace, if there is one and it is a `T`: past its ttl and in its grace, or to be
    /// [refreshed ahead](Options::refresh_ahead).
    #[must_use]
    pub fn previous<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let previous = self.lock().previous.clone()?;
        previous.downcast().ok()
    }

    /// How the value would be stored as things stand.
    #[must_use]
    pub fn options(&self) -> Options {
        self.lock().options.clone()
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.lock().stored
    }
}
