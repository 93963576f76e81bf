//! What a compute is told, and says.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::entry::Entry;
use crate::options::Options;
use crate::ttl::Ttl;
use crate::validator::Validator;

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
pub struct Context(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    said: Said,
    previous: Option<Entry>,
}

/// How a value is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// All of them: of the compute, the call and the cache.
    pub(crate) options: Options,
    /// Whether it is to be stored at all.
    pub(crate) stored: bool,
    pub(crate) validator: Option<Arc<Validator>>,
}

impl Said {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            stored: true,
            validator: None,
        }
    }
}

impl Context {
    pub(crate) fn new(options: Options, previous: Option<Entry>) -> Self {
        let said = Said::new(options);
        Self(Arc::new(Mutex::new(State { said, previous })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the ttl.
    pub fn set_ttl(&self, ttl: impl Into<Ttl>) {
        self.lock().said.options.ttl = ttl.into();
    }

    /// Sets how long past its ttl the value is kept, as [`Options::grace`] does.
    pub fn set_grace(&self, grace: Duration) {
        self.lock().said.options.set_grace(grace);
    }

    /// Adds a tag, as [`Options::tag`] does. If it was invalidated since the compute began, the value is not stored.
    pub fn tag(&self, tag: impl Into<Box<str>>) {
        self.lock().said.options.add(tag.into());
    }

    /// Has the value not stored: it is answered to this caller and to those who wait for it, and computed again for the next.
    pub fn do_not_store(&self) {
        self.lock().said.stored = false;
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
        self.lock().said.options.clone()
    }

    /// What the origin called the version of the [`previous`](Self::previous) value: to be sent back to it, so that it may answer that
    /// there is no other.
    #[must_use]
    pub fn validator(&self) -> Option<Validator> {
        let state = self.lock();
        let validator = state.previous.as_ref()?.validator()?;
        Some(Validator::clone(validator))
    }

    /// Keeps with the value what the origin calls its version. A server whose codec has no envelope keeps none.
    pub fn set_validator(&self, validator: Validator) {
        self.lock().said.validator = Some(Arc::new(validator));
    }

    /// The previous value, if there is one and it is a `T`, to be answered again because the origin has no other. It keeps its tags,
    /// and what the origin called it unless that was set anew; its life begins anew, with the ttl of this call.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Context, Options, Validator};
    /// # enum Response { NotModified, Page { etag: String, text: String } }
    /// # async fn request(if_none_match: Option<String>) -> larder::Result<Response> {
    /// #     Ok(match if_none_match {
    /// #         Some(_) => Response::NotModified,
    /// #         None => Response::Page { etag: "\"1\"".to_owned(), text: "hello".to_owned() },
    /// #     })
    /// # }
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// # let cache = larder::Moka::new(100);
    /// let load = |context: Context| async move {
    ///     let known = context.validator().and_then(|validator| validator.etag);
    ///     match request(known).await? {
    ///         Response::NotModified => context.unchanged().ok_or_else(|| {
    ///             larder::Error::new(larder::ErrorKind::Compute, "not modified since when?")
    ///         }),
    ///         Response::Page { etag, text } => {
    ///             context.set_validator(Validator::new().with_etag(etag));
    ///             Ok(text)
    ///         }
    ///     }
    /// };
    /// let minute = Options::ttl(Duration::from_secs(60)).grace(Duration::from_secs(3600));
    /// let page: String = cache.get_or_set_with("page", minute, load).await.unwrap();
    /// assert_eq!(page, "hello");
    /// # });
    /// ```
    #[must_use]
    pub fn unchanged<T: Any + Clone + Send + Sync>(&self) -> Option<T> {
        let mut state = self.lock();
        let previous = state.previous.clone()?;
        let validator = previous.validator().cloned();
        let tags: Vec<Box<str>> = previous.tags().map(Into::into).collect();
        let value = previous.downcast::<T>().ok()?;
        state.said.validator = state.said.validator.take().or(validator);
        tags.into_iter().for_each(|tag| state.said.options.add(tag));
        drop(state);
        Some(Arc::unwrap_or_clone(value))
    }

    /// Keeps for so long that this compute failed, whatever the call said of that.
    #[cfg(feature = "http")]
    pub(crate) fn keeps_failures(&self, ttl: Duration) {
        let mut state = self.lock();
        let options = std::mem::take(&mut state.said.options);
        state.said.options = options.error_ttl(ttl);
    }

    pub(crate) fn said(&self) -> Said {
        self.lock().said.clone()
    }
}
