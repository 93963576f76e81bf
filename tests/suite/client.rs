//! The ring as a Redis client: redis-rs over it, on real nodes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use larder::{Cache, DistributedRedis, ErrorKind, Moka, Tiered};
use redis::{AsyncCommands, RedisError, RedisResult, ScanOptions, Script, Value, cmd, pipe};

use crate::fleet::{Fleet, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// A fleet, its ring, and for each node a key that belongs there.
async fn ring() -> (Fleet, DistributedRedis, [String; 3]) {
    let fleet = Fleet::new(3).await;
    let ring = fleet.connect().await;
    let labels = ring.nodes();
    let key = |node: usize| {
        let mut keys = (0..).map(|i| format!("key:{i}"));
        let here = |key: &String| ring.node_for(key).as_ref() == Some(&labels[node]);
        keys.find(here).unwrap()
    };
    let keys = [0, 1, 2].map(key);
    (fleet, ring, keys)
}

/// A command as one would type it.
fn command(line: &str) -> redis::Cmd {
    let mut parts = line.split(' ');
    let mut command = cmd(parts.next().unwrap());
    parts.for_each(|part| {
        command.arg(part);
    });
    command
}

fn words(error: &RedisError) -> String {
    format!("{error}")
}

#[tokio::test]
async fn each_command_goes_to_the_node_of_its_key() {
    let (fleet, ring, keys) = ring().await;
    let mut redis = ring.connection();
    for key in &keys {
        let hash = format!("{key}:hash");
        let _: () = redis
            .hset_multiple(&hash, &[("name", "Ada"), ("born", "1815")])
            .await
            .unwrap();
        let fields: HashMap<String, String> = redis.hgetall(&hash).await.unwrap();
        assert_eq!(fields["born"], "1815");
        let owner = fleet.owner(&ring, &hash);
        assert_eq!(owner.raw(0, &["HLEN", &hash]).await, Value::Int(2));

        let list = format!("{key}:list");
        assert_eq!(
            redis.rpush::<_, _, u64>(&list, &["a", "b"]).await.unwrap(),
            2
        );
        assert_eq!(
            redis.lrange::<_, Vec<String>>(&list, 0, -1).await.unwrap(),
            ["a", "b"]
        );

        let scores = format!("{key}:scores");
        let _: () = redis
            .zadd_multiple(&scores, &[(1.0, "a"), (2.5, "b")])
            .await
            .unwrap();
        let best: Vec<(String, f64)> = redis.zrevrange_withscores(&scores, 0, 0).await.unwrap();
        assert_eq!(best, [("b".to_owned(), 2.5)]);

        let stream = format!("{key}:stream");
        let mut add = cmd("XADD");
        let _: String = add
            .arg(&stream)
            .arg("*")
            .arg("n")
            .arg(7)
            .query_async(&mut redis)
            .await
            .unwrap();
        let mut group = cmd("XGROUP");
        let group = group.arg("CREATE").arg(&stream).arg("g").arg(0);
        let _: () = group.query_async(&mut redis).await.unwrap();
        let mut read = cmd("XREADGROUP");
        let read = read
            .arg("GROUP")
            .arg("g")
            .arg("me")
            .arg("STREAMS")
            .arg(&stream)
            .arg(">");
        let read: Value = read.query_async(&mut redis).await.unwrap();
        assert!(matches!(read, Value::Array(_) | Value::Map(_)), "{read:?}");

        // Keys are bytes.
        let bytes = [key.as_bytes(), b"\xFF\x00\r\n"].concat();
        let _: () = redis.set(&bytes, b"\x00\xFF").await.unwrap();
        assert_eq!(redis.get::<_, Vec<u8>>(&bytes).await.unwrap(), b"\x00\xFF");
        let mut scan = redis.hscan::<_, String>(&hash).await.unwrap();
        assert!(scan.next_item().await.is_some());
    }
}

#[tokio::test]
async fn what_can_be_parted_is_parted_and_put_together() {
    let (fleet, ring, _) = ring().await;
    let mut redis = ring.connection();
    let keys: Vec<String> = (0..50).map(|i| format!("parted:{i}")).collect();
    let pairs: Vec<(&String, usize)> = keys.iter().zip(0..).collect();
    let _: () = redis.mset(&pairs).await.unwrap();
    let mut used = BTreeSet::new();
    for (key, value) in &pairs {
        let owner = fleet.owner(&ring, key);
        used.insert(owner.port());
        let there = owner.raw(0, &["GET", key]).await;
        assert_eq!(there, Value::BulkString(value.to_string().into()));
    }
    assert_eq!(used.len(), 3);
    let mut asked = keys.clone();
    asked.insert(7, "parted:none".to_owned());
    asked.push(keys[3].clone());
    let values: Vec<Option<usize>> = redis.mget(&asked).await.unwrap();
    let expected = |key: &String| keys.iter().position(|own| own == key);
    assert_eq!(values, asked.iter().map(expected).collect::<Vec<_>>());
    assert_eq!(redis.exists::<_, u64>(&asked).await.unwrap(), 51);
    let touched: u64 = cmd("TOUCH")
        .arg(&asked)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(touched, 51);
    assert_eq!(redis.unlink::<_, u64>(&keys[..10]).await.unwrap(), 10);
    assert_eq!(redis.del::<_, u64>(&asked).await.unwrap(), 40);
    // What one node refuses, all of it is.
    let error = cmd("MSET")
        .arg("a")
        .query_async::<()>(&mut redis)
        .await
        .unwrap_err();
    assert!(words(&error).contains("MSET"), "{error}");
}

#[tokio::test]
async fn a_pipeline_is_parted_by_node_and_answered_in_its_order() {
    let (_fleet, ring, [a, b, c]) = ring().await;
    let mut redis = ring.connection();
    let answers: (i64, Option<String>, i64, Vec<Option<i64>>, i64) = pipe()
        .incr(&a, 1)
        .get("none")
        .set(&b, "x")
        .ignore()
        .incr(&c, 5)
        .mget(&[&a, &c, &a])
        .del(&[&a, &b, &c])
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(answers, (1, None, 5, vec![Some(1), Some(5), Some(1)], 3));
    // The commands of one key keep their order.
    let mut many = pipe();
    for i in 0..200 {
        many.cmd("RPUSH").arg(&a).arg(i).ignore();
        many.cmd("RPUSH").arg(&b).arg(i).ignore();
    }
    let _: () = many.query_async(&mut redis).await.unwrap();
    let expected: Vec<u32> = (0..200).collect();
    for key in [&a, &b] {
        assert_eq!(
            redis.lrange::<_, Vec<u32>>(key, 0, -1).await.unwrap(),
            expected
        );
    }
    // One that fails is told of, and with `ignore_errors` the others are answered.
    let mut mixed = pipe();
    mixed.set(&c, "text").ignore().incr(&c, 1).llen(&a).llen(&b);
    let error = mixed.query_async::<Value>(&mut redis).await.unwrap_err();
    assert!(words(&error).contains("not an integer"), "{error}");
    let all: Vec<RedisResult<i64>> = mixed.ignore_errors().query_async(&mut redis).await.unwrap();
    assert!(all[0].is_err());
    assert_eq!((all[1].as_ref(), all[2].as_ref()), (Ok(&200), Ok(&200)));
    let nothing: Vec<Value> = pipe().query_async(&mut redis).await.unwrap();
    assert!(nothing.is_empty());
    let nothing: Vec<Value> = pipe().atomic().query_async(&mut redis).await.unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_transaction_goes_to_one_node_or_nowhere() {
    let (fleet, ring, [a, b, _]) = ring().await;
    let mut redis = ring.connection();
    let both: (i64, i64) = pipe()
        .atomic()
        .incr(&a, 1)
        .incr(&a, 1)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(both, (1, 2));
    let mut torn = pipe();
    torn.atomic().incr(&a, 1).incr(&b, 1);
    let error = torn.query_async::<Value>(&mut redis).await.unwrap_err();
    assert!(
        words(&error).contains("a transaction is for one node"),
        "{error}"
    );
    let untouched = fleet.owner(&ring, &a).raw(0, &["GET", &a]).await;
    assert_eq!(untouched, Value::BulkString(b"2".into()));
    // The server's first refusal is the reason.
    let mut wrong = pipe();
    wrong.atomic().cmd("SET").arg(&a).incr(&a, 1);
    let error = wrong.query_async::<Value>(&mut redis).await.unwrap_err();
    assert!(
        words(&error).contains("wrong number of arguments"),
        "{error}"
    );
    let mut failing = pipe();
    failing
        .atomic()
        .set(&a, "text")
        .ignore()
        .incr(&a, 1)
        .get(&a);
    let all: Vec<RedisResult<String>> = failing
        .ignore_errors()
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(all[0].is_err());
    assert_eq!(all[1].as_deref(), Ok("text"));
}

#[tokio::test]
async fn scripts_run_where_their_keys_are() {
    let (_fleet, ring, keys) = ring().await;
    let mut redis = ring.connection();
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    for key in &keys {
        let sum: i64 = script
            .key(key)
            .arg(5)
            .invoke_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(sum, 5);
    }
    let none = Script::new("return 1")
        .invoke_async::<_, i64>(&mut redis)
        .await;
    assert!(words(&none.unwrap_err()).contains("no key"));
    let known = redis::cmd("SCRIPT")
        .arg("EXISTS")
        .arg(script.get_hash())
        .to_owned();
    for (node, known) in redis.on_each_node::<Vec<bool>>(&known).await.unwrap() {
        assert_eq!(known.unwrap(), [true], "{node}");
    }
    let mut piped = pipe();
    piped.cmd("SCRIPT").arg("LOAD").arg("return 1");
    let error = piped.query_async::<Value>(&mut redis).await.unwrap_err();
    assert!(words(&error).contains("by itself"), "{error}");
}

#[tokio::test]
async fn all_nodes_are_asked_where_that_is_said() {
    let (fleet, ring, [a, b, c]) = ring().await;
    let mut redis = ring.connection();
    for key in [&a, &b, &c] {
        let _: () = redis.set(key, 1).await.unwrap();
    }
    let sizes = redis.on_each_node::<u64>(&cmd("DBSIZE")).await.unwrap();
    let labels: Vec<String> = sizes.iter().map(|(node, _)| node.clone()).collect();
    assert_eq!(labels, ring.nodes());
    assert!(
        sizes.iter().all(|(_, size)| matches!(size, Ok(1))),
        "{sizes:?}"
    );
    for keyed in [cmd("GET").arg(&a), cmd("MGET").arg(&a)] {
        let error = redis.on_each_node::<Value>(keyed).await.unwrap_err();
        assert!(words(&error).contains("it has keys"), "{error}");
    }
    let error = redis
        .on_each_node::<Value>(&cmd("SUBSCRIBE"))
        .await
        .unwrap_err();
    assert!(words(&error).contains("client_for"), "{error}");
    let dead = fleet.owner(&ring, &b);
    dead.kill();
    let down = async || redis.clone().get::<_, Value>(&b).await.is_err();
    eventually(SECOND, "the node is known to be down", down).await;
    let pings = redis.on_each_node::<String>(&cmd("PING")).await.unwrap();
    let gone = ring.node_for(&b).unwrap();
    for (node, pong) in pings {
        assert_eq!(pong.is_err(), node == gone, "{node}: {pong:?}");
    }
    let flushed = redis.on_each_node::<Value>(&cmd("FLUSHDB")).await;
    // It cannot be told whether the map is there.
    assert!(flushed.unwrap_err().is_io_error());
    dead.restart().await;
    let up = async || redis.clone().get::<_, Value>(&b).await.is_ok();
    eventually(5 * SECOND, "the node is back", up).await;
    redis.on_each_node::<Value>(&cmd("FLUSHDB")).await.unwrap();
    assert_eq!(redis.exists::<_, u64>(&[&a, &c]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_map_is_never_flushed() {
    let fleet = Fleet::bare(1).await;
    // The manager's own database is a node.
    let urls = [fleet.manager.url(13), fleet.nodes[0].url(0)];
    let map = larder::ring::Publication::of_nodes(&urls, 40);
    larder::ring::publish(&fleet.manager_url(), &map)
        .await
        .unwrap();
    let ring = fleet.connect().await;
    let flush = cmd("FLUSHDB");
    let error = ring
        .connection()
        .on_each_node::<Value>(&flush)
        .await
        .unwrap_err();
    assert!(words(&error).contains("the ring's own map"), "{error}");
    let mut node = ring.connection_to(&urls[0]).unwrap();
    let error = flush.query_async::<Value>(&mut node).await.unwrap_err();
    assert!(words(&error).contains("the ring's own map"), "{error}");
    let mut other = ring.connection_to(&urls[1]).unwrap();
    let _: () = flush.query_async(&mut other).await.unwrap();
    let error = cmd("FLUSHALL")
        .query_async::<Value>(&mut other)
        .await
        .unwrap_err();
    assert!(words(&error).contains("other databases"), "{error}");
    assert_eq!(
        fleet.manager.raw(13, &["EXISTS", "HASH_RING_MAP"]).await,
        Value::Int(1)
    );
}

#[tokio::test]
async fn all_keys_are_read_node_by_node() {
    let (fleet, ring, _) = ring().await;
    let mut redis = ring.connection();
    let keys: BTreeSet<String> = (0..500).map(|i| format!("user:{i}")).collect();
    let pairs: Vec<(&String, u8)> = keys.iter().map(|key| (key, 1)).collect();
    let _: () = redis.mset(&pairs).await.unwrap();
    let _: () = redis.set("other", 1).await.unwrap();
    // Another's key, left from an earlier map, and one of Larder's own.
    let stranger = fleet
        .nodes
        .iter()
        .find(|node| node.port() != fleet.owner(&ring, "user:1").port());
    stranger.unwrap().raw(0, &["SET", "user:1", "old"]).await;
    ring.incr("user:counter", 1).await.unwrap();
    ring.delete("user:counter").await.unwrap();
    let options = || ScanOptions::default().with_pattern("user:*").with_count(20);
    let all = async || {
        let found = redis.scan_all::<String>(options());
        let found: Vec<RedisResult<String>> = found.collect().await;
        found
    };
    let found: Vec<String> = all().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(found.iter().filter(|key| *key == "user:1").count(), 1);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
    let everything = redis.scan_all::<String>(ScanOptions::default());
    pin_mut!(everything);
    while let Some(key) = everything.next().await {
        let key = key.unwrap();
        assert!(key.starts_with("user:") || key == "other", "{key}");
    }
    // A node that is down is an error, and the others are read.
    let dead = fleet.owner(&ring, "user:1");
    dead.kill();
    let found = all().await;
    assert_eq!(found.iter().filter(|key| key.is_err()).count(), 1);
    let others = keys
        .iter()
        .filter(|key| fleet.owner(&ring, key).port() != dead.port());
    assert_eq!(
        found.iter().filter(|key| key.is_ok()).count(),
        others.count()
    );
}

#[tokio::test]
async fn one_node_is_had_by_key_or_by_name() {
    let (fleet, ring, [a, b, _]) = ring().await;
    let mut node = ring.connection_for(&a).unwrap();
    assert_eq!(Some(node.label()), ring.node_for(&a).as_deref());
    // Whatever the key, and commands that have none.
    let _: () = node.set(&b, "astray").await.unwrap();
    assert_eq!(node.get::<_, String>(&b).await.unwrap(), "astray");
    let pong: String = cmd("PING").query_async(&mut node).await.unwrap();
    assert_eq!(pong, "PONG");
    let (one, two): (i64, i64) = pipe()
        .atomic()
        .incr("n", 1)
        .incr("m", 1)
        .query_async(&mut node)
        .await
        .unwrap();
    assert_eq!((one, two), (1, 1));
    let keys: Vec<String> = node
        .scan::<String>()
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(keys.len(), 3);
    let unknown = cmd("NOSUCHCOMMAND")
        .arg("a")
        .query_async::<Value>(&mut node)
        .await;
    assert!(words(&unknown.unwrap_err()).contains("unknown command"));
    for refused in [
        "SCRIPT DEBUG",
        "SELECT",
        "SUBSCRIBE",
        "BLPOP",
        "WATCH",
        "CLIENT REPLY",
        "SWAPDB",
        "MULTI",
    ] {
        let mut parts = refused.split(' ');
        let mut refused = cmd(parts.next().unwrap());
        let refused = refused.arg(parts.next().unwrap_or("1")).arg("1");
        let error = refused.query_async::<Value>(&mut node).await.unwrap_err();
        assert!(words(&error).contains("not sent"), "{error}");
    }
    let mut waits = cmd("XREAD");
    let waits = waits.arg("BLOCK").arg(0).arg("STREAMS").arg("s").arg("$");
    assert!(
        words(&waits.query_async::<Value>(&mut node).await.unwrap_err()).contains("client_for")
    );

    let url = fleet.node_urls()[0].clone();
    let label = format!("127.0.0.1:{}/0", fleet.nodes[0].port());
    for name in [&url, &label] {
        assert_eq!(ring.connection_to(name).unwrap().label(), label);
    }
    for stranger in [
        "redis://:hidden@127.0.0.1:1/0",
        "127.0.0.1:1/0",
        "redis://:hidden@@/",
        "",
    ] {
        let error = ring.connection_to(stranger).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            !format!("{error} {error:?}").contains("hidden"),
            "{error:?}"
        );
        assert!(ring.client_to(stranger).await.is_err());
    }
    // A connection of one's own may wait.
    let client = ring.client_for(&a).await.unwrap();
    let mut own = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = own.rpush("queue", "job").await.unwrap();
    let (_, job): (String, String) = own.blpop("queue", 1.0).await.unwrap();
    assert_eq!(job, "job");
    let shown = format!(
        "{client:?} {:?} {:?}",
        ring.connection(),
        ring.connection_for(&a)
    );
    if let Some(password) = crate::support::password() {
        assert!(!shown.contains(&password));
    }
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_before_anything_is_sent() {
    let (fleet, ring, [a, b, _]) = ring().await;
    let mut redis = ring.connection();
    for (line, says) in [
        (
            format!("RENAME {a} {b}"),
            "RENAME: its keys are on 127.0.0.1",
        ),
        (format!("SINTER {a} {b}"), "needs one node"),
        (format!("MSETNX {a} 1 {b} 1"), "needs one node"),
        ("PING".to_owned(), "on_each_node"),
        ("DBSIZE".to_owned(), "on_each_node"),
        ("SCAN 0".to_owned(), "scan_all"),
        (format!("SUBSCRIBE {a}"), "client_for"),
        (format!("BLPOP {a} 0"), "client_for"),
        ("MULTI".to_owned(), "client_for"),
        (format!("NOSUCH {a}"), "connection_for"),
        (format!("SORT {a} BY weight_*"), "many nodes"),
        ("CLUSTER INFO".to_owned(), "no Redis Cluster"),
        ("SET HASH_RING_MAP 1".to_owned(), "reserved"),
        ("GET __larder:x".to_owned(), "reserved"),
    ] {
        let command = command(&line);
        let error = command.query_async::<Value>(&mut redis).await.unwrap_err();
        assert!(words(&error).contains(says), "{line}: {error}");
        assert_eq!(error.kind(), redis::ErrorKind::Client, "{line}");
        // So is a pipeline with it, whole.
        let mut pipeline = pipe();
        pipeline.set(&a, "sent").add_command(command);
        assert!(
            pipeline.query_async::<Value>(&mut redis).await.is_err(),
            "{line}"
        );
    }
    assert_eq!(
        fleet.owner(&ring, &a).raw(0, &["EXISTS", &a]).await,
        Value::Int(0)
    );
}

#[tokio::test]
async fn a_node_that_is_down_is_its_own_commands_error() {
    let (fleet, ring, [a, b, _]) = ring().await;
    let mut redis = ring.connection();
    fleet.owner(&ring, &a).kill();
    let down = async || redis.clone().get::<_, Value>(&a).await.is_err();
    eventually(SECOND, "the node is known to be down", down).await;
    let error = redis.get::<_, Value>(&a).await.unwrap_err();
    assert!(error.is_io_error() && !error.is_timeout(), "{error}");
    let error = redis.mget::<_, Value>(&[&a, &b]).await.unwrap_err();
    assert!(error.is_io_error(), "{error}");
    let mut both = pipe();
    both.get(&a).set(&b, 1).get(&b);
    let answers: Vec<RedisResult<Value>> =
        both.ignore_errors().query_async(&mut redis).await.unwrap();
    let error = answers[0].as_ref().unwrap_err();
    assert_eq!(error.code(), Some("NODEDOWN"), "{error}");
    assert!(answers[1].is_ok());
    assert_eq!(answers[2], Ok(Value::BulkString(b"1".into())));
    let error = pipe()
        .get(&a)
        .get(&a)
        .query_async::<Value>(&mut redis)
        .await
        .unwrap_err();
    assert!(error.is_io_error(), "{error}");
    // One that hangs is an error in time, and of another kind.
    let frozen = fleet.owner(&ring, &b);
    frozen.pause();
    let error = redis.get::<_, Value>(&b).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let mut hasty = ring.connection().timeout(Duration::from_millis(30));
    let error = hasty.get::<_, Value>(&b).await.unwrap_err();
    assert!(words(&error).contains("30ms"), "{error}");
    // One that is worth waiting for is waited for.
    let mut patient = ring.connection().timeout(10 * SECOND);
    let resumed = async {
        tokio::time::sleep(Duration::from_millis(350)).await;
        frozen.resume();
    };
    let (value, ()) = futures_util::join!(patient.get::<_, u64>(&b), resumed);
    assert_eq!(value.unwrap(), 1);
}

/// What is written so is a foreign write to memory.
#[tokio::test]
async fn memory_hears_of_what_is_written() {
    let (_fleet, ring, [a, b, _]) = ring().await;
    let cache = Tiered::new(Moka::new(100), ring.clone());
    let mut redis = ring.connection();
    for key in [&a, &b] {
        cache.set(key, 1_u64, SECOND * 60).await.unwrap();
    }
    for write in ["set", "incr", "del", "pipeline", "script"] {
        let before = cache.get::<u64>(&a).await.unwrap();
        let after = match write {
            "set" => redis.set::<_, _, ()>(&a, 5).await.map(|()| Some(5)),
            "incr" => redis.incr::<_, _, u64>(&a, 1).await.map(Some),
            "del" => redis.del::<_, ()>(&[&a, &b]).await.map(|()| None),
            "pipeline" => {
                let mut both = pipe();
                both.set(&a, 8).set(&b, 8);
                both.query_async::<()>(&mut redis).await.map(|()| Some(8))
            }
            _ => {
                let script = Script::new("return redis.call('SET', KEYS[1], 9)");
                script
                    .key(&a)
                    .invoke_async::<()>(&mut redis)
                    .await
                    .map(|()| Some(9))
            }
        };
        let after: Option<u64> = after.unwrap();
        assert_ne!(before, after, "{write}");
        let seen = async || cache.get::<u64>(&a).await.unwrap() == after;
        eventually(SECOND, write, seen).await;
    }
}

/// Plain values of both are each other's; those of the cache with an envelope are not.
#[tokio::test]
async fn integers_and_texts_are_the_same_values_by_both_ways() {
    let (_fleet, ring, [a, b, _]) = ring().await;
    let mut redis = ring.connection();
    ring.set(&a, 41_i64, SECOND * 60).await.unwrap();
    assert_eq!(redis.incr::<_, _, i64>(&a, 1).await.unwrap(), 42);
    assert_eq!(ring.get::<i64>(&a).await.unwrap(), Some(42));
    let _: () = redis.set(&b, "text").await.unwrap();
    assert_eq!(
        ring.get::<String>(&b).await.unwrap().as_deref(),
        Some("text")
    );
}

/// An empty command is answered by nothing, and so would shift all later answers of a connection that many share.
#[tokio::test]
async fn what_is_no_command_is_not_sent() {
    let (_fleet, ring, [a, ..]) = ring().await;
    ring.set(&a, 7_u64, SECOND * 60).await.unwrap();
    let mut empty = pipe();
    empty.get(&a).add_command(redis::Cmd::new());
    let mut node = ring.connection_for(&a).unwrap();
    for error in [
        empty.query_async::<Value>(&mut node).await.unwrap_err(),
        empty
            .query_async::<Value>(&mut ring.connection())
            .await
            .unwrap_err(),
        redis::Cmd::new()
            .query_async::<Value>(&mut node)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), redis::ErrorKind::Client, "{error}");
    }
    for _ in 0..3 {
        assert_eq!(ring.get::<u64>(&a).await.unwrap(), Some(7));
    }
}

/// What an application has its own commands and patience say is nothing about the server.
#[tokio::test]
async fn commands_of_an_application_bring_no_connection_down() {
    let (fleet, ring, [a, ..]) = ring().await;
    let mut redis = ring.connection();
    let refusing = Script::new("return redis.error_reply('BUSY somebody has it')");
    for _ in 0..8 {
        let refused = refusing.key(&a).invoke_async::<Value>(&mut redis).await;
        assert!(words(&refused.unwrap_err()).contains("somebody has it"));
    }
    let owner = fleet.owner(&ring, &a);
    owner.pause();
    let mut hasty = ring.connection().timeout(Duration::from_millis(5));
    for _ in 0..6 {
        assert!(hasty.get::<_, Value>(&a).await.unwrap_err().is_timeout());
    }
    owner.resume();
    assert!(redis.get::<_, Option<u64>>(&a).await.unwrap().is_none());
    let nodes = ring.map_status().nodes;
    assert!(
        nodes.iter().all(|node| node.up && node.reconnects == 0),
        "{nodes:?}"
    );
    // For ever is as long as there is.
    let mut patient = ring.connection().timeout(Duration::MAX);
    assert!(patient.get::<_, Option<u64>>(&a).await.unwrap().is_none());
    // Nobody waits for an answer that is not wanted.
    let mut forgotten = cmd("SET");
    forgotten.arg(&a).arg(1).set_no_response(true);
    let _: () = forgotten.query_async(&mut redis).await.unwrap();
    let set = async || ring.get::<u64>(&a).await.unwrap() == Some(1);
    eventually(SECOND, "it is done all the same", set).await;
}

/// With several connections to a node, a pipeline keeps its order over keys that are on different ones.
#[tokio::test]
async fn several_connections_change_no_order() {
    let fleet = Fleet::new(1).await;
    let ring = DistributedRedis::builder(&fleet.manager_url()).connections(8);
    let ring = ring.connect().await.unwrap();
    let mut redis = ring.connection();
    for round in 0..50 {
        let keys: Vec<String> = (0..8).map(|i| format!("set:{round}:{i}")).collect();
        let mut all = pipe();
        for key in &keys {
            all.cmd("SADD").arg(key).arg(key).ignore();
        }
        all.cmd("SUNION").arg(&keys);
        let (union,): (Vec<String>,) = all.query_async(&mut redis).await.unwrap();
        assert_eq!(union.len(), 8, "{round}");
        let (both,): (i64,) = pipe()
            .atomic()
            .rename(&keys[0], &keys[1])
            .ignore()
            .scard(&keys[1])
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(both, 1);
        assert_eq!(redis.del::<_, u64>(&keys).await.unwrap(), 7);
    }
}

/// A node is the same by any spelling, and what is no node is not repeated.
#[tokio::test]
async fn nodes_are_found_as_they_are_shown() {
    let fleet = Fleet::bare(1).await;
    let url = fleet.nodes[0].url(0).replace("127.0.0.1", "LOCALHOST");
    let map = larder::ring::Publication::of_nodes(&[&url], 40);
    larder::ring::publish(&fleet.manager_url(), &map)
        .await
        .unwrap();
    let ring = fleet.connect().await;
    let shown = ring.nodes()[0].clone();
    assert_eq!(Some(&shown), ring.node_for("k").as_ref());
    for name in [&url, &shown] {
        let mut node = ring.connection_to(name).unwrap();
        assert_eq!(node.label(), shown);
        let _: () = node.set("k", 1).await.unwrap();
        ring.client_to(name).await.unwrap();
    }
    for strange in [
        "redis://h:6379/0?password=hidden",
        "redis://:hidden",
        "hidden@h",
        "h:hidden/0",
    ] {
        let error = ring.connection_to(strange).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            !format!("{error} {error:?}").contains("hidden"),
            "{error:?}"
        );
    }
}

/// The keys of the map are nobody's, at a single node too.
#[tokio::test]
async fn a_maps_own_keys_are_spared_at_a_node() {
    let fleet = Fleet::bare(1).await;
    let manager = fleet.manager.url(0);
    let map = larder::ring::Publication::of_nodes(&[&manager], 40).in_map("cart_MAP");
    larder::ring::publish(&manager, &map).await.unwrap();
    let ring = DistributedRedis::builder(&manager).map_name("cart_MAP");
    let ring = ring.connect().await.unwrap();
    let mut node = ring.connection_to(&manager).unwrap();
    let _: () = node.rpush("list", &[2, 1]).await.unwrap();
    for line in [
        "DEL cart_MAP",
        "SORT list BY w_* STORE HASH_RING_MAP",
        "SET HASH_RING_META 1",
    ] {
        let command = command(line);
        let error = command.query_async::<Value>(&mut node).await.unwrap_err();
        assert_eq!(error.kind(), redis::ErrorKind::Client, "{line}: {error}");
    }
    assert!(
        cmd("FLUSHDB")
            .query_async::<Value>(&mut node)
            .await
            .is_err()
    );
    assert_eq!(
        fleet.manager.raw(0, &["EXISTS", "cart_MAP"]).await,
        Value::Int(1)
    );
    let sorted = cmd("SORT")
        .arg("list")
        .arg("BY")
        .arg("w_*")
        .arg("STORE")
        .arg("sorted")
        .to_owned();
    assert_eq!(sorted.query_async::<u64>(&mut node).await.unwrap(), 2);
}
