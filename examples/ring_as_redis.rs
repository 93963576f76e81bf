//! The ring as a Redis client: what redis-rs can say, each command at the node of its key. `make ring` starts a manager and three nodes for
//! it. Against a fleet of your own: `LARDER_DEMO_MANAGER=redis://:password@manager:6379/13`.

use std::collections::HashMap;
use std::env;
use std::process::ExitCode;

use futures_util::{StreamExt, pin_mut};
use larder::redis::{self, AsyncCommands, ScanOptions, Script};
use larder::ring::{Publication, publish};
use larder::{DistributedRedis, RingConnection};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn hashes(ring: &DistributedRedis, redis: &mut RingConnection) -> Outcome {
    println!("Hashes");
    for (id, name) in [(1, "Ada"), (2, "Grace"), (3, "Barbara"), (4, "Edith")] {
        let key = format!("user:{id}");
        let _: () = redis
            .hset_multiple(&key, &[("name", name), ("visits", "0")])
            .await?;
        let visits: u64 = redis.hincr(&key, "visits", id).await?;
        let user: HashMap<String, String> = redis.hgetall(&key).await?;
        println!(
            "  {key} on {}: {}, visits {visits}",
            on(ring, &key),
            user["name"]
        );
    }
    Ok(())
}

async fn sorted_sets(ring: &DistributedRedis, redis: &mut RingConnection) -> Outcome {
    let _: () = redis
        .zadd_multiple("scores", &[(12.0, "Ada"), (31.5, "Grace"), (7.0, "Edith")])
        .await?;
    let best: Vec<(String, f64)> = redis.zrevrange_withscores("scores", 0, 1).await?;
    println!(
        "A sorted set on {}: the best are {best:?}",
        on(ring, "scores")
    );
    Ok(())
}

/// By hand, since the typed commands of streams are a feature of redis-rs: `redis = { version = "1.8", features = ["streams"] }`.
async fn streams(ring: &DistributedRedis, redis: &mut RingConnection) -> Outcome {
    for n in 1..=3 {
        let mut add = redis::cmd("XADD");
        let _: String = add
            .arg("events")
            .arg("*")
            .arg("n")
            .arg(n)
            .query_async(redis)
            .await?;
    }
    let length: u64 = redis::cmd("XLEN").arg("events").query_async(redis).await?;
    let mut create = redis::cmd("XGROUP");
    let create = create.arg("CREATE").arg("events").arg("workers").arg(0);
    let _: () = create.query_async(redis).await?;
    let mut read = redis::cmd("XREADGROUP");
    let read = read
        .arg("GROUP")
        .arg("workers")
        .arg("me")
        .arg("COUNT")
        .arg(2);
    let read: redis::Value = read
        .arg("STREAMS")
        .arg("events")
        .arg(">")
        .query_async(redis)
        .await?;
    let is_read = read != redis::Value::Nil;
    println!(
        "A stream on {}: {length} events, read by a group: {is_read}",
        on(ring, "events")
    );
    Ok(())
}

async fn scripts(ring: &DistributedRedis, redis: &mut RingConnection) -> Outcome {
    let highest = Script::new(
        "local now = tonumber(redis.call('GET', KEYS[1]) or '0')
         if tonumber(ARGV[1]) > now then redis.call('SET', KEYS[1], ARGV[1]) end
         return redis.call('GET', KEYS[1])",
    );
    println!("A script, wherever its key is");
    for (key, value) in [("highest:a", 3), ("highest:b", 8), ("highest:a", 2)] {
        let now: u64 = highest.key(key).arg(value).invoke_async(redis).await?;
        println!("  {key} on {}: {now}", on(ring, key));
    }
    Ok(())
}

async fn pipelines(redis: &mut RingConnection) -> Outcome {
    let (visits, names, gone): (u64, Vec<Option<String>>, u64) = redis::pipe()
        .set("name:1", "Ada")
        .ignore()
        .set("name:2", "Grace")
        .ignore()
        .incr("visits", 1)
        .mget(&["name:2", "name:none", "name:1"])
        .del(&["name:1", "name:2"])
        .query_async(redis)
        .await?;
    println!("A pipeline over all nodes: visits {visits}, {names:?}, {gone} deleted");
    // Two keys in one command: on one node, or refused.
    match redis.rename_nx::<_, _, bool>("user:1", "user:2").await {
        Ok(renamed) => println!("  these two happen to be on one node; renamed: {renamed}"),
        Err(error) => println!("  refused: {error}"),
    }
    Ok(())
}

async fn everything(redis: &mut RingConnection) -> Outcome {
    println!("All nodes");
    for (node, keys) in redis.on_each_node::<u64>(&redis::cmd("DBSIZE")).await? {
        println!("  {node} has {} keys", keys?);
    }
    let users = redis.scan_all::<String>(ScanOptions::default().with_pattern("user:*"));
    pin_mut!(users);
    let mut found = Vec::new();
    while let Some(key) = users.next().await {
        found.push(key?);
    }
    found.sort_unstable();
    println!("SCAN over the ring: {found:?}");
    if found.len() != 4 {
        return Err("not all of them were found".into());
    }
    Ok(())
}

fn on(ring: &DistributedRedis, key: &str) -> String {
    ring.node_for(key).unwrap_or_else(|| "no node".to_owned())
}

async fn run() -> Outcome {
    let manager =
        env::var("LARDER_DEMO_MANAGER").unwrap_or_else(|_| "redis://127.0.0.1:6379/13".to_owned());
    if let Ok(nodes) = env::var("LARDER_DEMO_NODES") {
        let nodes: Vec<&str> = nodes.split(',').collect();
        publish(&manager, &Publication::of_nodes(&nodes, 160)).await?;
    }
    let ring = DistributedRedis::connect(&manager).await?;
    let mut redis = ring.connection();
    hashes(&ring, &mut redis).await?;
    sorted_sets(&ring, &mut redis).await?;
    streams(&ring, &mut redis).await?;
    scripts(&ring, &mut redis).await?;
    pipelines(&mut redis).await?;
    everything(&mut redis).await
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
