//! Memory and writes by others, over real servers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder::coherence::{Hearing, Interest, Invalidation, Subscriber};
use larder::testing::{Mode, Proxy};
use larder::{Backend, Cache, Moka, Prefixed, Redis, Tiered};

use crate::fleet::eventually;
use crate::support::Server;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Tier = Tiered<Moka, Redis>;

async fn tier(server: &Server) -> Tier {
    let redis = Redis::connect(&server.url(0)).await.expect("connected");
    heard(Tiered::new(Moka::new(1000), redis)).await
}

/// Waits until the writes of all its sources are heard.
async fn heard<L2: Backend>(tier: Tiered<Moka, L2>) -> Tiered<Moka, L2> {
    eventually(SECOND * 5, "writes are heard", async || {
        let sources = tier.coherence();
        !sources.is_empty()
            && sources
                .iter()
                .all(|source| matches!(source.hearing, Hearing::Heard { .. }))
    })
    .await;
    tier
}

async fn text(cache: &impl Cache, key: &str) -> Option<String> {
    cache.get::<String>(key).await.expect("an answer")
}

/// Reads until memory has it, and makes sure that memory answers.
async fn in_memory(cache: &impl Cache, key: &str) {
    eventually(SECOND, "it is in memory", async || {
        let before = cache.stats().memory_hits;
        text(cache, key).await.expect("it is there");
        cache.stats().memory_hits > before
    })
    .await;
}

fn hello() -> String {
    "hello".to_owned()
}

#[tokio::test]
async fn writes_of_another_process_empty_memory() {
    let server = Server::start().await;
    let (here, there) = (tier(&server).await, tier(&server).await);
    here.set("k", hello(), MINUTE).await.unwrap();
    in_memory(&here, "k").await;
    in_memory(&there, "k").await;
    there.set("k", "new".to_owned(), MINUTE).await.unwrap();
    eventually(SECOND, "the new value", async || {
        text(&here, "k").await.as_deref() == Some("new")
    })
    .await;
    in_memory(&here, "k").await;
    // By no cache at all.
    server.raw(0, &["DEL", "k"]).await;
    eventually(SECOND, "nothing", async || text(&here, "k").await.is_none()).await;
    eventually(SECOND, "nothing", async || {
        text(&there, "k").await.is_none()
    })
    .await;
    assert!(here.coherence()[0].invalidations >= 2);
}

#[tokio::test]
async fn a_hit_asks_nobody() {
    let server = Server::start().await;
    let cache = tier(&server).await;
    cache.set("k", hello(), MINUTE).await.unwrap();
    in_memory(&cache, "k").await;
    let before = commands(&server).await;
    for _ in 0..1000 {
        text(&cache, "k").await.expect("it is there");
    }
    let after = commands(&server).await;
    println!("reads of the server for 1,000 hits: {}", after - before);
    assert_eq!(after - before, 0);
}

/// Commands that read values.
async fn commands(server: &Server) -> u64 {
    let answer = server.raw(0, &["INFO", "commandstats"]).await;
    let redis::Value::BulkString(text) = answer else {
        panic!("{answer:?}");
    };
    let text = String::from_utf8(text).unwrap();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let calls = line.and_then(|line| line.split(',').next()?.parse::<u64>().ok());
        calls.unwrap_or(0)
    };
    ["get", "mget", "pttl", "multi", "exec", "evalsha", "eval"]
        .iter()
        .map(|name| of(&format!("cmdstat_{name}:calls=")))
        .sum()
}

#[tokio::test]
async fn a_tier_hears_of_its_prefix_alone() {
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.unwrap();
    let cache = Tiered::new(Moka::new(1000), Prefixed::new(redis.clone(), "app:"));
    let cache = heard(cache).await;
    redis.set("other:k", 1_u8, MINUTE).await.unwrap();
    cache.set("k", hello(), MINUTE).await.unwrap();
    in_memory(&cache, "k").await;
    server.raw(0, &["SET", "other:k", "2"]).await;
    server.raw(0, &["SET", "app:k", "raw"]).await;
    eventually(SECOND, "the new value", async || {
        text(&cache, "k").await.as_deref() == Some("raw")
    })
    .await;
    assert_eq!(
        cache.coherence()[0].invalidations,
        2,
        "its own, and one more"
    );
    // A tier without a prefix over the same handle hears of all there is, on the same line.
    let all = heard(Tiered::new(Moka::new(1000), redis)).await;
    all.set("other:t", hello(), MINUTE).await.unwrap();
    in_memory(&all, "other:t").await;
    in_memory(&cache, "k").await;
    server.raw(0, &["DEL", "other:t", "app:k"]).await;
    eventually(SECOND, "nothing", async || {
        text(&all, "other:t").await.is_none() && text(&cache, "k").await.is_none()
    })
    .await;
    assert_eq!(lines(&server).await, 1);
    drop(all);
    drop(cache);
    eventually(SECOND, "nobody listens", async || lines(&server).await == 0).await;
}

/// Connections on which writes are told.
async fn lines(server: &Server) -> usize {
    let answer = server.raw(0, &["CLIENT", "LIST"]).await;
    let text: String = redis::from_redis_value(answer).unwrap();
    text.lines()
        .filter(|line| line.contains("name=larder:writes"))
        .count()
}

#[tokio::test]
async fn a_server_that_does_not_tell_leaves_copies_for_as_long_as_they_may_be_behind() {
    for denied in ["HELLO", "CLIENT"] {
        let server = Server::start_with(&["--rename-command", denied, ""]).await;
        let redis = Redis::connect(&server.url(0)).await.unwrap();
        let bound = Duration::from_millis(300);
        let cache = Tiered::builder(Moka::new(1000), redis)
            .max_staleness(bound)
            .build();
        eventually(SECOND, "it is said", async || {
            matches!(cache.coherence()[0].hearing, Hearing::Deaf { .. })
        })
        .await;
        cache.set("k", hello(), MINUTE).await.unwrap();
        in_memory(&cache, "k").await;
        server.raw(0, &["DEL", "k"]).await;
        let began = Instant::now();
        let took = eventually(SECOND, "nothing", async || {
            text(&cache, "k").await.is_none()
        })
        .await;
        assert!(began.elapsed() < bound + bound, "{denied}: {took:?}");
        assert!(cache.stats().memory_hits > 1, "{denied}");
    }
}

#[tokio::test]
async fn a_value_from_an_outage_does_not_outlive_it() {
    let server = Server::start().await;
    let proxy = Proxy::to(("127.0.0.1", server.port())).await.unwrap();
    let (direct, own) = (server.url(0), format!(":{}/", server.port()));
    let url = direct.replace(&own, &format!(":{}/", proxy.port()));
    let redis = Redis::connect(&url).await.unwrap();
    let long = SECOND * 20;
    let cache = Tiered::builder(Moka::new(1000), redis)
        .max_staleness(long)
        .outage_ttl(long)
        .build();
    let cache = heard(cache).await;
    proxy.set(Mode::Refuse);
    proxy.reset();
    eventually(SECOND * 5, "the line is lost", async || {
        cache.coherence()[0].gaps > 0
    })
    .await;
    let computed = async || {
        let value = cache.get_or_set("k", MINUTE, || async { hello() });
        value.await.unwrap()
    };
    assert_eq!(computed().await, "hello");
    let before = cache.stats().memory_hits;
    assert_eq!(computed().await, "hello");
    assert!(cache.stats().memory_hits > before, "memory stands in");
    server.raw(0, &["SET", "k", "new"]).await;
    proxy.set(Mode::Pass);
    let cache = heard(cache.clone()).await;
    eventually(SECOND, "an answer", async || {
        cache.get::<String>("k").await.is_ok()
    })
    .await;
    assert_eq!(text(&cache, "k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_value_from_an_outage_is_as_old_as_its_compute() {
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.unwrap();
    let bound = SECOND * 2;
    let cache = Tiered::builder(Moka::new(1000), redis)
        .max_staleness(bound)
        .outage_ttl(bound * 2)
        .build();
    let cache = heard(cache).await;
    server.kill();
    let began = Mutex::new(Instant::now());
    let compute = || async {
        *began.lock().unwrap() = Instant::now();
        tokio::time::sleep(SECOND).await;
        hello()
    };
    cache.get_or_set("k", MINUTE, compute).await.unwrap();
    let began = began.into_inner().unwrap();
    let mut hits = 0;
    loop {
        let asked = began.elapsed();
        match cache.get::<String>("k").await {
            Ok(Some(_)) => assert!(asked <= bound, "answered {asked:?} after it began"),
            _ => break,
        }
        hits += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(hits > 0);
}

#[tokio::test]
async fn never_behind_asks_for_every_read() {
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.unwrap();
    let cache = Tiered::builder(Moka::new(1000), redis)
        .max_staleness(Duration::ZERO)
        .build();
    cache.set("k", hello(), MINUTE).await.unwrap();
    for i in 0..100 {
        assert!(text(&cache, "k").await.is_some());
        let value = format!("v{i}");
        server.raw(0, &["SET", "k", &value]).await;
        assert_eq!(text(&cache, "k").await, Some(value));
    }
    assert_eq!(cache.stats().memory_hits, 0);
    assert_eq!(lines(&server).await, 0);
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Subscriber for Notes {
    fn hear(&self, what: Invalidation<'_>) {
        self.0.lock().unwrap().push(format!("{what:?}"));
    }
}

#[tokio::test]
async fn anybody_may_subscribe() {
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.unwrap();
    let cache = Prefixed::new(redis, "app:");
    let notes = Arc::new(Notes::default());
    let subscription = cache.subscribe("a", Interest::new(notes.clone()));
    let heard = |what: &str| notes.0.lock().unwrap().iter().any(|note| note == what);
    eventually(SECOND, "the line", async || lines(&server).await == 1).await;
    server.raw(0, &["SET", "app:a1", "x"]).await;
    server.raw(0, &["SET", "app:b1", "x"]).await;
    cache.set("a2", 1_u8, MINUTE).await.unwrap();
    eventually(SECOND, "keys", async || {
        heard(r#"Keys(["app:a1"])"#) && heard(r#"Keys(["app:a2"])"#)
    })
    .await;
    assert!(!heard(r#"Keys(["app:b1"])"#));
    cache.clear().await.unwrap();
    assert!(heard(r#"Under("app:")"#));
    server.raw(0, &["FLUSHALL"]).await;
    eventually(SECOND, "all", async || heard("All")).await;
    server.kill();
    eventually(SECOND, "a gap", async || heard("Gap")).await;
    drop(subscription);
    let count = notes.0.lock().unwrap().len();
    let _ = cache.delete("a3").await;
    assert_eq!(notes.0.lock().unwrap().len(), count);
}

#[tokio::test]
async fn a_subscriber_is_told_when_a_gap_begins_and_when_it_is_over() {
    let server = Server::start().await;
    let cache = Redis::connect(&server.url(0)).await.unwrap();
    let notes = Arc::new(Notes::default());
    let _held = cache.subscribe("a", Interest::new(notes.clone()));
    let gaps = async |count: usize| {
        eventually(SECOND * 2, "gaps", async || {
            let notes = notes.0.lock().unwrap();
            notes.iter().filter(|note| *note == "Gap").count() == count
        })
        .await;
    };
    // What was written before the line was open is unknown.
    gaps(1).await;
    // Another line takes over.
    let _other = cache.subscribe("b", Interest::new(Arc::new(Notes::default())));
    gaps(3).await;
    server.raw(0, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    gaps(5).await;
}

#[test]
fn a_line_moves_to_the_runtime_that_is_left() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let serving = runtime();
    let server = serving.block_on(Server::start());
    let redis = Redis::builder(&server.url(0)).build().unwrap();
    // Outside of any.
    let cache = Tiered::new(Moka::new(1000), redis);
    for round in 0..2 {
        let runtime = runtime();
        runtime.block_on(async {
            cache.set("k", hello(), MINUTE).await.unwrap();
            assert!(text(&cache, "k").await.is_some());
            let cache = heard(cache.clone()).await;
            in_memory(&cache, "k").await;
            server.raw(0, &["DEL", "k"]).await;
            eventually(SECOND, "nothing", async || {
                text(&cache, "k").await.is_none()
            })
            .await;
            assert_eq!(lines(&server).await, 1, "round {round}");
        });
    }
}

/// The sentinel names another master, and only the connection for reads is closed by the old one.
#[tokio::test]
async fn a_line_that_leads_to_another_server_than_reads_is_not_believed() {
    let (old, new) = (Server::start().await, Server::start().await);
    let sentinel = Server::sentinel_of(&old, "cache").await;
    let user = crate::support::password().map_or_else(String::new, |own| format!(":{own}@"));
    let own = crate::support::password()
        .map_or_else(String::new, |own| format!("?sentinel_password={own}"));
    let url = format!(
        "redis+sentinel://{user}127.0.0.1:{}/cache/0{own}",
        sentinel.port()
    );
    let cache = heard(Tiered::new(
        Moka::new(1000),
        Redis::connect(&url).await.unwrap(),
    ))
    .await;
    cache.set("k", hello(), MINUTE).await.unwrap();
    in_memory(&cache, "k").await;
    for server in [&old, &new] {
        server.raw(0, &["SET", "j", "old"]).await;
    }
    sentinel.raw(0, &["SENTINEL", "REMOVE", "cache"]).await;
    let port = new.port().to_string();
    let monitor = ["SENTINEL", "MONITOR", "cache", "127.0.0.1", &port, "1"];
    sentinel.raw(0, &monitor).await;
    if let Some(password) = crate::support::password() {
        let auth = ["SENTINEL", "SET", "cache", "auth-pass", &password];
        sentinel.raw(0, &auth).await;
    }
    // All but the line.
    let list: String = redis::from_redis_value(old.raw(0, &["CLIENT", "LIST"]).await).unwrap();
    for line in list.lines().filter(|line| line.contains("name=larder ")) {
        let id = line.split(' ').find_map(|part| part.strip_prefix("id="));
        old.raw(0, &["CLIENT", "KILL", "ID", id.unwrap()]).await;
    }
    eventually(SECOND * 5, "reads go to the new master", async || {
        matches!(cache.get::<String>("k").await, Ok(None))
    })
    .await;
    let cache = heard(cache).await;
    in_memory(&cache, "j").await;
    new.raw(0, &["SET", "j", "new"]).await;
    eventually(SECOND, "the new value", async || {
        text(&cache, "j").await.as_deref() == Some("new")
    })
    .await;
    assert_eq!((lines(&old).await, lines(&new).await), (0, 1));
}
