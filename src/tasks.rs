//! Work that nobody waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::clock::Moment;

/// The tasks of a store that go on when their callers are gone. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one, on the runtime of the caller.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock();
        // Those that have ended are let go of.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits for all of them, so long at most; what is not done by then is dropped.
    pub(crate) async fn drain(&self, bound: Duration) {
        let mut tasks = std::mem::take(&mut *self.lock());
        if tasks.is_empty() {
            return;
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::runtime::Handle::try_current().is_err() {
            all.await;
        } else if tokio::time::timeout(bound, all).await.is_err() {
            tracing::warn!(target: "larder", event = "computes_dropped", "computes were still under way at shutdown");
        }
    }
}

/// Keys whose refresh failed, remembered at most. Past that all are forgotten, and each may be tried once more.
const MAX_COOLING: usize = 4096;

/// How many values are refreshed ahead of their time, and which must wait before that is tried again.
#[derive(Debug)]
pub(crate) struct Refreshes {
    places: Arc<Semaphore>,
    cooling: Mutex<HashMap<Box<str>, Moment, ahash::RandomState>>,
}

impl Refreshes {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            cooling: Mutex::default(),
        }
    }

    fn cooling(&self) -> MutexGuard<'_, HashMap<Box<str>, Moment, ahash::RandomState>> {
        self.cooling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one, if there is one left and the key is not to be left alone.
    pub(crate) fn place(&self, key: &str, now: Moment) -> Option<OwnedSemaphorePermit> {
        let mut cooling = self.cooling();
        if let Some(until) = cooling.get(key) {
            if now < *until {
                return None;
            }
            cooling.remove(key);
        }
        drop(cooling);
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Leaves a key alone until then.
    pub(crate) fn cool(&self, key: &str, until: Moment) {
        let mut cooling = self.cooling();
        if cooling.len() >= MAX_COOLING {
            cooling.clear();
        }
        cooling.insert(key.into(), until);
    }
}
