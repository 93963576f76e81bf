//! The least that a server may allow, for each role: docs/ACL.md, line by line.

use std::collections::HashMap;
use std::time::Duration;

use larder::ring::{Publication, publish};
use larder::{
    Cache, DistributedRedis, ErrorKind, Login, Moka, Options, Prefixed, Redis, RefreshAhead,
    Tiered, Ttl,
};
use redis::Value;

use crate::fleet::eventually;
use crate::support::Server;

const MINUTE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "of-the-user";

/// Has a server know the users of docs/ACL.md.
async fn known_to(server: &Server) {
    let page = include_str!("../../docs/ACL.md");
    let users = page.lines().filter(|line| line.starts_with("ACL SETUSER"));
    let mut count = 0;
    for line in users.filter(|line| !line.contains("sentinel|")) {
        let line = line.replace(">PASSWORD", &format!(">{PASSWORD}"));
        server.raw(0, &line.split(' ').collect::<Vec<_>>()).await;
        count += 1;
    }
    assert_eq!(count, 5, "the users were not found");
    server.raw(0, &["ACL", "LOG", "RESET"]).await;
}

fn url(server: &Server, user: &str, db: u8) -> String {
    format!("redis://{user}:{PASSWORD}@127.0.0.1:{}/{db}", server.port())
}

/// What a server denied, but for what redis-rs says of itself in the clients that are opened here.
async fn denied(server: &Server) -> Vec<String> {
    let log: Vec<HashMap<String, Value>> =
        redis::from_redis_value(server.raw(0, &["ACL", "LOG"]).await).unwrap();
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
    let entry = |entry: &HashMap<String, Value>| {
        let part = |name| entry.get(name).map(text).unwrap_or_default();
        format!("{} {} {}", part("username"), part("reason"), part("object"))
    };
    let entries = log.iter().map(entry);
    entries
        .filter(|entry| !entry.ends_with("client|setinfo"))
        .collect()
}

/// What a user may do and nobody did.
async fn unused(server: &Server, user: &str) -> Vec<String> {
    let stats = server.raw(0, &["INFO", "commandstats"]).await;
    let stats: String = redis::from_redis_value(stats).unwrap();
    let page = include_str!("../../docs/ACL.md");
    let user = page
        .lines()
        .find(|line| line.starts_with(&format!("ACL SETUSER {user} ")));
    let allowed = user
        .unwrap()
        .split(' ')
        .filter_map(|word| word.strip_prefix('+'));
    allowed
        .filter(|command| !stats.contains(&format!("cmdstat_{command}:calls=")))
        .map(str::to_owned)
        .collect()
}

/// Everything a cache does.
async fn used(cache: &impl Cache) {
    let hour = Duration::from_secs(3600);
    cache.set("text", "a".to_owned(), hour).await.unwrap();
    cache.set("number", 5_u64, hour).await.unwrap();
    assert!(!cache.add("text", "b".to_owned(), hour).await.unwrap());
    assert!(cache.add("new", vec![1_u8, 2], hour).await.unwrap());
    assert_eq!(
        cache.get::<String>("text").await.unwrap().as_deref(),
        Some("a")
    );
    assert_eq!(cache.incr("number", 2).await.unwrap(), 7);
    assert_eq!(cache.incr("counter", 1).await.unwrap(), 1);
    assert!(cache.touch("text", MINUTE).await.unwrap());
    assert!(cache.ttl("text").await.unwrap().is_some());
    assert!(cache.touch("text", Ttl::Forever).await.unwrap());
    assert!(cache.has("text").await.unwrap());
    let many: Vec<(String, u64)> = (0..20).map(|i| (format!("many:{i}"), i)).collect();
    cache.set_many(many.clone(), hour).await.unwrap();
    let keys: Vec<&String> = many.iter().map(|(key, _)| key).collect();
    let read = cache.get_many::<u64>(&keys).await.unwrap();
    assert_eq!(read, (0..20).map(Some).collect::<Vec<_>>());
    assert_eq!(cache.delete_many(&keys[..10]).await.unwrap(), 10);
    let tagged = Options::ttl(hour)
        .tag("t")
        .grace(hour)
        .lease(Duration::from_secs(1));
    let computed = cache.get_or_set("leased", tagged.clone(), || async { 8_u64 });
    assert_eq!(computed.await.unwrap(), 8);
    let ahead = tagged.refresh_ahead(RefreshAhead::Within(hour));
    let computed =
        cache.get_or_set_with("leased", ahead, |_| async { Ok::<_, larder::Error>(9_u64) });
    computed.await.unwrap();
    let computes = cache.get_or_set_many(&["x", "y"], hour, |keys| async move {
        keys.into_iter().map(|key| (key, 1_u64)).collect()
    });
    assert_eq!(computes.await.unwrap(), [Some(1), Some(1)]);
    let anew = cache.refresh("x", hour, |_| async { Ok::<_, larder::Error>(2_u64) });
    assert_eq!(anew.await.unwrap(), 2);
    cache.explain("text").await.unwrap();
    // Another tag is invalidated while a value of this one is computed.
    let (handle, racing) = (cache.clone(), Options::ttl(hour).tag("of this one"));
    let computed = cache.get_or_set_with("racing", racing, |_| async move {
        handle.invalidate_tag("another").await?;
        Ok::<_, larder::Error>(3_u64)
    });
    assert_eq!(computed.await.unwrap(), 3);
    // A namespace within.
    let within = Prefixed::new(cache.clone(), "within:");
    within.set("k", 1_u64, hour).await.unwrap();
    within.clear().await.unwrap();
    cache.invalidate_tag("t").await.unwrap();
    assert_eq!(cache.get::<u64>("leased").await.unwrap(), None);
    assert!(cache.delete("text").await.unwrap());
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<u64>("x").await.unwrap(), None);
}

#[tokio::test]
async fn a_cache_needs_no_more_than_is_said() {
    let server = Server::start().await;
    known_to(&server).await;
    let address = url(&server, "cache", 3);
    let redis = Redis::builder(&address).shared_with_others(true);
    used(&redis.connect().await.unwrap()).await;
    let redis = Redis::connect(&address).await.unwrap();
    let tier = Tiered::new(Moka::new(1000), redis.clone());
    used(&tier).await;
    // Memory hears of writes by that user's leave.
    tier.set("heard", 1_u64, MINUTE).await.unwrap();
    assert_eq!(tier.get::<u64>("heard").await.unwrap(), Some(1));
    server.raw(3, &["SET", "heard", "2"]).await;
    let heard = async || tier.get::<u64>("heard").await.unwrap() == Some(2);
    eventually(MINUTE / 10, "the write is heard", heard).await;
    assert_eq!(denied(&server).await, [""; 0]);
    assert_eq!(unused(&server, "cache").await, [""; 0]);
    // What is not allowed is told of, so that the above proves something.
    let strange = larder::redis::Client::open(address).unwrap();
    let mut strange = strange.get_multiplexed_async_connection().await.unwrap();
    let refused = redis::cmd("FLUSHALL").query_async::<()>(&mut strange).await;
    assert!(refused.unwrap_err().to_string().contains("flushall"));
    assert_eq!(denied(&server).await, ["cache command flushall"]);
}

#[tokio::test]
async fn a_ring_needs_no_more_than_is_said() {
    let (manager, nodes) = (
        Server::start().await,
        [Server::start().await, Server::start().await],
    );
    known_to(&manager).await;
    for node in &nodes {
        known_to(node).await;
    }
    // The map names no password: whoever follows it knows them.
    let urls: Vec<String> = nodes
        .iter()
        .map(|node| format!("redis://127.0.0.1:{}/0", node.port()))
        .collect();
    let publisher = url(&manager, "publisher", 13);
    // So many that the history sheds the first.
    for positions in 20..40 {
        publish(&publisher, &Publication::of_nodes(&urls, positions))
            .await
            .unwrap();
    }
    let file = std::env::temp_dir().join(format!("larder-acl-{}", std::process::id()));
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let login = || Login::file(&file);
    let ring = DistributedRedis::builder(&format!("redis://127.0.0.1:{}/13", manager.port()))
        .manager_login(login().user("reader"))
        .login(login().user("nobody"))
        .login_at(
            format!("127.0.0.1:{}/0", nodes[0].port()),
            login().user("cache"),
        )
        .login_at(
            format!("127.0.0.1:{}/0", nodes[1].port()),
            login().user("cache"),
        );
    let ring = ring.connect().await.unwrap();
    assert!(ring.map_status().pushes_heard);
    used(&Tiered::new(Moka::new(1000), ring.clone())).await;
    let mut own = ring
        .client_for("k")
        .await
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let pong: String = redis::cmd("PING").query_async(&mut own).await.unwrap();
    assert_eq!(pong, "PONG");
    for user in ["reader", "publisher"] {
        assert_eq!(unused(&manager, user).await, [""; 0], "{user}");
    }
    for server in nodes.iter().chain([&manager]) {
        assert_eq!(denied(server).await, [""; 0]);
    }
    std::fs::remove_file(file).unwrap();
}

/// Whose password is in a file publishes by the store's own connection; whoever may only read is refused.
#[tokio::test]
async fn a_store_publishes_as_whoever_it_is() {
    let (manager, node) = (Server::start().await, Server::start().await);
    known_to(&manager).await;
    let file = std::env::temp_dir().join(format!("larder-publisher-{}", std::process::id()));
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let connect = async |user: &str| {
        let place = format!("redis://127.0.0.1:{}/13", manager.port());
        DistributedRedis::builder(&place)
            .manager_login(Login::file(&file).user(user))
            .start_without_map(true)
            .connect()
            .await
            .unwrap()
    };
    let (publisher, reader) = (connect("publisher").await, connect("reader").await);
    let map = |positions| Publication::of_nodes(&[node.url(0)], positions);
    assert_eq!(publisher.publish(&map(20)).await.unwrap(), 1);
    let refused = reader.publish(&map(21)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    let other = map(21).in_map("HASH_RING_cart_MAP");
    let refused = publisher.publish(&other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    let refused = publisher.publish(&map(21).expecting_epoch(7)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Rejected);
    let same = map(22).in_map("HASH_RING_MAP").expecting_epoch(1);
    assert_eq!(publisher.publish(&same).await.unwrap(), 2);
    let heard = async || reader.map_status().epoch == 2;
    eventually(MINUTE / 6, "the map is heard of", heard).await;
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_manager_needs_no_more_than_is_said() {
    let servers = [
        Server::start().await,
        Server::start().await,
        Server::start().await,
        Server::start().await,
    ];
    for server in &servers {
        known_to(server).await;
    }
    let [redis, nodes @ ..] = &servers;
    let mut config = crate::managed::quick_at(&url(redis, "manager", 13));
    config.drain_pause = Duration::from_millis(50);
    // Who is told reads and writes there, too.
    let told = std::env::temp_dir().join(format!("larder-acl-told-{}", std::process::id()));
    config.alerts.command = Some(vec!["tee".to_owned(), told.display().to_string()]);
    config.alerts.pause = Duration::from_millis(50);
    let managed = crate::managed::Managed::start(config).await;
    for node in nodes {
        let new = serde_json::json!({ "url": url(node, "prober", 3) });
        let added = managed.post("/api/v1/nodes", &new).await;
        assert_eq!(added.status, 200, "{added:?}");
    }
    let name = format!("127.0.0.1:{}/3", nodes[0].port());
    nodes[0].pause();
    let is = async |state: &str| managed.state(&name).await == state;
    let out = async || is("out").await;
    eventually(MINUTE / 6, "it is off the ring", out).await;
    nodes[0].resume();
    let up = async || is("up").await;
    eventually(MINUTE / 3, "it is back", up).await;
    assert_eq!(managed.events().await[0].0, "returned");
    let is_told = async || {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        text.contains("returned")
    };
    eventually(MINUTE / 6, "it is told", is_told).await;
    std::fs::remove_file(&told).unwrap();
    let info = managed.ask("POST", "/node/info", &[], "").await;
    assert!(info.text.contains("redis_version"), "{info:?}");
    let path = format!("/api/v1/nodes?node={name}");
    assert_eq!(managed.ask("DELETE", &path, &[], "").await.status, 200);
    managed.end().await;
    assert_eq!(unused(redis, "manager").await, [""; 0]);
    assert_eq!(unused(&nodes[0], "prober").await, [""; 0]);
    for server in &servers {
        assert_eq!(denied(server).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_sentinel_needs_no_more_than_is_said() {
    let master = Server::start().await;
    known_to(&master).await;
    // Beside what a cache needs.
    master.raw(0, &["ACL", "SETUSER", "cache", "+role"]).await;
    let sentinel = Server::sentinel_of(&master, "the-master").await;
    let page = include_str!("../../docs/ACL.md");
    let asker = page
        .lines()
        .find(|line| line.starts_with("ACL SETUSER asker "))
        .unwrap();
    let asker = asker.replace(">PASSWORD", &format!(">{PASSWORD}"));
    sentinel.raw(0, &asker.split(' ').collect::<Vec<_>>()).await;
    sentinel.raw(0, &["ACL", "LOG", "RESET"]).await;
    let url = format!(
        "redis+sentinel://cache:{PASSWORD}@127.0.0.1:{}/the-master/3?sentinel_user=asker&sentinel_password={PASSWORD}",
        sentinel.port()
    );
    used(&larder::open(&url).await.unwrap()).await;
    for server in [&master, &sentinel] {
        assert_eq!(denied(server).await, [""; 0]);
    }
}
