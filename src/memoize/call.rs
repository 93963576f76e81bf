//! One call of a memoized function.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;

use super::blocking::{InProcess, wait_for};
use super::key::{Key, tag_of_instance};
use super::name::Name;
use crate::cache::{Cache, Life, Sharing, apart, is_due, look_up, refresh, refresh_ahead, resolve};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::options::Options;
use crate::stats::count;
use crate::value::Cacheable;

/// A cache, or what stands for one: a `LazyLock`, a reference.
pub trait Handle {
    /// The cache.
    fn larder_cache(&self) -> &Self;
}

impl<C: Cache> Handle for C {
    fn larder_cache(&self) -> &Self {
        self
    }
}

/// What can be a part of a key.
#[diagnostic::on_unimplemented(
    message = "an argument of type `{Self}` cannot be a part of the key",
    label = "this argument is not `Serialize`",
    note = "derive `serde::Serialize` for its type, leave it out of the key with `skip(...)`, or give the key with `key = \"...\"`"
)]
pub trait KeyPart: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {}

/// The error of a memoized function.
#[diagnostic::on_unimplemented(
    message = "a memoized function cannot fail with `{Self}` alone",
    label = "`From<larder::Error>` is missing for this error",
    note = "who waits for another caller's compute may have to be told that it failed: implement `From<larder::Error>` for the error, or give `map_err = |error| ...`"
)]
pub trait MemoizedError: Sized {
    /// Of an error of the cache.
    fn from_larder(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Error>> MemoizedError for E {
    fn from_larder(error: Error) -> Self {
        error.into()
    }
}

/// Asks that an argument can be a part of a key.
#[inline]
pub fn part<T: KeyPart + ?Sized>(argument: &T) -> &T {
    argument
}

/// What a function that may fail answers.
pub trait Fallible {
    /// What is cached.
    type Value;
    /// What is not.
    type Error;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;
}

/// Asks whether a type that is not called `Result` is one all the same: a method of the type itself goes before one of a trait.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// Of a type.
    #[inline]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, E> Probe<Result<T, E>> {
    /// It is.
    #[inline]
    pub fn form(&self) -> ResultByAnotherName {
        ResultByAnotherName
    }
}

/// What any other type answers to a [`Probe`].
pub trait AnyType {
    /// It is not, as far as is known.
    #[inline]
    fn form(&self) -> NoResult {
        NoResult
    }
}

impl<T> AnyType for Probe<T> {}

/// It is a `Result`.
#[derive(Debug)]
pub struct ResultByAnotherName;

/// It is none.
#[derive(Debug)]
pub struct NoResult;

/// What a function returns whose errors are not told from its values.
#[diagnostic::on_unimplemented(
    message = "the errors of this function would be cached like values: its `Result` goes by another name",
    label = "return `Result<T, E>` by that name, so that its errors are not cached, or say `cache_errors`"
)]
pub trait WithoutErrors {}

impl WithoutErrors for NoResult {}

/// Refuses a `Result` by another name.
#[inline]
pub fn without_errors<F: WithoutErrors>(_form: F) {}

/// What a closure of the attribute comes to.
#[inline]
pub fn answer<R>(closure: impl FnOnce() -> R) -> R {
    closure()
}

/// Has a closure know what it is asked of.
#[inline]
pub fn judge<T, F: Fn(&T) -> bool>(question: F) -> F {
    question
}

/// Asks a value something.
#[inline]
pub fn asked<T>(value: &T, question: impl Fn(&T) -> bool) -> bool {
    question(value)
}

/// Runs a call on this thread.
#[inline]
pub fn block_on<C: InProcess, R>(_cache: &C, call: impl Future<Output = R>) -> R {
    wait_for(call)
}

/// A shared value as the function returns it.
#[inline]
pub fn owned<T: Cacheable>(value: Arc<T>) -> T {
    Arc::unwrap_or_clone(value)
}

/// The error of a compute, or the cache's own.
enum Failure<E> {
    Own(E),
    Cache(Error),
}

impl<E> Failure<E> {
    /// The error that the function answers.
    fn told(self, from_larder: impl FnOnce(Error) -> E) -> E {
        match self {
            Self::Own(error) => error,
            Self::Cache(error) => from_larder(error),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(error) => error.fmt(f),
            Self::Cache(error) => error.fmt(f),
        }
    }
}

impl<E> From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

/// One call: where its value is, and how it is stored.
#[allow(missing_debug_implementations)]
pub struct Call<'c, C> {
    cache: &'c C,
    key: Key,
    options: Options,
}

/// What a function does with values, as its attribute says.
#[allow(missing_debug_implementations)]
pub struct Run<S, D> {
    /// Whether it computes although there is one.
    pub anew: Anew<D>,
    /// Whether a value is stored.
    pub store_if: S,
}

/// Whether a call computes although there is a value.
#[allow(missing_debug_implementations)]
pub struct Anew<D> {
    /// It does, whatever stands there.
    pub force: bool,
    /// What stands there was found to be one to replace.
    pub found_stale: bool,
    /// Whether a value is, if that was not asked yet.
    pub stale_if: Option<D>,
}

/// A value that is to be computed anew before its life ends.
#[allow(missing_debug_implementations)]
pub struct Due<T> {
    /// The value.
    pub value: Arc<T>,
    pub(super) life: Option<Life>,
}

impl<'c, C: Cache> Call<'c, C> {
    /// A call of a function that caches a `None` or does not.
    #[inline]
    pub fn new(cache: &'c C, key: Key, options: impl Into<Options>, caches_none: bool) -> Self {
        let mut options = options.into();
        if !caches_none {
            options = options.without_none(&cache.core().settings().options);
        }
        Self {
            cache,
            key,
            options,
        }
    }

    /// Adds the tags that the value will have.
    pub fn tags(&mut self, tags: impl IntoIterator<Item = String>) {
        let own = self.cache.keeps_tags().then(|| self.key.tags());
        let own = own.into_iter().flatten();
        for tag in own.chain(tags) {
            self.options.add(tag.into());
        }
    }

    /// The key, if there is one; computing goes on without.
    fn keyed(&self) -> Option<String> {
        match self.key.checked() {
            Ok(key) => Some(key.to_owned()),
            Err(error) => {
                count(&self.cache.core().counters().bad_keys);
                tracing::warn!(target: "larder", event = "bad_key", error = %error);
                None
            }
        }
    }

    /// The value, by a compute that may fail.
    pub fn fallible<T, E, S, D, F, Fut>(
        self,
        run: Run<S, D>,
        from_larder: impl FnOnce(Error) -> E + Send + 'c,
        compute: F,
    ) -> Op<'c, Result<Arc<T>, E>>
    where
        T: Cacheable,
        E: fmt::Debug + Send + 'c,
        S: Fn(&T) -> bool + Send + 'c,
        D: Fn(&T) -> bool + Send + 'c,
        F: FnOnce() -> Fut + Send + 'c,
        Fut: Future<Output = Result<T, E>> + Send + 'c,
    {
        Op::wait(async move {
            let ran = self.ran(run, compute).await;
            ran.map_err(|error| error.told(from_larder))
        })
    }

    async fn ran<'f, T, E, S, D, F, Fut>(
        self,
        run: Run<S, D>,
        compute: F,
    ) -> Result<Arc<T>, Failure<E>>
    where
        T: Cacheable,
        E: fmt::Debug + Send + 'f,
        S: Fn(&T) -> bool + Send + 'f,
        D: Fn(&T) -> bool + Send,
        F: FnOnce() -> Fut + Send + 'f,
        Fut: Future<Output = Result<T, E>> + Send + 'f,
    {
        let Some(key) = self.keyed() else {
            return compute().await.map(Arc::new).map_err(Failure::Own);
        };
        let compute = judged(run.store_if, compute);
        match run.anew.sharing(self.cache, &key).await {
            Some(sharing) => refresh(self.cache, &key, self.options, sharing, compute).await,
            None => resolve(self.cache, &key, self.options, compute).await,
        }
    }

    /// The value, by a compute that cannot fail: whatever the cache comes to, it is computed.
    pub fn infallible<T, S, D, F, Fut>(mut self, run: Run<S, D>, compute: F) -> Op<'c, Arc<T>>
    where
        T: Cacheable,
        S: Fn(&T) -> bool + Send + 'c,
        D: Fn(&T) -> bool + Send + 'c,
        F: FnOnce() -> Fut + Send + 'c,
        Fut: Future<Output = T> + Send + 'c,
    {
        self.options = self.options.lenient();
        Op::wait(async move {
            let mut slot = Some(compute);
            let once = || {
                let compute = slot.take();
                async move {
                    match compute {
                        Some(compute) => Ok(compute().await),
                        None => Err(()),
                    }
                }
            };
            match (self.ran(run, once).await, slot) {
                (Ok(value), _) => value,
                (Err(error), Some(compute)) => {
                    // Others computed it, or were to, and it came to nothing.
                    tracing::warn!(target: "larder", event = "computed_alone", error = ?error);
                    Arc::new(compute().await)
                }
                // A compute that was begun and has no value panicked, and that was passed on.
                (Err(error), None) => {
                    panic!("the compute of a memoized function was lost: {error:?}")
                }
            }
        })
    }

    /// The value, by a compute in a task of its own.
    pub fn in_task<T, E, S, D, F, Fut>(
        self,
        run: Run<S, D>,
        from_larder: impl FnOnce(Error) -> E + Send + 'c,
        compute: F,
    ) -> Op<'c, Result<Arc<T>, E>>
    where
        T: Cacheable,
        E: fmt::Debug + Send + 'static,
        S: Fn(&T) -> bool + Send + 'static,
        D: Fn(&T) -> bool + Send + 'c,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        Op::wait(async move {
            let Some(key) = self.keyed() else {
                return compute().await.map(Arc::new);
            };
            let compute = judged(run.store_if, compute);
            let value = match run.anew.sharing(self.cache, &key).await {
                Some(sharing) => refresh(self.cache, &key, self.options, sharing, compute).await,
                None => apart(self.cache, &key, self.options, compute).await,
            };
            value.map_err(|error| error.told(from_larder))
        })
    }

    /// Computes a value anew, in the background, that was found due.
    pub fn ahead<T, E, S, F, Fut>(self, found: Due<T>, store_if: S, compute: F) -> Arc<T>
    where
        T: Cacheable,
        E: fmt::Debug + Send + 'static,
        S: Fn(&T) -> bool + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        if let (Ok(key), Some(life)) = (self.key.checked(), found.life) {
            let compute = judged(store_if, compute);
            refresh_ahead(self.cache, key, life, self.options, compute);
        }
        found.value
    }
}

/// A compute that says whether its value is stored.
fn judged<'f, T, E, S, F, Fut>(
    store_if: S,
    compute: F,
) -> impl FnOnce(Context) -> BoxFuture<'f, Result<T, Failure<E>>> + Send + 'f
where
    T: Cacheable,
    E: fmt::Debug + Send + 'f,
    S: Fn(&T) -> bool + Send + 'f,
    F: FnOnce() -> Fut + Send + 'f,
    Fut: Future<Output = Result<T, E>> + Send + 'f,
{
    move |context| {
        Box::pin(async move {
            let value = compute().await.map_err(Failure::Own)?;
            if !store_if(&value) {
                context.do_not_store();
            }
            Ok(value)
        })
    }
}

impl<D> Anew<D> {
    /// With whom, if it does. Where nobody can say whether there is a value to be replaced, it is not.
    async fn sharing<T: Cacheable, C: Cache>(self, cache: &C, key: &str) -> Option<Sharing>
    where
        D: Fn(&T) -> bool + Send,
    {
        if self.force {
            return Some(Sharing::Own);
        }
        let is_stale = match self.stale_if {
            _ if self.found_stale => true,
            Some(stale_if) => match look_up::<T, C>(cache, key).await {
                Ok(found) => found.is_some_and(|value| stale_if(&value)),
                Err(_) => false,
            },
            None => false,
        };
        is_stale.then_some(Sharing::Any)
    }
}

/// Whether what was found is to be computed anew.
pub fn due<C: Cache, T>(cache: &C, options: &Options, found: &Due<T>) -> bool {
    let core = cache.core();
    found.life.is_some_and(|life| is_due(core, options, life))
}

/// Removes the value of a call.
///
/// # Errors
///
/// As [`Cache::delete`].
pub async fn delete<C: Cache>(cache: &C, key: Key) -> Result<bool> {
    cache.delete(key.checked()?).await
}

/// Makes everything nothing that a function has in this cache.
///
/// # Errors
///
/// As [`Cache::invalidate_tag`].
pub async fn delete_all<C: Cache>(cache: &C, name: Name) -> Result<()> {
    let tag = name.tag(&cache.core().settings().key_prefix);
    cache.invalidate_tag(&tag).await
}

/// Makes everything nothing that a function has for one instance.
///
/// # Errors
///
/// As [`Cache::invalidate_tag`]; [`ErrorKind::Key`](crate::ErrorKind::Key) if the instance cannot be encoded.
pub async fn delete_instance<C: Cache, T: Serialize + Sync + ?Sized>(
    cache: &C,
    name: Name,
    instance: &T,
) -> Result<()> {
    let tag = tag_of_instance(name, &cache.core().settings().key_prefix, instance)?;
    cache.invalidate_tag(&tag).await
}
