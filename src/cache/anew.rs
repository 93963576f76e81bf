//! Computing a value anew because its caller says so.

use std::any::TypeId;
use std::fmt::Debug;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::ahead::LEASE;
use crate::cache::call::{Call, Led, Standing};
use crate::cache::compute::{alone, answered, computed};
use crate::cache::lease::Held;
use crate::cache::single::{begun_without, checked, delete, settle_deadline};
use crate::context::Context;
use crate::entry::{Entry, Lease, Right, Ticket};
use crate::error::{Error, Result};
use crate::flight::{Lead, Outcome, Tags};
use crate::options::Options;
use crate::value::Cacheable;

/// Whether a refresh takes the value of another that is under way, which may have begun before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Own,
    Any,
}

/// Computes a value that is younger than this call, or another's that is being computed, and has it stand in the place of all older ones.
pub(crate) async fn refresh<C, T, E, F, Fut>(
    cache: &C,
    key: &str,
    options: Options,
    sharing: Sharing,
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
    let said = call.options.clone().into_owned();
    if let Err(error) = checked(cache, key, "refresh") {
        if call.is_strict() {
            return Err(error.into());
        }
        tracing::warn!(target: "larder", event = "bad_key", error = %error);
        let context = Context::new(said, None);
        return answered(&call, alone(|| compute(context), call.until).await);
    }
    if sharing == Sharing::Any
        && let Some(value) = call.joined::<T>().await
    {
        return Ok(value);
    }
    let (led, previous) = call.cut_off::<T>().await?;
    let context = Context::new(said, previous);
    let said = context.clone();
    let compute = || compute(context);
    let computed = computed(cache, key, led, || said.said(), compute, call.until).await;
    if let Ok(computed) = &computed
        && computed.is_outrun
    {
        // What stands there now may have been computed from before this call: nobody can tell which write it was that cut this one off.
        // An empty key is never wrong.
        if let Err(error) = delete(cache, key).await {
            if call.is_strict() {
                return Err(error.into());
            }
            tracing::warn!(target: "larder", event = "write_failed", error = %error);
        }
    }
    answered(&call, computed)
}

impl<C: Cache> Call<'_, C> {
    /// What another refresh that is under way in this process comes to.
    async fn joined<T: Cacheable>(&self) -> Option<Arc<T>> {
        let stored = self.cache.stored_key(self.key);
        let flights = self.cache.core().flights();
        let waiter = flights.join_renewal(&stored, TypeId::of::<T>())?;
        let mut terms = self.terms();
        terms.takes.computed_only = true;
        match waiter.wait(terms).await {
            Outcome::Landed(landing) => self.landed::<T>(landing)?.ok(),
            _ => None,
        }
    }

    /// The right to compute, in a flight that begins now, and what stands there. Computes under way in this process are cut off.
    async fn cut_off<T: Cacheable>(&self) -> Result<(Led<T>, Option<Entry>)> {
        let (cache, core) = (self.cache, self.cache.core());
        let stored = cache.stored_key(self.key);
        let mut writing = core.flights().write(&stored);
        writing.settled(settle_deadline(core)).await;
        let lead = writing.lead(TypeId::of::<T>());
        // The tags are what the compute says.
        lead.expect(Tags::Any);
        let mut led = Led {
            lead,
            ticket: Ticket::default(),
            stale: None,
            held: None,
            standing: Standing {
                is_handed_on: true,
                // Others may have it still.
                is_spared: true,
            },
        };
        if Handle::try_current().is_err() {
            // Nothing renews a lease.
            led.ticket = self.begun().await;
            return Ok((led, None));
        }
        let (life, asked) = (self.options.leased().unwrap_or(LEASE), Instant::now());
        let claimed = self.claimed::<T>(Lease::of(life).anew());
        let previous = match self.in_time(claimed).await {
            Ok(claim) => {
                match claim.right {
                    Right::Granted(ticket) => {
                        led.held = Some(Held::new(cache, self.key, &ticket, life));
                        led.ticket = ticket;
                    }
                    // Another computes, from before this call perhaps.
                    Right::Held(_) | Right::NotNeeded => led.ticket = self.begun().await,
                }
                claim.answer.entry
            }
            Err(error) if self.is_strict() => return Err(error),
            Err(error) => {
                tracing::warn!(target: "larder", event = "read_failed", error = %error);
                led.ticket = begun_without(cache, self.key, error);
                None
            }
        };
        if let Some(entry) = &previous {
            self.give_meanwhile::<T>(&led.lead, entry, asked);
        }
        Ok((led, previous))
    }

    /// Gives others what stands there, where nobody has it in memory.
    fn give_meanwhile<T: Cacheable>(&self, lead: &Lead, entry: &Entry, asked: Instant) {
        let now = self.cache.core().now();
        let Ok(value) = entry.clone().downcast::<T>() else {
            return;
        };
        if entry.is_live(now) {
            lead.hand_out(value, self.trusted_until(asked, entry.remaining(now)));
        } else if !entry.is_expired(now) && entry.is_current() {
            lead.offer(value, self.trusted_until(asked, entry.kept(now)));
        }
    }
}
