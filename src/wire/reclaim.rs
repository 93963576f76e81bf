//! Taking back the space of what was cleared or invalidated: behind the callers' backs, a step at a time.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::Connection;
use super::script::PURGE;
use super::wipe::{found, is_reserved};
use crate::error::Result;

/// Between two steps, and by how much longer than the step: the server has others to serve.
const PAUSE: Duration = Duration::from_millis(5);
const REST: u32 = 4;

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Before a step that failed is tried again, and how often in a row.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 60;

/// After a clear, for others that may follow.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// After a tag was invalidated, the same.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// Keys looked at in one step of a script.
const LOOK: usize = 250;

/// What is to be taken back at one node, by one task at most.
#[derive(Debug, Default)]
pub(crate) struct Reclaim(Mutex<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    /// What all keys to be looked at begin with; nothing if there are none.
    prefix: Option<String>,
    running: bool,
}

impl Reclaim {
    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim to be the one task, which ends with it, however that ends.
struct Running {
    of: Arc<Reclaim>,
    ended: bool,
}

impl Running {
    /// What is to be taken back next. Without anything the claim ends, under the same lock.
    fn next(&mut self) -> Option<String> {
        let mut wanted = self.of.lock();
        let prefix = wanted.prefix.take();
        self.ended = prefix.is_none();
        wanted.running = !self.ended;
        prefix
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.of.lock().running = false;
        }
    }
}

impl Reclaim {
    /// Something under `prefix` was cleared or invalidated; it is taken back after a pause, or with what is to be already.
    pub(super) fn after(
        self: &Arc<Self>,
        pause: Duration,
        connections: &Arc<[Connection]>,
        prefix: &str,
    ) {
        if Handle::try_current().is_err() {
            return;
        }
        let mut wanted = self.lock();
        wanted.prefix = Some(match wanted.prefix.take() {
            Some(other) => common(&other, prefix).to_owned(),
            None => prefix.to_owned(),
        });
        if wanted.running {
            return;
        }
        wanted.running = true;
        drop(wanted);
        let running = Running {
            of: Arc::clone(self),
            ended: false,
        };
        let connections = Arc::downgrade(connections);
        tokio::spawn(async move {
            sleep(pause).await;
            run(running, connections).await;
        });
    }
}

async fn run(mut running: Running, connections: Weak<[Connection]>) {
    let mut first = true;
    while let Some(prefix) = running.next() {
        if !std::mem::take(&mut first) {
            sleep(ROUND).await;
        }
        let (mut cursor, mut failed) = (0, 0);
        while failed < TRIES {
            // The node may be gone.
            let Some(connections) = connections.upgrade() else {
                return;
            };
            let chosen = |key: &[u8]| !is_reserved(key);
            let began = Instant::now();
            match step(&connections[0], &prefix, cursor, None, chosen).await {
                Ok(0) => break,
                Ok(next) => (cursor, failed) = (next, 0),
                Err(_) => failed += 1,
            }
            drop(connections);
            let rest = (began.elapsed() * REST).clamp(PAUSE, LONGEST_PAUSE);
            sleep(if failed == 0 { rest } else { AGAIN }).await;
        }
    }
}

/// What both begin with.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b);
    let length = same.map_or(a.len().min(b.len()), |((at, _), _)| at);
    &a[..length]
}

/// Looks at all keys that begin with `prefix`, and removes what is dead; with the length of a namespace that was cleared also
/// what does not say.
pub(super) async fn sweep(
    connection: &Connection,
    prefix: &str,
    namespace: Option<usize>,
    chosen: impl Fn(&[u8]) -> bool + Send + Sync,
) -> Result<()> {
    let mut cursor = 0;
    loop {
        cursor = step(connection, prefix, cursor, namespace, &chosen).await?;
        if cursor == 0 {
            return Ok(());
        }
    }
}

async fn step(
    connection: &Connection,
    prefix: &str,
    cursor: u64,
    namespace: Option<usize>,
    chosen: impl Fn(&[u8]) -> bool + Send + Sync,
) -> Result<u64> {
    let (next, keys) = found(connection, prefix, cursor).await?;
    let wide = namespace.map_or_else(String::new, |length| length.to_string());
    let keys: Vec<String> = keys
        .into_iter()
        .filter(|key| chosen(key))
        .filter_map(|key| String::from_utf8(key).ok())
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for keys in keys.chunks(LOOK) {
        PURGE
            .run(connection, "unlink", keys, |command| {
                command.arg(&wide);
            })
            .await?;
    }
    Ok(next)
}
