//! What a ring does at the moment, measured while somebody looks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::admin::Admin;
use super::cluster::Cluster;
use super::member::{State, shown};
use super::probe::Nodes;
use super::view::{EventView, NodeView};
use super::watch::Status;
use crate::error::Result;

/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(2);

/// But no less, however much happens.
const LEAST: Duration = Duration::from_millis(200);

/// For one node to tell.
const BOUND: Duration = Duration::from_secs(1);

/// Who may look at a time.
const MAX_WATCHING: usize = 16;

/// Events that are shown.
const EVENTS: usize = 100;

/// One look for all who watch; none where nobody does.
pub(super) struct Live {
    admin: Admin,
    /// Connections of its own, since the watch lets go of those that it does not need.
    nodes: Nodes,
    status: watch::Receiver<Status>,
    seen: watch::Sender<Arc<str>>,
    /// Whether somebody is looking.
    looking: Mutex<bool>,
    places: Arc<Semaphore>,
}

/// Somebody who looks.
pub(super) struct Watching {
    pub(super) seen: watch::Receiver<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

/// A node and what it does.
#[derive(Serialize)]
struct Seen {
    #[serde(flatten)]
    node: NodeView,
    load: Option<Load>,
}

/// What a node says of itself; totals since it was started.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Load {
    /// Keys in its database.
    keys: u64,
    /// Bytes.
    memory: u64,
    /// Bytes; 0 without a bound.
    max_memory: u64,
    hits: u64,
    misses: u64,
    evicted: u64,
    /// In a second.
    commands: u64,
    clients: u64,
    /// Seconds.
    uptime: u64,
    version: String,
    /// Of a `PING` and its answer, in microseconds.
    latency_us: u64,
}

impl Live {
    pub(super) fn new(admin: Admin, status: watch::Receiver<Status>) -> Arc<Self> {
        let nodes = admin.nodes.anew();
        Arc::new(Self {
            admin,
            nodes,
            status,
            seen: watch::Sender::new("".into()),
            looking: Mutex::new(false),
            places: Arc::new(Semaphore::new(MAX_WATCHING)),
        })
    }

    /// Has somebody look; nothing where too many do already.
    pub(super) fn watch(self: &Arc<Self>) -> Option<Watching> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.seen.subscribe();
        match *looking {
            // What was seen last is shown at once, if anything was.
            true if seen.borrow().is_empty() => {}
            true => seen.mark_changed(),
            false => {
                *looking = true;
                tokio::spawn(Arc::clone(self).look_on());
            }
        }
        Some(Watching {
            seen,
            _place: place,
        })
    }

    /// Looks again and again, until nobody watches any more.
    async fn look_on(self: Arc<Self>) {
        loop {
            let once = async {
                let mut status = self.status.clone();
                // What ends during the look is not in it.
                status.mark_unchanged();
                let seen = self.look().await;
                self.seen.send_replace(seen.into());
                sleep(LEAST).await;
                tokio::select! {
                    () = sleep(BETWEEN) => {}
                    // Something was done: it is shown at once. Whoever tells of it may be gone.
                    Ok(()) = status.changed() => {}
                }
            };
            tokio::select! {
                () = once => {}
                () = self.seen.closed() => {}
            }
            let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
            if self.seen.receiver_count() == 0 {
                // It is old by the time somebody looks again.
                self.seen.send_replace("".into());
                *looking = false;
                break;
            }
        }
        self.nodes.keep(std::iter::empty());
    }

    /// All of it, as JSON.
    async fn look(&self) -> String {
        let status = self.status.borrow().clone();
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut all = json!({
            "at": at.map_or(0, |at| at.as_secs()),
            "manager": {
                "leads": status.leads,
                "frozen": status.frozen.map(|freeze| freeze.as_str()),
                "error": status.error.as_ref().map(ToString::to_string),
            },
        });
        match self.ring(&status).await {
            Ok((cluster, nodes, events)) => {
                all["ring"] = json!(Admin::form(&cluster));
                all["nodes"] = json!(nodes);
                all["events"] = json!(events);
            }
            Err(error) => all["manager"]["error"] = error.to_string().into(),
        }
        all.to_string()
    }

    async fn ring(&self, status: &Status) -> Result<(Cluster, Vec<Seen>, Vec<EventView>)> {
        let cluster = self.admin.controller.look().await?;
        let events = self.admin.events(0, EVENTS).await?.events;
        let urls = cluster.members.values().map(|member| member.url.as_str());
        self.nodes.keep(urls);
        let members = cluster.members.iter().map(|(name, member)| async {
            let told = match member.state {
                // One that is off the ring may be gone for good.
                State::Drained => None,
                _ => timeout(BOUND, self.load(name, &member.url)).await.ok(),
            };
            told.and_then(Result::ok)
        });
        let loads = join_all(members).await;
        let views = Admin::members(&cluster).nodes.into_iter().zip(loads);
        let seen = views.map(|(mut node, load)| {
            if let Some(why) = status.failing.get(&node.node) {
                node.why = Some(why.clone());
            }
            Seen { node, load }
        });
        let seen = seen.collect();
        Ok((cluster, seen, events))
    }

    async fn load(&self, name: &str, url: &str) -> Result<Load> {
        let node = self.nodes.at(url)?;
        let latency = node.ping().await?;
        let told = node.info().await?;
        let db = shown(name).rsplit_once('/').map(|(_, db)| db.to_owned());
        Ok(Load {
            latency_us: latency.as_micros().try_into().unwrap_or(u64::MAX),
            ..Load::of(&told, db.as_deref().unwrap_or("0"))
        })
    }
}

impl Load {
    /// From what `INFO` has, by name; what is not there is 0.
    fn of(told: &[(String, String)], db: &str) -> Self {
        let text = |name: &str| {
            let line = told.iter().find(|(known, _)| known == name);
            line.map(|(_, value)| value.trim()).unwrap_or_default()
        };
        let number = |name: &str| text(name).parse().unwrap_or(0);
        // keys=12,expires=3,avg_ttl=0
        let keys = text(&format!("db{db}")).split(',');
        let keys = keys.filter_map(|part| part.strip_prefix("keys=")?.parse::<u64>().ok());
        Self {
            keys: keys.sum(),
            memory: number("used_memory"),
            max_memory: number("maxmemory"),
            hits: number("keyspace_hits"),
            misses: number("keyspace_misses"),
            evicted: number("evicted_keys"),
            commands: number("instantaneous_ops_per_sec"),
            clients: number("connected_clients"),
            uptime: number("uptime_in_seconds"),
            version: text("redis_version").chars().take(20).collect(),
            latency_us: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let told = [
            ("redis_version", "7.0.15"),
            ("used_memory", "1048576"),
            ("maxmemory", "0"),
            ("keyspace_hits", "7"),
            ("instantaneous_ops_per_sec", "12"),
            ("uptime_in_seconds", "x"),
            ("db0", "keys=1,expires=0,avg_ttl=0"),
            ("db15", "keys=42,expires=3,avg_ttl=0"),
        ];
        let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = Load {
            keys: 42,
            memory: 1 << 20,
            hits: 7,
            commands: 12,
            version: "7.0.15".to_owned(),
            ..Load::default()
        };
        assert_eq!(Load::of(&told, "15"), expected);
        assert_eq!(Load::of(&told, "3").keys, 0);
        assert_eq!(Load::of(&[], "0"), Load::default());
    }
}
