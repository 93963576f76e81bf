//! A web service with a cache in its state: `cargo run --example axum_service`, then
//! `curl http://127.0.0.1:<port>/users/42` twice.
//!
//! `LARDER_URL` says which cache, memory unless set; `PORT` the port, a free one unless set. The test below
//! runs the same routes on a cache of its own.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use larder::{Cache, SharedCache};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[derive(Clone, Debug)]
struct App {
    cache: SharedCache,
}

#[derive(Debug)]
enum AppError {
    NotFound,
    Cache(larder::Error),
}

impl From<larder::Error> for AppError {
    fn from(error: larder::Error) -> Self {
        Self::Cache(error)
    }
}

impl axum::response::IntoResponse for AppError {
    fn into_response(self) -> axum::response::Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            // Another caller's load failed, or took far too long. A cache that is away never comes here.
            Self::Cache(error) => {
                eprintln!("{error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

/// Stands for a database.
async fn load_user(id: u64) -> Result<User, AppError> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    if id == 0 {
        return Err(AppError::NotFound);
    }
    let name = format!("user {id}");
    Ok(User { id, name })
}

async fn read_user(State(app): State<App>, Path(id): Path<u64>) -> Result<Json<User>, AppError> {
    let key = format!("user:{id}");
    let user = app
        .cache
        .try_get_or_set(&key, MINUTE, || load_user(id))
        .await?;
    Ok(Json(user))
}

async fn forget_user(State(app): State<App>, Path(id): Path<u64>) -> Result<StatusCode, AppError> {
    app.cache.delete(&format!("user:{id}")).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn routes(cache: SharedCache) -> Router {
    Router::new()
        .route("/users/{id}", get(read_user).delete(forget_user))
        .with_state(App { cache })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("LARDER_URL").unwrap_or_else(|_| "moka://".to_owned());
    let port = std::env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let cache = larder::open(&url).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/users/42", listener.local_addr()?);
    axum::serve(listener, routes(cache)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use larder::Moka;
    use tower::ServiceExt;

    use super::*;

    async fn call(app: &Router, method: &str, path: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, body.to_vec())
    }

    #[tokio::test]
    async fn a_user_is_loaded_once_until_forgotten() {
        // The whole difference to production.
        let cache = Moka::new(100);
        let app = routes(Arc::new(cache.clone()));
        for _ in 0..3 {
            let (status, body) = call(&app, "GET", "/users/42").await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, br#"{"id":42,"name":"user 42"}"#);
        }
        assert_eq!(cache.stats().computes, 1);
        let (status, _) = call(&app, "DELETE", "/users/42").await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        call(&app, "GET", "/users/42").await;
        assert_eq!(cache.stats().computes, 2);
    }

    #[tokio::test]
    async fn what_the_database_has_not_is_not_cached() {
        let cache = Moka::new(100);
        let app = routes(Arc::new(cache.clone()));
        let (status, _) = call(&app, "GET", "/users/0").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(!cache.has("user:0").await.unwrap());
    }
}
