//! Computing many keys together, and storing what came of it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use super::round::Round;
use super::{Answers, Calls};
use crate::cache::Cache;
use crate::cache::call::Led;
use crate::cache::compute::{Failed, fallen, run, turn};
use crate::cache::lease::Held;
use crate::cache::publish::{Made, computed, concluded};
use crate::cache::single::bounded;
use crate::context::{Context, Contexts};
use crate::entry::{Draft, Stored};
use crate::error::{Error, Result};
use crate::flight::{Landing, Storing, unless_overtaken};
use crate::report::Source;
use crate::stats::count;
use crate::value::Cacheable;

/// A computed value that is to be stored.
struct Landed {
    key: String,
    draft: Draft,
    storing: Storing,
    held: Option<Held>,
}

impl<T: Cacheable> Round<T> {
    /// Computes what this call is to compute, publishes it, and stores it.
    pub(super) async fn compute<C, E, F, Fut>(
        &mut self,
        calls: &Calls<'_, C>,
        compute: &mut F,
        answers: &mut Answers<T, E>,
    ) -> Result<()>
    where
        C: Cache,
        E: From<Error> + Debug + Send,
        F: FnMut(Vec<String>, Contexts) -> Fut + Send,
        Fut: Future<Output = HashMap<String, Result<T, E>>> + Send,
    {
        let alone = std::mem::take(&mut self.alone);
        let keys: Vec<String> = self.led.keys().cloned().chain(alone).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let core = calls.cache.core();
        let contexts = self.contexts(calls, &keys);
        let turn = turn(core, calls.until).await;
        let began = core.now();
        let values = match &turn {
            Some(_turn) => {
                count(&core.counters().computes);
                let given = contexts.clone();
                let compute = || async { Ok::<_, E>(compute(keys, given).await) };
                run(compute, calls.until).await
            }
            None => Err(Failed::Busy),
        };
        drop(turn);
        let took = core.now().since(began);
        match values {
            Ok(values) => self.land(calls, answers, values, &contexts, took).await,
            Err(failed) => {
                self.fall(calls, failed, answers).await;
                Ok(())
            }
        }
    }

    fn contexts<C: Cache>(&self, calls: &Calls<'_, C>, keys: &[String]) -> Contexts {
        let contexts = keys.iter().map(|key| {
            let stale = self.led.get(key).and_then(|led| led.stale.as_ref());
            let previous = stale.map(|stale| stale.entry.clone());
            (key.clone(), Context::new(calls.options.clone(), previous))
        });
        Contexts::new(contexts.collect())
    }

    /// Gives each value to those who wait for it, and stores them together.
    async fn land<C: Cache, E: From<Error> + Debug + Send>(
        &mut self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
        values: HashMap<String, Result<T, E>>,
        contexts: &Contexts,
        took: Duration,
    ) -> Result<()> {
        let core = calls.cache.core();
        let (mut landed, mut outcome) = (Vec::new(), Ok(()));
        for (key, value) in values {
            let (led, context) = (self.led.remove(&key), contexts.of(&key));
            let (Some(led), Some(context)) = (led, context) else {
                answers.insert(key, value.map(Arc::new));
                continue;
            };
            match value {
                Ok(value) => {
                    let value = Arc::new(value);
                    match publish(calls, &key, led, &value, context, took) {
                        Ok(publishing) => landed.extend(publishing),
                        Err(error) => outcome = outcome.and(Err(error)),
                    }
                    answers.found(calls, key, value, Source::Computed);
                }
                Err(error) => {
                    let failed = Failed::Erred(error);
                    fell(calls, answers, key, led, failed, Some(context)).await;
                }
            }
        }
        // Keys that the compute left out: whoever waits for one computes it.
        self.led.clear();
        let now = core.now();
        landed.retain(|landed: &Landed| !landed.draft.entry.is_expired(now));
        outcome = outcome.and(store(calls.cache, landed).await);
        if core.settings().strict {
            outcome
        } else {
            Ok(())
        }
    }

    /// No value came of the compute: what is stale is answered, where it is.
    async fn fall<C: Cache, E: From<Error> + Debug + Send>(
        &mut self,
        calls: &Calls<'_, C>,
        failed: Failed<E>,
        answers: &mut Answers<T, E>,
    ) {
        let unanswered = self.led.values().any(|led| led.stale.is_none());
        for (key, led) in std::mem::take(&mut self.led) {
            let failed = match failed {
                Failed::Late => Failed::Late,
                Failed::Busy => Failed::Busy,
                // Of its kind, for each of them.
                Failed::Erred(_) | Failed::Panicked(_) => Failed::Panicked(Box::new(())),
            };
            fell(calls, answers, key, led, failed, None).await;
        }
        if let Failed::Panicked(panic) = failed
            && unanswered
        {
            resume_unwind(panic);
        }
    }
}

/// What becomes of a key whose compute has no value.
async fn fell<C: Cache, T: Cacheable, E: From<Error> + Debug + Send>(
    calls: &Calls<'_, C>,
    answers: &mut Answers<T, E>,
    key: String,
    led: Led<T>,
    failed: Failed<E>,
    context: Option<&Context>,
) {
    let options = context.map_or_else(|| calls.options.clone(), Context::options);
    let stale = fallen(calls.cache, &key, led, failed.why(), &options, calls.until).await;
    match stale {
        Some(value) => answers.found(calls, key, value, Source::Stale),
        None => {
            let error = failed.told(&calls.of(&key));
            answers.insert(key, Err(error));
        }
    }
}

/// Gives a value to those who wait for it. The answer is what is to be stored.
fn publish<C: Cache, T: Cacheable>(
    calls: &Calls<'_, C>,
    key: &str,
    led: Led<T>,
    value: &Arc<T>,
    context: &Context,
    took: Duration,
) -> Result<Option<Landed>> {
    let landing = Landing::of(Arc::clone(value) as _);
    let said = context.said();
    if !said.stored {
        led.lead.found(landing);
        return Ok(None);
    }
    let made = Made {
        value,
        said: &said,
        took,
        ticket: led.ticket,
    };
    let draft = computed(calls.cache, key, made);
    let Some(storing) = led.lead.land(landing) else {
        count(&calls.cache.core().counters().outrun);
        return Ok(None);
    };
    Ok(Some(Landed {
        key: key.to_owned(),
        draft: draft?,
        storing,
        held: led.held,
    }))
}

async fn store<C: Cache>(cache: &C, landed: Vec<Landed>) -> Result<()> {
    let core = cache.core();
    if landed.is_empty() {
        return Ok(());
    }
    let stored = landed.iter().map(|landed| cache.stored_key(&landed.key));
    let stored: Vec<String> = stored.map(|key| key.into_owned()).collect();
    let writes: Vec<_> = stored.iter().map(|key| core.fence().write(key)).collect();
    let drafts = landed
        .iter()
        .map(|landed| (landed.key.clone(), landed.draft.clone()));
    let drafts = drafts.collect();
    let call = async { Ok(cache.store_many(drafts).await) };
    let storings = landed.iter().map(|landed| &landed.storing);
    let answers = match unless_overtaken(storings, bounded(core, call)).await {
        Some(Ok(answers)) => answers,
        Some(Err(error)) => landed.iter().map(|_| Err(error.clone())).collect(),
        // Of one call the rest cannot be told apart: no key of it is stored.
        None => landed.iter().map(|_| Ok(Stored::Done)).collect(),
    };
    drop(writes);
    let mut outcome = Ok(());
    for ((landed, stored), answer) in landed.into_iter().zip(&stored).zip(answers) {
        let Landed {
            key,
            draft,
            storing,
            held,
        } = landed;
        let is_stored = matches!(answer, Ok(Stored::Done));
        let result = concluded(cache, &key, stored, &draft, &storing, answer).await;
        if let Some(held) = held.filter(|_| is_stored) {
            held.done();
        }
        outcome = outcome.and(result);
    }
    if core.settings().strict {
        outcome
    } else {
        Ok(())
    }
}
