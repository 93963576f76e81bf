//! Who keeps the map of a ring: nodes are added and removed, watched, taken off the ring when they fail and put back when they are well, and an
//! administrator is told.
//!
//! All that a manager knows stands in the manager Redis, so another one may take its place at any time: two at once do no harm, since a change is
//! made in one step and only of what was read, and one of them alone, who has the lease, judges the nodes. docs/MANAGER.md has the calls.

mod api;
mod cluster;
mod config;
mod controller;
mod event;
mod health;
mod member;
mod probe;
mod watch;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch as channel};

use self::api::App;
use self::api::guard_of;
use self::cluster::Form;
use self::config::Allow;
use self::controller::Controller;
use self::probe::Nodes;
use self::watch::{Status, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::registry::Registry;
use crate::wire::{Admits, ConnectionSettings, Target};

pub use cluster::Labels;
pub use config::Config;
pub use event::{Event, Kind};
pub use health::{Freeze, HealthSettings};
pub use member::State;

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
/// May be dropped at any point: a change of the map is made whole or not at all, and another manager takes over within 15 seconds.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    config.check()?;
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
    let manager = ConnectionSettings {
        client_name: Some("larder-manager".to_owned()),
        ..config.connection.clone()
    };
    let target = Target::parse(&config.redis)?;
    let registry = Registry::connect(target, manager, &config.map_name).await?;
    let controller = Controller {
        registry,
        form: Form {
            labels: config.labels,
            per_node: config.vnodes,
        },
    };
    let allow = Allow::of(&config.allow)?;
    let nodes = ConnectionSettings {
        admits: Some(Admits::new(move |addr| allow.admits(addr))),
        spared: controller
            .spared()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ..config.connection.clone()
    };
    let nodes = Arc::new(Nodes::new(nodes, config.health.timeout));
    let (status, seen) = channel::channel(Status::default());
    let wake = Arc::new(Notify::new());
    let watch = Watch {
        controller: controller.clone(),
        nodes: Arc::clone(&nodes),
        settings: config.health.clone(),
        drain_pause: config.drain_pause,
        status,
        wake: Arc::clone(&wake),
    };
    let app = App {
        guard: guard_of(&config, at.ip()),
        controller,
        nodes,
        status: seen,
        wake,
    };
    tracing::info!(target: "larder::manager", event = "started", at = %at);
    let router = api::router(Arc::new(app));
    let served = api::serve(listener, router, shutdown);
    watch.run_until(served).await;
    tracing::info!(target: "larder::manager", event = "ended");
    Ok(())
}
