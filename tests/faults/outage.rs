//! A server that is away for long, and an origin that is slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder::{Cache, Moka, Redis, SharedCache, Tiered};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::flood::resident;
use crate::load::{MINUTE, keys, until};
use crate::report::{D, Report};
use crate::support::Server;

const SECOND: Duration = Duration::from_secs(1);

/// An origin that takes its time, and counts who asks it for what at once.
#[derive(Clone, Default)]
struct Origin(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    now: HashMap<String, u64>,
    most: u64,
    calls: u64,
}

impl Origin {
    async fn load(&self, key: &str, takes: Duration) -> String {
        self.asked(|asked| {
            let now = asked.now.entry(key.to_owned()).or_default();
            *now += 1;
            asked.most = asked.most.max(*now);
            asked.calls += 1;
        });
        sleep(takes).await;
        self.asked(|asked| *asked.now.entry(key.to_owned()).or_default() -= 1);
        key.to_owned()
    }

    fn asked<R>(&self, with: impl FnOnce(&mut Asked) -> R) -> R {
        with(&mut self.0.lock().expect("no panic"))
    }

    /// The most who asked for one key at once.
    fn most(&self) -> u64 {
        self.asked(|asked| asked.most)
    }

    fn calls(&self) -> u64 {
        self.asked(|asked| asked.calls)
    }
}

/// The longest call, and how many failed, of so many callers that ask for the same key at once, again and again.
async fn callers(
    cache: &SharedCache,
    origin: &Origin,
    count: usize,
    name: &str,
) -> (Duration, u64) {
    let (mut longest, mut errors) = (Duration::ZERO, 0);
    for round in 0..8 {
        let key = format!("{name}:{count}:{round}");
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let (cache, origin, key) = (cache.clone(), origin.clone(), key.clone());
            calls.spawn(async move {
                let began = Instant::now();
                let load = || origin.load(&key, D / 5);
                let answer = cache.get_or_set(&key, MINUTE, load).await;
                (answer.is_ok_and(|answer| answer == key), began.elapsed())
            });
        }
        for (right, took) in calls.join_all().await {
            longest = longest.max(took);
            errors += u64::from(!right);
        }
    }
    (longest, errors)
}

/// One and a thousand callers of keys whose server is gone, or frozen, and whose origin takes 50 ms.
pub(crate) async fn no_server_and_a_slow_origin() -> Report {
    let mut report = Report::default();
    for frozen in [false, true] {
        let server = Server::start().await;
        let redis = Redis::connect(&server.url(0)).await.expect("connected");
        let cache: SharedCache = Arc::new(redis.clone());
        // A server that is known to be gone costs nothing; one that does not answer, its bound.
        let (state, bound) = if frozen {
            server.pause();
            ("frozen", D)
        } else {
            server.kill();
            until(SECOND, async || !redis.status().up).await;
            ("gone", Duration::ZERO)
        };
        for count in [1, 1000] {
            let origin = Origin::default();
            let (longest, errors) = callers(&cache, &origin, count, state).await;
            let what = format!("{state}, {count} callers: the origin and");
            report.within(&what, longest, D / 5 + bound);
            report.none("errors", errors);
            report.at_most("calls of the origin for a key at a time", origin.most(), 1);
        }
        if frozen {
            server.resume();
        }
    }
    report
}

/// What callers came to so far.
#[derive(Default)]
struct Sums {
    calls: AtomicU64,
    errors: AtomicU64,
    longest_us: AtomicU64,
}

/// Asks for keys in turn, until it is done.
async fn asking(
    cache: SharedCache,
    origin: Origin,
    keys: Vec<String>,
    sums: Arc<Sums>,
    done: Arc<AtomicBool>,
) {
    for key in keys.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        let load = || origin.load(key, Duration::from_millis(5));
        let answer = cache.get_or_set(key, MINUTE, load).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        sums.calls.fetch_add(1, Ordering::Relaxed);
        let errors = u64::from(answer.is_err());
        sums.errors.fetch_add(errors, Ordering::Relaxed);
        sums.longest_us.fetch_max(took, Ordering::Relaxed);
        sleep(Duration::from_millis(10)).await;
    }
}

/// Two hundred keys are asked for some thousands of times a second while the server is away for six seconds.
pub(crate) async fn server_away_for_long() -> Report {
    const KEYS: usize = 200;
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.expect("connected");
    let cache = Tiered::builder(Moka::new(10_000), redis);
    let cache: SharedCache = Arc::new(cache.max_computes(16).build());
    let (origin, sums) = (Origin::default(), Arc::<Sums>::default());
    let done = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    for caller in 0..50 {
        let mut keys = keys(KEYS);
        keys.rotate_left(caller * 4);
        let (sums, done) = (Arc::clone(&sums), Arc::clone(&done));
        working.spawn(asking(cache.clone(), origin.clone(), keys, sums, done));
    }
    sleep(SECOND * 2).await;
    let memory = resident();
    server.kill();
    // Until it is known.
    sleep(SECOND / 2).await;
    let so_far = || (origin.calls(), sums.calls.load(Ordering::Relaxed));
    let (before, away) = (so_far(), Instant::now());
    sleep(SECOND * 6).await;
    let after = so_far();
    let seconds = away.elapsed().as_secs_f64();
    let rate = |count: u64| (count as f64 / seconds) as u64;
    let grown = resident().saturating_sub(memory);
    done.store(true, Ordering::Relaxed);
    working.join_all().await;
    let mut report = Report::default();
    report.at_least("calls a second", rate(after.1 - before.1), 2000);
    // A value is kept for a second, and computed anew then.
    report.at_most("computes a second", rate(after.0 - before.0), KEYS as u64);
    report.at_most("of a key at a time", origin.most(), 1);
    report.none("errors", sums.errors.load(Ordering::Relaxed));
    let longest = Duration::from_micros(sums.longest_us.load(Ordering::Relaxed));
    report.within("max get_or_set", longest, D);
    report.at_most("MiB more in memory", grown >> 20, 16);
    report
}
