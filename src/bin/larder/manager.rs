//! `larder manager`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use larder::manager::{Config, run as keep};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::Failure;
use crate::args::{Manager, To};
use crate::file::File;
use crate::ops::{config, secret};
use crate::show::Show;

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
    to.redis = to.redis().or_else(|| file.redis.clone());
    to.map = to.map.or_else(|| file.map.clone());
    to.password_file = to.password_file.or_else(|| file.password_file.clone());
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
    if settings.check {
        made.check()?;
        let is_near = at(listen)?.all(|addr| addr.ip().is_loopback());
        if made.token.is_none() && !is_near {
            return Err("without a token only a loopback address is served".into());
        }
        let mut shown = shown(&made, listen);
        shown["password"] = set(to.password_file.is_some());
        to.password_file.as_deref().map(secret).transpose()?;
        file.show_logins(&mut shown)?;
        Show::new(to.json).settings(&shown);
        return Ok(ExitCode::SUCCESS);
    }
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
    let (hosts, allow) = (settings.hosts.clone(), settings.allow.clone());
    if !hosts.is_empty() {
        config.hosts = hosts;
    }
    if !allow.is_empty() {
        config.allow = allow;
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

/// Where that is: an address, or a name that is looked up.
fn at(listen: &str) -> Result<impl Iterator<Item = SocketAddr>, Failure> {
    let found = listen.to_socket_addrs();
    Ok(found.map_err(|error| format!("cannot listen at {listen}: {error}"))?)
}

/// Of a secret, whether there is one.
pub(crate) fn set(is: bool) -> Value {
    Value::from(if is { "set" } else { "" })
}

/// What the settings come to, by their names in the file. Of secrets only whether there are any.
fn shown(config: &Config, listen: &str) -> Value {
    // Arguments of a program may be secrets.
    let command = alerts_command(config);
    let (health, alerts) = (&config.health, &config.alerts);
    let mail = alerts.mail.as_ref().map(|mail| {
        json!({
            "host": mail.host, "port": mail.port, "account": mail.account,
            "password": set(!mail.password.is_empty()), "from": mail.from, "to": mail.to,
            "security": format!("{:?}", mail.security).to_lowercase(),
        })
    });
    let webhook = alerts
        .webhook
        .as_ref()
        .map(|webhook| json!({"url": "set", "token": set(webhook.token.is_some())}));
    json!({
        "listen": listen, "redis": config.place(), "map": config.map_name,
        "labels": config.labels, "vnodes": config.vnodes, "hosts": config.hosts,
        "allow": config.allow, "rate": config.rate, "token": set(config.token.is_some()),
        "drain_pause": config.drain_pause.as_secs_f64(),
        "alert_pause": alerts.pause.as_secs_f64(),
        "alert_max_pause": alerts.max_pause.as_secs_f64(),
        "command": command, "mail": mail, "webhook": webhook,
        "health": {
            "interval": health.interval.as_secs_f64(), "retry": health.retry.as_secs_f64(),
            "timeout": health.timeout.as_secs_f64(), "failures": health.failures,
            "remove_after": health.remove_after.as_secs_f64(), "successes": health.successes,
            "hold": health.hold.as_secs_f64(), "max_hold": health.max_hold.as_secs_f64(),
            "forgive_after": health.forgive_after.as_secs_f64(), "min_nodes": health.min_nodes,
            "pause": health.pause.as_secs_f64(), "lease": health.lease.as_secs_f64(),
            "empty": health.empty,
        },
    })
}

fn alerts_command(config: &Config) -> Option<String> {
    let command = config.alerts.command.as_ref()?;
    let (first, others) = command.split_first()?;
    Some(match others.len() {
        0 => first.clone(),
        others => format!("{first} and {others} arguments"),
    })
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
        // Whoever asks again does not want to wait.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
    })
}
