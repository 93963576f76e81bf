//! Computing a value anew before its life is over.

use std::any::TypeId;
use std::fmt::Debug;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::call::{Call, Led, Standing};
use crate::cache::compute::computed;
use crate::cache::lease::Held;
use crate::clock::Moment;
use crate::context::Context;
use crate::core::Core;
use crate::entry::{Entry, Lease, Right, Ticket};
use crate::error::Error;
use crate::flight::{Landing, Lead, Seat, Tags, Terms};
use crate::generation::chance;
use crate::options::{MAX_COMPUTE, Options};
use crate::refresh::RefreshAhead;
use crate::stats::count;
use crate::value::Cacheable;

/// How long the right to a refresh lasts unless it is renewed, where the call does not say.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// When the life of a value ends, and how long its compute took.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    until: Moment,
    took: Duration,
}

impl Life {
    pub(crate) fn end(self) -> Moment {
        self.until
    }

    #[inline]
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            until: entry.fresh_until(),
            took: Duration::from_micros(entry.compute_us().into()),
        }
    }
}

/// Whether a value that lives so long is to be computed anew.
#[inline]
pub(crate) fn is_due(core: &Core, options: &Options, life: Life) -> bool {
    let refresh = options.refreshes_or(&core.settings().options);
    refresh != RefreshAhead::Never && life.until != Moment::NEVER && is_near(core, refresh, life)
}

fn is_near(core: &Core, refresh: RefreshAhead, life: Life) -> bool {
    let clock = &core.settings().clock;
    // Nearly all hits end here, and take no throw.
    if clock.is_before(life.until.before(refresh.reach(life.took))) {
        return false;
    }
    refresh.is_due(clock.now(), life.until, life.took, chance())
}

/// Computes a value of this life anew in the background, unless somebody does already, too many are, or it failed a short while ago.
pub(crate) fn refresh<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    life: Life,
    options: Options,
    compute: F,
) where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send + 'static,
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    if Handle::try_current().is_err() {
        return;
    }
    let core = cache.core();
    let stored = cache.stored_key(key);
    let Some(place) = core.refreshes().place(&stored, core.now()) else {
        return;
    };
    let terms = Terms::patient(core.settings().leader_patience);
    let Seat::Lead(lead) = core.flights().join(&stored, TypeId::of::<T>(), &terms) else {
        return;
    };
    lead.expect(Tags::Any);
    let stored = stored.into_owned();
    let (own, key) = (cache.clone(), key.to_owned());
    core.tasks().spawn(async move {
        let call = Call::background(&own, &key, options);
        if let Some(left) = refreshed(&call, lead, life, compute).await {
            let core = own.core();
            core.refreshes().cool(&stored, core.now().after(left));
        }
        drop(place);
    });
}

/// Computes a value anew, if it is this process that does; or for how long that is not to be tried again.
async fn refreshed<C, T, E, F, Fut>(
    call: &Call<'_, C>,
    lead: Lead,
    life: Life,
    compute: F,
) -> Option<Duration>
where
    C: Cache,
    T: Cacheable,
    E: From<Error> + Debug + Send + 'static,
    F: FnOnce(Context) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let (cache, asked) = (call.cache, Instant::now());
    let core = cache.core();
    let (previous, ticket, held) = match right::<T, C>(call).await {
        Ok(right) => right,
        // Another process does it: it is not asked again before its lease may end.
        Err(left) => return Some(left),
    };
    if let Some(entry) = previous.as_ref().filter(|entry| entry.is_live(core.now()))
        && let Ok(value) = entry.clone().downcast::<T>()
    {
        if is_done(core, &call.options, life, entry) {
            // Another has done it meanwhile.
            lead.found(Landing::of(value));
            return None;
        }
        // Where nobody has it in memory, others come by here.
        let left = entry.remaining(core.now());
        lead.hand_out(value, call.trusted_until(asked, left));
    }
    count(&core.counters().refreshes);
    let context = Context::new(call.options.clone().into_owned(), previous);
    let said = context.clone();
    let led = Led {
        lead,
        ticket,
        stale: None,
        held: Some(held),
        standing: Standing {
            is_handed_on: true,
            is_spared: true,
        },
    };
    let bound = call.options.hard().unwrap_or(MAX_COMPUTE).min(MAX_COMPUTE);
    let (until, compute) = (Some(Instant::now() + bound), || compute(context));
    let computed = computed::<C, T, E, _, _>(cache, call.key, led, || said.said(), compute, until);
    computed.await.is_err().then(|| call.options.throttles())
}

/// Two readings of one end differ by less, but for slow answers.
const CLEARLY: Duration = Duration::from_millis(20);

/// Whether what stands there is another than the one that was found due, or not due any more.
fn is_done(core: &Core, options: &Options, due: Life, entry: &Entry) -> bool {
    let life = Life::of(entry);
    let reach = options.refreshes().reach(life.took);
    life.until > due.until.after(CLEARLY) || core.now() < life.until.before(reach)
}

/// What stands there, and the right to compute it anew; or for how long another process has that.
async fn right<T: Cacheable, C: Cache>(
    call: &Call<'_, C>,
) -> Result<(Option<Entry>, Ticket, Held), Duration> {
    // Nobody waits for a refresh, so of all processes one is enough, whether its callers chose a lease or not.
    let life = call.options.leased().unwrap_or(LEASE);
    let claim = call.claimed::<T>(Lease::of(life).anew()).await;
    match claim.map(|claim| (claim.answer.entry, claim.right)) {
        Ok((previous, Right::Granted(ticket))) => {
            let held = Held::new(call.cache, call.key, &ticket, life);
            Ok((previous, ticket, held))
        }
        Ok((_, Right::Held(left))) => Err(left),
        Ok((_, Right::NotNeeded)) | Err(_) => Err(call.options.throttles()),
    }
}
