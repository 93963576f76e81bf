//! `larder manager`.

use std::process::ExitCode;
use std::time::Duration;

use larder::manager::{Config, run as keep};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::Failure;
use crate::args::{Manager, To};
use crate::file::File;
use crate::ops::{config, secret};

/// Where it listens unless told otherwise.
const LISTEN: &str = "127.0.0.1:8080";

pub(crate) async fn run(to: &To, settings: &Manager) -> Result<ExitCode, Failure> {
    if to.api.is_some() {
        return Err("a manager works in its Redis: say --redis".into());
    }
    logged(to.json)?;
    let file = settings
        .config
        .as_deref()
        .map(File::read)
        .transpose()?
        .unwrap_or_default();
    let mut to = to.clone();
    to.redis = to.redis.or_else(|| file.redis.clone());
    let mut made = config(&to)?;
    file.apply(&mut made)?;
    if let Some(path) = to.token_file.as_ref().or(file.token_file.as_ref()) {
        made.token = Some(secret(path)?);
    }
    apply(settings, &mut made)?;
    let listen = settings
        .listen
        .as_deref()
        .or(file.listen.as_deref())
        .unwrap_or(LISTEN);
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|error| format!("cannot listen at {listen}: {error}"))?;
    keep(listener, made, ended()?).await?;
    Ok(ExitCode::SUCCESS)
}

/// What the arguments say.
fn apply(settings: &Manager, config: &mut Config) -> Result<(), Failure> {
    if let Some(labels) = settings.labels {
        config.labels = Some(labels.into());
    }
    config.vnodes = settings.vnodes.or(config.vnodes);
    if !settings.hosts.is_empty() {
        config.hosts.clone_from(&settings.hosts);
    }
    if !settings.allow.is_empty() {
        config.allow.clone_from(&settings.allow);
    }
    if let Some(interval) = settings.interval {
        config.health.interval = seconds("interval", interval)?;
    }
    if let Some(after) = settings.remove_after {
        config.health.remove_after = seconds("remove-after", after)?;
    }
    config.health.min_nodes = settings.min_nodes.unwrap_or(config.health.min_nodes);
    Ok(())
}

/// A number of seconds as a time.
pub(crate) fn seconds(name: &str, seconds: f64) -> Result<Duration, Failure> {
    let time = Duration::try_from_secs_f64(seconds);
    time.map_err(|_| format!("{name}: a number of seconds, not {seconds}").into())
}

/// Logs go to standard error: a line each, or an object.
fn logged(json: bool) -> Result<(), Failure> {
    let level = match std::env::var("LARDER_LOG").as_deref() {
        Err(_) | Ok("" | "info") => LevelFilter::INFO,
        Ok("off") => LevelFilter::OFF,
        Ok("error") => LevelFilter::ERROR,
        Ok("warn") => LevelFilter::WARN,
        Ok("debug") => LevelFilter::DEBUG,
        Ok("trace") => LevelFilter::TRACE,
        Ok(_) => return Err("LARDER_LOG: off, error, warn, info, debug or trace".into()),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr);
    let set = match json {
        true => subscriber.json().try_init(),
        false => subscriber.with_ansi(false).try_init(),
    };
    set.map_err(|error| error.to_string().into())
}

/// Until the program is asked to end, by a signal.
fn ended() -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
