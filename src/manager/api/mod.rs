//! What a manager is asked by HTTP.

mod guard;
mod live;
mod metrics;
mod page;
mod params;
mod python;
mod serve;
mod v1;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::guard::Guard;
pub(super) use self::serve::serve;
use super::admin::Admin;
use super::config::Config;
use super::live::Live;
use super::watch::Status;
use crate::error::Result;

/// What all requests share.
pub(super) struct App {
    pub(super) admin: Admin,
    pub(super) status: watch::Receiver<Status>,
    pub(super) wake: Arc<Notify>,
    pub(super) guard: Guard,
    pub(super) live: Arc<Live>,
    /// Whether the manager is about to end.
    pub(super) ending: watch::Receiver<bool>,
}

/// How long a request that wants all nodes probed waits for that.
const CHECK: Duration = Duration::from_secs(10);

/// All that can be asked.
pub(super) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route(
            "/node/{call}",
            post(python::call).fallback(python::not_a_post),
        )
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/live", get(live::live))
        .merge(v1::routes())
        .fallback(python::nowhere)
        .layer(from_fn_with_state(Arc::clone(&app), guard::check));
    Router::new()
        .route("/healthz", get(healthz))
        .merge(page::routes())
        .merge(guarded)
        .with_state(app)
}

/// Whether this manager is at work: it has looked at the ring, and its last round did not fail. Anybody may ask.
async fn healthz(State(app): State<Arc<App>>) -> Response {
    let status = app.status.borrow();
    match status.looked && status.error.is_none() {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ring was not looked at yet, or could not be\n",
        )
            .into_response(),
    }
}

/// What is asked of whoever asks.
pub(super) fn guard_of(config: &Config, at: IpAddr) -> Guard {
    Guard::new(config.token.clone(), &config.hosts, at, config.rate)
}

impl App {
    fn changed<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            self.wake.notify_one();
        }
        done
    }

    /// Has all nodes probed, and waits until that is done.
    async fn check(&self) {
        let mut status = self.status.clone();
        status.mark_unchanged();
        self.wake.notify_one();
        // Where another manager watches, it does that in its own time.
        let _ = timeout(CHECK, status.changed()).await;
    }
}
