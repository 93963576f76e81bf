//! `get_or_set`: one compute per key, whatever happens to the one who computes.

use std::any::Any;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::ahead::{is_due, refresh};
use crate::cache::call::{Call, Led, Opened};
use crate::cache::publish::{Made, publish, rearm};
use crate::context::Context;
use crate::core::MAX_COMPUTE;
use crate::error::{Error, ErrorKind};
use crate::flight::{Landing, Tags};
use crate::options::Options;
use crate::report::Source;
use crate::stats::count;
use crate::value::Cacheable;

/// Why a compute has no value.
pub(super) enum Failed<E> {
    Erred(E),
    Panicked(Box<dyn Any + Send>),
    /// It took longer than it may.
    Late,
}

impl<E: Debug> Failed<E> {
    fn text(&self) -> String {
        match self {
            Self::Erred(error) => format!("{error:?}"),
            Self::Panicked(_) => "the compute panicked".to_owned(),
            Self::Late => "the compute took too long".to_owned(),
        }
    }
}

/// The stored value or the computed one, with the waiting, leading and storing in between. The compute runs in this call.
pub(super) async fn resolve<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    options: Options,
    compute: F,
) -> Result<Arc<T>, E>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let call = Call::new(cache, key, options);
    let tags = Tags::These(call.options.tags.as_slice().into());
    let led = match call.open::<T>(tags).await? {
        Opened::Answer(value) | Opened::Stored(value, _) => return Ok(value),
        Opened::Alone => return compute().await.map(Arc::new),
        Opened::Lead(led) => led,
    };
    let said = || (call.options.clone(), true);
    match computed(cache, key, led, said, compute, call.until).await {
        Ok((value, source)) => {
            call.told(source);
            Ok(value)
        }
        Err(Failed::Erred(error)) => Err(error),
        Err(Failed::Panicked(panic)) => resume_unwind(panic),
        Err(Failed::Late) => Err(call.too_late().into()),
    }
}

/// As [`resolve`], with a compute in a task of its own, which goes on if its caller goes away.
pub(super) async fn apart<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    options: Options,
    compute: F,
) -> Result<Arc<T>, E>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send + 'static,
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let call = Call::new(cache, key, options);
    let led = match call.open::<T>(Tags::Any).await? {
        Opened::Answer(value) => return Ok(value),
        Opened::Stored(value, life) => {
            if is_due(cache.core(), &call.options, life) {
                refresh(cache, key, call.options, compute);
            }
            return Ok(value);
        }
        Opened::Alone => {
            let context = Context::new(call.options.clone(), None);
            return compute(context).await.map(Arc::new);
        }
        Opened::Lead(led) => led,
    };
    let stale = led.stale.clone();
    let entry = stale.as_ref().map(|stale| stale.entry.clone());
    let context = Context::new(call.options.clone(), entry);
    let task = {
        let (cache, key) = (cache.clone(), key.to_owned());
        // What is not waited for any more must end some time.
        let until = match call.until {
            Some(until) if !call.options.goes_on() => until,
            _ => Instant::now() + MAX_COMPUTE,
        };
        let until = Handle::try_current().is_ok().then_some(until);
        async move {
            let said = context.clone();
            let said = move || (said.options(), said.is_stored());
            let compute = || compute(context);
            computed(&cache, &key, led, said, compute, until).await
        }
    };
    let outcome = match Handle::try_current() {
        Err(_) => Some(task.await),
        Ok(_) => {
            let (answer, answered) = oneshot::channel();
            cache.core().tasks().spawn(async move {
                // Nobody may be there any more to hear of it.
                let _ = answer.send(task.await);
            });
            let soft = call.soft().filter(|_| stale.is_some());
            let soft = soft.map(|soft| Instant::now() + soft);
            match soft.into_iter().chain(call.until).min() {
                None => answered.await.ok(),
                Some(until) => match timeout_at(until, answered).await {
                    Ok(answered) => answered.ok(),
                    Err(_) => Some(Err(Failed::Late)),
                },
            }
        }
    };
    match (outcome, stale) {
        (Some(Ok((value, source))), _) => {
            call.told(source);
            Ok(value)
        }
        (Some(Err(Failed::Late)), Some(stale)) => {
            call.told(Source::Stale);
            Ok(stale.value)
        }
        (Some(Err(Failed::Late)), None) => Err(call.too_late().into()),
        (Some(Err(Failed::Erred(error))), _) => Err(error),
        (Some(Err(failed @ Failed::Panicked(_))), _) => {
            Err(call.error(ErrorKind::Compute, &failed.text()).into())
        }
        (None, _) => {
            let why = "the runtime is ending";
            Err(call.error(ErrorKind::Compute, why).into())
        }
    }
}

/// Computes, gives the value to all who wait, and stores it as is `said`. Where that fails, a stale value at hand is the answer.
pub(super) async fn computed<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    led: Led<T>,
    said: impl Fn() -> (Options, bool) + Send,
    compute: F,
    until: Option<Instant>,
) -> Result<(Arc<T>, Source), Failed<E>>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let core = cache.core();
    let mut led = led;
    count(&core.counters().computes);
    let began = core.now();
    let value = run(compute, until).await;
    let took = core.now().since(began);
    let (options, is_stored) = said();
    let failed = match value {
        Ok(value) => {
            let value = Arc::new(value);
            if !is_stored {
                led.lead.found(Landing::of(Arc::clone(&value) as _));
                return Ok((value, Source::Computed));
            }
            let made = Made {
                value: &value,
                options: &options,
                took,
                ticket: led.ticket,
            };
            let published = in_time(until, publish(cache, key, led.lead, made)).await;
            return match published {
                Some(Err(error)) if core.settings().strict => Err(Failed::Erred(error.into())),
                _ => Ok((value, Source::Computed)),
            };
        }
        Err(failed) => failed,
    };
    count(&core.counters().compute_failures);
    let Some(stale) = led.stale.take() else {
        match failed {
            // Whoever waits next has time of its own.
            Failed::Late => drop(led),
            _ => led.lead.fail(&failed.text()),
        }
        return Err(failed);
    };
    tracing::warn!(target: "larder", event = "compute_failed", key = key.escape_debug().to_string(), error = failed.text());
    let value = Arc::clone(&stale.value);
    rearm(cache, key, led, stale, options.throttles()).await;
    Ok((value, Source::Stale))
}

/// Runs a compute until it ends, panics, or takes too long.
async fn run<T, E, F, Fut>(compute: F, until: Option<Instant>) -> Result<T, Failed<E>>
where
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    // It is not looked at again after a panic, nor is what it captured.
    let compute = AssertUnwindSafe(async { compute().await }).catch_unwind();
    match in_time(until, compute).await {
        Some(Ok(Ok(value))) => Ok(value),
        Some(Ok(Err(error))) => Err(Failed::Erred(error)),
        Some(Err(panic)) => Err(Failed::Panicked(panic)),
        None => Err(Failed::Late),
    }
}

async fn in_time<R>(until: Option<Instant>, part: impl Future<Output = R>) -> Option<R> {
    match until {
        None => Some(part.await),
        Some(until) => timeout_at(until, part).await.ok(),
    }
}
