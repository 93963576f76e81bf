//! The right to compute a value for all processes, and waiting for another that has it.

use std::time::Duration;

use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::call::{Asked, Call, Granted, Stale};
use crate::cache::lease::{Held, Watch};
use crate::cache::single::{before, bounded, wanted};
use crate::coherence::Before;
use crate::core::MAX_WAIT;
use crate::entry::{Claim, Lease, Right};
use crate::error::{ErrorKind, Result};
use crate::flight::Lead;
use crate::stats::count;
use crate::value::Cacheable;

impl<C: Cache> Call<'_, C> {
    /// What stands under the key, or the right to compute it for all processes. Another that has it is waited for.
    pub(super) async fn claim<T: Cacheable>(
        &self,
        life: Duration,
        lead: &Lead,
    ) -> Result<Asked<T>> {
        match self.in_memory() {
            Some(Asked::Nothing) | None => {}
            Some(found) => return Ok(found),
        }
        let core = self.cache.core();
        let (stored, mut watch) = (self.cache.stored_key(self.key), Watch::new());
        let (bound, mut lease) = (self.bound(), Lease::of(life));
        let soft = self.soft().map(|soft| Instant::now() + soft.min(MAX_WAIT));
        loop {
            // Before it is asked: what is written after that is heard of.
            let written = core.fence().watch(&stored);
            let asked = Instant::now();
            let Claim { answer, right } = self.in_time(self.claimed::<T>(lease)).await?;
            let found = self.found(answer);
            if let Asked::Fresh(..) | Asked::Rearmed(_) | Asked::Failed(_) = found {
                if let Right::Granted(ticket) = right {
                    // It came meanwhile: the lease is given back.
                    drop(Held::new(self.cache, self.key, &ticket, life));
                }
                return Ok(found);
            }
            let right = match right {
                Right::Granted(ticket) => Ok(ticket),
                Right::Held(left) => Err(left),
                Right::NotNeeded if lease.anew => return Ok(found),
                Right::NotNeeded => {
                    // What rests there is nothing to this call.
                    lease = lease.anew();
                    continue;
                }
            };
            let is_spared = matches!(found, Asked::Passed);
            let stale = match found {
                Asked::Stale(stale) => self.offered(lead, stale, asked),
                _ => None,
            };
            let left = match right {
                Err(left) => left,
                Ok(ticket) => {
                    let held = Held::new(self.cache, self.key, &ticket, life);
                    return Ok(Asked::Granted(Box::new(Granted {
                        ticket,
                        stale,
                        held,
                        is_spared,
                    })));
                }
            };
            let soft = soft.filter(|_| stale.is_some());
            let until = soft.map_or(bound, |soft| soft.min(bound));
            if !watch.look(written, left, until).await {
                return Ok(self.given_up(stale, is_spared));
            }
        }
    }

    /// What a call has that waits for another process no longer. Without a value it is computed here too, and stored by whoever is
    /// first.
    fn given_up<T>(&self, stale: Option<Stale<T>>, is_spared: bool) -> Asked<T> {
        let now = self.cache.core().now();
        match stale.filter(|stale| !stale.entry.is_expired(now)) {
            Some(stale) => Asked::Rearmed(stale.value),
            None if is_spared => Asked::Passed,
            None => Asked::Nothing,
        }
    }

    /// What is known of the key in this process, before it is asked for.
    pub(super) fn before(&self) -> Option<Before> {
        before(self.cache, self.key)
    }

    /// Asks once.
    pub(super) async fn claimed<T: Cacheable>(&self, lease: Lease) -> Result<Claim> {
        let (cache, core) = (self.cache, self.cache.core());
        let before = self.before();
        let claim = async {
            let want = wanted::<T, C>(cache).or_stale();
            let mut claims = cache.claim(&[self.key], want, lease).await;
            let none = || Err(self.error(ErrorKind::Unavailable, "the store answered nothing"));
            claims.pop().unwrap_or_else(none)
        };
        let mut claimed = bounded(core, claim).await.map_err(|error| {
            count(&core.counters().read_errors);
            error.during("get_or_set").with("key", self.key)
        })?;
        if let Right::Granted(ticket) = &mut claimed.right {
            ticket.before = before;
        }
        Ok(claimed)
    }
}
