//! Follows the map: reads it at the start, then again and again, and swaps the snapshot when it changed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::Order;
use crate::wire::{Connection, ConnectionSettings};

use super::map::{self, Meta, RawMap};
use super::snapshot::{MapStatus, Progress, Snapshot};

/// Without any sign of a change the whole map is read at least this often: a writer that knows nothing of
/// Larder can change it without changing its size.
const FULL_READ: Duration = Duration::from_secs(5);

/// Maps up to this many fields are read whole each time.
const SMALL: usize = 2000;

/// How the map is read and believed.
#[derive(Clone, Debug)]
pub(super) struct MapSettings {
    pub(super) order: Order,
    pub(super) poll_interval: Duration,
    pub(super) max_fields: usize,
    pub(super) snapshot_file: Option<PathBuf>,
    pub(super) start_without_map: bool,
    pub(super) nodes: ConnectionSettings,
}

/// The map in use, and what keeps it current.
#[derive(Debug)]
pub(super) struct Follower {
    manager: Connection,
    settings: MapSettings,
    clock: Clock,
    current: ArcSwap<Snapshot>,
    progress: Mutex<Progress>,
    /// Whether the task is there. Its runtime may end before the store does.
    following: Arc<AtomicBool>,
    closed: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

impl Follower {
    pub(super) fn new(manager: Connection, settings: MapSettings, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            manager,
            settings,
            clock,
            current: ArcSwap::from_pointee(Snapshot::empty()),
            progress: Mutex::default(),
            following: Arc::default(),
            closed: AtomicBool::new(false),
            task: Mutex::default(),
        })
    }

    /// Reads the first map: from the manager or, where that fails and it is allowed, from the file or not at all.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<()> {
        let first = match self.manager.ready().await {
            Ok(()) => self.refresh(true).await,
            Err(error) => Err(error),
        };
        if let Err(error) = first {
            if error.kind() == ErrorKind::Config && !self.settings.start_without_map {
                return Err(error.during("connect"));
            }
            self.failed(&error);
            let restored = self.restore().await;
            if !restored && !self.settings.start_without_map {
                return Err(error.during("connect"));
            }
        }
        self.follow();
        Ok(())
    }

    /// The map in use. Never waits, never locks; revives the task if its runtime has ended.
    pub(super) fn current(self: &Arc<Self>) -> arc_swap::Guard<Arc<Snapshot>> {
        if !self.following.load(Ordering::Acquire) {
            self.follow();
        }
        self.current.load()
    }

    fn follow(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.closed.load(Ordering::Acquire) || self.following.swap(true, Ordering::AcqRel) {
            return;
        }
        let present = Present(Arc::clone(&self.following));
        let task = runtime.spawn(run(
            Arc::downgrade(self),
            self.settings.poll_interval,
            present,
        ));
        *lock(&self.task) = Some(task.abort_handle());
    }

    /// Reads the map once and takes it over if it is good and new.
    async fn refresh(&self, whole: bool) -> Result<()> {
        let (fields, meta) = map::probe(&self.manager).await?;
        map::check_size(fields, self.settings.max_fields)?;
        if !whole && fields > SMALL && self.seems_unchanged(fields, meta.as_ref()) {
            lock(&self.progress).confirmed = Some(self.clock.now());
            return Ok(());
        }
        let raw = map::read(&self.manager).await?;
        self.accept(raw).await
    }

    fn seems_unchanged(&self, fields: usize, meta: Option<&Meta>) -> bool {
        let current = self.current.load();
        current
            .raw
            .as_ref()
            .is_some_and(|raw| raw.fields.len() == fields && raw.meta.as_ref() == meta)
    }

    async fn accept(&self, raw: RawMap) -> Result<()> {
        let current = self.current.load_full();
        if current.raw.as_ref() != Some(&raw) {
            let good = raw.judge(self.settings.order, self.settings.max_fields)?;
            self.warn(&good);
            let epoch = good.epoch;
            let next = Snapshot::next(&current, good, raw, &self.settings.nodes);
            let next = Arc::new(next);
            self.current.store(Arc::clone(&next));
            lock(&self.progress).changes += 1;
            tracing::info!(target: "larder::ring", event = "map_changed", epoch, nodes = next.node_count(), positions = next.ring.positions());
            if let (Some(path), Some(raw)) = (self.settings.snapshot_file.clone(), next.raw.clone())
            {
                save(path, raw).await;
            }
        }
        let mut progress = lock(&self.progress);
        (progress.confirmed, progress.last_error) = (Some(self.clock.now()), None);
        Ok(())
    }

    fn warn(&self, good: &map::GoodMap) {
        if good.edited {
            tracing::warn!(target: "larder::ring", event = "map_edited",
                "the map does not fit its digest: somebody changed it who does not know HASH_RING_META; its epoch is not used");
        }
        let mut progress = lock(&self.progress);
        if !progress.warned && good.rule_unknown {
            progress.warned = true;
            tracing::warn!(target: "larder::ring", event = "order_assumed",
                "the map does not say in which order it is read: numeric is assumed; readers of the Python SDK sort as text \
                 and place some keys elsewhere (choose Order::Lexicographic to follow them)");
        }
        if !progress.warned && good.epoch == 0 {
            progress.warned = true;
            tracing::info!(target: "larder::ring", event = "no_epoch",
                "the map has no epoch: after a node left and came back, a value's ttl is the only bound on its age");
        }
    }

    fn failed(&self, error: &Error) {
        let mut progress = lock(&self.progress);
        let text = error.to_string();
        if error.kind() == ErrorKind::Config || self.manager.is_up() {
            progress.refused += 1;
        }
        // Once for each cause, not once a second.
        if progress.last_error.as_ref() != Some(&text) {
            tracing::warn!(target: "larder::ring", event = "map_refused", error = %text, "the last good map stays in use");
        }
        progress.last_error = Some(text);
    }

    /// How things stand.
    pub(super) fn status(&self) -> MapStatus {
        let current = self.current.load();
        let progress = lock(&self.progress);
        MapStatus {
            epoch: current.epoch,
            positions: current.ring.positions(),
            nodes: current.statuses(),
            order: current.ring.order(),
            age: progress
                .confirmed
                .map(|confirmed| self.clock.now().since(confirmed)),
            changes: progress.changes,
            refused: progress.refused,
            last_error: progress.last_error.clone(),
        }
    }

    /// Ends the task and closes the connections.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.stop();
        let current = self.current.load_full();
        let nodes = (0..current.node_count()).filter_map(|index| current.node(index).ok());
        let ends = nodes.map(|node| node.connection().shutdown());
        futures_util::future::join_all(ends).await;
        self.manager.shutdown().await;
    }

    fn stop(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }

    /// Takes the map of the file over, if there is a good one.
    async fn restore(&self) -> bool {
        let Some(path) = self.settings.snapshot_file.clone() else {
            return false;
        };
        let read = tokio::task::spawn_blocking(move || load(&path)).await;
        let raw = match read {
            Ok(Some(raw)) => raw,
            _ => return false,
        };
        let Ok(good) = raw.judge(self.settings.order, self.settings.max_fields) else {
            return false;
        };
        self.warn(&good);
        let next = Snapshot::next(&self.current.load_full(), good, raw, &self.settings.nodes);
        self.current.store(Arc::new(next));
        tracing::warn!(target: "larder::ring", event = "map_restored", "the manager gave no map: the one saved last is used");
        true
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that the task is gone when it is dropped, by whatever.
struct Present(Arc<AtomicBool>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn run(follower: Weak<Follower>, interval: Duration, _present: Present) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once, and the map was just read.
    ticks.tick().await;
    let mut last_whole = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        let Some(follower) = follower.upgrade() else {
            return;
        };
        let whole = last_whole.elapsed() >= FULL_READ;
        if whole {
            last_whole = tokio::time::Instant::now();
        }
        if let Err(error) = follower.refresh(whole).await {
            follower.failed(&error);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Saves a map for a start without a manager. The file holds the nodes' passwords, so it is its owner's alone.
async fn save(path: PathBuf, raw: RawMap) {
    let saved = tokio::task::spawn_blocking(move || write(&path, &raw)).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(target: "larder::ring", event = "map_not_saved", error = %error);
    }
}

fn write(path: &Path, raw: &RawMap) -> std::io::Result<()> {
    use std::io::Write;
    let meta = raw.meta.as_ref().map(|meta| {
        let lookup = meta.lookup.map(|rule| rule.to_string());
        serde_json::json!({ "epoch": meta.epoch, "digest": meta.digest, "lookup": lookup })
    });
    let text = serde_json::json!({ "map": raw.fields, "meta": meta }).to_string();
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&beside, path)
}

fn load(path: &Path) -> Option<RawMap> {
    let text = std::fs::read(path).ok()?;
    let mut saved: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let mut fields: Vec<(String, String)> =
        serde_json::from_value(saved.get_mut("map")?.take()).ok()?;
    fields.sort_unstable();
    let meta = saved
        .get("meta")
        .filter(|meta| !meta.is_null())
        .and_then(|meta| {
            let text = |name| meta.get(name).and_then(serde_json::Value::as_str);
            let lookup = match text("lookup") {
                None => None,
                Some(rule) => Some(rule.parse().ok()?),
            };
            Some(Meta {
                epoch: meta.get("epoch")?.as_u64()?,
                digest: text("digest").map(str::to_owned),
                lookup,
            })
        });
    Some(RawMap { fields, meta })
}
