//! Processes that share a store of this test's own, which can be held up where a server cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use larder::core::Core;
use larder::{
    Answer, Backend, Cache, Context, Draft, ErrorKind, Moka, Options, RefreshAhead, Stored, Ticket,
    Want,
};
use tokio::sync::Semaphore;

use crate::fleet::eventually;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(60);
const PATIENT: Duration = Duration::from_secs(10);

/// A process: flights and settings of its own over the store of all. What it notes before a compute can be held up, and its reads can
/// find that a tag is invalidated right after them.
#[derive(Clone)]
struct Process {
    store: Moka,
    core: Core,
    begins: Arc<Semaphore>,
    held: Arc<Semaphore>,
    /// Reads until a tag is invalidated right after one.
    reads: Arc<AtomicUsize>,
}

impl Process {
    fn over(store: &Moka) -> Self {
        Self {
            store: store.clone(),
            core: Core::default(),
            begins: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            held: Arc::new(Semaphore::new(0)),
            reads: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    /// One whose computes do not begin before [`go_on`](Self::go_on).
    fn held_up(store: &Moka) -> Self {
        Self {
            begins: Arc::new(Semaphore::new(0)),
            ..Self::over(store)
        }
    }

    /// Waits until a compute of it is about to begin.
    async fn is_held(&self) {
        let held = tokio::time::timeout(PATIENT, self.held.acquire()).await;
        held.expect("a compute is about to begin").unwrap().forget();
    }

    fn go_on(&self) {
        self.begins.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

#[async_trait]
impl Backend for Process {
    fn core(&self) -> &Core {
        &self.core
    }

    async fn begin(&self, keys: &[&str], namespace: usize) -> Vec<Ticket> {
        self.held.add_permits(1);
        self.begins.acquire().await.unwrap().forget();
        self.store.begin(keys, namespace).await
    }

    fn keeps_tags(&self) -> bool {
        true
    }

    async fn invalidate(&self, prefix: &str, tag: &str) -> larder::Result<()> {
        self.store.invalidate(prefix, tag).await
    }

    async fn fetch(&self, key: &str, want: Want) -> larder::Result<Answer> {
        let answer = self.store.fetch(key, want).await;
        if self.reads.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.store.invalidate("", "t").await?;
        }
        answer
    }

    async fn store(&self, key: &str, draft: Draft) -> larder::Result<Stored> {
        self.store.store(key, draft).await
    }

    async fn remove(&self, key: &str) -> larder::Result<bool> {
        self.store.remove(key).await
    }

    async fn wipe(&self, prefix: &str) -> larder::Result<()> {
        self.store.wipe(prefix).await
    }
}

fn ahead(ttl: Duration) -> Options {
    Options::ttl(ttl).refresh_ahead(RefreshAhead::Within(2 * HOUR))
}

async fn value(value: u32) -> larder::Result<u32> {
    Ok(value)
}

async fn down() -> larder::Result<u32> {
    Err(larder::Error::new(ErrorKind::Compute, "down"))
}

/// A refresh that finds the value rearmed does not give it to callers who take no stale one.
#[tokio::test]
async fn a_refresh_that_meets_a_rearmed_value_gives_it_to_nobody() {
    let store = Moka::new(10);
    let (slow, other) = (Process::held_up(&store), Process::over(&store));
    let graced = || Options::ttl(SHORT).grace(HOUR).throttle(HOUR);
    let stored = other.get_or_set_with("k", graced(), |_: Context| value(1));
    assert_eq!(stored.await.unwrap(), 1);
    // Found due, and held up before it can see what stands there.
    let refreshing = ahead(SHORT).grace(HOUR);
    let hit = slow.get_or_set_with("k", refreshing, |_: Context| value(2));
    assert_eq!(hit.await.unwrap(), 1);
    slow.is_held().await;
    tokio::time::sleep(SHORT).await;
    let stale = other.get_or_set_with("k", graced(), |_: Context| down());
    assert_eq!(stale.await.unwrap(), 1, "rearmed for an hour");
    let strict = slow.get_or_set("k", HOUR, || async { 3_u32 });
    tokio::pin!(strict);
    let early = tokio::time::timeout(SHORT, &mut strict).await;
    assert!(early.is_err(), "it waits for the refresh");
    slow.go_on();
    assert_eq!(strict.await.unwrap(), 2);
}

/// A refresh that was held up does nothing where another process has done it meanwhile, however far chance reaches.
#[tokio::test]
async fn a_refresh_that_comes_late_is_done_already() {
    let store = Moka::new(10);
    let (late, other) = (Process::held_up(&store), Process::over(&store));
    let stored = other.get_or_set("k", HOUR, || async { 1_u32 });
    assert_eq!(stored.await.unwrap(), 1);
    let hit = late.get_or_set_with("k", ahead(HOUR), |_: Context| value(3));
    assert_eq!(hit.await.unwrap(), 1);
    late.is_held().await;
    // Two ends that are as near as this are taken for the same.
    tokio::time::sleep(SHORT).await;
    let hit = other.get_or_set_with("k", ahead(HOUR), |_: Context| value(2));
    assert_eq!(hit.await.unwrap(), 1);
    eventually(PATIENT, "it is refreshed", async || {
        other.get::<u32>("k").await.unwrap() == Some(2)
    })
    .await;
    late.go_on();
    late.shutdown().await;
    assert_eq!(late.stats().refreshes, 0);
    assert_eq!(other.get::<u32>("k").await.unwrap(), Some(2));
}

/// What was invalidated after a refresh read it is not stored again, though its compute answers that nothing changed.
#[tokio::test]
async fn a_refresh_does_not_bring_back_what_was_invalidated_after_its_read() {
    let store = Moka::new(10);
    let process = Process {
        // That of the call, and that of the refresh.
        reads: Arc::new(AtomicUsize::new(2)),
        ..Process::over(&store)
    };
    store
        .set("k", "old".to_owned(), Options::ttl(HOUR).tag("t"))
        .await
        .unwrap();
    let unchanged = |context: Context| async move {
        let same = context.unchanged::<String>();
        Ok::<_, larder::Error>(same.unwrap_or_else(|| "new".to_owned()))
    };
    let call = process.get_or_set_with("k", ahead(HOUR), unchanged);
    assert_eq!(call.await.unwrap(), "old");
    process.shutdown().await;
    assert_eq!(process.stats().refreshes, 1);
    assert_eq!(store.get::<String>("k").await.unwrap(), None);
}
