//! `cargo run --example quickstart`: a cache in this process's memory, no server needed.
//!
//! With `LARDER_URL` the same code runs on whatever that names: `redis://127.0.0.1:6379/0`, say, or
//! `tiered:moka://,ring://127.0.0.1:6379/13`. `larder::open` has the list.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use larder::Cache;
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

/// Stands for a database.
async fn load_user(id: u64) -> User {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let name = "Ada".to_owned();
    User { id, name }
}

async fn show(cache: impl Cache) -> larder::Result<()> {
    cache.delete("user:42").await?;
    for time in ["first ", "second"] {
        let began = Instant::now();
        let loading = cache.get_or_set("user:42", MINUTE, || load_user(42));
        let (user, took): (User, _) = (loading.await?, began.elapsed());
        println!("get_or_set, {time} time:  {user:?} in {took:.1?}");
    }

    cache.set("greeting", "hello".to_owned(), MINUTE).await?;
    let greeting: Option<String> = cache.get("greeting").await?;
    println!("set, then get:            {greeting:?}");

    let deleted = cache.delete_many(&["user:42", "greeting"]).await?;
    let user: Option<User> = cache.get("user:42").await?;
    println!("{deleted} deleted, then get:      {user:?}");

    let stats = cache.stats();
    let (hits, misses, computes) = (stats.hits(), stats.misses, stats.computes);
    println!("so far:                   {hits} hits, {misses} misses, {computes} computed");
    cache.shutdown().await;
    Ok(())
}

async fn run() -> larder::Result<()> {
    let Ok(url) = std::env::var("LARDER_URL") else {
        println!("cache: this process's memory (set LARDER_URL for another)\n");
        return show(larder::open("moka://").await?).await;
    };
    let cache = larder::open(&url).await?;
    // The whole url may hold a password.
    let scheme = url.split([':', '?']).next().unwrap_or_default();
    println!("cache: {scheme}, as LARDER_URL says\n");
    show(cache).await
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}
