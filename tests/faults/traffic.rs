//! Writers and readers of the same keys, in processes of their own as far as the library can tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::coherence::Hearing;
use larder::{Backend, Cache, Moka, Peek, Redis, Tiered};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::ledger::{Lags, Ledger};
use crate::load::{MINUTE, Sealed, Tally, until};

/// Keys that a reader reads before it rests.
const BURST: usize = 16;
const REST: Duration = Duration::from_millis(1);

/// Some keys, what was written there, and whether it is over.
#[derive(Clone)]
pub(crate) struct Traffic {
    pub(crate) ledger: Arc<Ledger>,
    keys: Arc<[String]>,
    over: Arc<AtomicBool>,
}

/// What readers met.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    pub(crate) lags: Lags,
}

impl Traffic {
    pub(crate) fn over(keys: &[String]) -> Self {
        Self {
            ledger: Arc::new(Ledger::of(keys)),
            keys: keys.into(),
            over: Arc::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The next write of a key: every fifth is a delete.
    async fn write_key(&self, cache: &impl Cache, key: &str, tally: &mut Tally) {
        let version = self.ledger.begin(key);
        let written = if version.is_multiple_of(5) {
            tally.time(cache.delete(key)).await.map(|_| ())
        } else {
            let value = Sealed::of(key, version);
            tally.time(cache.set(key, value, MINUTE)).await
        };
        if written.is_ok() {
            self.ledger.acknowledge(key, version);
        }
    }

    /// Writes all keys in turn, with a pause after each; `writers` of them share the keys.
    pub(crate) fn write<C: Cache>(
        &self,
        cache: &C,
        writers: usize,
        pause: Duration,
    ) -> JoinHandle<Tally> {
        let mut tasks = JoinSet::new();
        for keys in self.keys.chunks(self.keys.len().div_ceil(writers)) {
            let (traffic, cache, keys) = (self.clone(), cache.clone(), keys.to_vec());
            tasks.spawn(async move {
                let mut tally = Tally::default();
                for key in keys.iter().cycle() {
                    if traffic.is_over() {
                        break;
                    }
                    traffic.write_key(&cache, key, &mut tally).await;
                    sleep(pause).await;
                }
                tally
            });
        }
        tokio::spawn(async move {
            let mut all = Tally::default();
            tasks
                .join_all()
                .await
                .into_iter()
                .for_each(|tally| all.add(tally));
            all
        })
    }

    /// Writes each key once.
    pub(crate) async fn rewrite(&self, cache: &impl Cache) -> Tally {
        let mut tally = Tally::default();
        for key in &*self.keys {
            self.write_key(cache, key, &mut tally).await;
        }
        tally
    }

    /// Reads all keys in turn.
    pub(crate) fn read<C: Cache>(&self, cache: &C) -> JoinHandle<Seen> {
        let (traffic, cache) = (self.clone(), cache.clone());
        tokio::spawn(async move {
            let mut seen = Seen::default();
            for (turn, key) in traffic.keys.iter().cycle().enumerate() {
                if traffic.is_over() {
                    break;
                }
                let began = Instant::now();
                if let Ok(Some(value)) = seen.tally.read(&cache, key).await {
                    let verdict = traffic.ledger.check(key, began, value.version);
                    seen.lags.note(verdict);
                }
                if turn.is_multiple_of(BURST) {
                    sleep(REST).await;
                }
            }
            seen
        })
    }
}

pub(crate) type Tier = Tiered<Moka, Redis>;

/// Memory in front of a server, whose writes are heard.
pub(crate) async fn tier(url: &str, bound: Duration) -> Tier {
    let redis = Redis::connect(url).await.expect("connected");
    heard(tiered(redis, bound)).await
}

/// Waits until the writes of all servers are heard.
pub(crate) async fn heard<L2: Backend>(tier: Tiered<Moka, L2>) -> Tiered<Moka, L2> {
    until(MINUTE / 12, async || is_heard(&tier)).await;
    assert!(is_heard(&tier), "{:?}", tier.coherence());
    tier
}

pub(crate) fn tiered<L2: Backend>(l2: L2, bound: Duration) -> Tiered<Moka, L2> {
    Tiered::builder(Moka::new(100_000), l2)
        .max_staleness(bound)
        .build()
}

/// Whether the writes of all servers are heard.
pub(crate) fn is_heard<L2: Backend>(tier: &Tiered<Moka, L2>) -> bool {
    let sources = tier.coherence();
    let heard = |hearing: &Hearing| matches!(hearing, Hearing::Heard { .. });
    !sources.is_empty() && sources.iter().all(|source| heard(&source.hearing))
}

pub(crate) fn is_in_memory<L2: Backend>(tier: &Tiered<Moka, L2>, key: &str) -> bool {
    matches!(tier.peek(key), Peek::Hit(_))
}

pub(crate) fn gaps<L2: Backend>(tier: &Tiered<Moka, L2>) -> u64 {
    tier.coherence().iter().map(|source| source.gaps).sum()
}
