//! The README of the Python SDK, function by function, over three nodes: `make sdk` starts them and says on which node each
//! key went. Against a fleet of your own: the variables of the SDK, `DIS_MANAGER_REDIS_HOST` and the others.

use std::env;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use larder::ring::{Publication, label, publish};
use larder::{Cache, DistributedRedis, memoize};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

static REDIS: OnceLock<DistributedRedis> = OnceLock::new();

/// Connected before anything is called.
fn redis() -> &'static DistributedRedis {
    REDIS.get().expect("main connects first")
}

/// From 1 to 100, by chance.
fn randint() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos() / 7 % 100) + 1
}

/// Cached for five seconds: `@redis.memoize(5)`.
#[memoize(cache = redis(), ttl = 5)]
async fn test(key: &str, val: &str) -> String {
    println!("  test func !!!!");
    format!("{key}{val}{}", randint())
}

/// Cached for ever: `@redis.memoize(-1)`.
#[memoize(cache = redis(), ttl = -1)]
async fn test1(key: &str, val: &str) -> String {
    println!("  test1 func !!!!");
    format!("{key}{val}{}", randint())
}

/// Cached as long as was set: `@redis.memoize()`, `DIS_CACHE_DEFAULT_TIMEOUT`.
#[memoize(cache = redis())]
async fn test2(key: &str, val: &str) -> String {
    println!("  test2 func !!!!");
    format!("{key}{val}{}", randint())
}

struct TestController {
    tenant: String,
}

impl TestController {
    /// A static method, the one kind that the SDK can memoize.
    #[memoize(cache = redis(), ttl = 5, associated)]
    async fn test(key: &str, val: &str) -> String {
        println!("  TestController::test func !!!!");
        format!("{key}{val}{}", randint())
    }

    /// One of an instance, which it cannot: there, every instance has keys of its own, and never finds them again.
    #[memoize(cache = redis(), ttl = 5, key_self = "self.tenant")]
    async fn test_self(&self, key: &str, val: &str) -> String {
        println!("  TestController::test_self func !!!!");
        format!("{}{key}{val}{}", self.tenant, randint())
    }
}

/// Says where a key is, and asks all nodes whether that is so.
async fn shown(key: &str, nodes: &[String]) -> Outcome {
    let owner = redis().node_for(key).ok_or("the ring is empty")?;
    for node in nodes {
        let mut plain = larder::redis::Client::open(node.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        let is_there: bool = larder::redis::cmd("EXISTS")
            .arg(key)
            .query_async(&mut plain)
            .await?;
        if is_there != (label(node) == owner) {
            return Err(format!("{key} is not where it should be").into());
        }
    }
    println!("  {key}\n    is on {owner}");
    Ok(())
}

async fn functions(nodes: &[String]) -> Outcome {
    for (key, val) in [("a", "1"), ("b", "2"), ("c", "3")] {
        println!("test({key:?}, {val:?})");
        let first = test(key, val).await;
        assert_eq!(test(key, val).await, first, "the second call is a hit");
        shown(&test::key(key, val)?, nodes).await?;
    }
    println!("test1(\"a\", \"1\")");
    assert_eq!(test1("a", "1").await, test1("a", "1").await);
    shown(&test1::key("a", "1")?, nodes).await?;
    println!("test2(\"a\", \"1\")");
    assert_eq!(test2("a", "1").await, test2("a", "1").await);
    shown(&test2::key("a", "1")?, nodes).await?;
    println!("TestController::test(\"a\", \"1\")");
    let first = TestController::test("a", "1").await;
    assert_eq!(TestController::test("a", "1").await, first);
    shown(&TestController::test_key("a", "1")?, nodes).await?;
    println!("controller.test_self(\"a\", \"1\")");
    let tenant = "acme".to_owned();
    let (one, same) = (
        TestController {
            tenant: tenant.clone(),
        },
        TestController { tenant },
    );
    let first = one.test_self("a", "1").await;
    assert_eq!(same.test_self("a", "1").await, first);
    shown(&one.test_self_key("a", "1")?, nodes).await
}

/// `redis.set('test', 1)`, `redis.get('test')`: plain keys have no prefix, and integers are digits to all.
async fn commands(nodes: &[String]) -> Outcome {
    println!("set(\"test\", 1), get(\"test\")");
    redis().set("test", 1, larder::Ttl::Forever).await?;
    assert_eq!(redis().get("test").await?, Some(1));
    shown("test", nodes).await?;
    assert_eq!(redis().incr("test", 1).await?, 2);
    // `delete_memoized(test, "a", "1")`, `delete_memoized(test)`.
    assert!(test::delete("a", "1").await?);
    test::delete_all().await?;
    assert!(!redis().has(&test::key("b", "2")?).await?);
    println!("delete_memoized(test): none of its keys is a hit any more");
    Ok(())
}

async fn run() -> Outcome {
    let demo = env::var("LARDER_DEMO_MANAGER")
        .ok()
        .zip(env::var("LARDER_DEMO_NODES").ok());
    if let Some((manager, nodes)) = demo {
        let nodes: Vec<&str> = nodes.split(',').collect();
        publish(&manager, &Publication::of_nodes(&nodes, 160)).await?;
    }
    // The names of the SDK: `DIS_MANAGER_REDIS_HOST` and so on, and `DIS_CACHE_PREFIX`, which memoized functions, views and `prefixed()`
    // handles have.
    let ring = DistributedRedis::from_env().await?;
    REDIS.set(ring).map_err(|_| "connected twice")?;
    let nodes = redis().ring().nodes().to_vec();
    functions(&nodes).await?;
    commands(&nodes).await?;
    redis().shutdown().await;
    Ok(())
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
