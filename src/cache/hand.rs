//! What stands there is given to others while a compute goes on.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::call::{Asked, Call, Stale};
use crate::cache::single::fetched;
use crate::core::MAX_WAIT;
use crate::flight::{Handing, Lead, Tags};
use crate::ttl::Remaining;
use crate::value::Cacheable;

impl<C: Cache> Call<'_, C> {
    /// The value past its life that stands there still once a ticket was taken: what was read before may have been invalidated in
    /// between, and must not come back.
    pub(super) async fn stale_still<T: Cacheable>(&self, lead: &Lead) -> Option<Stale<T>> {
        let asked = Instant::now();
        match self.in_time(self.ask::<T>()).await {
            Ok(Asked::Stale(stale)) => self.offered(lead, stale, asked),
            _ => None,
        }
    }

    /// Has a value past its life, which was asked for then, at hand for those who wait, unless a tag of it was invalidated.
    pub(super) fn offered<T: Cacheable>(
        &self,
        lead: &Lead,
        stale: Stale<T>,
        asked: Instant,
    ) -> Option<Stale<T>> {
        // Its tags are what they were, whatever those of the call are: who invalidates one closes the flight.
        lead.expect(Tags::Any);
        if !stale.entry.is_current() {
            return None;
        }
        let kept = stale.entry.kept(self.cache.core().now());
        let until = self.trusted_until(asked, kept);
        lead.offer(Arc::clone(&stale.value) as _, until);
        Some(stale)
    }

    /// Until when a value that was asked for then, and of whose time so much is left now, may be handed out to others: writes by this
    /// process are heard of, those by others may not be.
    pub(super) fn trusted_until(&self, asked: Instant, left: Remaining) -> Instant {
        let own = self.cache.origin(self.key).is_own();
        let bound = self.cache.core().settings().max_staleness;
        let trusted = asked + if own { MAX_WAIT } else { bound.min(MAX_WAIT) };
        match left {
            Remaining::For(left) => trusted.min(Instant::now() + left.min(MAX_WAIT)),
            Remaining::Forever => trusted,
        }
    }

    /// Gives others what stands there as long as that is so, while a compute goes on. For ever.
    pub(super) async fn hand_on<T: Cacheable>(&self, handing: Handing) {
        let bound = self.cache.core().settings().max_staleness;
        if self.cache.origin(self.key).is_own() || bound.is_zero() || Handle::try_current().is_err()
        {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(bound / 2).await;
            // What memory has may be as old as it may be already. Whoever asks anew finds it there.
            if matches!(
                self.in_memory::<T>(),
                Some(Asked::Fresh(..) | Asked::Rearmed(_))
            ) {
                continue;
            }
            let asked = Instant::now();
            let Ok(answer) = fetched(self.cache, self.key, self.want::<T>()).await else {
                continue;
            };
            let Some(entry) = answer.entry.clone() else {
                continue;
            };
            let now = self.cache.core().now();
            match self.found::<T>(answer) {
                Asked::Fresh(value, ..) => {
                    let until = self.trusted_until(asked, entry.remaining(now));
                    handing.hand_out(value as _, until);
                }
                Asked::Stale(Stale { value, .. }) | Asked::Rearmed(value) => {
                    let until = self.trusted_until(asked, entry.kept(now));
                    handing.offer(value as _, until);
                }
                _ => {}
            }
        }
    }
}
