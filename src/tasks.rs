//! Work that nobody waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

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
