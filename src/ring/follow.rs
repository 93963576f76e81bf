//! Follows the map: reads it at the start, at each sign of a change, and now and then without one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::Result;
use crate::wire::{Connection, ConnectionSettings};

use super::current::Current;
use super::departed::Departed;
use super::file::Saver;
use super::keys::MapKeys;
use super::lock::lock;
use super::map::{Rules, is_contradiction};
use super::recent::Recent;
use super::signals::Signals;
use super::snapshot::{MapStatus, Progress, Snapshot};

/// How long others may follow an earlier map: until then its nodes are told of deletes and writes.
const OTHERS_FOLLOW: Duration = Duration::from_secs(2);

/// How the map is read and believed.
#[derive(Clone, Debug)]
pub(super) struct MapSettings {
    pub(super) keys: MapKeys,
    pub(super) rules: Rules,
    pub(super) poll_interval: Duration,
    pub(super) snapshot_file: Option<PathBuf>,
    pub(super) start_without_map: bool,
    pub(super) nodes: ConnectionSettings,
}

impl MapSettings {
    /// How long an earlier map counts: others may still follow it, and this process may have followed it for too long.
    pub(super) fn window(&self) -> Duration {
        OTHERS_FOLLOW.max(self.poll_interval.saturating_mul(2))
    }
}

/// The map in use, and what keeps it current.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) manager: Connection,
    pub(super) settings: MapSettings,
    pub(super) clock: Clock,
    pub(super) current: Current,
    pub(super) progress: Mutex<Progress>,
    pub(super) signals: Arc<Signals>,
    pub(super) recent: Recent,
    pub(super) departed: Departed,
    pub(super) saver: Saver,
    /// The newest epoch that an entry told of.
    told: AtomicU64,
    /// The number of the term whose task is there, 0 for none. Its runtime may end before the store does.
    pub(super) following: Arc<AtomicU64>,
    pub(super) began: Instant,
    /// By when the task has its turn again, in milliseconds since it all began.
    pub(super) due: AtomicU64,
    closed: AtomicBool,
    pub(super) term: Mutex<Option<Term>>,
}

/// The life of one task.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) number: u64,
    pub(super) home: runtime::Id,
    pub(super) task: AbortHandle,
}

impl Follower {
    pub(super) fn new(
        manager: Connection,
        settings: MapSettings,
        clock: Clock,
        signals: Arc<Signals>,
    ) -> Arc<Self> {
        Arc::new(Self {
            current: Current::new(Snapshot::empty(settings.keys.unreserved())),
            recent: Recent::new(settings.window()),
            departed: Departed::default(),
            saver: Saver::default(),
            manager,
            settings,
            clock,
            progress: Mutex::default(),
            signals,
            told: AtomicU64::new(0),
            following: Arc::default(),
            began: Instant::now(),
            due: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            term: Mutex::default(),
        })
    }

    /// Reads the first map: from the manager or, where that fails and it is allowed, from the file or not at all.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<()> {
        let first = match self.manager.ready().await {
            Ok(()) => self.refresh(true).await,
            Err(error) => Err(error),
        };
        if let Err(error) = first {
            // What was chosen here is wrong, whatever stands in a file.
            if is_contradiction(&error) && !self.settings.start_without_map {
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

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How long former nodes are waited for, at most: no longer than the present one.
    pub(super) fn patience(&self) -> Duration {
        self.settings.nodes.operation_timeout
    }

    /// The map may have changed: it is read soon, once it is quiet.
    pub(super) fn nudge(&self) {
        self.signals.nudge();
    }

    /// An entry was met that somebody wrote in this epoch. Each epoch is a nudge once: where epochs began anew, old
    /// entries would tell of the future for ever.
    pub(super) fn tell_of(&self, epoch: u64) {
        let current = self.current.load();
        let followed = current.raw.as_ref().is_some_and(|raw| raw.meta.is_some());
        if followed
            && epoch > current.stated
            && self.told.fetch_max(epoch, Ordering::Relaxed) < epoch
        {
            self.nudge();
        }
    }

    /// Lets go of earlier maps that nobody follows any more, and of connections to nodes that left.
    pub(super) fn drop_previous(&self) {
        let _recent = self.recent.hold();
        let current = self.current.load_full();
        if let Some(next) = current.without_expired() {
            self.departed.remember(current.lost_to(&next));
            self.current.store(Arc::new(next));
        }
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
            previous_maps: current.previous_count(),
            pushes_heard: self.signals.pushes_heard(),
        }
    }

    /// Ends the task and closes the connections.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.stop();
        // Once it is held, no other map is put in place any more.
        let current = {
            let _recent = self.recent.hold();
            self.current.load_full()
        };
        let ends = current.all_nodes().map(|node| node.shutdown());
        futures_util::future::join_all(ends).await;
        self.manager.shutdown().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::map::Bounds;
    use crate::ring::publish::{Publication, publish};
    use crate::ringmap::Order;
    use crate::wire::NodeAddr;
    use crate::wire::testserver::TestServer;

    const NODES: [&str; 2] = ["redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1"];

    fn settings(interval: Duration) -> MapSettings {
        MapSettings {
            keys: MapKeys::default(),
            rules: Rules {
                order: Order::Auto,
                hash_tags: None,
                bounds: Bounds {
                    fields: 1000,
                    nodes: 10,
                },
            },
            poll_interval: interval,
            snapshot_file: None,
            start_without_map: false,
            nodes: ConnectionSettings::default(),
        }
    }

    async fn follower(server: &TestServer, interval: Duration) -> Arc<Follower> {
        let addr = NodeAddr::parse(&server.url()).unwrap();
        let manager = Connection::new(addr, ConnectionSettings::default());
        let follower = Follower::new(
            manager,
            settings(interval),
            Clock::default(),
            Arc::default(),
        );
        follower.begin().await.unwrap();
        follower
    }

    async fn published(server: &TestServer, nodes: &[&str]) -> u64 {
        let map = Publication::of_nodes(nodes, 8);
        publish(&server.url(), &map).await.unwrap()
    }

    async fn reaches(follower: &Follower, epoch: u64, bound: Duration) {
        let began = Instant::now();
        while follower.status().epoch != epoch {
            assert!(began.elapsed() < bound, "{:?}", follower.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// An hour between two readings: whatever is heard of, a nudge told.
    #[tokio::test]
    async fn a_nudge_is_a_reading() {
        let server = TestServer::start(&[]);
        published(&server, &NODES[..1]).await;
        let follower = follower(&server, Duration::from_secs(3600)).await;
        published(&server, &NODES).await;
        follower.nudge();
        reaches(&follower, 2, Duration::from_secs(5)).await;
        // An epoch that an entry tells of, once.
        published(&server, &NODES[1..]).await;
        follower.tell_of(3);
        reaches(&follower, 3, Duration::from_secs(5)).await;
        // Pushes that are heard, and then no longer.
        published(&server, &NODES).await;
        follower.signals.hear_pushes(true);
        reaches(&follower, 4, Duration::from_secs(5)).await;
        assert!(follower.status().pushes_heard);
        published(&server, &NODES[..1]).await;
        follower.signals.hear_pushes(false);
        reaches(&follower, 5, Duration::from_secs(5)).await;
        assert!(!follower.status().pushes_heard);
    }

    /// Closed while a new map was being judged: its nodes are never connected to.
    #[tokio::test]
    async fn a_map_that_comes_after_the_end_is_not_put_in_place() {
        let server = TestServer::start(&[]);
        published(&server, &NODES[..1]).await;
        let follower = follower(&server, Duration::from_secs(3600)).await;
        follower.stop();
        published(&server, &NODES).await;
        let reading = follower.read(true).await.unwrap().expect("a reading");
        follower.close().await;
        assert!(!follower.accept(reading).await.unwrap());
        assert_eq!(follower.status().epoch, 1);
        let _ = follower.current();
        assert_eq!(follower.following.load(Ordering::Relaxed), 0);
    }

    /// Two tasks for a moment, one of which was thought lost: what was judged by a map that is gone is judged again.
    #[tokio::test]
    async fn a_map_judged_by_another_than_the_present_one_is_judged_again() {
        let server = TestServer::start(&[]);
        published(&server, &NODES[..1]).await;
        let follower = follower(&server, Duration::from_secs(3600)).await;
        let before = follower.current.load_full();
        follower
            .current
            .store(Arc::new(Snapshot::empty(Arc::default())));
        published(&server, &NODES).await;
        let reading = follower.read(true).await.unwrap().expect("a reading");
        let placed = follower.place(&before, reading).await.unwrap().0;
        assert!(!follower.replace(&before, placed));
        assert_eq!(follower.status().epoch, 0);
        follower.nudge();
        reaches(&follower, 2, Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn a_map_that_is_just_rewritten_is_waited_for() {
        let server = TestServer::start(&[]);
        let addr = NodeAddr::parse(&server.url()).unwrap();
        let writer = Connection::new(addr, ConnectionSettings::default());
        writer.ready().await.unwrap();
        let late = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(80)).await;
            let mut hset = redis::cmd("HSET");
            hset.arg(MapKeys::default().map).arg("7").arg(NODES[0]);
            writer.run::<i64>("set", &hset).await.unwrap();
        });
        let follower = follower(&server, Duration::from_secs(3600)).await;
        assert_eq!(follower.status().positions, 1);
        late.await.unwrap();
    }

    /// As a careful administrator would have it: no command but those that the map takes.
    #[tokio::test]
    async fn a_history_that_may_not_be_read_leaves_the_map() {
        let server = TestServer::start(&[]);
        published(&server, &NODES).await;
        let commands = "+hgetall +hmget +hlen +hello +ping +multi +exec +client +select";
        server.command(&format!(
            "ACL SETUSER reader on nopass ~HASH_RING* -@all {commands}\r\n"
        ));
        let url = server.url().replacen("redis://", "redis://reader:x@", 1);
        let addr = NodeAddr::parse(&url).unwrap();
        let manager = Connection::new(addr, ConnectionSettings::default());
        let settings = settings(Duration::from_secs(3600));
        let follower = Follower::new(manager, settings, Clock::default(), Arc::default());
        follower.begin().await.unwrap();
        assert_eq!(follower.status().epoch, 1);
        published(&server, &NODES).await;
        follower.nudge();
        reaches(&follower, 2, Duration::from_secs(5)).await;
        assert_eq!(follower.current.load().lineage.latest(), 1);
    }

    /// What the history says is in time with the map, and an entry that is garbage ends it.
    #[tokio::test]
    async fn the_history_is_read_with_the_map() {
        let server = TestServer::start(&[]);
        for nodes in [&NODES[..1], &NODES[..1], &NODES, &NODES[..1]] {
            published(&server, nodes).await;
        }
        let owned_throughout = |follower: &Follower| {
            let current = follower.current.load();
            current.lineage.stretches().iter().map(|s| s.1).min()
        };
        let all = follower(&server, Duration::from_secs(3600)).await;
        assert_eq!(owned_throughout(&all), Some(1));
        assert_eq!(all.current.load().lineage.latest(), 4);
        server.command("HSET HASH_RING_HISTORY 2 garbage\r\n");
        let some = follower(&server, Duration::from_secs(3600)).await;
        assert_eq!(owned_throughout(&some), Some(3));
        server.command("DEL HASH_RING_HISTORY\r\n");
        let none = follower(&server, Duration::from_secs(3600)).await;
        assert_eq!(owned_throughout(&none), Some(4));
        // One that was there all the time knows better.
        published(&server, &NODES[..1]).await;
        all.nudge();
        reaches(&all, 5, Duration::from_secs(5)).await;
        assert_eq!(owned_throughout(&all), Some(1));
    }
}
