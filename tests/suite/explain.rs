//! What a read came to, at real servers.

use std::time::Duration;

use larder::codec::Refusal;
use larder::{
    Cache, DistributedRedis, Explanation, Moka, Options, Prefixed, Redis, Tiered, Ttl, Why,
};

use crate::fleet::{Fleet, eventually};
use crate::support::Server;

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

fn text() -> String {
    "value".to_owned()
}

async fn redis(server: &Server) -> Redis {
    Redis::connect(&server.url(0)).await.unwrap()
}

/// Why the last place has nothing, as a typed read of text meets it.
async fn why(cache: &impl Cache, key: &str) -> Option<Why> {
    let found = cache.get_with::<String>(key, Options::default());
    let found = found.await.unwrap();
    assert_eq!(found.value.is_none(), found.explanation.why().is_some());
    found.explanation.why()
}

#[track_caller]
fn places(told: &Explanation) -> Vec<(&'static str, Option<Why>)> {
    let places = told.places.iter();
    places
        .map(|place| (place.store, place.outcome.why()))
        .collect()
}

#[tokio::test]
async fn a_server_tells_how_old_a_value_is() {
    let server = Server::start().await;
    let cache = Prefixed::new(redis(&server).await, "app:");
    let options = Options::ttl(MINUTE).tag("users").tag("group:1");
    cache.set("k", text(), options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    // A new life makes it no younger.
    assert!(cache.touch("k", 2 * MINUTE).await.unwrap());
    let told = cache.explain("k").await.unwrap();
    assert_eq!(told.key, "app:k");
    let place = told.place().expect("a hit");
    assert_eq!((place.store, place.in_memory), ("Redis", false));
    let label = format!("127.0.0.1:{}/0", server.port());
    assert_eq!(place.node.as_ref(), Some(&label));
    let hit = told.hit().unwrap();
    let age = hit.age.expect("the server's clock tells");
    assert!(age >= Duration::from_millis(119) && age < SOON, "{told}");
    assert_eq!(hit.tags, ["users", "group:1"]);
    let line = told.to_string();
    assert!(
        line.starts_with(&format!("app:k: Redis at {label}: hit, ")),
        "{line}"
    );
    // Digits carry nothing.
    cache.set("n", 1_u32, Ttl::Forever).await.unwrap();
    let told = cache.explain("n").await.unwrap();
    assert_eq!(told.hit().unwrap().age, None, "{told}");
}

#[tokio::test]
async fn a_miss_has_a_reason() {
    let server = Server::start().await;
    let cache = redis(&server).await;
    cache.set("gone", text(), MINUTE).await.unwrap();
    let other = redis(&server).await;
    other.clear().await.unwrap();
    cache
        .set("tagged", text(), Options::ttl(MINUTE).tag("t"))
        .await
        .unwrap();
    cache
        .set("other", 7_u32, Options::ttl(MINUTE).tag("u"))
        .await
        .unwrap();
    cache.set("torn", text(), MINUTE).await.unwrap();
    other.invalidate_tag("t").await.unwrap();
    server.raw(0, &["SETRANGE", "torn", "30", "!"]).await;
    server.raw(0, &["RPUSH", "list", "a"]).await;
    for (key, reason) in [
        ("never", Why::Absent),
        ("tagged", Why::Refused(Refusal::Tag)),
        ("torn", Why::Refused(Refusal::Checksum)),
        ("list", Why::Refused(Refusal::WrongType)),
    ] {
        assert_eq!(why(&cache, key).await, Some(reason), "{key}");
        let told = cache.explain(key).await.unwrap();
        assert_eq!(told.why(), Some(reason), "{told}");
    }
    // To who asks for no type it is a value.
    assert_eq!(
        why(&cache, "other").await,
        Some(Why::Refused(Refusal::Schema))
    );
    assert!(cache.explain("other").await.unwrap().hit().is_some());
    // Until its space is taken back.
    let gone = why(&cache, "gone").await;
    let reasons = [Why::Refused(Refusal::Generation), Why::Absent];
    assert!(gone.is_some_and(|gone| reasons.contains(&gone)), "{gone:?}");
}

#[tokio::test]
async fn each_tier_is_told() {
    let server = Server::start().await;
    let cache = Tiered::new(Moka::new(100), redis(&server).await);
    eventually(SOON, "writes are heard", async || {
        let told = cache.explain("k").await.unwrap();
        told.places[0].hears_writes == Some(true)
    })
    .await;
    cache.set("k", text(), MINUTE).await.unwrap();
    let both = [("Moka", Some(Why::Absent)), ("Redis", None)];
    let told = cache.explain("k").await.unwrap();
    assert_eq!(places(&told), both, "{told}");
    // To explain copies nothing; to read does.
    let read = async || {
        let read = cache.get_with::<String>("k", Options::default());
        read.await.unwrap()
    };
    let first = read().await;
    assert_eq!(
        (places(&first.explanation), first.value),
        (both.into(), Some(text()))
    );
    let before = cache.stats();
    eventually(SOON, "memory has it", async || {
        let told = read().await.explanation;
        told.place().is_some_and(|place| place.in_memory)
    })
    .await;
    let told = cache.explain("k").await.unwrap();
    assert_eq!(places(&told), [("Moka", None)]);
    assert!(told.hit().unwrap().age.is_some_and(|age| age < SOON));
    assert!(cache.stats().memory_hits > before.memory_hits);
    // Nobody tells of writes any more: memory is not believed, and then the node is known to be down.
    server.kill();
    eventually(SOON, "memory is not believed", async || {
        let told = cache.explain("k").await.unwrap();
        told.why().is_some() && told.places[0].outcome.why() == Some(Why::Unheard)
    })
    .await;
    let down = [
        ("Moka", Some(Why::Unheard)),
        ("Redis", Some(Why::BreakerOpen)),
    ];
    eventually(SOON, "the node is down", async || {
        let told = cache.explain("k").await.unwrap();
        assert!(told.places.last().unwrap().error.is_some());
        places(&told) == down
    })
    .await;
    assert_eq!(why(&cache, "k").await, Some(Why::BreakerOpen));
    assert!(cache.stats().read_errors > 0);
}

#[tokio::test]
async fn what_a_node_owes_and_when_it_is_slow_are_told() {
    let server = Server::start().await;
    let cache = redis(&server).await;
    cache.set("k", text(), MINUTE).await.unwrap();
    server.pause();
    assert_eq!(why(&cache, "k").await, Some(Why::Timeout));
    server.resume();
    eventually(SOON, "it is back", async || {
        why(&cache, "k").await.is_none()
    })
    .await;
    server.kill();
    let first = cache.explain("k").await.unwrap().why();
    let down = [
        Some(Why::NodeDown),
        Some(Why::BreakerOpen),
        Some(Why::Timeout),
    ];
    assert!(down.contains(&first), "{first:?}");
    cache.delete("k").await.unwrap_err();
    assert_eq!(why(&cache, "k").await, Some(Why::Owed));
}

#[tokio::test]
async fn a_ring_tells_which_node_has_a_key() {
    let fleet = Fleet::new(2).await;
    let cache = fleet.connect().await;
    for key in ["a", "b", "c", "d"] {
        cache.set(key, text(), MINUTE).await.unwrap();
        let told = cache.explain(key).await.unwrap();
        let place = told.place().expect("a hit");
        assert_eq!(place.store, "DistributedRedis");
        assert_eq!(place.node, cache.node_for(key));
        let age = told.hit().unwrap().age.expect("the node's clock tells");
        assert!(age < SOON, "{told}");
    }
    let key = "a";
    fleet.owner(&cache, key).kill();
    eventually(SOON, "the node is down", async || {
        let told = cache.explain(key).await.unwrap();
        told.why() == Some(Why::BreakerOpen) && told.places[0].node == cache.node_for(key)
    })
    .await;
    // A ring without nodes yet.
    let bare = Fleet::bare(0).await;
    let builder = DistributedRedis::builder(&bare.manager_url()).start_without_map(true);
    let cache = builder.connect().await.unwrap();
    let told = cache.explain(key).await.unwrap();
    assert_eq!(told.places[0].node, None);
    assert_eq!(told.why(), Some(Why::NodeDown), "{told}");
}

/// To explain copies nothing into memory, whatever stands behind it; reads that tell of themselves are counted as others are.
#[tokio::test]
async fn to_explain_changes_nothing() {
    let (l1, l2) = (Moka::new(10), Moka::new(10));
    let cache = Tiered::new(l1, l2.clone());
    l2.set("k", text(), MINUTE).await.unwrap();
    let both = [("Moka", Some(Why::Absent)), ("Moka", None)];
    for _ in 0..2 {
        assert_eq!(places(&cache.explain("k").await.unwrap()), both);
    }
    let counted = || {
        let stats = cache.stats();
        (stats.memory_hits, stats.store_hits, stats.misses)
    };
    assert_eq!(counted(), (0, 0, 0));
    for _ in 0..2 {
        assert_eq!(why(&cache, "k").await, None);
    }
    assert_eq!(why(&cache, "none").await, Some(Why::Absent));
    assert_eq!(counted(), (2, 0, 1));
}
