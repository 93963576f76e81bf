//! `get_or_set`: one compute per key, whatever happens to the one who computes.

use std::any::Any;
use std::fmt::Debug;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::ahead::{is_due, refresh};
use crate::cache::call::{Call, Led, Opened, Stale};
use crate::cache::publish::{Made, publish, publish_failure, rearm};
use crate::context::{Context, Said};
use crate::core::{Core, MAX_WAIT};
use crate::error::{Error, ErrorKind};
use crate::flight::{Landing, Tags};
use crate::options::{MAX_COMPUTE, Options};
use crate::report::Source;
use crate::stats::count;
use crate::value::Cacheable;

/// Why a compute has no value.
pub(super) enum Failed<E> {
    Erred(E),
    Panicked(Box<dyn Any + Send>),
    /// It took longer than it may.
    Late,
    /// Too many others ran.
    Busy,
}

/// What a compute came to: its value, or the stale one in its place.
pub(super) struct Computed<T> {
    pub(super) value: Arc<T>,
    pub(super) source: Source,
    /// It was to be stored, and is not.
    pub(super) is_outrun: bool,
}

impl<T> Computed<T> {
    fn new(value: Arc<T>, source: Source) -> Self {
        Self {
            value,
            source,
            is_outrun: false,
        }
    }
}

/// The same in words.
#[derive(Clone)]
pub(super) struct Why {
    text: String,
    /// It was not the compute itself that failed: another may have its value.
    passing: bool,
}

impl<E: Debug> Failed<E> {
    pub(super) fn why(&self) -> Why {
        Why {
            text: self.text(),
            passing: matches!(self, Self::Late | Self::Busy),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Erred(error) => format!("{error:?}"),
            Self::Panicked(_) => "the compute panicked".to_owned(),
            Self::Late => "the compute took too long".to_owned(),
            Self::Busy => "as many computes of this cache run as may".to_owned(),
        }
    }
}

impl<E: From<Error> + Debug> Failed<E> {
    /// The error that its caller has.
    pub(super) fn told<C: Cache>(self, call: &Call<'_, C>) -> E {
        match self {
            Self::Erred(error) => error,
            Self::Late => call.too_late().into(),
            Self::Busy => call.busy(&self.text()).into(),
            Self::Panicked(_) => call.error(ErrorKind::Compute, &self.text()).into(),
        }
    }
}

/// The stored value or the computed one, with the waiting, leading and storing in between. The compute runs in this call, and adds no
/// tags.
pub(crate) async fn resolve<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    options: Options,
    compute: F,
) -> Result<Arc<T>, E>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnOnce(Context) -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let call = Call::new(cache, key, options);
    let tags = Tags::These(call.options.tags.as_slice().into());
    let computed = match call.open::<T>(tags).await? {
        Opened::Answer(value) | Opened::Stored(value, _) => return Ok(value),
        Opened::Alone => {
            let context = Context::new(call.options.clone().into_owned(), None);
            alone(|| compute(context), call.until).await
        }
        Opened::Lead(led) => {
            let previous = led.stale.as_ref().map(|stale| stale.entry.clone());
            let context = Context::new(call.options.clone().into_owned(), previous);
            let said = context.clone();
            let compute = || compute(context);
            computed(cache, key, *led, || said.said(), compute, call.until).await
        }
    };
    answered(&call, computed)
}

/// The answer of a call whose compute ran in it.
pub(super) fn answered<C: Cache, T, E: From<Error> + Debug>(
    call: &Call<'_, C>,
    computed: Result<Computed<T>, Failed<E>>,
) -> Result<Arc<T>, E> {
    match computed {
        Ok(computed) => {
            call.told(computed.source);
            Ok(computed.value)
        }
        Err(Failed::Panicked(panic)) => resume_unwind(panic),
        Err(failed) => Err(failed.told(call)),
    }
}

/// Computes for this caller alone.
pub(super) async fn alone<T, E, F, Fut>(
    compute: F,
    until: Option<Instant>,
) -> Result<Computed<T>, Failed<E>>
where
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let value = run(compute, until).await?;
    Ok(Computed::new(Arc::new(value), Source::Computed))
}

/// As [`resolve`], with a compute in a task of its own, which goes on if its caller goes away.
pub(crate) async fn apart<C, T, E, F, Fut>(
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
                refresh(cache, key, life, call.options.into_owned(), compute);
            }
            return Ok(value);
        }
        Opened::Alone => {
            let context = Context::new(call.options.clone().into_owned(), None);
            let computed = alone(|| compute(context), call.until).await;
            return computed
                .map(|computed| computed.value)
                .map_err(|failed| failed.told(&call));
        }
        Opened::Lead(led) => *led,
    };
    let stale = led.stale.clone();
    let task = in_a_task(&call, led, compute);
    let outcome = match Handle::try_current() {
        Err(_) => Some(task.await),
        Ok(_) => awaited(&call, stale.as_ref(), task).await,
    };
    match (outcome, stale) {
        (Some(Ok(computed)), _) => {
            call.told(computed.source);
            Ok(computed.value)
        }
        (Some(Err(Failed::Late)), Some(stale)) if !stale.entry.is_expired(cache.core().now()) => {
            call.told(Source::Stale);
            Ok(stale.value)
        }
        (Some(Err(failed)), _) => Err(failed.told(&call)),
        (None, _) => {
            let why = "the runtime is ending";
            Err(call.error(ErrorKind::Compute, why).into())
        }
    }
}

/// The compute of a call, for a task of its own.
fn in_a_task<C, T, E, F, Fut>(
    call: &Call<'_, C>,
    led: Led<T>,
    compute: F,
) -> impl Future<Output = Result<Computed<T>, Failed<E>>> + Send + 'static + use<C, T, E, F, Fut>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send + 'static,
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let previous = led.stale.as_ref().map(|stale| stale.entry.clone());
    let context = Context::new(call.options.clone().into_owned(), previous);
    let (cache, key) = (call.cache.clone(), call.key.to_owned());
    // What is not waited for any more must end some time.
    let until = match call.until {
        Some(until) if !call.options.goes_on() => until,
        _ => Instant::now() + MAX_COMPUTE,
    };
    let until = Handle::try_current().is_ok().then_some(until);
    async move {
        let said = context.clone();
        let said = move || said.said();
        let compute = || compute(context);
        computed(&cache, &key, led, said, compute, until).await
    }
}

/// Waits for a compute in a task of its own, as long as its caller wants to; nothing where the runtime ends.
async fn awaited<C: Cache, T: Cacheable, E: Send + 'static>(
    call: &Call<'_, C>,
    stale: Option<&Stale<T>>,
    task: impl Future<Output = Result<Computed<T>, Failed<E>>> + Send + 'static,
) -> Option<Result<Computed<T>, Failed<E>>> {
    let core = call.cache.core();
    let (answer, answered) = oneshot::channel();
    core.tasks().spawn(async move {
        // Nobody may be there any more to hear of it.
        let _ = answer.send(task.await);
    });
    let soft = call.soft().filter(|soft| {
        let then = core.now().after(*soft);
        stale.is_some_and(|stale| !stale.entry.is_expired(then))
    });
    let soft = soft.map(|soft| Instant::now() + soft.min(MAX_WAIT));
    match soft.into_iter().chain(call.until).min() {
        None => answered.await.ok(),
        Some(until) => match timeout_at(until, answered).await {
            Ok(answered) => answered.ok(),
            Err(_) => Some(Err(Failed::Late)),
        },
    }
}

/// Computes, gives the value to all who wait, and stores it as is `said`. Where that fails, a stale value at hand is the answer.
pub(super) async fn computed<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    led: Led<T>,
    said: impl Fn() -> Said + Send,
    compute: F,
    until: Option<Instant>,
) -> Result<Computed<T>, Failed<E>>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let core = cache.core();
    let turn = turn(core, until).await;
    let began = core.now();
    let value = match &turn {
        Some(_turn) => {
            count(&core.counters().computes);
            let call = Call::background(cache, key, said().options);
            handing_on(&call, &led, run(compute, until)).await
        }
        None => Err(Failed::Busy),
    };
    // Another's may run while this one's value is stored.
    drop(turn);
    let took = core.now().since(began);
    let said = said();
    let failed = match value {
        Ok(value) if !said.stored => {
            let value = Arc::new(value);
            led.lead.found(Landing::of(Arc::clone(&value) as _));
            return Ok(Computed::new(value, Source::Computed));
        }
        Ok(value) => {
            let value = Arc::new(value);
            let made = Made {
                value: &value,
                said: &said,
                took,
                ticket: led.ticket,
            };
            let published = in_time(until, publish(cache, key, led.lead, made)).await;
            if let (Some(Ok(true)), Some(held)) = (&published, led.held) {
                held.done();
            }
            return match published {
                Some(Err(error)) if said.options.is_strict(core.settings().strict) => {
                    Err(Failed::Erred(error.into()))
                }
                _ => Ok(Computed {
                    is_outrun: !matches!(published, Some(Ok(true))),
                    ..Computed::new(value, Source::Computed)
                }),
            };
        }
        Err(failed) => failed,
    };
    match fallen(cache, key, led, failed.why(), &said.options, until).await {
        Some(value) => Ok(Computed::new(value, Source::Stale)),
        None => Err(failed),
    }
}

/// Runs a compute; meanwhile others are given what stands there, if they are to be.
async fn handing_on<C: Cache, T: Cacheable, R>(
    call: &Call<'_, C>,
    led: &Led<T>,
    run: impl Future<Output = R> + Send,
) -> R {
    if !led.standing.is_handed_on {
        return run.await;
    }
    let hand_on = call.hand_on::<T>(led.lead.handing());
    match select(pin!(run), pin!(hand_on)).await {
        Either::Left((value, _)) => value,
        Either::Right(((), run)) => run.await,
    }
}

/// What becomes of the right to a compute that has no value: the stale one, answered and rearmed, if there is one.
pub(super) async fn fallen<C: Cache, T: Cacheable>(
    cache: &C,
    key: &str,
    mut led: Led<T>,
    why: Why,
    options: &Options,
    until: Option<Instant>,
) -> Option<Arc<T>> {
    let (core, Why { text, passing }) = (cache.core(), why);
    let counters = core.counters();
    let stale = led.stale.take();
    if let Some(stale) = stale.filter(|stale| !stale.entry.is_expired(core.now())) {
        count(&counters.compute_failures);
        tracing::warn!(target: "larder", event = "compute_failed", key = key.escape_debug().to_string(), error = text);
        let value = Arc::clone(&stale.value);
        rearm(cache, key, led, stale, options.throttles()).await;
        return Some(value);
    }
    match options.error_ttl_chosen() {
        // Whoever waits next has time of its own.
        _ if passing => drop(led),
        Some(ttl) if !led.standing.is_spared => {
            count(&counters.compute_failures);
            let kept = publish_failure(cache, key, led, &text, options, ttl);
            // What fails is counted and logged.
            let _ = in_time(until, kept).await;
        }
        _ => {
            count(&counters.compute_failures);
            led.lead.fail(&text);
        }
    }
    None
}

/// The right to run among all computes of the cache, if it comes in time.
pub(super) async fn turn(
    core: &Core,
    until: Option<Instant>,
) -> Option<Option<SemaphorePermit<'_>>> {
    let Some(turns) = core.turns() else {
        return Some(None);
    };
    if let Ok(turn) = turns.try_acquire() {
        return Some(Some(turn));
    }
    let bound = Instant::now() + core.settings().leader_patience.min(MAX_WAIT);
    let bound = until.map_or(bound, |until| until.min(bound));
    let mut turn = pin!(turns.acquire());
    let turn = poll_fn(|cx| match turn.as_mut().poll(cx) {
        Poll::Ready(turn) => Poll::Ready(turn.ok()),
        // A caller that blocks its thread may keep the timer from being turned, or has none.
        Poll::Pending if bound <= Instant::now() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let timer = Handle::try_current().is_ok().then_some(bound);
    in_time(timer, turn).await?.map(Some)
}

/// Runs a compute until it ends, panics, or takes too long.
pub(super) async fn run<T, E, F, Fut>(compute: F, until: Option<Instant>) -> Result<T, Failed<E>>
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

pub(super) async fn in_time<R>(until: Option<Instant>, part: impl Future<Output = R>) -> Option<R> {
    match until {
        None => Some(part.await),
        Some(until) => timeout_at(until, part).await.ok(),
    }
}
