//! Who keeps the map of a ring: nodes are added and removed, watched, taken off the ring when they fail and put back when they are well, and an
//! administrator is told.
//!
//! All that a manager knows stands in the manager Redis, so another one may take its place at any time: two at once do no harm, since a change is
//! made in one step and only of what was read, and one of them alone, who has the lease, judges the nodes. docs/MANAGER.md has the calls.

mod admin;
mod api;
mod cluster;
mod config;
mod controller;
mod event;
mod health;
mod live;
mod member;
mod probe;
mod tell;
mod view;
mod watch;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch as channel};

use self::api::App;
use self::api::guard_of;
use self::live::Live;
use self::tell::Telling;
use self::watch::{Status, Watch};
use crate::error::{Error, ErrorKind, Result};

pub use admin::Admin;
pub use cluster::Labels;
pub use config::Config;
pub use event::{Event, Kind};
pub use health::{Freeze, HealthSettings};
pub use member::State;
pub use tell::{Alerts, Mail, Secret, Security, Webhook};
pub use view::{
    ArcsView, EventView, EventsView, Finding, Findings, Located, MoveView, Moved, NodeView,
    NodesView, Plan, RingView,
};

/// Keeps the map and answers HTTP until `shutdown` is over; then ends what is under way, and gives the lease up.
///
/// ```no_run
/// use larder::manager::{Config, run};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let shutdown = async {
///     let _ = tokio::signal::ctrl_c().await;
/// };
/// run(listener, Config::new("redis://127.0.0.1:6379/13"), shutdown).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ErrorKind::Config`] where the configuration is wrong, or where there is no token and the listener is not at a loopback address.
/// [`ErrorKind::Unavailable`] and others where the manager Redis cannot be reached; later that is borne, and tried again.
///
/// # Cancellation
///
/// May be dropped at any point: a change of the map is made whole or not at all, and another manager takes over within 20 seconds.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let at = listener.local_addr().map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("the listener has no address: {error}"),
        )
    })?;
    if config.token.is_none() && !at.ip().is_loopback() {
        let why = "without a token only a loopback address is served: set one of 32 characters";
        return Err(Error::new(ErrorKind::Config, why));
    }
    let admin = Admin::connect(&config).await?;
    let (status, seen) = channel::channel(Status::default());
    let registry = &admin.controller.registry;
    let telling = Telling::begin(&config.alerts, &config.map_name, registry, &seen)?;
    let wake = Arc::new(Notify::new());
    let watch = Watch {
        controller: admin.controller.clone(),
        nodes: Arc::clone(&admin.nodes),
        settings: config.health.clone(),
        drain_pause: config.drain_pause,
        status,
        wake: Arc::clone(&wake),
    };
    let (end, ending) = channel::channel(false);
    let shutdown = async {
        shutdown.await;
        // Streams end by themselves no sooner than they have to.
        let _ = end.send(true);
    };
    let app = App {
        guard: guard_of(&config, at.ip()),
        live: Live::new(admin.clone(), seen.clone()),
        ending,
        admin,
        status: seen,
        wake,
    };
    tracing::info!(target: "larder::manager", event = "started", at = %at);
    let router = api::router(Arc::new(app));
    let served = async {
        api::serve(listener, router, shutdown).await;
        telling.end().await;
    };
    watch.run_until(served).await;
    tracing::info!(target: "larder::manager", event = "ended");
    Ok(())
}
