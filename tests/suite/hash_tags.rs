//! Keys that are placed by what stands in their braces.

use std::collections::BTreeSet;
use std::time::Duration;

use larder::ring::{Publication, key_hash, publish};
use larder::{Cache, DistributedRedis, ErrorKind};
use redis::{AsyncCommands, pipe};

use crate::fleet::{Fleet, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// Keys of one tag are on one node, by the cache and by redis-rs alike, and stay its own when the map changes.
#[tokio::test]
async fn hash_tags_bring_keys_together() {
    let fleet = Fleet::new(3).await;
    let tagged = DistributedRedis::builder(&fleet.manager_url())
        .hash_tags(true)
        .connect()
        .await
        .unwrap();
    let plain = fleet.connect().await;
    let keys: Vec<String> = (0..20).map(|i| format!("{{cart}}:{i}")).collect();
    let nodes = |ring: &DistributedRedis| -> BTreeSet<String> {
        keys.iter().filter_map(|key| ring.node_for(key)).collect()
    };
    assert_eq!(nodes(&tagged).len(), 1);
    // Where they have none, so many are everywhere.
    let many = (0..10_000).map(|i| format!("{{cart}}:{i}"));
    let everywhere: BTreeSet<_> = many.filter_map(|key| plain.node_for(&key)).collect();
    assert_eq!(everywhere.len(), 3);
    assert_eq!(tagged.node_for("cart"), tagged.node_for(&keys[0]));
    let mut redis = tagged.connection();
    let mut all = pipe();
    keys.iter().for_each(|key| {
        all.incr(key, 2);
    });
    let sums: Vec<i64> = all.atomic().query_async(&mut redis).await.unwrap();
    assert_eq!(sums, [2; 20]);
    let _: () = redis.rename(&keys[0], "{cart}:new").await.unwrap();
    assert_eq!(tagged.get::<i64>("{cart}:new").await.unwrap(), Some(2));
    assert_eq!(
        tagged.get_many::<i64>(&keys[1..]).await.unwrap(),
        [Some(2); 19]
    );
    // What is written in another epoch is judged by the tag too.
    let urls = fleet.node_urls();
    let map = Publication::of_nodes(&urls[..2], 40);
    publish(&fleet.manager_url(), &map).await.unwrap();
    let follows = async || tagged.nodes().len() == 2;
    eventually(5 * SECOND, "the map is followed", follows).await;
    assert_eq!(nodes(&tagged).len(), 1);
    for key in &keys {
        tagged.set(key, 3_u64, SECOND * 60).await.unwrap();
        assert_eq!(tagged.get::<u64>(key).await.unwrap(), Some(3));
    }
    let back = Publication::of_nodes(&urls, 40);
    publish(&fleet.manager_url(), &back).await.unwrap();
    let follows = async || tagged.nodes().len() == 3;
    eventually(5 * SECOND, "the map is followed", follows).await;
    let stands = tagged.get_many::<u64>(&keys).await.unwrap();
    assert!(
        stands
            .iter()
            .all(|value| value.is_none_or(|value| value == 3)),
        "{stands:?}"
    );
}

/// The map says to all its readers whether keys have tags; who was told otherwise is told so.
#[tokio::test]
async fn a_map_says_whether_keys_have_tags() {
    let fleet = Fleet::bare(3).await;
    let (manager, urls) = (fleet.manager_url(), fleet.node_urls());
    let map = || Publication::of_nodes(&urls, 40);
    publish(&manager, &map().hash_tags(true)).await.unwrap();
    let ring = fleet.connect().await;
    let together = |ring: &DistributedRedis| {
        let nodes = (0..20).filter_map(|i| ring.node_for(&format!("{{cart}}:{i}")));
        nodes.collect::<BTreeSet<_>>().len() == 1
    };
    assert!(together(&ring) && ring.ring().has_hash_tags());
    let value = || Some("of before".to_owned());
    // By a process that is gone before the map changes, so that nobody tells others of what it wrote.
    let writer = fleet.connect().await;
    let stored = writer.set("{cart}:1", value().unwrap(), SECOND * 60);
    stored.await.unwrap();
    writer.shutdown().await;
    drop(writer);
    let chosen = |tags: bool| {
        DistributedRedis::builder(&manager)
            .hash_tags(tags)
            .connect()
    };
    assert!(together(&chosen(true).await.unwrap()));
    let error = chosen(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("hash tags"), "{error}");
    // One that says nothing of it leaves it as it stands, and what stands there is still in its place.
    publish(&manager, &map()).await.unwrap();
    let follows = async || ring.map_status().epoch == 2;
    eventually(5 * SECOND, "the map is followed", follows).await;
    let fresh = fleet.connect().await;
    for ring in [&ring, &fresh] {
        assert!(together(ring));
        assert_eq!(ring.get::<String>("{cart}:1").await.unwrap(), value());
    }
    // Where it changes all the same, nothing from before is believed.
    publish(&manager, &map().hash_tags(false)).await.unwrap();
    let follows = async || !ring.ring().has_hash_tags();
    eventually(5 * SECOND, "the map is followed", follows).await;
    publish(&manager, &map().hash_tags(true)).await.unwrap();
    let follows = async || ring.ring().has_hash_tags();
    eventually(5 * SECOND, "the map is followed", follows).await;
    let fresh = fleet.connect().await;
    for ring in [&ring, &fresh] {
        assert_eq!(ring.get::<String>("{cart}:1").await.unwrap(), None);
    }
    fleet
        .manager
        .raw(13, &["HSET", "HASH_RING_META", "hash_tags", "perhaps"])
        .await;
    assert_eq!(chosen(true).await.unwrap_err().kind(), ErrorKind::Config);
    // Another publication makes it good.
    publish(&manager, &map()).await.unwrap();
    assert!(together(&chosen(true).await.unwrap()));
}

/// A key whose node by its tag was the same all the time, and by the whole key another one in between: when tags come to count, what was left on that node
/// is not taken for its value.
#[tokio::test]
async fn a_value_from_before_tags_counted_is_not_believed() {
    let fleet = Fleet::bare(2).await;
    let (manager, urls) = (fleet.manager_url(), fleet.node_urls());
    let key = (0..)
        .map(|i| format!("user:{i}{{cart}}"))
        .find(|key| key_hash(key) < key_hash("cart"))
        .unwrap();
    let (whole, tag) = (key_hash(&key), key_hash("cart"));
    // Up to the whole key's position one node, and up to the tag's the other.
    let map = |first: usize| {
        let positions = [(whole + 1, urls[first].clone()), (tag + 1, urls[1].clone())];
        Publication::of_positions(positions)
    };
    let write = async |value: &str| {
        let ring = fleet.connect().await;
        ring.set(&key, value.to_owned(), SECOND * 60).await.unwrap();
        ring.shutdown().await;
    };
    publish(&manager, &map(1)).await.unwrap();
    write("first").await;
    publish(&manager, &map(0)).await.unwrap();
    write("second").await;
    let stands: Option<String> = fleet.connect().await.get(&key).await.unwrap();
    assert_eq!(stands.as_deref(), Some("second"));
    // The first value is still where it was.
    let left = fleet.nodes[1].raw(0, &["EXISTS", &key]).await;
    assert_eq!(left, redis::Value::Int(1));
    publish(&manager, &map(0).hash_tags(true)).await.unwrap();
    let ring = fleet.connect().await;
    assert_eq!(ring.node_for(&key), Some(larder::ring::label(&urls[1])));
    assert_eq!(ring.get::<String>(&key).await.unwrap(), None);
}
