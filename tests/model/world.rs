//! A fleet: servers, and processes that share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::ring::{Publication, Ring, positions_for, publish};
use larder::testing::{Mode, Proxy};
use tokio::sync::{Mutex, RwLock, Semaphore};
use tokio::time::sleep;

use crate::history::What;
use crate::ledger::{KEYS, Ledger, lock};
use crate::process::{PREFIX, Process, proxies, through};
use crate::schedule::Kind;
use crate::support::Server;
use crate::tally::Tally;

/// How old each process's memory may be.
const BOUNDS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];

const NODES: usize = 3;
const POSITIONS: usize = 40;

/// After everything is in order again, it is quiet within that time.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) struct World {
    pub(crate) servers: Vec<Server>,
    manager: Option<Server>,
    pub(crate) processes: Vec<Process>,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    /// Operations that may begin.
    pub(crate) permits: Semaphore,
    pub(crate) done: AtomicU64,
    /// Held by each operation, and whole by whoever compares.
    pub(crate) gate: RwLock<()>,
    /// Whether a server ever evicted anything.
    pub(crate) evicted: AtomicBool,
    map: Mutex<Ring>,
    published: AtomicU64,
}

pub(crate) fn key_name(key: usize) -> String {
    format!("k{key}")
}

fn map_name(process: usize) -> String {
    format!("HASH_RING_p{process}_MAP")
}

impl World {
    /// Processes over one server.
    pub(crate) async fn of_one() -> Arc<Self> {
        let servers = vec![Server::start().await];
        let mut processes = Vec::new();
        for bound in BOUNDS {
            processes.push(Process::of_one(&servers, bound).await);
        }
        let world = Self::new("one server", servers, None, processes);
        Arc::new(world)
    }

    /// Processes over a ring. Each has a map of its own, with the same positions, of its own ways to the nodes.
    pub(crate) async fn of_ring() -> Arc<Self> {
        let manager = Server::start().await;
        let mut servers = Vec::new();
        for _ in 0..NODES {
            servers.push(Server::start().await);
        }
        let mut world = Self::new("ring", servers, Some(manager), Vec::new());
        let all: Vec<usize> = (0..NODES).collect();
        let mut ways = Vec::new();
        for _ in BOUNDS {
            ways.push(proxies(&world.servers).await);
        }
        world
            .publish_for(&ways, &all, &mut |_| Duration::ZERO)
            .await;
        let manager = world.manager.as_ref().expect("a manager");
        let mut processes = Vec::new();
        for (index, (bound, proxies)) in BOUNDS.into_iter().zip(ways).enumerate() {
            processes.push(Process::of_ring(manager, &map_name(index), proxies, bound).await);
        }
        world.processes = processes;
        Arc::new(world)
    }

    fn new(
        name: &'static str,
        servers: Vec<Server>,
        manager: Option<Server>,
        processes: Vec<Process>,
    ) -> Self {
        Self {
            servers,
            manager,
            processes,
            ledger: Ledger::new(Instant::now(), BOUNDS.len()),
            tally: Tally::new(name),
            permits: Semaphore::new(0),
            done: AtomicU64::new(0),
            gate: RwLock::new(()),
            evicted: AtomicBool::new(false),
            map: Mutex::new(Ring::from_map([(1, "0".to_owned())])),
            published: AtomicU64::new(0),
        }
    }

    /// Whether this can go wrong here.
    pub(crate) fn meets(&self, kind: Kind) -> bool {
        kind != Kind::MapChanged || self.manager.is_some()
    }

    /// Publishes a map of some of the nodes, for one process after the other.
    pub(crate) async fn publish(
        &self,
        nodes: &[usize],
        pause: &mut (impl FnMut(usize) -> Duration + Send),
    ) {
        let ways: Vec<&[Proxy]> = self
            .processes
            .iter()
            .map(|process| process.proxies.as_slice())
            .collect();
        self.publish_for(&ways, nodes, pause).await;
    }

    async fn publish_for(
        &self,
        ways: &[impl AsRef<[Proxy]> + Sync],
        nodes: &[usize],
        pause: &mut (impl FnMut(usize) -> Duration + Send),
    ) {
        let Some(manager) = &self.manager else { return };
        let labels: Vec<String> = nodes
            .iter()
            .map(|node| self.servers[*node].url(0))
            .collect();
        let places: Vec<(u32, usize)> = positions_for(&labels, POSITIONS)
            .into_iter()
            .filter_map(|(position, url)| {
                let node = self
                    .servers
                    .iter()
                    .position(|server| server.url(0) == url)?;
                Some((position, node))
            })
            .collect();
        let number = self.published.fetch_add(1, Ordering::Relaxed) + 1;
        self.changed(number);
        *self.map.lock().await = Ring::from_map(
            places
                .iter()
                .map(|(position, node)| (*position, node.to_string())),
        );
        for (index, way) in ways.iter().enumerate() {
            sleep(pause(index)).await;
            let url = |node: usize| through(&self.servers[node], &way.as_ref()[node]);
            let map = places
                .iter()
                .map(|(position, node)| (*position, url(*node)));
            let map = Publication::of_positions(map).in_map(map_name(index));
            publish(&manager.url(13), &map).await.expect("published");
        }
        self.changed(number);
    }

    fn changed(&self, number: u64) {
        let now = self.ledger.now();
        lock(&self.ledger.barriers).changed(now);
        self.ledger.note(What::MapChanged(number), 0);
    }

    /// Notes that a server lost everything at some time since `started`.
    pub(crate) async fn lost(&self, server: usize, started: u64) {
        let map = self.map.lock().await;
        let owner = |key| {
            map.node_for(&format!("{PREFIX}{}", key_name(key)))
                .map(str::to_owned)
        };
        let label = server.to_string();
        let keys = (0..KEYS)
            .map(|key| owner(key).as_deref() == Some(&label))
            .collect();
        let now = self.ledger.now();
        lock(&self.ledger.barriers).lost(started, now, keys);
    }

    /// Every network is a good one again.
    pub(crate) fn heal(&self) {
        for proxy in self.processes.iter().flat_map(|process| &process.proxies) {
            proxy.set(Mode::Pass);
        }
    }

    /// Waits until all is in order.
    pub(crate) async fn settled(&self) -> bool {
        let until = Instant::now() + SETTLE;
        while !self.processes.iter().all(Process::is_settled) {
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(10)).await;
        }
        true
    }

    pub(crate) async fn close(&self) {
        for process in &self.processes {
            process.close().await;
        }
    }
}
