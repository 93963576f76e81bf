//! The suite on every store and every wrapper that needs no server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder::conformance::Profile;
use larder::core::{Core, Settings};
use larder::testing::{Faulty, Recording};
use larder::{
    Answer, Backend, Draft, Entry, Eviction, Moka, MokaBuilder, Null, Prefixed, Result,
    SharedCache, Stored, Tiered, Want, When,
};

/// Long enough for ten thousand callers to take their seats on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

fn builder() -> MokaBuilder {
    Moka::builder()
        .eviction(Eviction::Lru)
        .round_trip(true)
        .leader_patience(PATIENCE)
}

fn memory() -> Moka {
    builder().max_entries(100_000).build()
}

async fn null() -> Null {
    let mut settings = Settings::default();
    settings.leader_patience = PATIENCE;
    Null::with(settings)
}
larder::conformance!(on_null, null, Profile::null());

async fn moka() -> Moka {
    memory()
}
larder::conformance!(on_moka, moka, Profile::full());

async fn bounded_by_bytes() -> Moka {
    builder().max_bytes(256 << 20).build()
}
larder::conformance!(on_moka_by_bytes, bounded_by_bytes, Profile::full());

/// Objects as they were given, without a round trip.
async fn unchecked() -> Moka {
    builder().round_trip(false).build()
}
larder::conformance!(on_moka_unchecked, unchecked, Profile::full());

async fn prefixed() -> Prefixed<Moka> {
    Prefixed::new(memory(), "app:")
}
larder::conformance!(on_prefixed, prefixed, Profile::full());

async fn tiered() -> Tiered<Moka, Moka> {
    Tiered::new(memory(), memory())
}
larder::conformance!(on_tiered, tiered, Profile::full());

/// Upper memory with room for next to nothing: most reads go below.
async fn tiny_upper() -> Tiered<Moka, Moka> {
    let upper = builder().max_entries(2).eviction(Eviction::TinyLfu);
    Tiered::new(upper.build(), memory())
}
larder::conformance!(on_tiered_with_a_tiny_upper, tiny_upper, Profile::full());

async fn nested_below() -> Tiered<Moka, Tiered<Moka, Moka>> {
    Tiered::new(memory(), Tiered::new(memory(), memory()))
}
larder::conformance!(on_tiered_over_tiered, nested_below, Profile::full());

async fn nested_above() -> Tiered<Tiered<Moka, Moka>, Moka> {
    Tiered::new(Tiered::new(memory(), memory()), memory())
}
larder::conformance!(on_tiered_under_tiered, nested_above, Profile::full());

async fn over_prefixed() -> Tiered<Moka, Prefixed<Moka>> {
    Tiered::new(memory(), Prefixed::new(memory(), "app:"))
}
larder::conformance!(on_tiered_over_prefixed, over_prefixed, Profile::full());

async fn under_prefixed() -> Prefixed<Tiered<Moka, Moka>> {
    Prefixed::new(Tiered::new(memory(), memory()), "app:")
}
larder::conformance!(on_prefixed_tiered, under_prefixed, Profile::full());

async fn erased() -> SharedCache {
    Arc::new(memory())
}
larder::conformance!(on_erased, erased, Profile::full());

async fn faultless() -> Faulty<Moka> {
    Faulty::new(memory())
}
larder::conformance!(on_faultless, faultless, Profile::full());

async fn recorded() -> Recording<Moka> {
    Recording::new(memory())
}
larder::conformance!(on_recorded, recorded, Profile::full());

/// Memory over a store that is always asked, as a server is.
async fn over_remote() -> Tiered<Moka, Faulty<Moka>> {
    Tiered::new(memory(), Faulty::remote(memory()))
}
larder::conformance!(on_tiered_over_remote, over_remote, Profile::full());

/// Two remote stores: the upper one is no memory.
async fn all_remote() -> Tiered<Faulty<Moka>, Faulty<Moka>> {
    Tiered::new(Faulty::remote(memory()), Faulty::remote(memory()))
}
larder::conformance!(on_tiered_of_remotes, all_remote, Profile::full());

async fn over_null() -> Tiered<Null, Moka> {
    Tiered::new(Null::new(), memory())
}
larder::conformance!(on_tiered_under_null, over_null, Profile::full());

/// A store of one's own, with what is required and nothing else.
#[derive(Clone, Debug)]
struct Map {
    core: Core,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl Map {
    fn with<R>(&self, act: impl FnOnce(&mut HashMap<String, Entry>) -> R) -> R {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.core.now();
        entries.retain(|_, entry| !entry.is_expired(now));
        act(&mut entries)
    }
}

#[async_trait::async_trait]
impl Backend for Map {
    fn core(&self) -> &Core {
        &self.core
    }

    async fn fetch(&self, key: &str, _want: Want) -> Result<Answer> {
        Ok(self.with(|entries| entries.get(key).cloned()).into())
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        Ok(self.with(|entries| {
            let now = self.core.now();
            let live = |entry: &Entry| entry.is_live(now);
            if draft.when == When::IfAbsent && entries.get(key).is_some_and(live) {
                return Stored::Present;
            }
            entries.insert(key.to_owned(), draft.entry);
            Stored::Done
        }))
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        let now = self.core.now();
        let removed = self.with(|entries| entries.remove(key));
        Ok(removed.is_some_and(|entry| entry.is_live(now)))
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.with(|entries| entries.retain(|key, _| !key.starts_with(prefix)));
        Ok(())
    }
}

fn own() -> Map {
    let mut settings = Settings::default();
    settings.leader_patience = PATIENCE;
    Map {
        core: Core::new(settings),
        entries: Arc::default(),
    }
}

fn least() -> Profile {
    Profile::full().without_counters().without_touch()
}

/// With a guard, as a factory that starts servers has.
async fn own_guarded() -> (Map, String) {
    (own(), "kept alive".to_owned())
}
larder::conformance!(on_own_store, own_guarded, least());

async fn over_own() -> Tiered<Moka, Map> {
    Tiered::new(memory(), own())
}
larder::conformance!(on_tiered_over_own_store, over_own, least());

async fn under_own() -> Tiered<Map, Moka> {
    Tiered::new(own(), memory())
}
larder::conformance!(on_tiered_under_own_store, under_own, Profile::full());
