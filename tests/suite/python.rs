//! A process with the Python SDK and this one on one ring.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use larder::ring::Order;
use larder::{Cache, DistributedRedis};
use redis::{AsyncCommands, Value};

use crate::fleet::Fleet;

const SECOND: Duration = Duration::from_secs(1);

/// A node by the lookup of the Python SDK: positions sorted as they are spelt, and the first greater number of them.
pub(crate) fn node_by_sdk(map: &HashMap<String, String>, key: &str) -> String {
    let mut positions: Vec<&String> = map.keys().collect();
    positions.sort();
    let hash = crc32(key.as_bytes());
    let next = positions
        .iter()
        .find(|at| hash < at.parse::<u32>().unwrap());
    map[*next.unwrap_or(&positions[0])].clone()
}

/// Bit by bit, by nobody's library.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    })
}

/// On one ring, a Python process and this one find each other's integers and texts, whoever wrote the map and whoever was first.
#[tokio::test]
async fn a_python_process_and_this_one_read_each_others_plain_values() {
    for by_python in [true, false] {
        let fleet = Fleet::new(4).await;
        let urls = fleet.node_urls();
        let order = match by_python {
            true => {
                for key in ["HASH_RING_META", "HASH_RING_HISTORY"] {
                    fleet.manager.raw(13, &["DEL", key]).await;
                }
                fleet.publish_like_python(&urls).await;
                Order::Lexicographic
            }
            false => Order::Auto,
        };
        let ring = DistributedRedis::builder(&fleet.manager_url()).order(order);
        let ring = ring.connect().await.unwrap();
        let map = fleet.manager.raw(13, &["HGETALL", "HASH_RING_MAP"]).await;
        let map: HashMap<String, String> = redis::from_redis_value(map).unwrap();
        let mut redis = ring.connection();
        let mut used = BTreeSet::new();
        for i in 0..200 {
            let key = format!("BEI:shared:{i}");
            let node = node_by_sdk(&map, &key);
            let python = fleet
                .nodes
                .iter()
                .find(|server| server.url(0) == node)
                .unwrap();
            used.insert(python.port());
            match i % 4 {
                // The SDK stores integers as digits, and `redis.set('k', 'text')` texts as they are.
                0 => {
                    python.raw(0, &["SETEX", &key, "60", &i.to_string()]).await;
                    assert_eq!(ring.get::<i64>(&key).await.unwrap(), Some(i), "{key}");
                    assert_eq!(redis.incr::<_, _, i64>(&key, 1).await.unwrap(), i + 1);
                    assert_eq!(ring.incr(&key, 1).await.unwrap(), i + 2);
                    let seen = python.raw(0, &["GET", &key]).await;
                    assert_eq!(seen, Value::BulkString((i + 2).to_string().into()));
                }
                1 => {
                    python.raw(0, &["SET", &key, "ein Text"]).await;
                    let read = ring.get::<String>(&key).await.unwrap();
                    assert_eq!(read.as_deref(), Some("ein Text"), "{key}");
                    assert_eq!(redis.get::<_, String>(&key).await.unwrap(), "ein Text");
                }
                2 => {
                    ring.set(&key, i, SECOND * 60).await.unwrap();
                    let seen = python.raw(0, &["GET", &key]).await;
                    assert_eq!(seen, Value::BulkString(i.to_string().into()), "{key}");
                    assert_eq!(python.raw(0, &["INCR", &key]).await, Value::Int(i + 1));
                    assert_eq!(ring.get::<i64>(&key).await.unwrap(), Some(i + 1));
                }
                _ => {
                    let _: () = redis.set(&key, "a text").await.unwrap();
                    let seen = python.raw(0, &["GET", &key]).await;
                    assert_eq!(seen, Value::BulkString(b"a text".into()), "{key}");
                }
            }
        }
        // By five positions each, one node may have next to nothing.
        assert!(used.len() >= if by_python { 2 } else { 4 }, "{used:?}");
        // A pickle is bytes here, and an envelope is bytes there, which the SDK hands on as such.
        let key = "BEI:pickled";
        let node = node_by_sdk(&map, key);
        let python = fleet
            .nodes
            .iter()
            .find(|server| server.url(0) == node)
            .unwrap();
        python.raw(0, &["SET", key, "!\u{1}pickle"]).await;
        assert_eq!(ring.get::<Vec<String>>(key).await.unwrap(), None);
        ring.set(key, vec!["a".to_owned()], SECOND * 60)
            .await
            .unwrap();
        let Value::BulkString(bytes) = python.raw(0, &["GET", key]).await else {
            panic!("nothing stands there");
        };
        assert_eq!(bytes[0], 0xC1);
    }
}
