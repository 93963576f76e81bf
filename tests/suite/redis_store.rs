//! The store over one real server.

use std::time::{Duration, Instant};

use larder::codec::{Format, Plain, Refusal};
use larder::{Cache, ErrorKind, Moka, Prefixed, Redis, Tiered, Ttl};
use redis::Value;

use crate::fleet::eventually;
use crate::support::Server;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    id: u64,
    name: String,
}

fn user() -> User {
    User {
        id: 7,
        name: "Ada".into(),
    }
}

async fn started() -> (Server, Redis) {
    let server = Server::start().await;
    let redis = Redis::connect(&server.url(0)).await.unwrap();
    (server, redis)
}

#[tokio::test]
async fn integers_are_digits_that_others_read_and_write() {
    let (server, cache) = started().await;
    cache.set("n", 41_u64, MINUTE).await.unwrap();
    assert_eq!(
        server.raw(0, &["GET", "n"]).await,
        Value::BulkString(b"41".into())
    );
    server.raw(0, &["INCR", "n"]).await;
    assert_eq!(cache.get::<u64>("n").await.unwrap(), Some(42));
    assert_eq!(cache.get::<i8>("n").await.unwrap(), Some(42));
    assert_eq!(
        cache.get::<String>("n").await.unwrap().as_deref(),
        Some("42")
    );
    assert_eq!(cache.incr("n", 8).await.unwrap(), 50);
    cache
        .get_or_set("computed", MINUTE, || async { 5_u64 })
        .await
        .unwrap();
    assert_eq!(
        cache.incr("computed", 1).await.unwrap_err().kind(),
        ErrorKind::NotACounter
    );
    server.raw(0, &["SET", "max", &i64::MAX.to_string()]).await;
    assert_eq!(
        cache.incr("max", 1).await.unwrap_err().kind(),
        ErrorKind::Overflow
    );
}

#[tokio::test]
async fn foreign_bytes_are_bytes_text_integers_or_a_miss() {
    let (server, cache) = started().await;
    // A pickle, an ASCII number, JSON.
    for (key, bytes) in [
        ("pickle", "\u{80}\u{3}K!."),
        ("digits", "42"),
        ("json", "{\"id\":7}"),
    ] {
        server.raw(0, &["SET", key, bytes]).await;
        assert_eq!(cache.get::<User>(key).await.unwrap(), None);
        assert_eq!(
            cache.get::<Vec<u8>>(key).await.unwrap().as_deref(),
            Some(bytes.as_bytes())
        );
        assert_eq!(
            cache.get::<String>(key).await.unwrap().as_deref(),
            Some(bytes)
        );
        assert_eq!(cache.get::<bool>(key).await.unwrap(), None);
    }
    assert_eq!(cache.get::<u64>("digits").await.unwrap(), Some(42));
    assert_eq!(cache.get::<u64>("pickle").await.unwrap(), None);
    assert_eq!(cache.stats().refused(Refusal::Foreign), 7);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss_and_stays() {
    let (server, cache) = started().await;
    server.raw(0, &["LPUSH", "list", "x"]).await;
    assert_eq!(cache.get::<User>("list").await.unwrap(), None);
    assert_eq!(
        cache.get_many::<User>(&["list", "none"]).await.unwrap(),
        [None, None]
    );
    assert_eq!(cache.stats().refused(Refusal::WrongType), 1);
    assert_eq!(server.raw(0, &["LLEN", "list"]).await, Value::Int(1));
    assert_eq!(
        cache.incr("list", 1).await.unwrap_err().kind(),
        ErrorKind::NotACounter
    );
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_a_miss() {
    let (server, cache) = started().await;
    cache.set("k", user(), MINUTE).await.unwrap();
    let Value::BulkString(whole) = server.raw(0, &["GET", "k"]).await else {
        panic!("no bytes")
    };
    let client = redis::Client::open(server.url(0)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut put = async |bytes: &[u8]| {
        let _: () = redis::cmd("SET")
            .arg("k")
            .arg(bytes)
            .query_async(&mut connection)
            .await
            .unwrap();
    };
    // Before the last two bytes is when it was stored, on which nothing depends.
    let stored = whole.len() - 10..whole.len() - 2;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        put(&bytes).await;
        let same = stored.contains(&(bit / 8)).then(user);
        assert_eq!(cache.get::<User>("k").await.unwrap(), same, "bit {bit}");
    }
    for len in 0..whole.len() {
        put(&whole[..len]).await;
        assert_eq!(cache.get::<User>("k").await.unwrap(), None, "cut to {len}");
    }
    put(&[&whole[..], b"x"].concat()).await;
    assert_eq!(cache.get::<User>("k").await.unwrap(), None, "one byte more");
    put(&whole).await;
    assert_eq!(cache.get::<User>("k").await.unwrap(), Some(user()));
}

#[tokio::test]
async fn a_value_under_another_key_or_of_another_type_is_a_miss() {
    let (server, cache) = started().await;
    cache.set("a", user(), MINUTE).await.unwrap();
    server.raw(0, &["RENAME", "a", "b"]).await;
    assert_eq!(cache.get::<User>("b").await.unwrap(), None);
    assert_eq!(cache.stats().refused(Refusal::Checksum), 1);
    cache.set("a", user(), MINUTE).await.unwrap();
    assert_eq!(cache.get::<(u64, String)>("a").await.unwrap(), None);
    assert_eq!(cache.stats().refused(Refusal::Schema), 1);
    let newer = Redis::builder(&server.url(0))
        .schema_version(2)
        .connect()
        .await
        .unwrap();
    assert_eq!(newer.get::<User>("a").await.unwrap(), None);
    let named = |version| {
        let format = Format::default()
            .schema::<User>("acme.User")
            .schema_version(version);
        Redis::builder(&server.url(0))
            .format(format)
            .build()
            .unwrap()
    };
    named(1).set("c", user(), MINUTE).await.unwrap();
    assert_eq!(named(1).get::<User>("c").await.unwrap(), Some(user()));
    assert_eq!(named(2).get::<User>("c").await.unwrap(), None);
}

#[tokio::test]
async fn an_oversized_value_is_a_miss_and_costs_no_connection() {
    let server = Server::start().await;
    // The server sends 64 MiB before it answers anything else.
    let patient = Redis::builder(&server.url(0)).operation_timeout(Duration::from_secs(10));
    let cache = patient.connect().await.unwrap();
    // 64 MiB, made by the server itself.
    server
        .raw(0, &["SETRANGE", "huge", &(64 << 20).to_string(), "x"])
        .await;
    cache.set("small", 1_u8, MINUTE).await.unwrap();
    assert_eq!(cache.get::<Vec<u8>>("huge").await.unwrap(), None);
    let mixed = cache.get_many::<u8>(&["huge", "small"]).await.unwrap();
    assert_eq!(mixed, [None, Some(1)]);
    assert_eq!(cache.stats().refused(Refusal::TooLarge), 2);
    let error = cache
        .set("big", vec![0_u8; 9 << 20], MINUTE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(cache.status().up, "the connection was not given up");
}

#[tokio::test]
async fn plain_values_are_shared_with_other_languages() {
    let server = Server::start().await;
    let cache = Redis::builder(&server.url(0))
        .codec(Plain)
        .connect()
        .await
        .unwrap();
    cache.set("text", "hello".to_owned(), MINUTE).await.unwrap();
    cache.set("user", user(), MINUTE).await.unwrap();
    cache.set("empty", String::new(), MINUTE).await.unwrap();
    assert_eq!(
        server.raw(0, &["GET", "text"]).await,
        Value::BulkString(b"hello".into())
    );
    assert_eq!(
        server.raw(0, &["GET", "user"]).await,
        Value::BulkString(br#"{"id":7,"name":"Ada"}"#.into())
    );
    assert_eq!(cache.get::<User>("user").await.unwrap(), Some(user()));
    assert_eq!(
        cache.get::<String>("empty").await.unwrap().as_deref(),
        Some("")
    );
    assert_eq!(
        cache
            .set("some", Some(()), MINUTE)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Encode
    );
    cache.set("none", None::<u8>, MINUTE).await.unwrap();
    assert_eq!(cache.get::<Option<u8>>("none").await.unwrap(), Some(None));
}

#[tokio::test]
async fn clear_covers_the_prefix_alone_whatever_characters_it_holds() {
    let (server, cache) = started().await;
    server
        .raw(
            13,
            &["HSET", "HASH_RING_MAP", "1", "redis://127.0.0.1:7001/0"],
        )
        .await;
    server
        .raw(
            0,
            &["HSET", "HASH_RING_MAP", "1", "redis://127.0.0.1:7001/0"],
        )
        .await;
    let odd = Prefixed::new(cache.clone(), "a*[b]?\\:");
    odd.set("k", 1_u8, MINUTE).await.unwrap();
    cache.set("axb:k", 2_u8, MINUTE).await.unwrap();
    odd.clear().await.unwrap();
    assert_eq!(odd.get::<u8>("k").await.unwrap(), None);
    assert_eq!(cache.get::<u8>("axb:k").await.unwrap(), Some(2));
    let many: Vec<(String, u8)> = (0..2500).map(|i| (format!("many:{i}"), 0)).collect();
    cache.set_many(many, MINUTE).await.unwrap();
    cache.clear().await.unwrap();
    assert_eq!(
        server.raw(0, &["DBSIZE"]).await,
        Value::Int(2),
        "the map stays, and the records of the namespaces"
    );
}

#[tokio::test]
async fn a_store_that_is_away_costs_a_compute_and_comes_back() {
    let (server, cache) = started().await;
    server.kill();
    let calls = |cache: Redis| async move {
        let began = Instant::now();
        let value = cache
            .get_or_set("k", MINUTE, || async { 7_u64 })
            .await
            .unwrap();
        assert_eq!(value, 7);
        began.elapsed()
    };
    let first = calls(cache.clone()).await;
    assert!(first < Duration::from_millis(800), "{first:?}");
    eventually(Duration::from_secs(2), "known to be down", async || {
        !cache.status().up
    })
    .await;
    let later = calls(cache.clone()).await;
    assert!(later < Duration::from_millis(100), "{later:?}");
    assert!(cache.get::<u64>("k").await.unwrap_err().is_retryable());
    assert_eq!(
        cache.get_many::<u64>(&["k", "l"]).await.unwrap(),
        [None, None]
    );
    assert!(cache.stats().read_errors > 0);
    server.restart().await;
    let back = eventually(Duration::from_secs(3), "back", async || {
        cache.set("k", 1_u64, MINUTE).await.is_ok()
    })
    .await;
    assert!(back < Duration::from_secs(2), "{back:?}");
}

#[tokio::test]
async fn a_paused_server_costs_each_call_its_bound_at_most() {
    let (server, cache) = started().await;
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    server.pause();
    let began = Instant::now();
    assert_eq!(
        cache.get::<u64>("k").await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert!(
        began.elapsed() < Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    server.resume();
    eventually(Duration::from_secs(2), "answers again", async || {
        cache.get::<u64>("k").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn connecting_tells_what_is_wrong() {
    let server = Server::start().await;
    let url = server.url(0);
    server.kill();
    let error = Redis::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .to_string()
            .contains(&format!("127.0.0.1:{}/0", server.port())),
        "{error}"
    );
    assert_eq!(
        Redis::connect("redis://:canary-url@host:x/0")
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Config
    );
    let lazy = Redis::builder(&url).build().unwrap();
    assert_eq!(
        lazy.get_or_set("k", MINUTE, || async { 1_u8 })
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn a_secret_is_in_no_error_debug_or_status() {
    let server = Server::start().await;
    server
        .raw(0, &["CONFIG", "SET", "requirepass", "canary-secret"])
        .await;
    let port = server.port();
    let wrong = Redis::connect(&format!("redis://:canary-other@127.0.0.1:{port}/0"))
        .await
        .unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Rejected);
    let cache = Redis::builder(&format!("redis://:canary-secret@127.0.0.1:{port}/0"));
    let shown = format!("{cache:?} {wrong} {wrong:?}");
    let cache = cache.connect().await.unwrap();
    let shown = format!("{shown} {cache:?} {:?} {:?}", cache.status(), cache.stats());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn another_handles_delete_empties_memory() {
    let (_server, redis) = started().await;
    let one = Tiered::new(Moka::new(100), redis.clone());
    let two = Tiered::new(Moka::new(100), redis.clone());
    for cache in [&one, &two] {
        assert_eq!(
            cache
                .get_or_set("k", MINUTE, || async { 1_u64 })
                .await
                .unwrap(),
            1
        );
    }
    redis.delete("k").await.unwrap();
    assert_eq!(one.get::<u64>("k").await.unwrap(), None);
    assert_eq!(two.get::<u64>("k").await.unwrap(), None);
    two.set("k", 2_u64, MINUTE).await.unwrap();
    assert_eq!(one.get::<u64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn memory_keeps_a_copy_no_longer_than_redis_would() {
    let (server, redis) = started().await;
    let cache = Tiered::new(Moka::new(100), redis);
    server.raw(0, &["SET", "k", "1", "PX", "300"]).await;
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
    eventually(Duration::from_secs(2), "gone", async || {
        cache.get::<u64>("k").await.unwrap().is_none()
    })
    .await;
    cache.set("f", 1_u64, Ttl::Forever).await.unwrap();
    assert_eq!(server.raw(0, &["PTTL", "f"]).await, Value::Int(-1));
}

/// A store in a static outlives the runtime of the test that used it first.
#[test]
fn a_store_in_a_static_moves_to_the_next_runtime() {
    static CACHE: std::sync::OnceLock<Redis> = std::sync::OnceLock::new();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let server = first.block_on(Server::start());
    first.block_on(async {
        let cache = CACHE.get_or_init(|| Redis::builder(&server.url(0)).build().unwrap());
        cache.set("k", 5_u64, MINUTE).await.unwrap();
    });
    drop(first);
    runtime().block_on(async {
        let cache = CACHE.get().unwrap();
        let bound = Duration::from_secs(2);
        eventually(bound, "reconnected", async || {
            cache.get::<u64>("k").await.is_ok_and(|v| v == Some(5))
        })
        .await;
    });
}

#[tokio::test]
async fn several_connections_to_a_server_share_its_keys() {
    let server = Server::start().await;
    let cache = Redis::builder(&server.url(0))
        .connections(3)
        .client_name("several")
        .connect()
        .await
        .unwrap();
    let Value::BulkString(list) = server.raw(0, &["CLIENT", "LIST"]).await else {
        panic!("no list")
    };
    let list = String::from_utf8_lossy(&list).into_owned();
    assert_eq!(list.matches("name=several ").count(), 3);
    let keys: Vec<String> = (0..60).map(|i| format!("key:{i}")).collect();
    let pairs = keys.iter().map(|key| (key, key.clone()));
    cache.set_many(pairs, MINUTE).await.unwrap();
    for key in &keys {
        assert_eq!(cache.get::<String>(key).await.unwrap().as_ref(), Some(key));
    }
    let read = cache.get_many::<String>(&keys).await.unwrap();
    assert!(
        read.iter()
            .zip(&keys)
            .all(|(read, key)| read.as_ref() == Some(key))
    );
    assert_eq!(cache.delete_many(&keys[..30]).await.unwrap(), 30);
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<String>(&keys[40]).await.unwrap(), None);
    // All but the records of the namespaces.
    let reclaimed = async || server.raw(0, &["DBSIZE"]).await == Value::Int(1);
    eventually(Duration::from_secs(5), "the space is reclaimed", reclaimed).await;
}

#[tokio::test]
async fn what_failed_while_the_server_was_away_is_made_up_for() {
    for connections in [1, 3] {
        let server = Server::start().await;
        let cache = Redis::builder(&server.url(0))
            .connections(connections)
            .operation_timeout(Duration::from_millis(100))
            .connect()
            .await
            .unwrap();
        let keys: Vec<String> = (0..12).map(|i| format!("key:{i}")).collect();
        for key in &keys {
            cache.set(key, "old".to_owned(), MINUTE).await.unwrap();
        }
        server.pause();
        eventually(SECOND * 5, "it counts as down", async || !cache.status().up).await;
        for key in &keys[..3] {
            cache.delete(key).await.unwrap_err();
        }
        cache.delete_many(&keys[3..6]).await.unwrap_err();
        cache
            .set(&keys[6], "new".to_owned(), MINUTE)
            .await
            .unwrap_err();
        assert_eq!(cache.status().owed, 7);
        server.resume();
        eventually(SECOND * 5, "it is back", async || cache.status().up).await;
        for (i, key) in keys.iter().enumerate() {
            let expected = (i > 6).then(|| "old".to_owned());
            assert_eq!(cache.get::<String>(key).await.unwrap(), expected, "{key}");
        }
        assert_eq!(cache.status().owed, 0);
        // A clear that failed, too.
        server.pause();
        eventually(SECOND * 5, "it counts as down", async || !cache.status().up).await;
        cache.clear().await.unwrap_err();
        server.resume();
        eventually(SECOND * 5, "it is back", async || cache.status().up).await;
        assert_eq!(cache.get::<String>(&keys[9]).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_tiers_own_bound_holds_for_reads() {
    let (server, l2) = started().await;
    let tier = Tiered::builder(Moka::new(10), l2)
        .store_timeout(Duration::from_millis(50))
        .build();
    tier.set("a", 1_i64, MINUTE).await.unwrap();
    server.pause();
    let began = Instant::now();
    let _ = tier.get::<i64>("b").await;
    let took = began.elapsed();
    server.resume();
    assert!(took < Duration::from_millis(150), "{took:?}");
}

/// The node stays up and keeps its older value for a while. It must not get into memory, from where nobody would evict it
/// once the delete is made up for.
#[tokio::test]
async fn what_a_failed_write_left_behind_does_not_get_into_memory() {
    let (server, redis) = started().await;
    let cache = Tiered::new(Moka::new(100), redis.clone());
    let refuse = async |replicas: &str| {
        let setting = ["CONFIG", "SET", "min-replicas-to-write", replicas];
        server.raw(0, &setting).await;
    };
    for key in ["set", "deleted"] {
        cache.set(key, "old".to_owned(), MINUTE).await.unwrap();
    }
    refuse("1").await;
    let set = cache.set("set", "new".to_owned(), MINUTE).await;
    assert_eq!(set.unwrap_err().kind(), ErrorKind::Rejected);
    let deleted = cache.delete("deleted").await;
    assert_eq!(deleted.unwrap_err().kind(), ErrorKind::Rejected);
    for key in ["set", "deleted"] {
        assert_eq!(cache.get::<String>(key).await.unwrap(), None);
    }
    refuse("0").await;
    eventually(5 * SECOND, "made up for", async || redis.status().owed == 0).await;
    for key in ["set", "deleted"] {
        assert_eq!(cache.get::<String>(key).await.unwrap(), None);
        assert_eq!(server.raw(0, &["EXISTS", key]).await, Value::Int(0));
    }
}

#[tokio::test]
async fn no_bound_is_too_long() {
    let server = Server::start().await;
    let redis = Redis::builder(&server.url(0))
        .operation_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .store_timeout(Duration::MAX)
        .connect()
        .await
        .unwrap();
    redis.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(redis.get::<u64>("k").await.unwrap(), Some(1));
    let memory = Moka::builder().store_timeout(Duration::MAX).build();
    memory.set("k", 1_u64, Duration::MAX).await.unwrap();
    assert_eq!(memory.get::<u64>("k").await.unwrap(), Some(1));
}

/// Values stand at one place: what was deleted at the second would come back with the first.
#[tokio::test]
async fn a_store_takes_no_places_in_turn() {
    let error = Redis::connect("redis://127.0.0.1:1,127.0.0.1:2/0").await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    let (server, _) = started().await;
    let url = format!("{}?connections=2&max_in_flight=100", server.url(0));
    let cache = larder::open(&url).await.unwrap();
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    let names = server.raw(0, &["CLIENT", "LIST"]).await;
    assert!(format!("{names:?}").matches("name=larder").count() >= 2);
}

/// Without an envelope, bytes are what they are: also those that begin like one.
#[tokio::test]
async fn bytes_that_only_look_like_an_envelope_are_stored_and_end_computes() {
    let server = Server::start().await;
    let cache = Redis::builder(&server.url(0)).codec(Plain);
    let cache = cache.connect().await.unwrap();
    let other = Redis::builder(&server.url(0)).codec(Plain);
    let other = other.connect().await.unwrap();
    for bytes in [&[0xC1_u8][..], &[0xC1, 0, 0, 4], &[0xC1, 1, 1, 7, 0]] {
        let (began, begins) = tokio::sync::oneshot::channel();
        let (end, ends) = tokio::sync::oneshot::channel::<()>();
        let computing = {
            let cache = cache.clone();
            tokio::spawn(async move {
                let compute = || async {
                    began.send(()).unwrap();
                    ends.await.unwrap();
                    b"computed".to_vec()
                };
                cache.get_or_set("k", MINUTE, compute).await
            })
        };
        begins.await.unwrap();
        let half = Duration::from_millis(500);
        other.set("k", bytes.to_vec(), half).await.unwrap();
        let read = other.get::<Vec<u8>>("k").await.unwrap();
        assert_eq!(read.as_deref(), Some(bytes));
        eventually(MINUTE, "it is gone", async || {
            server.raw(0, &["EXISTS", "k"]).await == Value::Int(0)
        })
        .await;
        end.send(()).unwrap();
        assert_eq!(computing.await.unwrap().unwrap(), b"computed");
        assert_eq!(other.get::<Vec<u8>>("k").await.unwrap(), None, "{bytes:?}");
    }
}
