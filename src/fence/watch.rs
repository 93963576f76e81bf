//! Those who wait for a write of one key.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::coherence::Invalidation;

type Waiting = HashMap<Box<str>, (Arc<Notify>, usize), ahash::RandomState>;

/// Who waits for which key. One for each compute that another process has, so there are few.
#[derive(Default)]
pub(super) struct Watches {
    waiting: Mutex<Waiting>,
    count: AtomicUsize,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self, key: &str) -> Watching<'_> {
        let mut waiting = self.lock();
        let (written, watchers) = waiting.entry(key.into()).or_default();
        *watchers += 1;
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut told = Box::pin(Arc::clone(written).notified_owned());
        // Heard from here on, not from when it is first looked at.
        told.as_mut().enable();
        Watching {
            watches: self,
            key: key.into(),
            told,
        }
    }

    pub(super) fn tell(&self, what: Invalidation<'_>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiting = self.lock();
        match what {
            Invalidation::Keys(keys) => {
                let written = keys.iter().filter_map(|key| waiting.get(*key));
                written.for_each(|(written, _)| written.notify_waiters());
            }
            Invalidation::Under(_) | Invalidation::All | Invalidation::Gap => {
                waiting
                    .values()
                    .for_each(|(written, _)| written.notify_waiters());
            }
        }
    }
}

/// Ends with the next write of a key that is heard of.
pub(crate) struct Watching<'w> {
    watches: &'w Watches,
    key: Box<str>,
    told: Pin<Box<OwnedNotified>>,
}

impl Future for Watching<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.told.as_mut().poll(cx)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut waiting = self.watches.lock();
        if let Some((_, watchers)) = waiting.get_mut(&*self.key) {
            *watchers -= 1;
            if *watchers == 0 {
                waiting.remove(&*self.key);
            }
        }
        self.watches.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn who_watches_a_key_hears_of_it_alone() {
        let watches = Watches::default();
        let (mut one, mut other) = (watches.watch("a"), watches.watch("b"));
        watches.tell(Invalidation::Keys(&["a", "c"]));
        assert!((&mut one).now_or_never().is_some());
        assert!((&mut other).now_or_never().is_none());
        watches.tell(Invalidation::Gap);
        assert!((&mut other).now_or_never().is_some());
        drop((one, other));
        assert!(watches.lock().is_empty());
        assert_eq!(watches.count.load(Ordering::SeqCst), 0);
    }
}
