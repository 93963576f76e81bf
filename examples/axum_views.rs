//! The same views with a cache in front of them and without: `cargo run --features axum --example axum_views`, then
//! `curl -i http://127.0.0.1:<port>/cached/works/7` twice.
//!
//! `LARDER_URL` says which cache, memory unless set; `PORT` the port, a free one unless set; `ORIGIN_MS` how long the origin of a work
//! takes, 2 ms unless set. `make views` loads both.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use larder::http::{CacheLayer, Caching};
use larder::{Options, SharedCache};
use serde::Serialize;

#[derive(Serialize)]
struct Work {
    id: u64,
    title: String,
    chapters: Vec<String>,
}

/// Stands for a database.
async fn load(id: u64, takes: Duration) -> Work {
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let chapters = (1..=20).map(|chapter| format!("Chapter {chapter} of work {id}"));
    Work {
        id,
        title: format!("Work {id}"),
        chapters: chapters.collect(),
    }
}

async fn work(State(takes): State<Duration>, Path(id): Path<u64>) -> impl IntoResponse {
    let caching = Caching::new().tag(format!("work:{id}"));
    (axum::Extension(caching), Json(load(id, takes).await))
}

/// What is somebody's own is not cached, and the response says so.
async fn me() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "private")], "you")
}

fn works(takes: Duration) -> Router {
    let works = Router::new()
        .route("/works/{id}", get(work))
        .route("/me", get(me));
    works.with_state(takes)
}

fn routes(cache: SharedCache, takes: Duration) -> Router {
    let options = Options::ttl(Duration::from_secs(60))
        // Better an old one than none, and rather an old one now than a new one late.
        .grace(Duration::from_secs(3600))
        .soft_timeout(Duration::from_millis(500));
    let views = CacheLayer::new(cache)
        .options(options)
        .hit_header(HeaderName::from_static("x-cache"));
    Router::new()
        .nest("/cached", works(takes).layer(views))
        .nest("/plain", works(takes))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("LARDER_URL").unwrap_or_else(|_| "moka://".to_owned());
    let number = |name, otherwise| std::env::var(name).map_or(Ok(otherwise), |text| text.parse());
    let takes = Duration::from_millis(number("ORIGIN_MS", 2)?);
    let port = u16::try_from(number("PORT", 0)?)?;
    let cache = larder::open(&url).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/cached/works/7", listener.local_addr()?);
    axum::serve(listener, routes(cache, takes)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use larder::{Cache, Moka};
    use tower::ServiceExt;

    use super::*;

    async fn call(app: &Router, path: &str) -> (String, usize) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let from = response.headers().get("x-cache");
        let from = from.map(|from| from.to_str().unwrap().to_owned());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (from.unwrap_or_default(), body.len())
    }

    #[tokio::test]
    async fn a_work_is_cached_until_its_tag_is_invalidated() {
        let cache = Moka::new(100);
        let app = routes(Arc::new(cache.clone()), Duration::from_millis(1));
        let (_, len) = call(&app, "/plain/works/7").await;
        assert_eq!(
            call(&app, "/cached/works/7").await,
            ("miss".to_owned(), len)
        );
        assert_eq!(call(&app, "/cached/works/7").await, ("hit".to_owned(), len));
        cache.invalidate_tag("work:7").await.unwrap();
        assert_eq!(call(&app, "/cached/works/7").await.0, "miss");
        for _ in 0..2 {
            assert_eq!(call(&app, "/cached/me").await, ("pass".to_owned(), 3));
        }
    }
}
