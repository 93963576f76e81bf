//! The typed cache that applications use.

mod ahead;
mod anew;
mod bulk;
mod call;
mod claim;
mod compute;
mod explain;
mod hand;
mod lease;
mod publish;
mod single;
mod together;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::backend::{Backend, Peek};
use crate::context::{Context, Contexts};
use crate::error::{Error, Result};
use crate::explain::{Explanation, Lookup};
use crate::op::Op;
use crate::options::Options;
use crate::stats::Stats;
use crate::ttl::{Remaining, Ttl};
use crate::value::Cacheable;
use crate::wrap::prefixed::Prefixed;

use single::Look;

#[cfg(any(feature = "http", feature = "macros"))]
pub(crate) use self::{
    ahead::{Life, is_due, refresh as refresh_ahead},
    anew::{Sharing, refresh},
    compute::apart,
    single::at_hand_for_now,
};
#[cfg(feature = "macros")]
pub(crate) use self::{compute::resolve, single::get as look_up};

/// What each of many keys came to, in the order asked: nothing for one that the compute left out.
pub type Each<T, E> = Vec<Option<Result<T, E>>>;

/// The cache: typed, and the same over every store. Every cloneable [`Backend`] is one; nobody implements it by hand.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Null};
///
/// async fn total(cache: impl Cache, order: u64) -> larder::Result<u64> {
///     cache.get_or_set(&format!("total:{order}"), Duration::from_secs(60), || async { 42 }).await
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// assert_eq!(total(Null::new(), 7).await.unwrap(), 42);
/// # });
/// ```
///
/// A clone is another handle on the same store: cheap, and they coalesce and invalidate each other.
///
/// # Keys
///
/// 1 to 1,024 bytes with all prefixes, no control characters, not beginning with `lk:`, `__larder` or `HASH_RING`.
/// Other keys are refused with [`ErrorKind::Key`](crate::ErrorKind::Key), except by `get_or_set` and its kin: they compute, uncached and counted.
///
/// # Errors
///
/// `get`, `set` and the like answer the errors of the store. `get_or_set` and its kin do not: a store that fails,
/// is slow or away costs a compute, unless the cache was built strict. Stored bytes that are no value of the wanted
/// type are a miss, counted by reason in [`stats`](Self::stats).
///
/// # When memory is asked
///
/// Reads look into memory when they are called, not when they are awaited: a future that is kept while the key is
/// written still answers what memory held at the call.
///
/// # Cancellation
///
/// Every future may be dropped. A dropped write has happened whole or not at all, and memory is never left with the
/// older value. A dropped `get_or_set` passes its compute on to a caller that waits.
///
/// # Runtime
///
/// Waiting needs a tokio runtime with time enabled. Hits in memory need none.
pub trait Cache: Backend + Clone {
    /// The value under a key.
    ///
    /// A hit in memory is answered at once; the clone of `T` is the only cost. [`get_shared`](Self::get_shared) saves that too.
    fn get<'a, T: Cacheable>(&'a self, key: &'a str) -> Op<'a, Result<Option<T>>> {
        match single::look::<T, _>(self, key, || false) {
            Look::Hit(value, _) | Look::Rearmed(value) => Op::ready(Ok(Some(T::clone(&value)))),
            Look::Miss => Op::ready(single::missed(self, key)),
            Look::Ask => Op::wait(async move {
                let value = single::get(self, key).await?;
                Ok(value.map(Arc::unwrap_or_clone))
            }),
        }
    }

    /// The value under a key, shared with memory.
    fn get_shared<'a, T: Cacheable>(&'a self, key: &'a str) -> Op<'a, Result<Option<Arc<T>>>> {
        match single::look::<T, _>(self, key, || false) {
            Look::Hit(value, _) | Look::Rearmed(value) => Op::ready(Ok(Some(value))),
            Look::Miss => Op::ready(single::missed(self, key)),
            Look::Ask => Op::wait(single::get(self, key)),
        }
    }

    /// [`get`](Self::get), and what the read came to: which tier and node has the value, for how long it has been there and will be, or why
    /// there is none. Where the options have a grace, or the cache's own, a value past its life is answered too.
    ///
    /// A store that fails is a reason like others, not an error. Refused is a bad key alone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Options, Why};
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = larder::Moka::new(100);
    /// cache.set("user:1", "Ada".to_owned(), Duration::from_secs(60)).await.unwrap();
    /// let found = cache.get_with::<String>("user:1", Options::default()).await.unwrap();
    /// assert_eq!(found.value.as_deref(), Some("Ada"));
    /// assert_eq!(found.explanation.place().unwrap().store, "Moka");
    /// let none = cache.get_with::<String>("user:2", Options::default()).await.unwrap();
    /// assert_eq!(none.explanation.why(), Some(Why::Absent));
    /// # });
    /// ```
    fn get_with<'a, T: Cacheable>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
    ) -> Op<'a, Result<Lookup<T>>> {
        let options = options.into();
        Op::wait(async move { explain::get_with(self, key, &options).await })
    }

    /// What a read of a key would come to, of whatever type, stale or not. For people: it counts no hit and no miss, and copies nothing
    /// into memory. Refused is a bad key alone.
    ///
    /// ```
    /// # use larder::Cache;
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = larder::Moka::new(100);
    /// assert_eq!(cache.explain("user:1").await.unwrap().to_string(), "user:1: Moka: miss, absent");
    /// # });
    /// ```
    fn explain<'a>(&'a self, key: &'a str) -> Op<'a, Result<Explanation>> {
        Op::wait(explain::explain(self, key))
    }

    /// Stores a value. A zero ttl removes what stood there.
    ///
    /// A value that cannot be encoded, or is too large, is refused before anything is touched. If the store fails,
    /// memory has dropped the key all the same. An integer is stored as digits, for [`incr`](Self::incr) and other languages.
    fn set<'a, T: Cacheable>(
        &'a self,
        key: &'a str,
        value: T,
        options: impl Into<Options>,
    ) -> Op<'a, Result<()>> {
        let options = options.into();
        Op::wait(single::set(self, key, value, options))
    }

    /// Stores a value if the key holds nothing, in one step, and tells whether it did.
    fn add<'a, T: Cacheable>(
        &'a self,
        key: &'a str,
        value: T,
        options: impl Into<Options>,
    ) -> Op<'a, Result<bool>> {
        let options = options.into();
        Op::wait(single::add(self, key, value, options))
    }

    /// Removes a key, and tells whether it held anything.
    ///
    /// Once this has returned, no later read through this cache, its clones or tiers answers a value from before it,
    /// and a compute that was under way is not stored. If the store fails, that holds for memory, and the error is returned.
    fn delete<'a>(&'a self, key: &'a str) -> Op<'a, Result<bool>> {
        Op::wait(single::delete(self, key))
    }

    /// Whether a key holds anything, of whatever type.
    fn has<'a>(&'a self, key: &'a str) -> Op<'a, Result<bool>> {
        match self.peek(key) {
            Peek::Hit(entry) if !entry.is_rearmed() => Op::ready(Ok(true)),
            Peek::Miss => Op::ready(single::checked(self, key, "has").map(|()| false)),
            Peek::Hit(_) | Peek::Ask => Op::wait(single::has(self, key)),
        }
    }

    /// Removes everything that this cache can hold: the keys under its prefix, or the whole database where it has none.
    /// Reserved keys stay. What other caches over the same memory copied of these keys goes too.
    fn clear(&self) -> Op<'_, Result<()>> {
        Op::wait(single::clear(self))
    }

    /// The values under many keys, in the order asked. A key whose node is down is `None`, and counted.
    fn get_many<'a, T: Cacheable>(
        &'a self,
        keys: &'a [impl AsRef<str>],
    ) -> Op<'a, Result<Vec<Option<T>>>> {
        let keys: Vec<&'a str> = keys.iter().map(AsRef::as_ref).collect();
        Op::wait(async move {
            let values = bulk::get::<T, _>(self, &keys).await?;
            Ok(values
                .into_iter()
                .map(|value| value.map(Arc::unwrap_or_clone))
                .collect())
        })
    }

    /// The values under those of the keys that hold one.
    fn get_dict<'a, T: Cacheable>(
        &'a self,
        keys: &'a [impl AsRef<str>],
    ) -> Op<'a, Result<HashMap<String, T>>> {
        let keys: Vec<&'a str> = keys.iter().map(AsRef::as_ref).collect();
        Op::wait(async move {
            let values = bulk::get::<T, _>(self, &keys).await?;
            let found = keys
                .iter()
                .zip(values)
                .filter_map(|(key, value)| Some((*key, value?)));
            Ok(found
                .map(|(key, value)| (key.to_owned(), Arc::unwrap_or_clone(value)))
                .collect())
        })
    }

    /// Stores many values with one ttl. Every key is tried; then an error of kind `Partial` with the counts tells of those that failed.
    /// A bad key or a value that cannot be encoded is refused before anything is touched.
    fn set_many<'a, T: Cacheable>(
        &'a self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, T)>,
        options: impl Into<Options>,
    ) -> Op<'a, Result<()>> {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key.as_ref().to_owned(), value))
            .collect();
        let options = options.into();
        Op::wait(bulk::set(self, pairs, options))
    }

    /// Removes many keys, and tells how many held anything. Every key is tried; then an error of kind `Partial` tells of those that failed.
    fn delete_many<'a>(&'a self, keys: &'a [impl AsRef<str>]) -> Op<'a, Result<u64>> {
        let keys: Vec<&'a str> = keys.iter().map(AsRef::as_ref).collect();
        Op::wait(bulk::delete(self, keys))
    }

    /// Adds to an integer in one step and answers the sum. An absent one counts as 0 and lives for ever; a ttl is kept.
    ///
    /// Refused with `NotACounter` if the key holds anything but an integer stored by `set`, `add`, `incr` or another
    /// language, and with `Overflow` if the sum leaves the range of `i64`; the value stays as it was.
    fn incr<'a>(&'a self, key: &'a str, by: i64) -> Op<'a, Result<i64>> {
        Op::wait(single::incr(self, key, by))
    }

    /// Subtracts from an integer; see [`incr`](Self::incr). `i64::MIN` cannot be subtracted and is an `Overflow`.
    fn decr<'a>(&'a self, key: &'a str, by: i64) -> Op<'a, Result<i64>> {
        Op::wait(single::decr(self, key, by))
    }

    /// Gives the value under a key a new life from now, and tells whether there was one. A zero ttl removes it.
    fn touch<'a>(&'a self, key: &'a str, ttl: impl Into<Ttl>) -> Op<'a, Result<bool>> {
        let ttl = ttl.into();
        Op::wait(single::touch(self, key, ttl))
    }

    /// What is left of the life of the value under a key.
    fn ttl<'a>(&'a self, key: &'a str) -> Op<'a, Result<Option<Remaining>>> {
        Op::wait(single::ttl(self, key))
    }

    /// The value under a key or, if there is none, the computed one, which is then stored.
    ///
    /// Callers of one key and type at the same time share one compute. The compute runs in this call and may borrow.
    /// If its caller goes away, panics, or is not done within the leader's patience (5 seconds unless set), one of those
    /// who wait computes next. A value that was deleted or set meanwhile is not overwritten by what was computed.
    ///
    /// A store that fails never makes this fail. Of the errors only these are left: `Compute`, where two callers' computes
    /// failed while this one waited, and `Timeout`, where two hung while this one waited four times the patience.
    fn get_or_set<'a, T, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<T>>
    where
        T: Cacheable,
        F: FnOnce() -> Fut + Send + 'a,
        Fut: Future<Output = T> + Send + 'a,
    {
        let options = options.into();
        match single::at_hand::<T, _>(self, key, &options) {
            Some(value) => Op::ready(Ok(T::clone(&value))),
            None => Op::wait(async move {
                let compute = |_| async move { Ok::<T, Error>(compute().await) };
                compute::resolve(self, key, options, compute)
                    .await
                    .map(Arc::unwrap_or_clone)
            }),
        }
    }

    /// [`get_or_set`](Self::get_or_set), with the value shared with memory.
    fn get_or_set_shared<'a, T, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<Arc<T>>>
    where
        T: Cacheable,
        F: FnOnce() -> Fut + Send + 'a,
        Fut: Future<Output = T> + Send + 'a,
    {
        let options = options.into();
        match single::at_hand::<T, _>(self, key, &options) {
            Some(value) => Op::ready(Ok(value)),
            None => Op::wait(async move {
                let compute = |_| async move { Ok::<T, Error>(compute().await) };
                compute::resolve(self, key, options, compute).await
            }),
        }
    }

    /// [`get_or_set`](Self::get_or_set) with a compute that may fail. Errors are not stored.
    ///
    /// The caller whose compute erred gets that error. One of those who wait tries once more; if that errs too, all who
    /// still wait get an error of kind `Compute` with the text of the last one, as its `Debug` prints it.
    fn try_get_or_set<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<T, E>>
    where
        T: Cacheable,
        E: From<Error> + Debug + Send + 'a,
        F: FnOnce() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let options = options.into();
        match single::at_hand::<T, _>(self, key, &options) {
            Some(value) => Op::ready(Ok(T::clone(&value))),
            None => Op::wait(async move {
                compute::resolve(self, key, options, |_| compute())
                    .await
                    .map(Arc::unwrap_or_clone)
            }),
        }
    }

    /// [`try_get_or_set`](Self::try_get_or_set), with the value shared with memory.
    fn try_get_or_set_shared<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<Arc<T>, E>>
    where
        T: Cacheable,
        E: From<Error> + Debug + Send + 'a,
        F: FnOnce() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let options = options.into();
        match single::at_hand::<T, _>(self, key, &options) {
            Some(value) => Op::ready(Ok(value)),
            None => Op::wait(compute::resolve(self, key, options, |_| compute())),
        }
    }

    /// [`try_get_or_set`](Self::try_get_or_set) with a compute in a task of its own, which goes on if this caller goes away. It
    /// is given a [`Context`], through which it says by what it found how the value is stored.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Null};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = Null::new();
    /// let compute = |context: larder::Context| async move {
    ///     let (name, group) = ("Ada", 7);
    ///     context.tag(format!("group:{group}"));
    ///     context.set_ttl(Duration::from_secs(5));
    ///     Ok::<_, larder::Error>(name.to_owned())
    /// };
    /// let name = cache.get_or_set_with("user:42", Duration::from_secs(60), compute).await.unwrap();
    /// assert_eq!(name, "Ada");
    /// # });
    /// ```
    ///
    /// A compute that panics is an error of kind `Compute`. Outside a tokio runtime it runs in this call.
    fn get_or_set_with<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<T, E>>
    where
        T: Cacheable,
        E: From<Error> + Debug + Send + 'static,
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let options = options.into();
        match single::at_hand_for_now::<T, _>(self, key, &options) {
            Some((value, life)) => {
                if let Some(life) = life
                    && ahead::is_due(self.core(), &options, life)
                {
                    ahead::refresh(self, key, life, options, compute);
                }
                Op::ready(Ok(T::clone(&value)))
            }
            None => Op::wait(async move {
                compute::apart(self, key, options, compute)
                    .await
                    .map(Arc::unwrap_or_clone)
            }),
        }
    }

    /// Computes the value anew, whatever stands there, and stores it: to warm a cache, or to replace what is known to be out of date
    /// without anybody having to wait. Meanwhile the others are answered what stands there.
    ///
    /// The compute begins after this call did, and runs in it; two calls at the same time are two computes. Once this has returned,
    /// no later read through this cache, its clones or tiers answers a value that was computed from before it: where the new
    /// value is not stored, because the key was written meanwhile, another process stored what it computed, or it has no life, the key is removed. A compute that errs leaves
    /// everything as it is, and so does one that said [`do_not_store`](Context::do_not_store).
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Error};
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = larder::Moka::new(100);
    /// cache.set("rate", 7, Duration::from_secs(60)).await.unwrap();
    /// let rate = cache.refresh("rate", Duration::from_secs(60), |_| async { Ok::<_, Error>(8) }).await.unwrap();
    /// assert_eq!((rate, cache.get("rate").await.unwrap()), (8, Some(8)));
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// That of the compute, and those of [`try_get_or_set`](Self::try_get_or_set); of a strict cache those of the store. A store that fails costs nothing else.
    ///
    /// # Cancellation
    ///
    /// Dropped under way, it leaves what stands there, and what others computed meanwhile is not stored.
    fn refresh<'a, T, E, F, Fut>(
        &'a self,
        key: &'a str,
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<T, E>>
    where
        T: Cacheable,
        E: From<Error> + Debug + Send + 'a,
        F: FnOnce(Context) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let options = options.into();
        Op::wait(async move {
            let value = anew::refresh(self, key, options, anew::Sharing::Own, compute).await?;
            Ok(Arc::unwrap_or_clone(value))
        })
    }

    /// Makes every value nothing that has this tag and was stored by a cache with this cache's prefix, wherever it is: one
    /// small write to each node, whatever it covers.
    ///
    /// Once this has returned, no later read through this cache, its clones or tiers answers such a value, and a compute that
    /// was under way and tags its value so is not stored. Other processes follow within
    /// [`max_staleness`](crate::core::Settings::max_staleness). A node that could not be told is named in the error; it is told
    /// before it is used again, and until then its values with this tag are nothing to this process. So it is where this call is
    /// dropped under way.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Options};
    /// # fn main() -> larder::Result<()> {
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = larder::Moka::new(100);
    /// let options = Options::ttl(Duration::from_secs(60)).tag("group:7");
    /// cache.set("user:42", "Ada".to_owned(), options).await?;
    /// cache.invalidate_tag("group:7").await?;
    /// assert_eq!(cache.get::<String>("user:42").await?, None);
    /// # Ok::<_, larder::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Refused with kind `Key` if the tag is empty, longer than 255 bytes or holds control characters, and with `Unsupported`
    /// by a store that keeps no tags.
    fn invalidate_tag<'a>(&'a self, tag: &'a str) -> Op<'a, Result<()>> {
        Op::wait(single::invalidate(self, tag))
    }

    /// The values under many keys, in the order asked, those that are missing computed together and stored.
    ///
    /// Keys are taken once each. `compute` gets the keys that this call is to compute and answers what it has; a key
    /// that it leaves out is `None`, and nothing is stored for it. It is called once for this call's own misses, whose
    /// values are published before it waits for keys that others compute, and once more only for keys whose leader was lost.
    fn get_or_set_many<'a, T, F, Fut>(
        &'a self,
        keys: &'a [impl AsRef<str>],
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<Vec<Option<T>>>>
    where
        T: Cacheable,
        F: FnMut(Vec<String>) -> Fut + Send + 'a,
        Fut: Future<Output = HashMap<String, T>> + Send + 'a,
    {
        let keys: Vec<&'a str> = keys.iter().map(AsRef::as_ref).collect();
        let options = options.into();
        let mut compute = compute;
        let compute = move |keys: Vec<String>, _| {
            let computed = compute(keys);
            async move {
                let values = computed.await.into_iter();
                values.map(|(key, value)| (key, Ok(value))).collect()
            }
        };
        Op::wait(async move {
            let answers =
                together::get_or_set::<_, T, Error, _, _>(self, keys, options, compute).await?;
            let answers = answers.into_iter().map(|answer| {
                let value = answer?.inspect_err(
                    |error| tracing::warn!(target: "larder", event = "not_computed", error = %error),
                );
                value.ok().map(Arc::unwrap_or_clone)
            });
            Ok(answers.collect())
        })
    }

    /// [`get_or_set_many`](Self::get_or_set_many) with a compute that may fail for each key by itself, and says of each value how it
    /// is stored, through the [`Context`] of its key.
    ///
    /// A key that the compute left out is `None`. An error is that of the key's own compute, or one of kind `Timeout`, `Busy` or
    /// `Compute` as for [`try_get_or_set`](Self::try_get_or_set); what succeeded is stored and answered all the same. Grace, leases, limits and
    /// the hard timeout hold for each key by itself.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    /// use larder::{Cache, Null};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = Null::new();
    /// let got = cache.get_or_set_many_with(&["a", "b"], Duration::from_secs(60), |keys, contexts| async move {
    ///     let load = |key: String| {
    ///         if let Some(context) = contexts.of(&key) {
    ///             context.tag(format!("owner of {key}"));
    ///         }
    ///         let value = if key == "a" { Ok(1) } else { Err(larder::Error::new(larder::ErrorKind::Compute, "no such thing")) };
    ///         (key, value)
    ///     };
    ///     keys.into_iter().map(load).collect::<HashMap<_, _>>()
    /// });
    /// let got = got.await.unwrap();
    /// assert!(matches!(got[0], Some(Ok(1))) && matches!(got[1], Some(Err(_))));
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// Only of a strict cache: those of the store.
    fn get_or_set_many_with<'a, T, E, F, Fut>(
        &'a self,
        keys: &'a [impl AsRef<str>],
        options: impl Into<Options>,
        compute: F,
    ) -> Op<'a, Result<Each<T, E>>>
    where
        T: Cacheable,
        E: From<Error> + Debug + Send + 'a,
        F: FnMut(Vec<String>, Contexts) -> Fut + Send + 'a,
        Fut: Future<Output = HashMap<String, Result<T, E>>> + Send + 'a,
    {
        let keys: Vec<&'a str> = keys.iter().map(AsRef::as_ref).collect();
        let options = options.into();
        Op::wait(async move {
            let answers = together::get_or_set(self, keys, options, compute).await?;
            let answers = answers.into_iter();
            let owned = |value: Result<Arc<T>, E>| value.map(Arc::unwrap_or_clone);
            Ok(answers.map(|answer| answer.map(owned)).collect())
        })
    }

    /// A handle whose keys begin with the cache's [`key_prefix`](crate::core::Settings::key_prefix), as those of memoized functions and cached views do. Its
    /// `clear` and tags cover that prefix alone.
    ///
    /// ```
    /// use larder::{Cache, Ttl};
    /// # #[cfg(feature = "moka")]
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let cache = larder::Moka::builder().key_prefix("shop:").build();
    /// cache.prefixed().set("a", 1, Ttl::Default).await.unwrap();
    /// assert_eq!(cache.get("shop:a").await.unwrap(), Some(1));
    /// # });
    /// ```
    fn prefixed(&self) -> Prefixed<Self>
    where
        Self: Sized,
    {
        let prefix = self.core().settings().key_prefix.clone();
        Prefixed::new(self.clone(), prefix)
    }

    /// A snapshot of this store's counters.
    fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// Waits for the computes that go on in tasks of their own, for [`store_timeout`](crate::core::Settings::store_timeout) at most, and ends
    /// the store's tasks and connections in good order. Dropping the last clone ends these too, at once.
    fn shutdown(&self) -> Op<'_, ()> {
        Op::wait(async {
            let core = self.core();
            core.tasks().drain(core.settings().store_timeout).await;
            self.close().await;
        })
    }
}

impl<B: Backend + Clone> Cache for B {}
