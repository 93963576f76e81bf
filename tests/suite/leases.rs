//! One compute of all processes. A handle of its own is a process of its own to a server: nothing else is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use larder::testing::{Fault, Faulty};
use larder::{
    Cache, Context, ErrorKind, Moka, Options, Redis, RefreshAhead, Report, SharedCache, Source,
    Tiered,
};
use redis::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, eventually};
use crate::support::Server;

const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_millis(300);
const PATIENT: Duration = Duration::from_secs(10);

fn leased() -> Options {
    Options::ttl(HOUR).lease(LEASE)
}

async fn redis(server: &Server, patience: Duration) -> Redis {
    Redis::builder(&server.url(0))
        .leader_patience(patience)
        .connect()
        .await
        .expect("connect")
}

/// Handles on one server, with memory and without.
async fn processes(server: &Server, count: usize) -> Vec<SharedCache> {
    let mut all: Vec<SharedCache> = Vec::new();
    for at in 0..count {
        let redis = redis(server, PATIENT).await;
        all.push(match at % 2 {
            0 => Arc::new(redis),
            _ => Arc::new(Tiered::new(Moka::new(1000), redis)),
        });
    }
    all
}

/// Of a compute that others may have run as well.
#[derive(Clone, Default)]
struct Origin {
    computes: Arc<AtomicU32>,
}

impl Origin {
    async fn load(self, takes: Duration) -> larder::Result<u32> {
        let number = self.computes.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(takes).await;
        Ok(number)
    }

    fn so_far(&self) -> u32 {
        self.computes.load(Ordering::SeqCst)
    }
}

async fn crowd(caches: &[SharedCache], callers: usize, options: Options) -> (u32, Vec<u32>) {
    let (origin, mut calls) = (Origin::default(), JoinSet::new());
    for cache in caches {
        for _ in 0..callers {
            let (cache, origin, options) = (cache.clone(), origin.clone(), options.clone());
            calls.spawn(async move {
                let load = |_: Context| origin.load(Duration::from_millis(100));
                cache.get_or_set_with("cold", options, load).await.unwrap()
            });
        }
    }
    let answers = calls.join_all().await;
    (origin.so_far(), answers)
}

#[tokio::test]
async fn a_cold_key_is_computed_once_in_the_fleet() {
    let server = Server::start().await;
    let caches = processes(&server, 4).await;
    let (computes, answers) = crowd(&caches, 250, leased()).await;
    assert_eq!((computes, answers), (1, vec![1; 1000]));
    assert_eq!(lease_of(&server, "cold").await, None);
}

#[tokio::test]
async fn without_a_lease_each_process_computes_once() {
    let server = Server::start().await;
    let caches = processes(&server, 4).await;
    let (computes, answers) = crowd(&caches, 250, Options::ttl(HOUR)).await;
    assert!((1..=4).contains(&computes), "{computes}");
    assert_eq!(answers.len(), 1000);
}

#[tokio::test]
async fn a_ring_leases_on_each_keys_own_node() {
    let fleet = Fleet::new(3).await;
    let (one, other) = (fleet.connect().await, fleet.connect().await);
    for key in ["a", "b", "c", "d", "e"] {
        let origin = Origin::default();
        let call = |cache: &larder::DistributedRedis| {
            let (cache, origin) = (cache.clone(), origin.clone());
            tokio::spawn(async move {
                let load = |_: Context| origin.load(Duration::from_millis(50));
                cache.get_or_set_with(key, leased(), load).await.unwrap()
            })
        };
        let calls = [call(&one), call(&other), call(&one)];
        for call in calls {
            assert_eq!(call.await.unwrap(), 1);
        }
        assert_eq!(origin.so_far(), 1, "{key}");
    }
}

/// The lease of a key, and how long it lasts. What notes computes without one is shorter.
async fn lease_of(server: &Server, key: &str) -> Option<(Vec<u8>, i64)> {
    let lease = format!("lk:{key}");
    let token = match server.raw(0, &["GET", &lease]).await {
        Value::BulkString(token) if token.len() == 16 => token,
        _ => return None,
    };
    match server.raw(0, &["PTTL", &lease]).await {
        Value::Int(left) => Some((token, left)),
        other => panic!("{other:?}"),
    }
}

/// Another process computes, for all that the server knows.
async fn someone_computes(server: &Server, key: &str, life: Duration) {
    let (lease, life) = (format!("lk:{key}"), life.as_millis().to_string());
    let token = "0123456789abcdef";
    server.raw(0, &["SET", &lease, token, "PX", &life]).await;
}

/// A compute that stops until it is let on.
#[derive(Clone)]
struct Stop {
    entered: Arc<Semaphore>,
    on: Arc<Semaphore>,
}

impl Stop {
    fn new() -> Self {
        let shut = || Arc::new(Semaphore::new(0));
        Self {
            entered: shut(),
            on: shut(),
        }
    }

    async fn compute(self, value: u32) -> larder::Result<u32> {
        self.entered.add_permits(1);
        self.on
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        Ok(value)
    }

    async fn entered(&self) {
        self.entered
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
    }

    fn on(&self) {
        self.on.add_permits(1);
    }
}

/// A call whose compute stops, and what it comes to.
async fn computing(cache: &Redis, key: &'static str, options: Options, stop: &Stop) -> Call {
    let (cache, inside) = (cache.clone(), stop.clone());
    let mut call = tokio::spawn(async move {
        let compute = move |_: Context| inside.compute(1);
        cache.get_or_set_with(key, options, compute).await.unwrap()
    });
    tokio::select! {
        () = stop.entered() => call,
        found = &mut call => panic!("{key}: nothing was computed: {found:?}"),
    }
}

type Call = tokio::task::JoinHandle<u32>;

#[tokio::test]
async fn a_lease_is_renewed_while_its_holder_computes() {
    let server = Server::start().await;
    let (one, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let origin = Origin::default();
    let call = |cache: &Redis| {
        let (cache, origin) = (cache.clone(), origin.clone());
        tokio::spawn(async move {
            let load = |_: Context| origin.load(4 * LEASE);
            cache.get_or_set_with("slow", leased(), load).await.unwrap()
        })
    };
    let calls = [call(&one), call(&other)];
    for call in calls {
        assert_eq!(call.await.unwrap(), 1);
    }
    assert_eq!(origin.so_far(), 1);
}

#[tokio::test]
async fn a_compute_that_errs_or_is_dropped_gives_its_lease_back() {
    let server = Server::start().await;
    let (one, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let long = || Options::ttl(HOUR).lease(HOUR);
    let errs = || async { Err::<u32, _>(larder::Error::new(ErrorKind::Compute, "down")) };
    one.try_get_or_set("a", long(), errs).await.unwrap_err();
    eventually(PATIENT, "it is given back", async || {
        lease_of(&server, "a").await.is_none()
    })
    .await;
    let stop = Stop::new();
    let dropped = tokio::spawn({
        let (one, stop) = (one.clone(), stop.clone());
        async move {
            let compute = || stop.compute(1);
            one.try_get_or_set::<_, larder::Error, _, _>("a", long(), compute)
                .await
        }
    });
    stop.entered().await;
    dropped.abort();
    let got = other.get_or_set("a", long(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2);
}

#[tokio::test]
async fn a_lost_holder_is_replaced_when_its_lease_ends() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    someone_computes(&server, "a", LEASE).await;
    let begun = Instant::now();
    let got = cache.get_or_set("a", leased(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2);
    assert!(begun.elapsed() >= LEASE - Duration::from_millis(5));
}

#[tokio::test]
async fn the_late_value_of_a_holder_who_was_frozen_is_refused() {
    let server = Server::start().await;
    let (frozen, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let stop = Stop::new();
    let call = computing(&frozen, "a", leased(), &stop).await;
    // To the server it looks as if nobody had renewed it.
    server.raw(0, &["DEL", "lk:a"]).await;
    let got = other.get_or_set("a", leased(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2);
    stop.on();
    assert_eq!(
        call.await.unwrap(),
        1,
        "its own caller has what it computed"
    );
    assert_eq!(frozen.stats().outrun, 1);
    assert_eq!(other.get::<u32>("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn who_gives_up_waiting_computes_and_stores() {
    let server = Server::start().await;
    let cache = redis(&server, LEASE).await;
    someone_computes(&server, "a", HOUR).await;
    let begun = Instant::now();
    let got = cache.get_or_set("a", leased(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2);
    assert!(begun.elapsed() >= LEASE && begun.elapsed() < PATIENT);
    assert_eq!(cache.get::<u32>("a").await.unwrap(), Some(2));
    assert_eq!(lease_of(&server, "a").await, None, "the other's is void");
}

#[tokio::test]
async fn a_hard_timeout_ends_waiting_for_another_process() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    someone_computes(&server, "a", HOUR).await;
    let options = leased().hard_timeout(LEASE);
    let begun = Instant::now();
    let late = cache
        .get_or_set("a", options, || async {
            tokio::time::sleep(PATIENT).await;
            2_u32
        })
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < PATIENT / 2);
}

#[tokio::test]
async fn a_stale_value_is_answered_while_another_process_computes() {
    let server = Server::start().await;
    let caches = processes(&server, 2).await;
    let short = Duration::from_millis(30);
    let graced = || Options::ttl(short).grace(HOUR).lease(HOUR);
    for cache in caches {
        cache.delete("a").await.unwrap();
        let stored = cache.get_or_set("a", graced(), || async { 1_u32 });
        stored.await.unwrap();
        eventually(PATIENT, "its life is over", async || {
            cache.get::<u32>("a").await.unwrap().is_none()
        })
        .await;
        someone_computes(&server, "a", HOUR).await;
        let report = Report::new();
        let options = graced().soft_timeout(short).report(&report);
        let got = cache.get_or_set("a", options, || async { 2_u32 }).await;
        assert_eq!((got.unwrap(), report.source()), (1, Some(Source::Stale)));
    }
}

#[tokio::test]
async fn a_delete_ends_the_lease_and_what_is_computed_under_it() {
    let server = Server::start().await;
    let (one, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let long = || Options::ttl(HOUR).lease(HOUR);
    let stop = Stop::new();
    let call = computing(&one, "a", long(), &stop).await;
    other.delete("a").await.unwrap();
    let got = other.get_or_set("a", long(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2, "nobody is waited for");
    stop.on();
    call.await.unwrap();
    assert_eq!(one.get::<u32>("a").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_value_of_another_type_is_computed_under_a_lease() {
    let server = Server::start().await;
    let (one, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let text = one.get_or_set("a", leased(), || async { "text".to_owned() });
    text.await.unwrap();
    let number = other.get_or_set("a", leased(), || async { 2_u32 }).await;
    assert_eq!(number.unwrap(), 2);
    assert_eq!(one.get::<u32>("a").await.unwrap(), Some(2));
}

/// A process without leases neither lengthens one nor is in its way.
#[tokio::test]
async fn computes_without_a_lease_leave_that_of_others() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    someone_computes(&server, "a", Duration::from_secs(30)).await;
    let stop = Stop::new();
    let call = computing(&cache, "a", HOUR.into(), &stop).await;
    let (token, left) = lease_of(&server, "a").await.expect("it is there still");
    assert_eq!(token, b"0123456789abcdef");
    assert!(left <= 30_000, "{left}");
    stop.on();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(cache.get::<u32>("a").await.unwrap(), Some(1));
}

#[tokio::test]
async fn one_process_refreshes_ahead() {
    // Whether computes are leased or not.
    for lease in [HOUR, Duration::ZERO] {
        refreshed_once(lease).await;
    }
}

async fn refreshed_once(lease: Duration) {
    let server = Server::start().await;
    let caches = processes(&server, 4).await;
    let options = || {
        let ahead = RefreshAhead::Within(2 * HOUR);
        Options::ttl(HOUR).lease(lease).refresh_ahead(ahead)
    };
    let first = |_: Context| async { Ok::<_, larder::Error>(1_u32) };
    let stored = caches[0].get_or_set_with("a", options(), first).await;
    stored.unwrap();
    let stop = Stop::new();
    for cache in &caches {
        let stop = stop.clone();
        let anew = move |_: Context| stop.compute(2);
        let hit = cache.get_or_set_with("a", options(), anew).await;
        assert_eq!(hit.unwrap(), 1);
    }
    stop.entered().await;
    let refreshes = || {
        caches
            .iter()
            .map(|cache| cache.stats().refreshes)
            .sum::<u64>()
    };
    // The others have asked by now, and were refused.
    for cache in &caches {
        if cache.stats().refreshes == 0 {
            cache.shutdown().await;
        }
    }
    stop.on();
    let again = redis(&server, PATIENT).await;
    eventually(PATIENT, "it is stored", async || {
        again.get::<u32>("a").await.unwrap() == Some(2)
    })
    .await;
    assert_eq!(refreshes(), 1);
}

#[tokio::test]
async fn a_dead_server_costs_a_leased_call_no_more_than_another() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    server.kill();
    let begun = Instant::now();
    let got = cache.get_or_set("a", leased(), || async { 2_u32 }).await;
    assert_eq!(got.unwrap(), 2);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A value may be past its life, or gone, when what replaces it is stored.
#[tokio::test]
async fn a_life_that_ends_during_a_compute_is_no_invalidation() {
    let server = Server::start().await;
    let (short, long) = (Duration::from_millis(50), Duration::from_millis(150));
    for (key, life, grace, stale) in [
        ("stale, then gone", short, short, true),
        ("alive, then stale", short, HOUR, false),
        ("alive, then gone", short, Duration::ZERO, false),
    ] {
        let cache = redis(&server, PATIENT).await;
        cache
            .set(key, "old".to_owned(), Options::ttl(life).grace(grace))
            .await
            .unwrap();
        if stale {
            eventually(PATIENT, "it is stale", async || {
                cache.get::<String>(key).await.unwrap().is_none()
            })
            .await;
        }
        let compute = move |_: Context| async move {
            tokio::time::sleep(long).await;
            Ok::<_, larder::Error>("new".to_owned())
        };
        let ahead = RefreshAhead::Within(HOUR);
        let options = Options::ttl(HOUR).grace(HOUR).refresh_ahead(ahead);
        cache.get_or_set_with(key, options, compute).await.unwrap();
        cache.shutdown().await;
        let cache = redis(&server, PATIENT).await;
        let got = cache.get::<String>(key).await.unwrap();
        assert_eq!(got.as_deref(), Some("new"), "{key}");
    }
}

/// Of many keys, each is computed by one process; what another computes is waited for after the own ones are published.
#[tokio::test]
async fn many_keys_are_each_computed_once_in_the_fleet() {
    let fleet = Fleet::new(3).await;
    let keys: Vec<String> = (0..40).map(|at| format!("key {at}")).collect();
    let (computed, mut calls) = (Arc::new(AtomicU32::new(0)), JoinSet::new());
    for at in 0..4 {
        let cache = fleet.connect_with(PATIENT).await;
        let (computed, mut keys) = (Arc::clone(&computed), keys.clone());
        keys.rotate_left(at * 10);
        calls.spawn(async move {
            let compute = |asked: Vec<String>| {
                let computed = Arc::clone(&computed);
                async move {
                    computed.fetch_add(u32::try_from(asked.len()).unwrap(), Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    asked.into_iter().map(|key| (key, 7_u32)).collect()
                }
            };
            // Half of them first, so that no process has all.
            for part in [&keys[..20], &keys[..]] {
                let got = cache
                    .get_or_set_many(part, leased(), compute)
                    .await
                    .unwrap();
                assert!(got.iter().all(|value| *value == Some(7)), "{got:?}");
            }
        });
    }
    calls.join_all().await;
    assert_eq!(computed.load(Ordering::SeqCst), 40);
}

#[tokio::test]
async fn many_keys_of_a_lost_holder_are_computed_when_their_leases_end() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    someone_computes(&server, "a", LEASE).await;
    let compute =
        |asked: Vec<String>| async move { asked.into_iter().map(|key| (key, 7_u32)).collect() };
    let got = cache
        .get_or_set_many(&["a", "b"], leased(), compute)
        .await
        .unwrap();
    assert_eq!(got, [Some(7), Some(7)]);
    assert_eq!(
        cache.get_many::<u32>(&["a", "b"]).await.unwrap(),
        [Some(7), Some(7)]
    );
    let hasty = redis(&server, LEASE).await;
    someone_computes(&server, "c", HOUR).await;
    let got = hasty
        .get_or_set_many(&["c", "d"], leased(), compute)
        .await
        .unwrap();
    assert_eq!(got, [Some(7), Some(7)], "it gives up waiting");
    assert_eq!(cache.get::<u32>("c").await.unwrap(), Some(7));
}

/// What is not stored ends its lease too: the next call does not wait.
#[tokio::test]
async fn a_lease_of_what_is_not_stored_is_given_back() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    let options = || Options::ttl(HOUR).none_ttl(Duration::ZERO).lease(HOUR);
    for _ in 0..2 {
        let begun = Instant::now();
        let got = cache
            .get_or_set("a", options(), || async { None::<u32> })
            .await;
        assert_eq!(got.unwrap(), None);
        assert!(begun.elapsed() < PATIENT / 2);
        eventually(PATIENT, "it is given back", async || {
            lease_of(&server, "a").await.is_none()
        })
        .await;
    }
}

/// A value with a grace, 7, whose life is over.
async fn past_its_life(cache: &Redis, key: &str) -> Options {
    let life = Duration::from_millis(30);
    let options = Options::ttl(life).grace(HOUR);
    let stored = cache.get_or_set(key, options.clone(), || async { 7_u32 });
    stored.await.unwrap();
    // Its life has begun. A read that is slow counts from before its question, and may take it for over too early: it is the time that is waited for.
    tokio::time::sleep(2 * life).await;
    assert_eq!(cache.get::<u32>(key).await.unwrap(), None);
    options
}

async fn fails(cache: &Redis, key: &str, options: Options) -> larder::Result<u32> {
    let compute = || async { Err(larder::Error::new(ErrorKind::Compute, "the origin is down")) };
    cache.try_get_or_set(key, options, compute).await
}

/// A process that fails fast does not keep the value of one that computes well from being stored: neither where it rearms what is
/// past its life, nor where it keeps that it failed; with a lease and without.
#[tokio::test]
async fn who_fails_fast_voids_nobodys_compute() {
    let server = Server::start().await;
    for (key, stale, leased) in [
        ("rearmed", true, false),
        ("kept", false, false),
        ("rearmed, leased", true, true),
        ("kept, leased", false, true),
    ] {
        let (good, bad) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
        let options = if stale {
            past_its_life(&good, key).await
        } else {
            Options::ttl(HOUR).error_ttl(HOUR)
        };
        let options = options.lease(if leased { HOUR } else { Duration::ZERO });
        let stop = Stop::new();
        let call = computing(&good, key, Options::ttl(HOUR).grace(HOUR), &stop).await;
        let failed = fails(&bad, key, options).await;
        assert_eq!(failed.ok(), stale.then_some(7), "{key}");
        bad.shutdown().await;
        stop.on();
        assert_eq!(call.await.unwrap(), 1);
        assert_eq!(good.stats().outrun, 0, "{key}");
        assert_eq!(good.get::<u32>(key).await.unwrap(), Some(1), "{key}");
    }
}

/// Who gave up waiting computes beside the holder of the lease; that the holder gives it back voids nothing.
#[tokio::test]
async fn a_lease_that_is_given_back_voids_nobodys_compute() {
    let server = Server::start().await;
    let (holder, hasty) = (redis(&server, PATIENT).await, redis(&server, LEASE).await);
    let stop = Stop::new();
    let held = {
        let (holder, stop) = (holder.clone(), stop.clone());
        tokio::spawn(async move {
            let compute = || async {
                stop.compute(0).await?;
                Err::<u32, _>(larder::Error::new(ErrorKind::Compute, "down"))
            };
            holder
                .try_get_or_set("a", Options::ttl(HOUR).lease(HOUR), compute)
                .await
        })
    };
    stop.entered().await;
    let inside = Stop::new();
    let call = computing(&hasty, "a", Options::ttl(HOUR).lease(HOUR), &inside).await;
    stop.on();
    held.await.unwrap().unwrap_err();
    eventually(PATIENT, "it is given back", async || {
        lease_of(&server, "a").await.is_none()
    })
    .await;
    inside.on();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(holder.get::<u32>("a").await.unwrap(), Some(1));
}

/// What rests there, rearmed or a failure, is nothing to a call that takes neither: it has the lease like any other.
#[tokio::test]
async fn who_takes_nothing_that_rests_there_is_leased_too() {
    let server = Server::start().await;
    let one = redis(&server, PATIENT).await;
    let graced = past_its_life(&one, "rearmed").await;
    assert_eq!(fails(&one, "rearmed", graced).await.unwrap(), 7);
    fails(&one, "kept", Options::ttl(HOUR).error_ttl(HOUR))
        .await
        .unwrap_err();
    one.shutdown().await;
    for key in ["rearmed", "kept"] {
        let (one, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
        let stop = Stop::new();
        let call = computing(&one, key, Options::ttl(HOUR).lease(HOUR), &stop).await;
        assert!(lease_of(&server, key).await.is_some(), "{key}");
        let waits = other.get_or_set(key, Options::ttl(HOUR).lease(HOUR), || async { 2_u32 });
        let (waited, ()) = tokio::join!(waits, async { stop.on() });
        assert_eq!((call.await.unwrap(), waited.unwrap()), (1, 1), "{key}");
    }
}

/// That a compute failed does not take the place of a value past its life, which others may be answered.
#[tokio::test]
async fn a_failure_takes_the_place_of_no_stale_value() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    let graced = past_its_life(&cache, "a").await;
    for lease in [Duration::ZERO, HOUR] {
        let kept = Options::ttl(HOUR).error_ttl(HOUR).lease(lease);
        fails(&cache, "a", kept).await.unwrap_err();
        assert_eq!(
            fails(&cache, "a", graced.clone().throttle(Duration::ZERO))
                .await
                .unwrap(),
            7
        );
        eventually(PATIENT, "it is given back", async || {
            lease_of(&server, "a").await.is_none()
        })
        .await;
    }
}

/// The same where the call gave up waiting for another process.
#[tokio::test]
async fn a_failure_after_waiting_in_vain_takes_the_place_of_no_stale_value() {
    let server = Server::start().await;
    let cache = redis(&server, LEASE).await;
    let graced = past_its_life(&cache, "a").await;
    someone_computes(&server, "a", HOUR).await;
    let kept = Options::ttl(HOUR).error_ttl(HOUR).lease(LEASE);
    fails(&cache, "a", kept).await.unwrap_err();
    assert_eq!(fails(&cache, "a", graced).await.unwrap(), 7);
}

/// A value without a grace that ends while it is computed anew makes room for the new one; one that somebody deletes before does not.
#[tokio::test]
async fn what_ends_by_itself_while_it_is_computed_is_replaced() {
    let server = Server::start().await;
    for (key, lease, deleted) in [
        ("a", Duration::ZERO, false),
        ("b", LEASE, false),
        ("c", Duration::ZERO, true),
        ("d", LEASE, true),
    ] {
        let (cache, stop) = (redis(&server, PATIENT).await, Stop::new());
        let ttl = if deleted { HOUR } else { LEASE * 2 };
        let stored = cache.get_or_set(key, ttl, || async { 1_u32 });
        assert_eq!(stored.await.unwrap(), 1);
        // The hit has it computed anew.
        let within = RefreshAhead::Within(2 * HOUR);
        let anew = Options::ttl(HOUR).refresh_ahead(within).lease(lease);
        let inside = stop.clone();
        let hit = cache.get_or_set_with(key, anew, move |_: Context| inside.compute(2));
        assert_eq!(hit.await.unwrap(), 1);
        stop.entered().await;
        if deleted {
            server.raw(0, &["DEL", key]).await;
        }
        eventually(PATIENT, "it is gone", async || {
            server.raw(0, &["EXISTS", key]).await == Value::Int(0)
        })
        .await;
        stop.on();
        cache.shutdown().await;
        let reader = redis(&server, PATIENT).await;
        let stored = reader.get::<u32>(key).await.unwrap();
        assert_eq!(stored, (!deleted).then_some(2), "{key}");
        assert_eq!(cache.stats().outrun, u64::from(deleted), "{key}");
    }
}

/// What is handed on while a value is computed anew is not past its ttl.
#[tokio::test]
async fn nothing_is_handed_on_past_its_life() {
    let server = Server::start().await;
    let ttl = Duration::from_millis(400);
    let cache = Redis::builder(&server.url(0)).max_staleness(ttl / 2);
    let cache = cache.leader_patience(PATIENT).connect().await.unwrap();
    let origin = Origin::default();
    let call = async |takes: Duration| {
        let origin = origin.clone();
        let ahead = RefreshAhead::Within(ttl);
        let load = move |_: Context| origin.load(takes);
        let options = Options::ttl(ttl).refresh_ahead(ahead);
        cache.get_or_set_with("k", options, load).await.unwrap()
    };
    assert_eq!(call(Duration::ZERO).await, 1);
    let stored = Instant::now();
    assert_eq!(call(ttl * 2).await, 1);
    loop {
        let (asked, value) = (stored.elapsed(), call(ttl).await);
        assert!(value == 2 || asked <= ttl, "{value} after {asked:?}");
        if value == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A compute that errs when the grace is over has no stale value to answer, nor to put back over what came meanwhile.
#[tokio::test]
async fn what_is_past_its_grace_is_neither_answered_nor_put_back() {
    let server = Server::start().await;
    let (cache, other) = (redis(&server, PATIENT).await, redis(&server, PATIENT).await);
    let short = Duration::from_millis(60);
    for lease in [Duration::ZERO, LEASE] {
        let options = Options::ttl(short).grace(short * 5).lease(lease);
        cache
            .set("k", "old".to_owned(), options.clone())
            .await
            .unwrap();
        tokio::time::sleep(short * 3 / 2).await;
        let failing = {
            let cache = cache.clone();
            tokio::spawn(async move {
                let load = move |_: Context| async move {
                    tokio::time::sleep(short * 8).await;
                    Err::<String, _>(larder::Error::new(ErrorKind::Compute, "down"))
                };
                cache.get_or_set_with("k", options, load).await
            })
        };
        tokio::time::sleep(short).await;
        other.set("k", "new".to_owned(), HOUR).await.unwrap();
        let failed = failing.await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Compute);
        let stands = other.get::<String>("k").await.unwrap();
        assert_eq!(stands.as_deref(), Some("new"));
    }
}

/// What looks like a lease and has no end is nobody's, and what is no token at all is none.
#[tokio::test]
async fn what_is_no_lease_holds_nobody_up() {
    let server = Server::start().await;
    let cache = redis(&server, PATIENT).await;
    server.raw(0, &["SET", "lk:a", "0123456789abcdef"]).await;
    server.raw(0, &["RPUSH", "lk:b", "0123456789abcdef"]).await;
    server.raw(0, &["RPUSH", "lk:c", "0123456789abcdef"]).await;
    let began = Instant::now();
    for (key, options) in [("a", leased()), ("b", leased()), ("c", Options::ttl(HOUR))] {
        let got = cache.get_or_set(key, options, || async { "new".to_owned() });
        assert_eq!(got.await.unwrap(), "new");
        let stored = cache.get::<String>(key).await.unwrap();
        assert_eq!(stored.as_deref(), Some("new"), "{key}");
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// Many keys under which something rests that is nothing to the call are leased, too.
#[tokio::test]
async fn many_keys_of_kept_failures_are_computed_once_in_the_fleet() {
    let server = Server::start().await;
    let caches = processes(&server, 4).await;
    let failing =
        |_: Context| async { Err::<u32, _>(larder::Error::new(ErrorKind::Compute, "down")) };
    let kept = Options::ttl(HOUR).error_ttl(HOUR);
    let failed = caches[0].get_or_set_with("k", kept, failing).await;
    failed.unwrap_err();
    let (origin, mut calls) = (Origin::default(), JoinSet::new());
    for cache in &caches {
        let (cache, origin) = (cache.clone(), origin.clone());
        calls.spawn(async move {
            let compute = |keys: Vec<String>| {
                let origin = origin.clone();
                async move {
                    let value = origin.load(Duration::from_millis(100)).await.unwrap();
                    keys.into_iter().map(|key| (key, value)).collect()
                }
            };
            cache
                .get_or_set_many(&["k"], leased(), compute)
                .await
                .unwrap()
        });
    }
    assert_eq!(calls.join_all().await, vec![vec![Some(1)]; 4]);
}

/// A value that comes between two looks of a call that finds something which is nothing to it is its answer.
#[tokio::test]
async fn many_keys_are_not_computed_where_a_value_came_meanwhile() {
    let server = Server::start().await;
    let other = redis(&server, PATIENT).await;
    let slow = Faulty::new(redis(&server, PATIENT).await);
    let failing =
        |_: Context| async { Err::<u32, _>(larder::Error::new(ErrorKind::Compute, "down")) };
    let kept = Options::ttl(HOUR).error_ttl(HOUR);
    let failed = other.get_or_set_with("k", kept, failing).await;
    failed.unwrap_err();
    slow.faults().next("claim", 1, Fault::StallAnswer);
    let leased = || Options::ttl(HOUR).lease(Duration::from_secs(60));
    let computed = |value: u32| {
        move |keys: Vec<String>| async move { keys.into_iter().map(|key| (key, value)).collect() }
    };
    let late = slow.get_or_set_many(&["k"], leased(), computed(2));
    let first = async {
        let answers = other.get_or_set_many(&["k"], leased(), computed(1)).await;
        slow.faults().release();
        answers
    };
    let (late, first) = join(late, first).await;
    assert_eq!(
        (late.unwrap(), first.unwrap()),
        (vec![Some(1)], vec![Some(1)])
    );
    // Nor does the lease that was not needed stand in anybody's way: half of its token is no lease.
    let free = async || server.raw(0, &["STRLEN", "lk:k"]).await != Value::Int(16);
    eventually(Duration::from_secs(2), "the lease is given back", free).await;
}

/// What another process began to compute before a refresh, and stores before it ends, does not outlive the refresh. Nor does what it
/// stores after it.
#[tokio::test]
async fn a_refresh_leaves_no_older_compute_of_another_process() {
    let server = Server::start().await;
    for stores_first in [true, false] {
        let caches = processes(&server, 2).await;
        let (other, own) = (caches[0].clone(), &caches[1]);
        let key = if stores_first { "first" } else { "last" };
        let (began, ends) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let older = tokio::spawn({
            let (began, ends) = (Arc::clone(&began), Arc::clone(&ends));
            async move {
                let load = || async {
                    began.add_permits(1);
                    let _ended = ends.acquire().await;
                    "old".to_owned()
                };
                other.get_or_set(key, HOUR, load).await
            }
        });
        let _began = began.acquire().await.unwrap();
        let load = |_| async {
            if stores_first {
                ends.add_permits(1);
                let stored = async {
                    while !own.has(key).await.unwrap() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(PATIENT, stored).await.unwrap();
            }
            Ok::<_, larder::Error>("new".to_owned())
        };
        assert_eq!(own.refresh(key, HOUR, load).await.unwrap(), "new");
        ends.add_permits(1);
        assert_eq!(older.await.unwrap().unwrap(), "old");
        let left = own.get::<String>(key).await.unwrap();
        let want = (!stores_first).then(|| "new".to_owned());
        assert_eq!(left, want, "{key}");
    }
}
