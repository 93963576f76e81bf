//! Many requests at once, and handlers or stores that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::AppendHeaders;
use larder::http::CacheLayer;
use larder::testing::{Fault, Faulty};
use larder::{Answer, Backend, Clock, Draft, Moka, Options, RefreshAhead, Stored, Want};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{App, views};

async fn all(app: &App, count: usize) -> Vec<String> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let app = app.clone();
        calls.spawn(async move { app.get("/").await.body });
    }
    calls.join_all().await
}

#[tokio::test]
async fn one_of_many_requests_runs_the_handler() {
    let app = App::new(views(), |run, _| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        format!("run {run}")
    });
    assert_eq!(all(&app, 200).await, vec!["run 1"; 200]);
}

/// What is for one client is nobody else's, however many ask at once.
#[tokio::test]
async fn a_response_that_is_not_kept_is_not_shared() {
    let app = App::new(views(), |run, _| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        (
            AppendHeaders([("set-cookie", format!("session={run}"))]),
            format!("run {run}"),
        )
    });
    for _ in 0..2 {
        let mut bodies = all(&app, 100).await;
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), 100);
    }
    assert_eq!(app.runs(), 200);
}

/// Once it is known that it is not kept, nobody waits for another's.
#[tokio::test]
async fn nobody_waits_where_nothing_is_kept() {
    let together = Arc::new(Semaphore::new(0));
    let all_in = Arc::clone(&together);
    let app = App::new(views(), move |run, _| {
        let all_in = Arc::clone(&all_in);
        async move {
            if run > 1 {
                // All others are in their handlers at the same time, or this never ends.
                all_in.add_permits(1);
                let _in = all_in.acquire_many(20).await;
            }
            (AppendHeaders([("cache-control", "private")]), "own")
        }
    });
    app.get("/").await;
    let calls = tokio::time::timeout(Duration::from_secs(20), all(&app, 20));
    assert_eq!(calls.await.unwrap().len(), 20);
}

fn graced() -> Options {
    Options::ttl(Duration::from_secs(10)).grace(Duration::from_secs(1000))
}

#[tokio::test]
async fn a_failing_handler_is_answered_for_by_the_last_response() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let app = App::new(CacheLayer::new(cache).options(graced()), move |run, _| {
        let status = match is_down.load(Ordering::SeqCst) {
            true => StatusCode::BAD_GATEWAY,
            false => StatusCode::OK,
        };
        async move { (status, format!("run {run}")) }
    });
    app.get("/").await;
    clock.advance(Duration::from_secs(11));
    down.store(true, Ordering::SeqCst);
    let stale = app.get("/").await;
    assert_eq!(
        (stale.status, stale.told()),
        (StatusCode::OK, ("stale", "run 1"))
    );
    assert_eq!(stale.header("age"), "10");
    // Without one, its own client has its failure, and the next tries again.
    let failed = app.get("/other").await;
    assert_eq!(
        (failed.status, failed.body.as_str()),
        (StatusCode::BAD_GATEWAY, "run 3")
    );
    down.store(false, Ordering::SeqCst);
    assert_eq!(app.get("/other").await.told(), ("miss", "run 4"));
}

#[tokio::test]
async fn a_slow_handler_is_answered_for_by_the_last_response() {
    let gate = Arc::new(Semaphore::new(1));
    let passes = Arc::clone(&gate);
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let options = graced().soft_timeout(Duration::from_millis(10));
    let app = App::new(CacheLayer::new(cache).options(options), move |run, _| {
        let passes = Arc::clone(&passes);
        async move {
            if let Ok(pass) = passes.acquire().await {
                pass.forget();
            }
            format!("run {run}")
        }
    });
    app.get("/").await;
    clock.advance(Duration::from_secs(11));
    assert_eq!(app.get("/").await.told(), ("stale", "run 1"));
    // It goes on, and what it makes is kept.
    gate.add_permits(1);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while app.get("/").await.body != "run 2" {
        assert!(std::time::Instant::now() < until);
        gate.add_permits(1);
        // The handler is on this thread.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_response_is_made_anew_before_its_end() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let ahead = RefreshAhead::Within(Duration::from_secs(5));
    let options = Options::ttl(Duration::from_secs(60)).refresh_ahead(ahead);
    let app = App::new(
        CacheLayer::new(cache.clone()).options(options),
        |run, _| async move { format!("run {run}") },
    );
    app.get("/").await;
    clock.advance(Duration::from_secs(57));
    assert_eq!(app.get("/").await.told(), ("hit", "run 1"));
    larder::Cache::shutdown(&cache).await;
    assert_eq!(app.get("/").await.told(), ("hit", "run 2"));
}

#[tokio::test]
async fn a_store_that_fails_costs_a_run() {
    let store = Faulty::remote(Moka::new(100));
    let faults = store.faults();
    let app = App::new(CacheLayer::new(store), |run, _| async move {
        format!("run {run}")
    });
    faults.always_any(Fault::Fail);
    for run in 1..=3 {
        let answer = app.get("/").await;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::OK, format!("run {run}"))
        );
    }
    faults.heal();
    app.get("/").await;
    assert_eq!(app.get("/").await.told(), ("hit", "run 4"));
}

/// A store of the application's own, which keeps no tags.
#[derive(Clone)]
struct Tagless(Moka);

#[async_trait::async_trait]
impl Backend for Tagless {
    fn core(&self) -> &larder::core::Core {
        self.0.core()
    }

    async fn fetch(&self, key: &str, want: Want) -> larder::Result<Answer> {
        self.0.fetch(key, want).await
    }

    async fn store(&self, key: &str, draft: Draft) -> larder::Result<Stored> {
        self.0.store(key, draft).await
    }

    async fn remove(&self, key: &str) -> larder::Result<bool> {
        self.0.remove(key).await
    }

    async fn wipe(&self, prefix: &str) -> larder::Result<()> {
        self.0.wipe(prefix).await
    }
}

/// What could not be invalidated is not kept.
#[tokio::test]
async fn tags_that_a_store_does_not_keep_keep_a_response_out_of_it() {
    let tagged = CacheLayer::new(Tagless(Moka::new(100))).tags(|_| vec!["all".to_owned()]);
    let app = App::new(tagged, |run, _| async move { format!("run {run}") });
    for run in 1..=2 {
        assert_eq!(
            app.get("/").await.told(),
            ("miss", format!("run {run}").as_str())
        );
    }
}

/// A handler that panics is a failure of its own request.
#[tokio::test]
async fn a_handler_that_panics_strands_nobody() {
    let app = App::new(views(), |run, _| async move {
        assert!(run > 1, "the first run panics");
        format!("run {run}")
    });
    assert_eq!(app.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(app.get("/").await.body, "run 2");
}

/// One response that is not to be kept does not keep the next ones out.
#[tokio::test]
async fn a_response_to_keep_takes_the_place_of_one_that_was_not() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let app = App::new(CacheLayer::new(cache), |run, _| async move {
        let control = if run == 1 { "private" } else { "public" };
        (
            AppendHeaders([("cache-control", control)]),
            format!("run {run}"),
        )
    });
    assert_eq!(app.get("/").await.told(), ("pass", "run 1"));
    clock.advance(Duration::from_secs(2));
    assert_eq!(app.get("/").await.told(), ("miss", "run 2"));
    assert_eq!(app.get("/").await.told(), ("hit", "run 2"));
}

/// A handler that answers conditions itself is not asked them.
#[tokio::test]
async fn the_handler_is_asked_for_all_of_it() {
    let app = App::new(views(), |run, request| async move {
        assert!(!request.headers().contains_key("if-none-match"));
        (AppendHeaders([("etag", "\"1\"")]), format!("run {run}"))
    });
    let asked = [("if-none-match", "\"1\"")];
    for from in ["miss", "hit"] {
        let answer = app.get_with("/", &asked).await;
        assert_eq!(
            (answer.status, answer.header("x-cache")),
            (StatusCode::NOT_MODIFIED, from)
        );
    }
}

/// A store's error is nothing to a client, in a strict cache too.
#[tokio::test]
async fn a_strict_cache_that_fails_costs_a_run() {
    let store = Faulty::remote(Moka::builder().strict(true).build());
    // It is asked, and has nothing; what is made is not stored.
    store.faults().always("store", Fault::Fail);
    let app = App::new(CacheLayer::new(store), |run, _| async move {
        format!("run {run}")
    });
    for run in 1..=2 {
        let answer = app.get("/").await;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::OK, format!("run {run}"))
        );
    }
}
