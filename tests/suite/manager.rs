//! A manager Redis behind several addresses, or behind sentinels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder::ring::{Publication, publish};
use larder::{Cache, DistributedRedis, ErrorKind, Redis};
use redis::Value;

use crate::fleet::eventually;
use crate::support::{Server, password};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn credentials() -> String {
    password().map_or_else(String::new, |password| format!(":{password}@"))
}

/// The url that leads to the master by a sentinel, whose own password is the same.
fn through(sentinels: &[&Server], db: u8) -> String {
    let places: Vec<String> = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
        .collect();
    let own = password().map_or_else(String::new, |own| format!("?sentinel_password={own}"));
    let (user, places) = (credentials(), places.join(","));
    format!("redis+sentinel://{user}{places}/the-manager/{db}{own}")
}

async fn master_and_replica() -> (Server, Server) {
    let master = Server::start().await;
    let replica = Server::replica_of(&master).await;
    let linked = async || {
        let info = replica.raw(0, &["INFO", "replication"]).await;
        matches!(info, Value::BulkString(info) if String::from_utf8_lossy(&info).contains("master_link_status:up"))
    };
    eventually(10 * SECOND, "the replica follows", linked).await;
    (master, replica)
}

/// Whether a sentinel knows of the replica, without which there is nobody to promote.
async fn knows_replica(sentinel: &Server) -> bool {
    let answer = sentinel
        .try_raw(0, &["SENTINEL", "REPLICAS", "the-manager"])
        .await;
    matches!(answer, Ok(Value::Array(replicas)) if !replicas.is_empty())
}

#[tokio::test]
async fn a_ring_follows_its_manager_through_a_failover() {
    let (master, replica) = master_and_replica().await;
    let sentinel = Server::sentinel_of(&master, "the-manager").await;
    let node = Server::start().await;
    let knows = async || knows_replica(&sentinel).await;
    eventually(15 * SECOND, "the sentinel knows the replica", knows).await;
    let map = Publication::of_nodes(&[node.url(0)], 40);
    publish(&through(&[&sentinel], 13), &map).await.unwrap();
    let nobody = Server::start().await;
    nobody.kill();
    let cache = DistributedRedis::builder(&through(&[&nobody, &sentinel], 13))
        .poll_interval(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    assert_eq!(cache.map_status().epoch, 1);
    master.kill();
    cache.set("a", 1_u8, MINUTE).await.unwrap();
    let promoted = async || {
        // It hangs up on its clients when it changes its part.
        let role = replica.try_raw(0, &["ROLE"]).await;
        matches!(role, Ok(Value::Array(role)) if role.first() == Some(&Value::BulkString("master".into())))
    };
    eventually(30 * SECOND, "the replica is promoted", promoted).await;
    publish(
        &replica.url(13),
        &Publication::of_nodes(&[node.url(0), node.url(1)], 40),
    )
    .await
    .unwrap();
    let heard = async || cache.map_status().nodes.len() == 2;
    eventually(5 * SECOND, "the map of the new master is heard of", heard).await;
    cache.set("b", 1_u8, MINUTE).await.unwrap();
}

#[tokio::test]
async fn a_store_behind_a_sentinel_is_the_master() {
    let (master, replica) = master_and_replica().await;
    let sentinel = Server::sentinel_of(&master, "the-manager").await;
    let cache = Redis::connect(&through(&[&sentinel], 3)).await.unwrap();
    cache.set("a", 1_u8, MINUTE).await.unwrap();
    let url = through(&[&sentinel], 3);
    let opened = larder::open(&url).await.unwrap();
    assert_eq!(opened.get::<u8>("a").await.unwrap(), Some(1));
    let node = Publication::of_nodes(&[master.url(0)], 8);
    publish(&master.url(3), &node).await.unwrap();
    larder::open(&url.replace("redis+", "ring+")).await.unwrap();
    let at = format!("redis://{}127.0.0.1:{}", credentials(), sentinel.port());
    if password().is_none() {
        let by_name = Redis::sentinel(&[at], "the-manager").await.unwrap();
        by_name.set("b", 2_u8, MINUTE).await.unwrap();
        assert_eq!(
            master.raw(0, &["GET", "b"]).await,
            Value::BulkString("2".into())
        );
    }
    assert_eq!(
        master.raw(3, &["GET", "a"]).await,
        Value::BulkString("1".into())
    );
    assert_eq!(cache.status().label, "the-manager/3");
    // A name that the sentinel does not know, and a place that is no sentinel.
    let unknown = through(&[&sentinel], 3).replace("the-manager", "nobody");
    let error = Redis::connect(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = Redis::connect(&through(&[&replica], 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

#[tokio::test]
async fn a_manager_of_several_addresses_is_the_first_that_answers() {
    let (first, second, node) = (
        Server::start().await,
        Server::start().await,
        Server::start().await,
    );
    let map = Publication::of_nodes(&[node.url(0)], 40);
    for manager in [&first, &second] {
        publish(&manager.url(13), &map).await.unwrap();
    }
    let (user, a, b) = (credentials(), first.port(), second.port());
    let url = format!("redis://{user}127.0.0.1:{a},127.0.0.1:{b}/13");
    assert_eq!(publish(&url, &map).await.unwrap(), 2);
    publish(&second.url(13), &map).await.unwrap();
    let cache = DistributedRedis::builder(&url)
        .poll_interval(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    first.kill();
    cache.set("a", 1_u8, MINUTE).await.unwrap();
    publish(
        &second.url(13),
        &Publication::of_nodes(&[node.url(0), node.url(1)], 40),
    )
    .await
    .unwrap();
    let heard = async || cache.map_status().nodes.len() == 2;
    eventually(5 * SECOND, "the second address is followed", heard).await;
    // From nothing, with the first address dead.
    let again = DistributedRedis::connect(&url).await.unwrap();
    assert_eq!(again.map_status().epoch, 3);
    let by_url = larder::open(&url.replace("redis:", "ring:")).await.unwrap();
    by_url.set("b", 1_u8, MINUTE).await.unwrap();
}

/// Which of some keys a server has.
async fn are_there<'k>(server: &Server, keys: impl Iterator<Item = &'k String>) -> Vec<bool> {
    let client = redis::Client::open(server.url(0)).unwrap();
    let mut server = client.get_multiplexed_async_connection().await.unwrap();
    let mut pipe = redis::pipe();
    keys.for_each(|key| {
        pipe.cmd("EXISTS").arg(key);
    });
    pipe.query_async(&mut server).await.unwrap()
}

/// Under load, a failover loses what Redis itself loses, the writes that no replica had yet, and takes no longer than the sentinel does and
/// two seconds.
#[tokio::test]
async fn a_failover_under_load_loses_no_more_than_redis_does() {
    let (master, replica) = master_and_replica().await;
    let sentinel = Server::sentinel_of(&master, "the-manager").await;
    let knows = async || knows_replica(&sentinel).await;
    eventually(15 * SECOND, "the sentinel knows the replica", knows).await;
    let cache = Redis::connect(&through(&[&sentinel], 0)).await.unwrap();
    let (stop, killed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    // How many writes of each writer were answered, before the master was killed and after.
    let counts: Vec<_> = (0..4).map(|_| Arc::<[AtomicUsize; 2]>::default()).collect();
    let writers: Vec<_> = counts
        .iter()
        .enumerate()
        .map(|(writer, count)| {
            let (cache, stop, killed) = (cache.clone(), Arc::clone(&stop), Arc::clone(&killed));
            let count = Arc::clone(count);
            tokio::spawn(async move {
                // Those that were answered, in their order: before the master was killed, and after.
                let (mut before, mut after) = (Vec::new(), Vec::new());
                for i in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("w{writer}:{i}");
                    match cache.set(&key, i, MINUTE).await {
                        Ok(()) if killed.load(Ordering::SeqCst) => {
                            after.push((key, Instant::now()));
                            count[1].fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(()) => {
                            before.push(key);
                            count[0].fetch_add(1, Ordering::SeqCst);
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
                (before, after)
            })
        })
        .collect();
    let all = |phase: usize, least: usize| {
        let count = |count: &Arc<[AtomicUsize; 2]>| count[phase].load(Ordering::SeqCst) >= least;
        counts.iter().all(count)
    };
    eventually(30 * SECOND, "all write", async || all(0, 500)).await;
    // In this order, so that what is answered in between counts as before.
    master.kill();
    let began = Instant::now();
    killed.store(true, Ordering::SeqCst);
    let port = Value::BulkString(replica.port().to_string().into());
    let named = async || {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "the-manager"];
        matches!(sentinel.try_raw(0, &ask).await, Ok(Value::Array(place)) if place.last() == Some(&port))
    };
    let by_sentinel = eventually(30 * SECOND, "the sentinel names the replica", named).await;
    eventually(30 * SECOND, "all write again", async || all(1, 500)).await;
    stop.store(true, Ordering::SeqCst);
    let (mut lost, mut answered, mut back) = (0, 0, Vec::new());
    for writer in writers {
        let (before, after) = writer.await.unwrap();
        answered += before.len() + after.len();
        // An answer that was on its way when the master was killed is no answer of the next one.
        let later =
            |(_, at): &&(String, Instant)| at.duration_since(began) > Duration::from_millis(300);
        let after: Vec<_> = after.iter().filter(later).collect();
        back.push(after.first().expect("writes again").1.duration_since(began));
        let there = are_there(&replica, before.iter()).await;
        // What the replica had not heard of was written last.
        let kept = there.iter().take_while(|there| **there).count();
        assert!(
            there[kept..].iter().all(|there| !there),
            "a write in the middle is lost"
        );
        lost += before.len() - kept;
        let there = are_there(&replica, after.into_iter().map(|(key, _)| key)).await;
        assert!(
            there.into_iter().all(|there| there),
            "a later write is lost"
        );
    }
    let back = back.into_iter().max().unwrap();
    println!(
        "{answered} writes, {lost} lost; named after {by_sentinel:?}, writing again after {back:?}"
    );
    assert!(
        back < by_sentinel + 2 * SECOND,
        "{back:?} after {by_sentinel:?}"
    );
}
