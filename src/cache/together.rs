//! Many keys at a time, computed together where nothing is stored.

mod claims;
mod elsewhere;
mod landed;
mod round;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::call::Call;
use crate::context::Contexts;
use crate::error::Error;
use crate::options::Options;
use crate::report::Source;
use crate::value::Cacheable;

use round::Round;

/// By key.
type ByKey<V> = HashMap<String, V, ahash::RandomState>;

/// The values under many keys, in the order asked, those that are missing computed together. Nothing for a key that the compute
/// left out.
pub(super) async fn get_or_set<C, T, E, F, Fut>(
    cache: &C,
    keys: Vec<&str>,
    options: Options,
    mut compute: F,
) -> Result<Vec<Option<Result<Arc<T>, E>>>, Error>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnMut(Vec<String>, Contexts) -> Fut + Send,
    Fut: Future<Output = HashMap<String, Result<T, E>>> + Send,
{
    let call = Call::new(cache, "", options);
    let calls = Calls {
        cache,
        until: call.until,
        options: call.options.into_owned(),
    };
    let mut answers = Answers::<T, E>::default();
    let (mut open, mut led) = (keys.clone(), ByKey::default());
    // Its own misses, then those that others lost while it waited.
    for last in [false, true] {
        let mut round = Round::take(&calls, &open, &mut answers)?;
        round.ask(&calls, &mut answers).await?;
        round.led.extend(std::mem::take(&mut led));
        round.compute(&calls, &mut compute, &mut answers).await?;
        let lost = round.wait(&calls, &mut answers, &mut led, last).await?;
        open.retain(|key| lost.iter().any(|lost| lost == key));
        if open.is_empty() && led.is_empty() {
            break;
        }
    }
    // What other processes lost while this call waited once more.
    let mut last = Round::of(led);
    last.compute(&calls, &mut compute, &mut answers).await?;
    Ok(keys.iter().map(|key| answers.take(key)).collect())
}

/// One call of many keys.
struct Calls<'c, C> {
    cache: &'c C,
    options: Options,
    until: Option<Instant>,
}

impl<C: Cache> Calls<'_, C> {
    /// The same for one key alone.
    fn of<'k>(&'k self, key: &'k str) -> Call<'k, C> {
        Call {
            cache: self.cache,
            key,
            options: Cow::Borrowed(&self.options),
            until: self.until,
        }
    }
}

/// What a call of many keys has found so far.
struct Answers<T, E>(ByKey<Result<Arc<T>, E>>);

impl<T, E> Default for Answers<T, E> {
    fn default() -> Self {
        Self(ByKey::default())
    }
}

impl<T, E> Answers<T, E> {
    fn insert(&mut self, key: String, answer: Result<Arc<T>, E>) {
        self.0.insert(key, answer);
    }

    /// A value, and where it came from.
    fn found<C: Cache>(
        &mut self,
        calls: &Calls<'_, C>,
        key: String,
        value: Arc<T>,
        source: Source,
    ) {
        calls.of(&key).told(source);
        self.insert(key, Ok(value));
    }

    /// The answer to one of the keys that were asked for. Of a key that was asked for twice, a value is told twice, and an error
    /// once.
    fn take(&mut self, key: &str) -> Option<Result<Arc<T>, E>> {
        match self.0.get(key)? {
            Ok(value) => Some(Ok(Arc::clone(value))),
            Err(_) => self.0.remove(key),
        }
    }
}
