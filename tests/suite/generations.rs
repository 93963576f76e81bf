//! Clears, tags, and computes that began before them, over real servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::coherence::Hearing;
use larder::testing::{Mode, Proxy};
use larder::{
    Backend, Cache, Context, DistributedRedis, Error, ErrorKind, Moka, Prefixed, Redis, Tiered,
};
use redis::Value;
use tokio::sync::Notify;

use crate::fleet::{Fleet, eventually};
use crate::support::Server;
use crate::values::{read, strict, tagged, text};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn redis(server: &Server) -> Redis {
    Redis::connect(&server.url(0)).await.expect("connected")
}

/// How often each command was carried out since the last reset.
async fn calls(server: &Server) -> BTreeMap<String, u64> {
    let answer = server.raw(0, &["INFO", "commandstats"]).await;
    let stats: String = redis::from_redis_value(answer).unwrap();
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let count = rest.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), count))
    };
    let mut calls: BTreeMap<_, _> = stats.lines().filter_map(line).collect();
    // The test's own, and signs of life.
    for own in [
        "info",
        "config|resetstat",
        "ping",
        "auth",
        "select",
        "hello",
    ] {
        calls.remove(own);
    }
    calls
}

#[tokio::test]
async fn a_clear_costs_the_same_whatever_it_covers() {
    let mut seen = Vec::new();
    for count in [10, 100_000] {
        let server = Server::start().await;
        // Nobody knows yet what is there. The first clear looks, and what it left to do behind it ends with its store.
        let first = Prefixed::new(redis(&server).await, "app:");
        first.clear().await.unwrap();
        drop(first);
        // Ten thousand keys in one call take a while on a busy machine.
        let redis = Redis::builder(&server.url(0)).operation_timeout(SECOND * 5);
        let cache = Prefixed::new(redis.connect().await.unwrap(), "app:");
        for start in (0..count).step_by(10_000) {
            let some = start..count.min(start + 10_000);
            let pairs = some.map(|i| (format!("k{i}"), text("v")));
            cache.set_many(pairs, MINUTE * 10).await.unwrap();
        }
        server.raw(0, &["CONFIG", "RESETSTAT"]).await;
        cache.clear().await.unwrap();
        let calls = calls(&server).await;
        println!("clear of {count} keys: {calls:?}");
        seen.push(calls);
        assert_eq!(read(&cache, "k7").await, None);
        let left = async || server.raw(0, &["DBSIZE"]).await == Value::Int(1);
        let took = eventually(SECOND * 90, "the space is taken back", left).await;
        println!("{count} keys were taken back within {took:?}");
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_clear_reaches_other_processes() {
    let server = Server::start().await;
    let (here, there) = (redis(&server).await, strict(&server).await);
    let bound = Duration::from_millis(300);
    let slow = Redis::builder(&server.url(0)).max_staleness(bound);
    let slow = slow.connect().await.unwrap();
    let tier = Tiered::new(Moka::new(100), redis(&server).await);
    for round in 0..3 {
        here.set("k", text("old"), MINUTE).await.unwrap();
        for cache in [&here, &there, &slow] {
            assert_eq!(read(cache, "k").await.as_deref(), Some("old"));
        }
        eventually(SECOND, "in memory", async || {
            let before = tier.stats().memory_hits;
            read(&tier, "k").await;
            tier.stats().memory_hits > before
        })
        .await;
        here.clear().await.unwrap();
        assert_eq!(read(&here, "k").await, None);
        assert_eq!(read(&there, "k").await, None);
        assert!(!there.has("k").await.unwrap());
        let took = eventually(SECOND, "nothing", async || read(&slow, "k").await.is_none()).await;
        assert!(took < bound + bound, "{took:?}");
        let took = eventually(SECOND, "nothing", async || read(&tier, "k").await.is_none()).await;
        println!("round {round}: gone from memory after {took:?}");
    }
}

#[tokio::test]
async fn what_is_dead_is_nothing_to_every_operation() {
    let server = Server::start().await;
    let (cache, other) = (redis(&server).await, redis(&server).await);
    cache.clear().await.unwrap();
    for key in [
        "has", "ttl", "touch", "add", "delete", "many", "incr", "get",
    ] {
        cache.set(key, text("old"), tagged("t")).await.unwrap();
        assert!(other.has(key).await.unwrap());
    }
    other.invalidate_tag("t").await.unwrap();
    assert!(!cache.has("has").await.unwrap());
    assert_eq!(cache.ttl("ttl").await.unwrap(), None);
    assert!(!cache.touch("touch", MINUTE).await.unwrap());
    assert!(cache.add("add", text("new"), MINUTE).await.unwrap());
    assert_eq!(read(&cache, "add").await.as_deref(), Some("new"));
    assert!(!cache.delete("delete").await.unwrap());
    assert_eq!(cache.delete_many(&["many", "add"]).await.unwrap(), 1);
    assert_eq!(cache.incr("incr", 4).await.unwrap(), 4);
    let computed = cache.get_or_set("get", MINUTE, || async { text("computed") });
    assert_eq!(computed.await.unwrap(), "computed");
    assert_eq!(read(&other, "get").await.as_deref(), Some("computed"));
    assert_eq!(cache.stats().refused(larder::codec::Refusal::Tag), 1);
}

#[tokio::test]
async fn a_tag_takes_away_what_has_it_and_nothing_else() {
    let server = Server::start().await;
    for cache in [redis(&server).await, strict(&server).await] {
        let shop = Prefixed::new(cache.clone(), "shop:");
        let blog = Prefixed::new(cache.clone(), "blog:");
        let both = tagged("users").tag("user:1");
        shop.set("a", text("a"), both.clone()).await.unwrap();
        shop.set("b", text("b"), tagged("users")).await.unwrap();
        shop.set("c", text("c"), MINUTE).await.unwrap();
        shop.set("n", 7_u32, tagged("users")).await.unwrap();
        blog.set("a", text("a"), both).await.unwrap();
        assert_eq!(shop.get::<u32>("n").await.unwrap(), Some(7));
        shop.invalidate_tag("user:1").await.unwrap();
        assert_eq!(read(&shop, "a").await, None);
        assert_eq!(read(&shop, "b").await.as_deref(), Some("b"));
        assert_eq!(read(&blog, "a").await.as_deref(), Some("a"));
        shop.invalidate_tag("users").await.unwrap();
        let many = shop.get_many::<String>(&["a", "b", "c"]).await.unwrap();
        assert_eq!(many, [None, None, Some(text("c"))]);
        assert_eq!(shop.get::<u32>("n").await.unwrap(), None);
        assert_eq!(read(&blog, "a").await.as_deref(), Some("a"));
        // A value that comes after it is none of those.
        shop.set("b", text("new"), tagged("users")).await.unwrap();
        assert_eq!(read(&shop, "b").await.as_deref(), Some("new"));
        blog.invalidate_tag("user:1").await.unwrap();
        assert_eq!(read(&blog, "a").await, None);
    }
}

#[tokio::test]
async fn tags_that_cannot_be_kept_are_refused_and_nothing_is_touched() {
    let server = Server::start().await;
    let cache = redis(&server).await;
    cache.set("k", text("old"), MINUTE).await.unwrap();
    for tag in ["", "a\nb", &"x".repeat(256)] {
        let error = cache.set("k", text("new"), tagged(tag)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Key, "{error}");
        let error = cache.invalidate_tag(tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Key, "{error}");
    }
    let plain = Redis::builder(&server.url(0)).codec(larder::codec::Plain);
    let plain = plain.connect().await.unwrap();
    let error = plain.set("k", text("new"), tagged("t")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(read(&cache, "k").await.as_deref(), Some("old"));
    // A compute's value is given to its caller, and not stored.
    let computed = plain.get_or_set("p", tagged("t"), || async { text("v") });
    assert_eq!(computed.await.unwrap(), "v");
    assert!(!plain.has("p").await.unwrap());
}

/// What another process does while this one computes.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    Delete,
    DeleteMany,
    Set,
    SetAndGone,
    Add,
    Incr,
    Clear,
    ClearAround,
    Tag,
    OtherTag,
    Flush,
}

async fn act(meanwhile: Meanwhile, other: &Redis, server: &Server) {
    let app = Prefixed::new(other.clone(), "app:");
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Delete => drop(app.delete("k").await.unwrap()),
        Meanwhile::DeleteMany => drop(app.delete_many(&["j", "k"]).await.unwrap()),
        Meanwhile::Set => app.set("k", text("set"), MINUTE).await.unwrap(),
        Meanwhile::SetAndGone => {
            app.set("k", text("set"), MINUTE).await.unwrap();
            server.raw(0, &["DEL", "app:k"]).await;
        }
        Meanwhile::Add => assert!(app.add("k", text("set"), MINUTE).await.unwrap()),
        Meanwhile::Incr => drop(app.incr("k", 1).await.unwrap()),
        Meanwhile::Clear => app.clear().await.unwrap(),
        Meanwhile::ClearAround => other.clear().await.unwrap(),
        Meanwhile::Tag => app.invalidate_tag("mine").await.unwrap(),
        Meanwhile::OtherTag => app.invalidate_tag("other").await.unwrap(),
        Meanwhile::Flush => drop(server.raw(0, &["FLUSHALL"]).await),
    }
}

/// The compute of another process began before, and ends after.
#[tokio::test]
async fn what_was_invalidated_anywhere_while_it_was_computed_is_not_stored() {
    use Meanwhile::*;
    let all = [
        Nothing,
        Delete,
        DeleteMany,
        Set,
        SetAndGone,
        Add,
        Incr,
        Clear,
        ClearAround,
        Tag,
        OtherTag,
        Flush,
    ];
    for many in [false, true] {
        for meanwhile in all {
            let server = Server::start().await;
            let (here, other) = (redis(&server).await, redis(&server).await);
            let here = Prefixed::new(here, "app:");
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let computing = tokio::spawn({
                let (here, begun, go) = (here.clone(), Arc::clone(&begun), Arc::clone(&go));
                async move {
                    let compute = |_: Vec<String>| {
                        let (begun, go) = (begun.clone(), go.clone());
                        async move {
                            begun.notify_one();
                            go.notified().await;
                            [(text("k"), text("computed"))].into()
                        }
                    };
                    if many {
                        let options = tagged("mine");
                        let values = here.get_or_set_many(&["k"], options, compute);
                        return values.await.unwrap().remove(0).unwrap();
                    }
                    let compute = || async move {
                        begun.notify_one();
                        go.notified().await;
                        text("computed")
                    };
                    let value = here.get_or_set("k", tagged("mine"), compute);
                    value.await.unwrap()
                }
            });
            begun.notified().await;
            act(meanwhile, &other, &server).await;
            go.notify_one();
            assert_eq!(computing.await.unwrap(), "computed", "its caller has it");
            let stands = match meanwhile {
                Nothing | OtherTag => Some("computed"),
                Set | Add => Some("set"),
                Incr => Some("1"),
                _ => None,
            };
            assert_eq!(
                read(&here, "k").await.as_deref(),
                stands,
                "{meanwhile:?} {many}"
            );
            let outrun = u64::from(!matches!(meanwhile, Nothing | OtherTag));
            assert_eq!(here.stats().outrun, outrun, "{meanwhile:?} {many}");
        }
    }
}

/// Tags that only the compute knows.
#[tokio::test]
async fn a_tag_that_the_compute_finds_counts_from_its_beginning() {
    let server = Server::start().await;
    for remote in [true, false] {
        for (tag, stored) in [("late", false), ("other", true)] {
            let cache: Arc<dyn Backend> = match remote {
                true => Arc::new(redis(&server).await),
                false => Arc::new(Moka::new(100)),
            };
            let key = format!("{tag}{remote}");
            let invalidating = cache.clone();
            let compute = move |context: Context| async move {
                invalidating.invalidate_tag(tag).await?;
                context.tag("late");
                context.set_ttl(Duration::from_secs(5));
                Ok::<_, Error>(text("v"))
            };
            let value = cache.get_or_set_with(&key, MINUTE, compute).await.unwrap();
            assert_eq!(value, "v");
            let there = cache.has(&key).await.unwrap();
            assert_eq!(there, stored, "{tag} {remote}");
            if stored {
                let left = cache.ttl(&key).await.unwrap().expect("it is there");
                let five = larder::Remaining::For(Duration::from_secs(5));
                assert!(
                    matches!((left, five), (larder::Remaining::For(left), larder::Remaining::For(five)) if left <= five)
                );
                cache.invalidate_tag("late").await.unwrap();
                assert!(!cache.has(&key).await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_compute_apart_ends_though_its_caller_left() {
    let cache = Moka::new(100);
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let caller = tokio::spawn({
        let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
        async move {
            let compute = |_| async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, Error>(7_u32)
            };
            cache.get_or_set_with("k", MINUTE, compute).await
        }
    });
    begun.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    go.notify_one();
    eventually(SECOND, "stored", async || cache.has("k").await.unwrap()).await;
    let failed = |_| async { Err::<u32, _>(Error::new(ErrorKind::Compute, "no")) };
    assert!(cache.get_or_set_with("e", MINUTE, failed).await.is_err());
    let panics = |_| async { panic!("on purpose") };
    let panicked = cache.get_or_set_with::<u32, Error, _, _>("p", MINUTE, panics);
    assert_eq!(panicked.await.unwrap_err().kind(), ErrorKind::Compute);
}

#[tokio::test]
async fn values_without_marks_are_gone_when_clear_returns() {
    let server = Server::start().await;
    let (cache, other) = (redis(&server).await, redis(&server).await);
    let app = Prefixed::new(cache.clone(), "app:");
    let there = Prefixed::new(other.clone(), "app:");
    for clear_all in [false, true] {
        app.clear().await.unwrap();
        app.incr("n", 5).await.unwrap();
        app.set("m", 6_u8, MINUTE).await.unwrap();
        server.raw(0, &["SET", "app:foreign", "x"]).await;
        assert_eq!(read(&there, "foreign").await.as_deref(), Some("x"));
        match clear_all {
            true => other.clear().await.unwrap(),
            false => there.clear().await.unwrap(),
        }
        for key in ["app:n", "app:m", "app:foreign"] {
            assert_eq!(
                server.raw(0, &["EXISTS", key]).await,
                Value::Int(0),
                "{key}"
            );
        }
        assert_eq!(app.incr("n", 1).await.unwrap(), 1);
    }
}

/// Some write with the prefix, some without.
#[tokio::test]
async fn a_clear_covers_what_others_wrote_under_its_prefix() {
    let server = Server::start().await;
    let (bare, other) = (redis(&server).await, strict(&server).await);
    let app = Prefixed::new(other.clone(), "app:");
    let deep = Prefixed::new(app.clone(), "deep:");
    for _ in 0..2 {
        bare.set("app:k", text("bare"), MINUTE).await.unwrap();
        bare.set("x:k", text("stays"), MINUTE).await.unwrap();
        app.set("j", text("app"), MINUTE).await.unwrap();
        deep.set("k", text("deep"), MINUTE).await.unwrap();
        app.clear().await.unwrap();
        for key in ["app:k", "app:j", "app:deep:k"] {
            assert_eq!(read(&other, key).await, None, "{key}");
        }
        assert_eq!(read(&other, "x:k").await.as_deref(), Some("stays"));
        deep.set("k", text("deep"), MINUTE).await.unwrap();
        other.clear().await.unwrap();
        assert_eq!(read(&deep, "k").await, None);
        assert_eq!(read(&other, "x:k").await, None);
    }
}

#[tokio::test]
async fn a_generation_that_was_lost_revives_nothing() {
    let server = Server::start().await;
    let cache = strict(&server).await;
    for lost in ["__larder:namespaces", "__larder:t:0:t"] {
        cache.set("k", text("old"), tagged("t")).await.unwrap();
        assert!(read(&cache, "k").await.is_some());
        assert_eq!(server.raw(0, &["DEL", lost]).await, Value::Int(1));
        assert_eq!(read(&cache, "k").await, None, "{lost}");
        cache.set("j", text("new"), tagged("t")).await.unwrap();
        assert_eq!(read(&cache, "k").await, None, "{lost}");
        assert!(read(&cache, "j").await.is_some(), "{lost}");
        // Also for what is computed next.
        let computed = cache.get_or_set("c", tagged("t"), || async { text("v") });
        computed.await.unwrap();
        assert!(read(&cache, "c").await.is_some(), "{lost}");
        cache.delete("c").await.unwrap();
    }
}

/// Each bit of the marks, and each length.
#[tokio::test]
async fn damaged_marks_are_a_miss() {
    let server = Server::start().await;
    let cache = strict(&server).await;
    let app = Prefixed::new(cache, "app:");
    app.set("k", text("value"), tagged("tag").tag("u"))
        .await
        .unwrap();
    let Value::BulkString(good) = server.raw(0, &["GET", "app:k"]).await else {
        panic!("no value");
    };
    let client = redis::Client::open(server.url(0)).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut put = async |bytes: &[u8]| {
        let set = redis::cmd("SET").arg("app:k").arg(bytes).to_owned();
        let _: () = set.query_async(&mut raw).await.unwrap();
    };
    // Before their length is when it was stored, on which nothing depends.
    let stored = (good.len() - 10) * 8..(good.len() - 2) * 8;
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        put(&bytes).await;
        if stored.contains(&bit) {
            assert_eq!(read(&app, "k").await.as_deref(), Some("value"), "bit {bit}");
            assert!(app.explain("k").await.unwrap().hit().is_some(), "bit {bit}");
            continue;
        }
        assert_eq!(read(&app, "k").await, None, "bit {bit}");
        assert!(app.explain("k").await.unwrap().hit().is_none(), "bit {bit}");
        assert_eq!(app.get::<Vec<u8>>("k").await.unwrap(), None, "bit {bit}");
    }
    for length in 0..good.len() {
        put(&good[..length]).await;
        let read = app.get::<String>("k").await.unwrap();
        assert_eq!(read.filter(|read| !read.is_empty()), None, "{length} bytes");
    }
    put(&good).await;
    assert_eq!(read(&app, "k").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_node_that_was_not_told_is_named_and_told_later() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.connect().await;
    let other = fleet.connect().await;
    let keys: Vec<String> = (0..60).map(|i| format!("k{i}")).collect();
    let set = async |cache: &DistributedRedis| {
        for key in &keys {
            let stored = cache.set(key, text("v"), tagged("t")).await;
            stored.unwrap();
        }
    };
    set(&cache).await;
    let frozen = &fleet.nodes[1];
    frozen.pause();
    let error = cache.invalidate_tag("t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Partial, "{error}");
    let port = frozen.port().to_string();
    let named = error.context().find(|(name, _)| *name == "nodes");
    assert!(
        named.is_some_and(|(_, nodes)| nodes.contains(&port)),
        "{error}"
    );
    frozen.resume();
    for key in &keys {
        assert!(
            !cache.get::<String>(key).await.is_ok_and(|v| v.is_some()),
            "{key}"
        );
    }
    // Also for others, once it was told.
    eventually(SECOND * 5, "it was told", async || {
        let owed: usize = cache.map_status().nodes.iter().map(|node| node.owed).sum();
        owed == 0
    })
    .await;
    eventually(SECOND * 3, "nothing for others", async || {
        let mut found = 0;
        for key in &keys {
            found += usize::from(!matches!(other.get::<String>(key).await, Ok(None)));
        }
        found == 0
    })
    .await;
    set(&cache).await;
    assert!(read(&cache, "k1").await.is_some());
}

#[tokio::test]
async fn tags_of_memory_alone() {
    for cache in [
        Arc::new(Moka::new(1000)) as Arc<dyn Backend>,
        Arc::new(Tiered::new(Moka::new(1000), Moka::new(1000))),
        Arc::new(Prefixed::new(Moka::new(1000), "app:")),
    ] {
        cache
            .set("a", text("a"), tagged("t").tag("u"))
            .await
            .unwrap();
        cache.set("b", text("b"), tagged("u")).await.unwrap();
        for _ in 0..2 {
            assert_eq!(read(&cache, "a").await.as_deref(), Some("a"));
        }
        cache.invalidate_tag("t").await.unwrap();
        assert_eq!(read(&cache, "a").await, None);
        assert!(!cache.has("a").await.unwrap());
        assert!(cache.add("a", text("new"), tagged("t")).await.unwrap());
        assert_eq!(read(&cache, "a").await.as_deref(), Some("new"));
        assert_eq!(read(&cache, "b").await.as_deref(), Some("b"));
    }
}

#[tokio::test]
async fn nodes_are_flushed_by_name() {
    let fleet = Fleet::new(3).await;
    let ring = fleet.connect().await;
    let keys: Vec<String> = (0..60).map(|i| format!("k{i}")).collect();
    for key in &keys {
        ring.set(key, text("v"), MINUTE).await.unwrap();
    }
    let label = format!("127.0.0.1:{}/0", fleet.nodes[1].port());
    let unknown = ring
        .flush_nodes(&[&label, "127.0.0.1:1/0"])
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Config, "{unknown}");
    assert_ne!(fleet.nodes[1].raw(0, &["DBSIZE"]).await, Value::Int(0));
    ring.flush_nodes(&[&label]).await.unwrap();
    assert_eq!(fleet.nodes[1].raw(0, &["DBSIZE"]).await, Value::Int(0));
    for key in &keys {
        let own = ring.node_for(key).as_deref() == Some(&label);
        assert_eq!(read(&ring, key).await.is_none(), own, "{key}");
    }
    fleet.nodes[1]
        .raw(0, &["HSET", "HASH_RING_MAP", "1", "x"])
        .await;
    let map = ring.flush_nodes(&[&label]).await.unwrap_err();
    assert_eq!(map.kind(), ErrorKind::Config, "{map}");
    fleet.nodes[1].kill();
    let down = ring.flush_nodes(&[&label]).await.unwrap_err();
    assert_eq!(down.kind(), ErrorKind::Unavailable, "{down}");
}

/// A tag that another process invalidates while its server is not heard, and how long a value that has it is answered then.
async fn answered_after_a_gap(bound: Duration, healed: bool) {
    let server = Server::start().await;
    let proxy = Proxy::to(("127.0.0.1", server.port())).await.unwrap();
    let proxy = proxy.marking("TRACKING");
    let (direct, own) = (server.url(0), format!(":{}/", server.port()));
    let url = direct.replace(&own, &format!(":{}/", proxy.port()));
    let near = Redis::builder(&url).max_staleness(bound);
    let cache = Tiered::new(Moka::new(100), near.connect().await.unwrap());
    let heard = || matches!(cache.coherence()[0].hearing, Hearing::Heard { .. });
    eventually(SECOND * 5, "it is heard", async || heard()).await;
    let other = redis(&server).await;
    for key in ["first", "second"] {
        other.set(key, text("v"), tagged("t")).await.unwrap();
    }
    proxy.set_marked(Mode::Stall);
    eventually(SECOND * 5, "it is not heard", async || !heard()).await;
    // What is known of the tag is from before.
    assert!(read(&cache, "first").await.is_some());
    other.invalidate_tag("t").await.unwrap();
    let done = Instant::now();
    if healed {
        proxy.set(Mode::Pass);
        eventually(SECOND * 5, "it is heard", async || heard()).await;
    } else {
        tokio::time::sleep(bound * 7 / 10).await;
    }
    loop {
        let asked = done.elapsed();
        if read(&cache, "second").await.is_none() {
            return;
        }
        assert!(
            asked <= bound,
            "answered {asked:?} after it was invalidated"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_known_before_a_gap_is_not_known_after_it() {
    answered_after_a_gap(SECOND * 4, true).await;
}

#[tokio::test]
async fn a_copy_is_as_old_as_what_it_was_judged_by() {
    answered_after_a_gap(SECOND, false).await;
}
