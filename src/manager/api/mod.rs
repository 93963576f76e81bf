//! What a manager is asked by HTTP.

mod guard;
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
use super::cluster::{By, Cluster};
use super::config::Config;
use super::controller::{Controller, Done};
use super::member::{State as NodeState, name_of};
use super::probe::Nodes;
use super::watch::Status;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::NodeAddr;

/// What all requests share.
pub(super) struct App {
    pub(super) controller: Controller,
    pub(super) nodes: Arc<Nodes>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) wake: Arc<Notify>,
    pub(super) guard: Guard,
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
        .merge(v1::routes())
        .fallback(python::nowhere)
        .layer(from_fn_with_state(Arc::clone(&app), guard::check));
    Router::new()
        .route("/healthz", get(healthz))
        .merge(guarded)
        .with_state(app)
}

/// Whether this manager is at work: it has looked at the ring, and nothing went wrong since. Anybody may ask.
async fn healthz(State(app): State<Arc<App>>) -> Response {
    let status = app.status.borrow();
    match status.looked && status.error.is_none() {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the manager Redis is not there\n",
        )
            .into_response(),
    }
}

/// What is asked of whoever asks.
pub(super) fn guard_of(config: &Config, at: IpAddr) -> Guard {
    Guard::new(config.token.clone(), &config.hosts, at, config.rate)
}

impl App {
    /// Puts a node on the ring that answers, emptied first where it was there before.
    ///
    /// # Errors
    ///
    /// Those of [`Nodes::probe`] and [`Controller::apply`]; [`ErrorKind::Config`] for a url that is none.
    async fn add(&self, url: &str) -> Result<Done> {
        let addr = NodeAddr::parse(url)?;
        self.nodes.probe(url).await?;
        let known = self.controller.look().await?;
        let away = known
            .members
            .get(&addr.label())
            .filter(|member| matches!(member.state, NodeState::Out | NodeState::Drained));
        if away.is_some() {
            self.nodes.at(url)?.empty(&self.controller.spared()).await?;
        }
        let add = |cluster: &mut Cluster| {
            cluster.add(url, By::Person);
            Ok(())
        };
        self.changed(self.controller.apply(None, add).await)
    }

    /// Takes a node off the ring for good.
    ///
    /// # Errors
    ///
    /// Those of [`Controller::apply`]; [`ErrorKind::Config`] where there is no such node, or it is the last one and `last` is not said.
    async fn remove(&self, name: &str, last: bool) -> Result<Done> {
        let remove = |cluster: &mut Cluster| {
            let is_on = cluster.member(name)?.state.is_on();
            if is_on && cluster.on() == 1 && !last {
                let why = "it is the last node of the ring: without it there is none";
                return Err(
                    Error::new(ErrorKind::Config, why).with("node", super::member::shown(name))
                );
            }
            cluster.remove(name)
        };
        self.changed(self.controller.apply(None, remove).await)
    }

    fn changed(&self, done: Result<Done>) -> Result<Done> {
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

    /// A node by its `host:port/db` or url.
    fn name(node: &str) -> String {
        let url = match node.contains("://") {
            true => node.to_owned(),
            false => format!("redis://{node}"),
        };
        NodeAddr::parse(&url).map_or_else(|_| name_of(node), |addr| addr.label())
    }
}
