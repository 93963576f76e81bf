//! What goes wrong, done to a fleet for a while and undone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use larder::testing::{Mode, Proxy};
use redis::Value;
use tokio::time::{Instant, sleep, sleep_until};

use crate::random::Random;
use crate::schedule::Kind;
use crate::support::Server;
use crate::world::World;

/// Between two strokes of a fault that is one.
const STROKE: (usize, usize) = (40, 250);

/// What others of the same server keep in it, in bytes, and how many of that.
const FILLING: usize = 4096;
const FILLINGS: usize = 150;

/// One fault on its way.
pub(crate) struct Fault<'w> {
    pub(crate) world: &'w World,
    pub(crate) random: Random,
    pub(crate) until: Instant,
}

impl Fault<'_> {
    /// Does it until its time is over, and undoes it.
    pub(crate) async fn run(mut self, kind: Kind) {
        let server = self.random.below(self.world.servers.len());
        match kind {
            Kind::Calm => sleep_until(self.until).await,
            Kind::LineStalled => self.while_so(server, Proxy::set_marked, Mode::Stall).await,
            Kind::LineSlow => {
                let late = self.random.millis(0, 30);
                let later = late + self.random.millis(20, 150);
                for proxy in self.ways(server) {
                    proxy.set(Mode::Delay(late));
                    proxy.set_marked(Mode::Delay(later));
                }
                sleep_until(self.until).await;
            }
            Kind::DataSlow => {
                let late = self.random.millis(5, 60);
                self.while_so(server, but_for_lines, Mode::Delay(late))
                    .await;
            }
            Kind::AllStalled => self.while_so(server, Proxy::set, Mode::Stall).await,
            Kind::Slow => {
                let late = self.random.millis(5, 60);
                self.while_so(server, Proxy::set, Mode::Delay(late)).await;
            }
            Kind::Cut => self.strokes(server, Proxy::cut).await,
            Kind::Reset => self.strokes(server, Proxy::reset).await,
            Kind::LineKilled => self.kill_lines(server).await,
            Kind::Killed => self.kill(server).await,
            Kind::Paused => self.pause(server).await,
            Kind::Flushed => self.flush(server).await,
            Kind::OtherFlushed => self.repeat(server, 5, &["FLUSHDB"]).await,
            Kind::ScriptsLost => self.repeat(server, 0, &["SCRIPT", "FLUSH"]).await,
            Kind::Evicting => self.evict(server).await,
            Kind::Full => self.fill(server).await,
            Kind::MapChanged => self.change_map(server).await,
        }
        self.world.heal();
    }

    /// The ways to a server of one process, or of all.
    fn ways(&mut self, server: usize) -> Vec<&Proxy> {
        let processes = &self.world.processes;
        let one = self
            .random
            .percent(60)
            .then(|| self.random.below(processes.len()));
        let hit = processes.iter().enumerate();
        let hit = hit.filter(|(index, _)| one.is_none_or(|one| one == *index));
        hit.map(|(_, process)| &process.proxies[server]).collect()
    }

    async fn while_so(&mut self, server: usize, set: fn(&Proxy, Mode), mode: Mode) {
        let until = self.until;
        for proxy in self.ways(server) {
            set(proxy, mode);
        }
        sleep_until(until).await;
    }

    /// Whether there is time for another stroke, after a pause.
    async fn again(&mut self) -> bool {
        let pause = self.random.millis(STROKE.0, STROKE.1);
        sleep_until(self.until.min(Instant::now() + pause)).await;
        Instant::now() < self.until
    }

    async fn strokes(&mut self, server: usize, stroke: fn(&Proxy)) {
        while self.again().await {
            self.ways(server).into_iter().for_each(stroke);
        }
    }

    async fn repeat(&mut self, server: usize, db: u8, command: &[&str]) {
        while self.again().await {
            let _ = self.world.servers[server].try_raw(db, command).await;
        }
    }

    async fn kill_lines(&mut self, server: usize) {
        while self.again().await {
            let server = &self.world.servers[server];
            let Ok(list) = server.try_raw(0, &["CLIENT", "LIST"]).await else {
                continue;
            };
            let list: String = redis::from_redis_value(list).unwrap_or_default();
            let lines = list
                .lines()
                .filter(|line| line.contains("name=larder:writes"));
            let ids = lines.filter_map(|line| line.split(' ').next()?.strip_prefix("id="));
            for id in ids {
                if self.random.percent(60) {
                    let _ = server.try_raw(0, &["CLIENT", "KILL", "ID", id]).await;
                }
            }
        }
    }

    async fn kill(&mut self, server: usize) {
        let down = self.random.millis(50, 500);
        let started = self.world.ledger.now();
        self.world.servers[server].kill();
        self.world.lost(server, started).await;
        sleep(down).await;
        self.world.servers[server].restart().await;
        sleep_until(self.until).await;
    }

    async fn pause(&mut self, server: usize) {
        let stopped = self.random.millis(100, 1000);
        self.world.servers[server].pause();
        sleep(stopped).await;
        self.world.servers[server].resume();
        sleep_until(self.until).await;
    }

    async fn flush(&mut self, server: usize) {
        while self.again().await {
            let started = self.world.ledger.now();
            let flushed = self.world.servers[server].try_raw(0, &["FLUSHALL"]).await;
            if flushed.is_ok() {
                self.world.lost(server, started).await;
            }
        }
    }

    async fn evict(&mut self, server: usize) {
        self.world.evicted.store(true, Ordering::Relaxed);
        let server = &self.world.servers[server];
        let bound = used_memory(server).await + 200_000;
        let bound = bound.to_string();
        let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-random"];
        let _ = server.try_raw(0, &policy).await;
        let _ = server
            .try_raw(0, &["CONFIG", "SET", "maxmemory", &bound])
            .await;
        let filling = "x".repeat(FILLING);
        for number in 0.. {
            let key = format!("filling:{}", number % FILLINGS);
            let _ = server.try_raw(0, &["SET", &key, &filling]).await;
            if Instant::now() > self.until {
                break;
            }
        }
        let _ = server
            .try_raw(0, &["CONFIG", "SET", "maxmemory", "0"])
            .await;
        for number in 0..FILLINGS {
            let key = format!("filling:{number}");
            let _ = server.try_raw(0, &["UNLINK", &key]).await;
        }
    }

    async fn fill(&mut self, server: usize) {
        let server = &self.world.servers[server];
        let policy = ["CONFIG", "SET", "maxmemory-policy", "noeviction"];
        let _ = server.try_raw(0, &policy).await;
        let _ = server
            .try_raw(0, &["CONFIG", "SET", "maxmemory", "1"])
            .await;
        sleep_until(self.until).await;
        let _ = server
            .try_raw(0, &["CONFIG", "SET", "maxmemory", "0"])
            .await;
    }

    /// A node leaves the map and comes back; or another one does meanwhile.
    async fn change_map(&mut self, server: usize) {
        let nodes = self.world.servers.len();
        let without = |gone: usize| (0..nodes).filter(|node| *node != gone).collect::<Vec<_>>();
        let mut random = Random::new(self.random.next(), 1);
        let mut late = |_| random.millis(0, 60);
        self.world.publish(&without(server), &mut late).await;
        while self.again().await {
            let gone = self.random.below(nodes);
            self.world.publish(&without(gone), &mut late).await;
            sleep_until(self.until.min(Instant::now() + Duration::from_millis(400))).await;
        }
        let all: Vec<usize> = (0..nodes).collect();
        self.world.publish(&all, &mut late).await;
    }
}

fn but_for_lines(proxy: &Proxy, mode: Mode) {
    proxy.set(mode);
    proxy.set_marked(Mode::Pass);
}

async fn used_memory(server: &Server) -> u64 {
    let Ok(Value::BulkString(info)) = server.try_raw(0, &["INFO", "memory"]).await else {
        return 0;
    };
    let info = String::from_utf8_lossy(&info);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok()).unwrap_or(0)
}
