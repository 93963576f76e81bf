//! A process that follows an earlier map for a while: what it writes meanwhile is not lost.

use std::time::{Duration, Instant};

use larder::{Backend, Cache, Clock, DistributedRedis, Draft, Entry, Value, When};

use crate::fleet::{Fleet, eventually};
use crate::support::Server;
use crate::topology::{HEARD, MINUTE, keys};

const OLD: &str = "of the old origin";
const NEW: &str = "of the new origin";

/// A process on the map of nodes 0 and 1 and one on the map of all three, and a key that node 2 took over.
struct Behind {
    fleet: Fleet,
    behind: DistributedRedis,
    ahead: DistributedRedis,
    key: String,
    /// A key that did not move.
    other: String,
}

impl Behind {
    async fn prepare() -> Self {
        let fleet = Fleet::new(3).await;
        let ahead = fleet.patient().await;
        fleet.publish(&[0, 1], &[&ahead]).await;
        let behind = fleet.deaf().await;
        fleet.publish(&[0, 1, 2], &[&ahead]).await;
        let keys = keys(50);
        let moved = |key: &&String| behind.node_for(key) != ahead.node_for(key);
        let key = keys.iter().find(moved).expect("a key moved").clone();
        let other = keys.iter().find(|key| !moved(key)).expect("one did not");
        let other = other.clone();
        Self {
            fleet,
            behind,
            ahead,
            key,
            other,
        }
    }

    /// The one that is behind meets an entry of the new epoch, and so hears of the map.
    async fn catch_up(&self) {
        self.ahead
            .set(&self.other, NEW.to_owned(), MINUTE)
            .await
            .unwrap();
        self.behind.get::<String>(&self.other).await.unwrap();
        let heard = async || self.behind.map_status().epoch == self.ahead.map_status().epoch;
        eventually(HEARD, "the map is heard of", heard).await;
        self.fleet.settled(&self.behind).await;
    }

    async fn read(&self) -> Option<String> {
        self.behind.get::<String>(&self.key).await.unwrap()
    }
}

/// The sequence: the one ahead computes and stores on the new node, the origin changes, the one behind writes by the old
/// map, hears of the new one, and reads.
async fn after(write: impl AsyncFn(&DistributedRedis, &str)) -> Option<String> {
    let both = Behind::prepare().await;
    let old = async || OLD.to_owned();
    let computed = both.ahead.get_or_set(&both.key, MINUTE, old).await;
    assert_eq!(computed.unwrap(), OLD);
    write(&both.behind, &both.key).await;
    both.catch_up().await;
    both.read().await
}

#[tokio::test]
async fn a_delete_by_the_old_map_is_not_lost() {
    let read = after(async |cache, key| {
        cache.delete(key).await.unwrap();
    });
    assert_eq!(read.await, None);
    let read = after(async |cache, key| {
        cache.delete_many(&[key]).await.unwrap();
    });
    assert_eq!(read.await, None);
}

#[tokio::test]
async fn a_set_by_the_old_map_leaves_nothing_older() {
    let read = after(async |cache, key| cache.set(key, NEW.to_owned(), MINUTE).await.unwrap());
    assert_ne!(read.await.as_deref(), Some(OLD));
    let read = after(async |cache, key| {
        cache
            .set_many([(key, NEW.to_owned())], MINUTE)
            .await
            .unwrap()
    });
    assert_ne!(read.await.as_deref(), Some(OLD));
}

#[tokio::test]
async fn a_clear_by_the_old_map_reaches_the_nodes_that_joined() {
    let read = after(async |cache, _| cache.clear().await.unwrap());
    assert_eq!(read.await, None);
}

/// A node that left is asked by those who have not heard of it.
#[tokio::test]
async fn a_clear_reaches_the_nodes_that_left() {
    let fleet = Fleet::new(3).await;
    let behind = fleet.deaf().await;
    let keys = keys(50);
    let key = keys.iter().find(|key| fleet.node_of(&behind, key) == 2);
    let key = key.expect("node 2 has a key");
    behind.set(key, OLD.to_owned(), MINUTE).await.unwrap();
    let ahead = fleet.patient().await;
    fleet.publish(&[0, 1], &[&ahead]).await;
    ahead.clear().await.unwrap();
    assert_eq!(behind.get::<String>(key).await.unwrap(), None);
}

/// The map changes while a write waits for the old node.
#[tokio::test]
async fn a_write_that_a_change_overtakes_is_done_again() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    fleet.publish(&[0, 1], &[&cache]).await;
    let before = cache.ring();
    fleet.publish(&[0, 1, 2], &[&cache]).await;
    let keys = keys(100);
    let moved = |key: &&String| before.node_for(key) != cache.ring().node_for(key);
    let moved: Vec<&String> = keys.iter().filter(moved).collect();
    fleet.publish(&[0, 1], &[&cache]).await;
    let overtaken = async |write: &mut dyn FnMut() -> tokio::task::JoinHandle<()>| {
        fleet.nodes[..2].iter().for_each(Server::pause);
        let write = write();
        // It has been sent, or is about to be.
        tokio::time::sleep(Duration::from_millis(50)).await;
        fleet.publish(&[0, 1, 2], &[&cache]).await;
        fleet.nodes[..2].iter().for_each(Server::resume);
        write.await.unwrap();
    };
    let (one, two, three) = (moved[0].clone(), moved[1].clone(), moved[2].clone());
    overtaken(&mut || {
        let (cache, one, two) = (cache.clone(), one.clone(), two.clone());
        tokio::spawn(async move {
            let set = cache.set(&one, NEW.to_owned(), MINUTE);
            let many = cache.set_many([(&two, NEW.to_owned())], MINUTE);
            let (set, many) = tokio::join!(set, many);
            set.unwrap();
            many.unwrap();
        })
    })
    .await;
    for key in [&one, &two] {
        let read = cache.get::<String>(key).await.unwrap();
        assert_eq!(read.as_deref(), Some(NEW));
    }
    fleet.publish(&[0, 1], &[&cache]).await;
    fleet.nodes[2].raw(0, &["SET", &two, OLD]).await;
    fleet.nodes[2].raw(0, &["SET", &three, OLD]).await;
    overtaken(&mut || {
        let (cache, two, three) = (cache.clone(), two.clone(), three.clone());
        tokio::spawn(async move {
            let delete = cache.delete(&two);
            let (one, many) = ([&three], cache.clone());
            let many = many.delete_many(&one);
            let (delete, many) = tokio::join!(delete, many);
            // Whether there was anything is told by whoever came first, this or what is owed.
            let _ = (delete.unwrap(), many.unwrap());
        })
    })
    .await;
    for key in [&two, &three] {
        assert_eq!(cache.get::<String>(key).await.unwrap(), None);
    }
}

/// The one ahead has moved away from node 2, where the one behind still looks.
async fn left_node_2() -> (Fleet, DistributedRedis, DistributedRedis, String) {
    let fleet = Fleet::new(3).await;
    let (ahead, behind) = (fleet.patient().await, fleet.deaf().await);
    let keys = keys(50);
    let key = keys.iter().find(|key| fleet.node_of(&behind, key) == 2);
    let key = key.expect("node 2 has a key").clone();
    behind.incr(&key, 5).await.unwrap();
    fleet.publish(&[0, 1], &[&ahead]).await;
    (fleet, ahead, behind, key)
}

#[tokio::test]
async fn former_owners_hear_of_counters_and_of_new_lives() {
    let (fleet, ahead, behind, key) = left_node_2().await;
    assert_eq!(ahead.incr(&key, 1).await.unwrap(), 1);
    assert_eq!(behind.get::<i64>(&key).await.unwrap(), None);
    // A -> B -> A within seconds.
    fleet.publish(&[0, 1, 2], &[&ahead]).await;
    fleet.settled(&ahead).await;
    assert_eq!(ahead.get::<i64>(&key).await.unwrap(), None);
    assert_eq!(ahead.decr(&key, 1).await.unwrap(), -1);
    let (_fleet, ahead, behind, key) = left_node_2().await;
    assert!(!ahead.touch(&key, MINUTE).await.unwrap());
    assert_eq!(behind.get::<i64>(&key).await.unwrap(), None);
}

/// Told even where the present owner is out of reach for good.
#[tokio::test]
async fn former_owners_hear_of_writes_that_fail() {
    let fleet = Fleet::new(1).await;
    let cache = fleet.patient().await;
    let keys = keys(4);
    for key in &keys {
        cache.incr(key, 5).await.unwrap();
    }
    let script = "for _, at in ipairs(redis.call('HKEYS', 'HASH_RING_MAP')) do \
                  redis.call('HSET', 'HASH_RING_MAP', at, 'http://nowhere') end";
    fleet.manager.raw(13, &["EVAL", script, "0"]).await;
    let unusable = async || {
        cache
            .map_status()
            .nodes
            .iter()
            .all(|node| node.label == "?")
    };
    eventually(HEARD, "the map is heard of", unusable).await;
    let failed = [
        cache.delete(&keys[0]).await.is_err(),
        cache.set(&keys[1], 1, MINUTE).await.is_err(),
        cache.incr(&keys[2], 1).await.is_err(),
        cache.touch(&keys[3], MINUTE).await.is_err(),
    ];
    assert_eq!(failed, [true; 4]);
    // All but the records of the namespaces.
    assert_eq!(
        fleet.nodes[0].raw(0, &["DBSIZE"]).await,
        redis::Value::Int(1)
    );
}

/// A value that this process stored by the map before is taken back from where it stored it.
#[tokio::test]
async fn what_was_stored_by_the_map_before_can_be_taken_back() {
    let fleet = Fleet::new(3).await;
    let cache = fleet.patient().await;
    let keys = keys(50);
    let key = keys.iter().find(|key| fleet.node_of(&cache, key) == 2);
    let key = key.expect("node 2 has a key");
    let value = Value::new(OLD.to_owned());
    let entry = Entry::new(value, Clock::default().now(), Some(MINUTE));
    let mut draft = Draft::new(entry, When::Always);
    draft.computed = true;
    cache.prepare(key, &mut draft).unwrap();
    cache.store(key, draft.clone()).await.unwrap();
    fleet.publish(&[0, 1], &[&cache]).await;
    assert!(cache.retract(key, &draft).await.unwrap());
    assert!(!cache.retract(key, &draft).await.unwrap());
    let there = fleet.nodes[2].raw(0, &["EXISTS", key]).await;
    assert_eq!(there, redis::Value::Int(0));
}

/// A former owner that is frozen, and still of the ring, neither fails a write nor owes anything for it.
#[tokio::test]
async fn a_former_owner_owes_nothing_for_what_it_is_told() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.connect().await;
    fleet.publish(&[0], &[&cache]).await;
    fleet.publish(&[0, 1], &[&cache]).await;
    fleet.settled(&cache).await;
    let keys: Vec<String> = keys(2000)
        .into_iter()
        .filter(|key| fleet.node_of(&cache, key) == 1)
        .collect();
    fleet.nodes[0].pause();
    let began = Instant::now();
    let pairs = keys.iter().map(|key| (key, NEW.to_owned()));
    cache.set_many(pairs, MINUTE).await.unwrap();
    assert_eq!(cache.delete_many(&keys).await.unwrap(), keys.len() as u64);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let owed: usize = cache.map_status().nodes.iter().map(|node| node.owed).sum();
    assert_eq!(owed, 0);
    fleet.nodes[0].resume();
}

/// Nodes that joined are told of a tag that was invalidated by the map before.
#[tokio::test]
async fn a_tag_by_the_old_map_reaches_the_nodes_that_joined() {
    let both = Behind::prepare().await;
    let options = larder::Options::ttl(MINUTE).tag("t");
    let old = async || OLD.to_owned();
    let computed = both.ahead.get_or_set(&both.key, options, old).await;
    assert_eq!(computed.unwrap(), OLD);
    both.behind.invalidate_tag("t").await.unwrap();
    both.catch_up().await;
    assert_eq!(both.read().await, None);
}

/// A node left and came back while the map was not read: the history tells, and memory does not vouch for what it has of it.
#[tokio::test]
async fn memory_notices_a_change_that_was_undone() {
    let fleet = Fleet::new(3).await;
    let behind = fleet.deaf().await;
    let tier = larder::Tiered::new(larder::Moka::new(1000), behind.clone());
    let all = keys(50);
    let key = all
        .iter()
        .find(|key| fleet.node_of(&behind, key) == 2)
        .expect("a key");
    let other = all
        .iter()
        .find(|key| fleet.node_of(&behind, key) == 0)
        .expect("a key");
    tier.set(key, OLD.to_owned(), MINUTE).await.unwrap();
    eventually(HEARD, "it is in memory", async || {
        let before = tier.stats().memory_hits;
        tier.get::<String>(key).await.unwrap();
        tier.stats().memory_hits > before
    })
    .await;
    fleet.publish(&[0, 1], &[]).await;
    let ahead = fleet.patient().await;
    ahead.set(key, NEW.to_owned(), MINUTE).await.unwrap();
    let written = Instant::now();
    // It ends before it hears of the next map.
    drop(ahead);
    let epoch = fleet.publish(&[0, 1, 2], &[]).await;
    let ahead = fleet.patient().await;
    assert_eq!(ahead.get::<String>(key).await.unwrap(), None);
    ahead.set(other, NEW.to_owned(), MINUTE).await.unwrap();
    behind.get::<String>(other).await.unwrap();
    let heard = async || behind.map_status().epoch == epoch;
    eventually(HEARD, "the map is heard of", heard).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        behind.get::<String>(key).await.unwrap(),
        None,
        "the store knows"
    );
    assert_ne!(
        tier.get::<String>(key).await.unwrap().as_deref(),
        Some(OLD),
        "{:?} after it was overwritten",
        written.elapsed()
    );
}
