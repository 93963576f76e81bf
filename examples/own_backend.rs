//! A store of one's own: a map under a lock, with the four methods that move data and nothing else.
//!
//! Run it with `cargo run --example own_backend`; test it with
//! `cargo test --example own_backend --features conformance`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder::core::Core;
use larder::{Answer, Backend, Cache, Draft, Entry, Result, Stored, Ttl, Want, When};

/// Clones share the map and the core: a clone is another handle on the same store.
#[derive(Clone, Debug, Default)]
struct MapStore {
    /// Settings, computes under way, counters. All that single flight and write fencing ask of a store is to have one.
    core: Core,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl MapStore {
    /// Runs `act` on the entries that are still alive.
    fn with<R>(&self, act: impl FnOnce(&mut HashMap<String, Entry>) -> R) -> R {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.core.now();
        entries.retain(|_, entry| !entry.is_expired(now));
        act(&mut entries)
    }
}

#[async_trait::async_trait]
impl Backend for MapStore {
    fn core(&self) -> &Core {
        &self.core
    }

    async fn fetch(&self, key: &str, _want: Want) -> Result<Answer> {
        Ok(self.with(|entries| entries.get(key).cloned()).into())
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        Ok(self.with(|entries| {
            // What is kept past its life is nothing to a write.
            let now = self.core.now();
            let live = |entry: &Entry| entry.is_live(now);
            if draft.when == When::IfAbsent && entries.get(key).is_some_and(live) {
                return Stored::Present;
            }
            // One whose life is over already removes what stood there: the next look drops it.
            entries.insert(key.to_owned(), draft.entry);
            Stored::Done
        }))
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let removed = self.with(|entries| entries.remove(key));
        Ok(removed.is_some_and(|entry| entry.is_live(self.core.now())))
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.with(|entries| entries.retain(|key, _| !key.starts_with(prefix)));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cache = MapStore::default();
    cache
        .set("motto", "store less".to_owned(), Ttl::Forever)
        .await?;
    println!("motto: {:?}", cache.get::<String>("motto").await?);

    // Single flight comes with the `Cache` above the store.
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let cache = cache.clone();
        callers.spawn(async move {
            let slow = || async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                42_u64
            };
            cache
                .get_or_set("answer", Duration::from_secs(60), slow)
                .await
        });
    }
    for answer in callers.join_all().await {
        assert_eq!(answer?, 42);
    }
    println!("1000 callers, {} compute", cache.stats().computes);

    // What a store does not offer says so.
    let error = cache.incr("visits", 1).await.unwrap_err();
    println!("{error}");
    Ok(())
}

// In a crate of your own: `larder = { version = "...", features = ["conformance"] }` among the dev-dependencies.
#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::MapStore;
    use larder::conformance::Profile;

    async fn fresh() -> MapStore {
        MapStore::default()
    }

    larder::conformance!(
        map_store,
        fresh,
        Profile::full().without_counters().without_touch()
    );
}
