//! When the map is read: at a nudge, once it is quiet, and now and then without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::wire::{Heard, Listener};

use super::keys::MapKeys;

/// A change is read this long after its last sign. The Python server publishes by `DEL` and then `HMSET`: who reads
/// at the first sign meets an empty map more often than not.
pub(super) const SETTLE: Duration = Duration::from_millis(30);

/// A change is read this long after its first sign at the latest, however often others follow.
pub(super) const SETTLE_LONGEST: Duration = Duration::from_millis(300);

/// With pushes heard, reading without a sign is a safety net only.
const RARER: u32 = 10;

/// What makes the follower's task read the map. Not part of the follower, or waiting for it would keep it alive.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Whether there was a nudge that nobody has answered yet.
    pending: AtomicBool,
    nudged: Notify,
    pushes_heard: AtomicBool,
}

impl Signals {
    /// What the manager's connection tells of writes of the map.
    pub(super) fn listener(self: &Arc<Self>, keys: &MapKeys) -> Listener {
        let (signals, keys) = (Arc::clone(self), keys.clone());
        // The map alone: every publication writes it, and prefixes of one connection must not overlap.
        let prefix = keys.map.clone();
        Listener::new(vec![prefix], move |heard| signals.hear(&keys, heard))
    }

    fn hear(&self, own: &MapKeys, heard: Heard) {
        match heard {
            Heard::Begun => self.hear_pushes(true),
            // Any key may begin with the map's name.
            Heard::Keys(keys) => {
                let own = own.followed().map(str::as_bytes);
                if keys.iter().any(|key| own.contains(&key.as_slice())) {
                    self.nudge();
                }
            }
            Heard::All => self.nudge(),
            Heard::Proven(_) | Heard::Deaf(_) => {}
            Heard::Ended => self.hear_pushes(false),
        }
    }

    /// Something may have changed.
    pub(super) fn nudge(&self) {
        self.pending.store(true, Ordering::Release);
        // All of them: one that waits on a runtime that nobody drives must not keep it from the others.
        self.nudged.notify_waiters();
    }

    async fn nudged(&self) {
        loop {
            let told = self.nudged.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.pending.swap(false, Ordering::AcqRel) {
                return;
            }
            told.await;
        }
    }

    /// Says whether changes are pushed from now on. What changed while that was unsettled was not, so it is a nudge too.
    pub(super) fn hear_pushes(&self, heard: bool) {
        if self.pushes_heard.swap(heard, Ordering::AcqRel) != heard {
            self.nudge();
        }
    }

    pub(super) fn pushes_heard(&self) -> bool {
        self.pushes_heard.load(Ordering::Acquire)
    }

    /// The time between two readings without a sign, where `interval` is the one without pushes.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        if self.pushes_heard() {
            interval.saturating_mul(RARER)
        } else {
            interval
        }
    }

    /// Waits for a nudge and until it is quiet after it, or until `due`. Whether there was a nudge.
    pub(super) async fn wait(&self, due: Instant) -> bool {
        if timeout_at(due, self.nudged()).await.is_err() {
            return false;
        }
        let until = Instant::now() + SETTLE_LONGEST;
        let quiet = async { while timeout(SETTLE, self.nudged()).await.is_ok() {} };
        let _ = timeout_at(until, quiet).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_nudge_is_answered_once_it_is_quiet() {
        let signals = Signals::default();
        let began = Instant::now();
        signals.nudge();
        assert!(signals.wait(began + LONG).await);
        assert_eq!(began.elapsed(), SETTLE);
        assert!(!signals.wait(Instant::now() + LONG).await);
        assert_eq!(began.elapsed(), SETTLE + LONG);
    }

    #[tokio::test(start_paused = true)]
    async fn nudges_without_end_put_it_off_only_so_far() {
        let signals = Arc::new(Signals::default());
        let nudging = tokio::spawn({
            let signals = Arc::clone(&signals);
            async move {
                loop {
                    signals.nudge();
                    tokio::time::sleep(SETTLE / 3).await;
                }
            }
        });
        let began = Instant::now();
        assert!(signals.wait(began + LONG).await);
        let waited = began.elapsed();
        assert!(waited >= SETTLE_LONGEST && waited <= SETTLE_LONGEST + SETTLE);
        nudging.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn only_writes_of_the_maps_own_keys_are_signs() {
        let signals = Signals::default();
        let own = MapKeys::named("cart").unwrap();
        let key = |key: &str| key.as_bytes().to_vec();
        for (heard, sign) in [
            (Heard::Keys(vec![key("cart:123"), key("cart_MET")]), false),
            (Heard::Keys(vec![]), false),
            (Heard::Keys(vec![key("cart:123"), key("cart")]), true),
            (Heard::Keys(vec![key("cart_META")]), true),
            (Heard::Keys(vec![key("cart_HISTORY")]), true),
            (Heard::All, true),
        ] {
            signals.hear(&own, heard.clone());
            assert_eq!(signals.wait(Instant::now() + LONG).await, sign, "{heard:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_make_readings_rarer_and_their_loss_is_a_sign() {
        let signals = Signals::default();
        assert_eq!(signals.pause(SETTLE), SETTLE);
        signals.hear_pushes(true);
        assert_eq!(signals.pause(SETTLE), SETTLE * 10);
        assert!(signals.wait(Instant::now() + LONG).await);
        signals.hear_pushes(true);
        assert!(!signals.wait(Instant::now() + LONG).await);
        signals.hear_pushes(false);
        assert!(signals.wait(Instant::now() + LONG).await);
        assert!(!signals.pushes_heard());
    }
}
