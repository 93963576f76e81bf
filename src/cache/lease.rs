//! The right to compute a value, held against all other processes.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cache::Cache;
use crate::cache::single::bounded;
use crate::entry::Ticket;
use crate::fence::Watching;
use crate::generation::chance;
use crate::options::MAX_COMPUTE;

/// Between two looks of one who waits for another process, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A lease is renewed so many times in its life.
const RENEWALS: u32 = 3;

/// A lease, renewed until it is let go of.
pub(super) struct Held {
    renewing: AbortHandle,
    give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Held {
    /// Holds the lease of a ticket. On a runtime.
    pub(super) fn new<C: Cache>(cache: &C, key: &str, ticket: &Ticket, life: Duration) -> Self {
        let renewing = {
            let (cache, key, ticket) = (cache.clone(), key.to_owned(), ticket.clone());
            tokio::spawn(async move {
                let _ = timeout(MAX_COMPUTE, renew(&cache, &key, &ticket, life)).await;
            })
        };
        let (cache, key, ticket) = (cache.clone(), key.to_owned(), ticket.clone());
        let give_back = move || {
            if Handle::try_current().is_err() {
                return;
            }
            // Not one of the store's: this may be dropped where those are locked.
            tokio::spawn(async move {
                // If this fails, the lease ends by itself.
                let _ = bounded(cache.core(), cache.hold(&key, &ticket, None)).await;
            });
        };
        Self {
            renewing: renewing.abort_handle(),
            give_back: Some(Box::new(give_back)),
        }
    }

    /// The value is stored, which ended the lease.
    pub(super) fn done(mut self) {
        self.give_back = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
        if let Some(give_back) = self.give_back.take() {
            give_back();
        }
    }
}

async fn renew<C: Cache>(cache: &C, key: &str, ticket: &Ticket, life: Duration) {
    loop {
        sleep(life / RENEWALS).await;
        let held = bounded(cache.core(), cache.hold(key, ticket, Some(life))).await;
        // Another has it now, or the key was written: what is computed here will be refused.
        if matches!(held, Ok(false)) {
            return;
        }
    }
}

/// How one waits for another process: until it hears of a write of the key, or for a while that grows, by chance.
pub(super) struct Watch {
    next: Duration,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { next: FIRST_LOOK }
    }

    /// Waits for the next look; `false` if there is to be none after `until`. The lease of the other ends in `left` unless it is
    /// renewed.
    pub(super) async fn look(
        &mut self,
        written: Watching<'_>,
        left: Duration,
        until: Instant,
    ) -> bool {
        let now = Instant::now();
        if until <= now {
            return false;
        }
        // Not before the half of it, and rather a little later than the lease's end than a little earlier.
        let pause = self.next.mul_f64(0.5 + 0.5 * chance());
        let pause = pause.min(left + Duration::from_millis(1)).min(until - now);
        self.next = (self.next * 2).min(LAST_LOOK);
        // Whichever comes first.
        let _ = timeout(pause, written).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::coherence::{Interest, Invalidation, Subscriber};
    use crate::fence::Fence;

    /// Where nobody wants to hear of writes, none is told of.
    #[derive(Debug)]
    struct Memory;

    impl Subscriber for Memory {
        fn hear(&self, _: Invalidation<'_>) {}
    }

    /// No time passes where a write is heard of; without one, no more than the longest pause.
    #[tokio::test(start_paused = true)]
    async fn a_write_ends_the_wait_at_once() {
        let (fence, began) = (Arc::new(Fence::new()), Instant::now());
        let _subscription = fence.subscribe("", Interest::new(Arc::new(Memory)));
        let (hour, mut watch) = (Duration::from_secs(3600), Watch::new());
        let written = fence.watch("k");
        fence.written(Invalidation::Keys(&["k"]));
        drop(fence.write("k"));
        assert!(watch.look(written, hour, began + hour).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            let before = Instant::now();
            assert!(watch.look(fence.watch("k"), hour, began + hour).await);
            let waited = before.elapsed();
            assert!(waited > Duration::ZERO && waited <= LAST_LOOK + Duration::from_millis(1));
        }
        assert!(!watch.look(fence.watch("k"), hour, Instant::now()).await);
    }
}
