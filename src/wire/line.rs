//! The line on which a node tells of its writes: a connection of its own, so that neither large answers delay what is told,
//! nor a flood of it the answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::names::{TOLD, forget_namespace};
use super::target::Target;
use super::tracking::{Heard, Listener};
use super::wipe::is_reserved;
use super::{Connection, ConnectionSettings};
use crate::coherence::{Invalidation, Origin, Source};
use crate::fence::{Fence, Wanted};
use crate::generation::Cells;

/// A sign of life is asked for so many times within the bound on staleness.
const PINGS: u32 = 4;

/// One is waited for at least so long.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// One that leads elsewhere than reads do is not opened anew more often.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// The line to one node, which is open as long as somebody wants to hear of its writes.
#[derive(Debug)]
pub(super) struct Line {
    target: Target,
    settings: ConnectionSettings,
    heard: Arc<Hearing>,
    open: ArcSwapOption<Open>,
    /// Held while it is opened or closed. When it was last opened anew because it led elsewhere.
    changing: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Open {
    wanted: Wanted,
    connection: Connection,
}

/// What is done with what is heard.
#[derive(Debug)]
struct Hearing {
    source: Source,
    fence: Arc<Fence>,
    marks: Arc<Cells>,
    /// Which connection is listened to: one that was replaced may say a last word later.
    current: AtomicU64,
}

impl Line {
    /// A closed line. Nothing where nobody could ever want to hear.
    pub(super) fn new(
        target: &Target,
        settings: &ConnectionSettings,
        marks: &Arc<Cells>,
    ) -> Option<Self> {
        let fence = settings.fence.as_ref()?;
        let hearing = Hearing {
            source: fence.source(&target.label()),
            fence: Arc::clone(fence),
            marks: Arc::clone(marks),
            current: AtomicU64::new(0),
        };
        Some(Self {
            target: target.clone(),
            settings: settings.clone(),
            heard: Arc::new(hearing),
            open: ArcSwapOption::empty(),
            changing: Mutex::default(),
        })
    }

    /// Opens, changes or closes the line, as the subscribers want it now.
    pub(super) fn follow(&self) {
        self.change(false);
    }

    /// A connection of the node leads to `place` from now on. The line may lead elsewhere still, to a master that is none any
    /// more say, and would never hear of what is written here.
    pub(super) fn node_is_at(&self, place: SocketAddr) {
        let open = self.open.load();
        let line = open.as_ref().and_then(|open| open.connection.place());
        if line.is_some_and(|line| line != place) {
            self.change(true);
        }
    }

    /// The line leads elsewhere than reads do.
    fn is_elsewhere(&self) {
        let changing = *self.lock();
        if changing.is_none_or(|last| last.elapsed() > ELSEWHERE) {
            self.change(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, anew: bool) {
        if self.replaced(anew) {
            // Not under the lock: whoever is told may end a subscription.
            self.heard.fence.written(Invalidation::Gap);
        }
    }

    /// Does so, and answers whether an open one had to make way.
    fn replaced(&self, anew: bool) -> bool {
        let mut changing = self.lock();
        if anew {
            *changing = Some(Instant::now());
        }
        // Asked for under the lock: of two who follow at once the later knows what both want.
        let wanted = self.heard.fence.wanted();
        let open = self.open.load();
        if !anew && open.as_ref().map(|open| &open.wanted) == wanted.as_ref() {
            return false;
        }
        let term = self.heard.current.fetch_add(1, Ordering::AcqRel) + 1;
        if open.is_some() {
            self.heard.source.ended();
        }
        let next = wanted.map(|wanted| Arc::new(self.connected(wanted, term)));
        self.open.store(next);
        open.is_some()
    }

    fn connected(&self, wanted: Wanted, term: u64) -> Open {
        let hearing = Arc::clone(&self.heard);
        let mut prefixes = wanted.prefixes.clone();
        // Who hears of everything hears of this too, and prefixes must not overlap.
        if prefixes
            .iter()
            .all(|prefix| !TOLD.starts_with(prefix.as_str()))
        {
            prefixes.push(TOLD.to_owned());
        }
        let listener = Listener::new(prefixes, move |heard| {
            if hearing.current.load(Ordering::Acquire) == term {
                hearing.hear(heard);
            }
        });
        let bound = wanted.max_staleness;
        let name = self.settings.client_name.as_ref();
        let settings = ConnectionSettings {
            ping_interval: bound / PINGS,
            ping_timeout: bound
                .min(self.settings.operation_timeout)
                .max(SHORTEST_WAIT),
            connections: 1,
            client_name: name.map(|name| format!("{name}:writes")),
            listener: Some(listener),
            published: None,
            fence: None,
            ..self.settings.clone()
        };
        let connection = Connection::new(self.target.clone(), settings);
        begin(&connection);
        Open { wanted, connection }
    }

    /// Where a read that begins now through a connection to `place` gets its answer.
    pub(super) fn origin(&self, place: Option<SocketAddr>, view: u32) -> Origin {
        if let Some(open) = &*self.open.load() {
            match open.connection.place() {
                // Where its runtime has ended, or there was none, this caller's takes over.
                None => begin(&open.connection),
                Some(line) if place.is_some_and(|place| place != line) => {
                    self.is_elsewhere();
                    return Origin::UNHEARD;
                }
                Some(_) => {}
            }
        }
        self.heard.source.origin(view)
    }

    /// The view of the ring that its origins are of.
    #[cfg(feature = "ring")]
    pub(super) fn set_view(&self, view: u32) {
        self.heard.source.set_view(view);
    }

    /// Closes the line for good.
    pub(super) async fn shutdown(&self) {
        if let Some(open) = self.open.swap(None) {
            open.connection.shutdown().await;
        }
    }
}

fn begin(connection: &Connection) {
    if let Err(error) = connection.start() {
        tracing::debug!(target: "larder::wire", event = "line_not_started", error = %error);
    }
}

impl Hearing {
    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Begun => {
                self.source.began();
                self.fence.written(Invalidation::Gap);
            }
            Heard::Proven(asked) => self.source.proven(asked),
            Heard::Deaf(why) => self.source.refused(why),
            Heard::Keys(keys) => self.written(&keys),
            Heard::All => {
                self.source.void();
                self.fence.written(Invalidation::All);
            }
            Heard::Ended => {
                self.source.ended();
                self.fence.written(Invalidation::Gap);
            }
        }
    }

    /// What is no key of ours is nobody's copy.
    fn written(&self, keys: &[Vec<u8>]) {
        for key in keys.iter().filter_map(|key| std::str::from_utf8(key).ok()) {
            if let Some(name) = key.strip_prefix(TOLD) {
                self.invalidated(name);
            } else if !is_reserved(key.as_bytes()) {
                self.source.told(1);
                self.fence.written(Invalidation::Keys(&[key]));
            }
        }
    }

    /// A namespace was cleared, or a tag invalidated.
    fn invalidated(&self, name: &str) {
        match name.strip_prefix("n:") {
            Some(namespace) => {
                // In this order: who still knew of it before has noted a stamp from before, and fills nothing.
                forget_namespace(&self.marks, namespace);
                self.fence.written(Invalidation::Under(namespace));
            }
            None => self.marks.invalidate(name),
        }
    }
}
