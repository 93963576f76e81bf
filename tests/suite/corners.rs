//! Corners of coherence and generations, over real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larder::codec::Plain;
use larder::coherence::Hearing;
use larder::{Cache, Moka, Options, Prefixed, Redis, Tiered, Ttl};
use tokio::time::sleep;

use crate::fleet::eventually;
use crate::support::Server;
use crate::values::{read, strict, tagged, text};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn redis(server: &Server) -> Redis {
    let builder = Redis::builder(&server.url(0)).operation_timeout(SECOND * 2);
    builder.connect().await.expect("connected")
}

/// A copy with tags is not kept where nobody would be told of them.
#[tokio::test]
async fn a_tag_reaches_a_remote_l1() {
    let (a, b) = (Server::start().await, Server::start().await);
    let tier = Tiered::new(redis(&a).await, redis(&b).await);
    tier.set("k", text("old"), tagged("t")).await.unwrap();
    assert!(read(&tier, "k").await.is_some());
    tier.invalidate_tag("t").await.unwrap();
    assert_eq!(read(&tier, "k").await, None);
}

/// The record of a tag lives as long as whatever carries it.
#[tokio::test]
async fn touch_keeps_the_tags_of_a_value_alive() {
    let server = Server::start().await;
    let cache = strict(&server).await;
    let short = Options::ttl(Duration::from_millis(300)).tag("t");
    cache.set("k", text("v"), short.clone()).await.unwrap();
    cache.set("j", text("v"), short).await.unwrap();
    assert!(cache.touch("k", MINUTE).await.unwrap());
    assert!(cache.touch("j", Ttl::Forever).await.unwrap());
    sleep(Duration::from_millis(500)).await;
    assert!(read(&cache, "k").await.is_some(), "touched for a minute");
    assert!(read(&cache, "j").await.is_some(), "touched for ever");
}

/// Whether a value takes marks is its writer's word, not a guess by its bytes.
#[tokio::test]
async fn plain_bytes_that_look_like_an_envelope_stay_as_they_are() {
    let server = Server::start().await;
    let cache = Redis::builder(&server.url(0))
        .codec(Plain)
        .connect()
        .await
        .unwrap();
    let value: Vec<u8> = vec![0xC1, 0, 0, 2];
    cache.set("k", value.clone(), MINUTE).await.unwrap();
    assert_eq!(cache.get::<Vec<u8>>("k").await.unwrap(), Some(value));
}

/// What another language wrote and nobody read is found by a clear that looks at every key.
#[tokio::test]
async fn what_others_write_is_looked_for_where_that_is_said() {
    let server = Server::start().await;
    let builder = Redis::builder(&server.url(0)).shared_with_others(true);
    let cache = Prefixed::new(builder.connect().await.unwrap(), "app:");
    cache.clear().await.unwrap();
    server.raw(0, &["SET", "app:x", "before"]).await;
    cache.clear().await.unwrap();
    assert_eq!(read(&cache, "x").await, None);
}

/// Computes of another process in an enclosing namespace, which end one after the other while this one clears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_lets_no_compute_store_behind_it() {
    let server = Server::start().await;
    let (here, there) = (redis(&server).await, redis(&server).await);
    let app = Prefixed::new(here.clone(), "app:");
    for start in (0..300_000).step_by(10_000) {
        let pairs = (start..start + 10_000).map(|i| (format!("other:{i}"), text("v")));
        here.set_many(pairs, MINUTE * 10).await.unwrap();
    }
    let (began, go) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(tokio::sync::Semaphore::new(0)),
    );
    let count = 400_u32;
    let computes: Vec<_> = (0..count)
        .map(|i| {
            let (there, began, go) = (there.clone(), began.clone(), go.clone());
            tokio::spawn(async move {
                let compute = || async move {
                    began.fetch_add(1, Ordering::SeqCst);
                    let _permit = go.acquire().await;
                    sleep(Duration::from_millis(u64::from(i * 2))).await;
                    text("old")
                };
                // Each has permits of its own.
                there
                    .get_or_set(&format!("app:k{i}"), MINUTE, compute)
                    .await
                    .unwrap();
            })
        })
        .collect();
    while began.load(Ordering::SeqCst) < count {
        sleep(Duration::from_millis(5)).await;
    }
    go.add_permits(count as usize * 2);
    app.clear().await.unwrap();
    for compute in computes {
        compute.await.unwrap();
    }
    let mut left = 0;
    for i in 0..count {
        left += u32::from(read(&app, &format!("k{i}")).await.is_some());
    }
    assert_eq!(left, 0, "values of computes that began before the clear");
}

/// What is known of generations and the copy share the bound.
#[tokio::test]
async fn tags_of_a_server_that_does_not_tell_are_behind_by_the_bound_at_most() {
    let server = Server::start_with(&["--rename-command", "CLIENT", ""]).await;
    let other = redis(&server).await;
    let tier = Tiered::new(Moka::new(100), redis(&server).await);
    for key in ["a", "b"] {
        other.set(key, text("old"), tagged("t")).await.unwrap();
    }
    assert!(read(&tier, "a").await.is_some());
    other.invalidate_tag("t").await.unwrap();
    let at = Instant::now();
    sleep(Duration::from_millis(900)).await;
    read(&tier, "b").await;
    while at.elapsed() < Duration::from_millis(1700) {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(read(&tier, "b").await, None, "after {:?}", at.elapsed());
}

/// A tier may be stricter than its store.
#[tokio::test]
async fn the_bound_of_a_tier_holds_for_generations() {
    let server = Server::start_with(&["--rename-command", "CLIENT", ""]).await;
    let other = redis(&server).await;
    let bound = Duration::from_millis(100);
    let tier = Tiered::builder(Moka::new(100), redis(&server).await)
        .max_staleness(bound)
        .build();
    for key in ["a", "b"] {
        other.set(key, text("old"), tagged("t")).await.unwrap();
    }
    assert!(read(&tier, "a").await.is_some());
    other.invalidate_tag("t").await.unwrap();
    sleep(Duration::from_millis(600)).await;
    assert_eq!(
        read(&tier, "a").await,
        None,
        "600 ms later, with a bound of 100"
    );
}

/// What a node says that was not told of an invalidation is not learnt.
#[tokio::test]
async fn an_owed_tag_revives_nothing_in_memory() {
    let server = Server::start_with(&["--rename-command", "CLIENT", ""]).await;
    let bound = SECOND * 2;
    let store = Redis::builder(&server.url(0))
        .max_staleness(bound)
        .connect()
        .await
        .unwrap();
    let tier = Tiered::new(Moka::new(100), store);
    for key in ["a", "b"] {
        tier.set(key, text("old"), tagged("t")).await.unwrap();
    }
    let began = Instant::now();
    let until = async |at: u64| {
        let at = Duration::from_millis(at);
        sleep(at.saturating_sub(began.elapsed())).await;
    };
    assert!(read(&tier, "a").await.is_some());
    until(1000).await;
    assert!(read(&tier, "b").await.is_some());
    server.raw(0, &["REPLICAOF", "127.0.0.1", "1"]).await;
    tier.invalidate_tag("t").await.unwrap_err();
    assert_eq!(read(&tier, "b").await, None);
    until(2200).await;
    assert_eq!(read(&tier, "a").await, None);
    assert_eq!(read(&tier, "b").await, None, "owed still");
}

/// What is dead is as good as not there, before and after its space is taken back.
#[tokio::test]
async fn what_is_reclaimed_meanwhile_refuses_no_compute() {
    let server = Server::start().await;
    let cache = redis(&server).await;
    cache.clear().await.unwrap();
    sleep(SECOND).await;
    cache.set("k", text("old"), MINUTE).await.unwrap();
    cache.clear().await.unwrap();
    let compute = || async {
        sleep(SECOND).await;
        text("new")
    };
    cache.get_or_set("k", MINUTE, compute).await.unwrap();
    assert_eq!(
        read(&cache, "k").await.as_deref(),
        Some("new"),
        "{:?}",
        cache.stats().outrun
    );
}

/// A compute whose tags were said before is joined by others whatever other tags are invalidated.
#[tokio::test]
async fn other_tags_leave_single_flight_alone() {
    let cache = Moka::new(100);
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut all = Vec::new();
    for i in 0..30 {
        let (cache, running, most) = (cache.clone(), running.clone(), most.clone());
        cache.invalidate_tag(&format!("other{i}")).await.unwrap();
        all.push(tokio::spawn(async move {
            let compute = || async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(SECOND).await;
                running.fetch_sub(1, Ordering::SeqCst);
                1_u64
            };
            cache.get_or_set("hot", MINUTE, compute).await.unwrap();
        }));
        sleep(Duration::from_millis(20)).await;
    }
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(
        most.load(Ordering::SeqCst),
        1,
        "computes of one key at once, without a tag"
    );
}

/// Many invalidations are remembered one by one.
#[tokio::test]
async fn many_invalidations_of_other_tags_keep_no_value_out() {
    let server = Server::start().await;
    let (cache, other) = (redis(&server).await, redis(&server).await);
    let compute = || async {
        for i in 0..257 {
            other.invalidate_tag(&format!("other{i}")).await.unwrap();
        }
        text("v")
    };
    cache
        .get_or_set("k", tagged("mine"), compute)
        .await
        .unwrap();
    assert!(read(&cache, "k").await.is_some());
}

/// A line is waited for as long as an operation.
#[tokio::test]
async fn a_slow_line_is_heard() {
    use larder::testing::{Mode, Proxy};
    let server = Server::start().await;
    let proxy = Proxy::to(("127.0.0.1", server.port())).await.unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(150)));
    let own = format!(":{}/", server.port());
    let url = server.url(0).replace(&own, &format!(":{}/", proxy.port()));
    let store = Redis::builder(&url)
        .operation_timeout(SECOND * 5)
        .connect_timeout(SECOND * 5)
        .max_staleness(SECOND * 10)
        .connect()
        .await
        .unwrap();
    let tier = Tiered::new(Moka::new(100), store);
    tier.set("k", text("v"), MINUTE).await.unwrap();
    let status = || tier.coherence().remove(0);
    let age = || match status().hearing {
        Hearing::Heard { age } => Some(age),
        _ => None,
    };
    eventually(SECOND * 10, "the line is heard", async || age().is_some()).await;
    // It goes on to be: the next sign of life is younger than the one before.
    let (first, since) = (age().unwrap(), Instant::now());
    eventually(SECOND * 10, "the line is heard again", async || {
        age().is_some_and(|age| age + SECOND < first + since.elapsed())
    })
    .await;
    assert_eq!(status().gaps, 0);
    assert_eq!(read(&tier, "k").await.as_deref(), Some("v"));
}

/// Zero asks for generations each time too.
#[tokio::test]
async fn never_behind_holds_for_tags() {
    let server = Server::start().await;
    let other = redis(&server).await;
    let store = redis(&server).await;
    let tier = Tiered::builder(Moka::new(100), store)
        .max_staleness(Duration::ZERO)
        .build();
    other.set("k", text("old"), tagged("t")).await.unwrap();
    assert!(read(&tier, "k").await.is_some());
    other.invalidate_tag("t").await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(
        read(&tier, "k").await,
        None,
        "300 ms later, with a bound of zero"
    );
}

/// A value of others that is overwritten while another is computed in its place is not overwritten.
#[tokio::test]
async fn a_foreign_write_during_a_compute_is_noticed() {
    let server = Server::start().await;
    let cache = redis(&server).await;
    let foreign = |n: u32| format!("{}{n:04}{}", "a".repeat(80), "b".repeat(80));
    server.raw(0, &["SET", "k", &foreign(1)]).await;
    let compute = || async {
        server.raw(0, &["SET", "k", &foreign(2)]).await;
        vec![1_u32]
    };
    cache.get_or_set("k", MINUTE, compute).await.unwrap();
    assert_eq!(cache.get::<Vec<u32>>("k").await.unwrap(), None);
}

/// A delete that finds nothing is told to nobody: what stands in for a value that could not be stored is behind it by the bound at most,
/// and by nothing once something was there to delete.
#[tokio::test]
async fn what_stands_in_hears_of_no_delete_of_nothing() {
    let server = Server::start().await;
    let other = redis(&server).await;
    let bound = SECOND * 2;
    let l2 = Redis::builder(&server.url(0)).max_staleness(bound);
    let l2 = l2.connect().await.unwrap();
    let tier = Tiered::builder(Moka::new(100), l2).max_staleness(bound);
    let tier = tier.outage_ttl(SECOND * 30).build();
    for key in ["absent", "there"] {
        let maxmemory =
            async |bytes: &str| server.raw(0, &["CONFIG", "SET", "maxmemory", bytes]).await;
        maxmemory("1").await;
        let computed = Instant::now();
        let value = tier.get_or_set(key, MINUTE, || async { text("computed") });
        assert_eq!(value.await.unwrap(), "computed");
        assert!(
            other.get::<String>(key).await.unwrap().is_none(),
            "not stored"
        );
        maxmemory("0").await;
        let is_there = key == "there";
        if is_there {
            other.set(key, text("of another"), MINUTE).await.unwrap();
        }
        assert_eq!(other.delete(key).await.unwrap(), is_there);
        let gone = async || tier.get::<String>(key).await.unwrap().is_none();
        if !is_there {
            assert!(!gone().await, "nobody told of it");
        }
        eventually(bound, "it is gone in time", gone).await;
        assert!(is_there || computed.elapsed() <= bound + SECOND / 2);
    }
}

/// What stands in for a value that could not be stored is behind by the bound at most, counted from its compute.
#[tokio::test]
async fn an_outage_copy_counts_from_its_compute() {
    let server = Server::start().await;
    let other = redis(&server).await;
    let tier = Tiered::new(Moka::new(100), redis(&server).await);
    other.set("k2", text("x"), MINUTE).await.unwrap();
    server.raw(0, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let slow = tier.clone();
    let slow = tokio::spawn(async move {
        let compute = || async {
            sleep(SECOND * 3).await;
            text("old")
        };
        slow.get_or_set("k", MINUTE, compute).await.unwrap()
    });
    sleep(Duration::from_millis(200)).await;
    other.delete("k").await.unwrap();
    let deleted = Instant::now();
    slow.await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let found = tier.get::<String>("k").await;
    assert!(
        !matches!(found, Ok(Some(_))),
        "{found:?}, {:?} after the delete",
        deleted.elapsed()
    );
}
