//! `make herd`: what an origin has to bear when values end that everybody wants, with no protection, with one compute for each process,
//! with one for all of them, and with values that are computed anew before they end.
//!
//! Eight processes (to a server, a handle of its own is one), fifty callers in each, a thousand keys asked for by Zipf's law, so that one
//! in seven asks for the same. Values live for two seconds and take a tenth of one to compute.
//!
//! Without an argument it starts a Redis server of its own on a free port, and ends it; else it takes the url of one, in whose database
//! it clears what lies under `herd:`.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, Moka, Options, Prefixed, Redis, RefreshAhead, SharedCache, Tiered};
use tokio::task::JoinSet;
use tokio::time::sleep;

const PROCESSES: u64 = 8;
const CALLERS: u64 = 50;
const KEYS: usize = 1000;
const TTL: Duration = Duration::from_secs(2);
const COMPUTE: Duration = Duration::from_millis(100);
/// Between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(20);
const SPAN: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: usize = 20;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Clone, Copy)]
enum Protection {
    None,
    SingleFlight,
    Lease,
    LeaseAndXFetch,
}

const ALL: [(&str, Protection); 4] = [
    ("no protection", Protection::None),
    ("single flight", Protection::SingleFlight),
    ("lease", Protection::Lease),
    ("lease, XFetch", Protection::LeaseAndXFetch),
];

impl Protection {
    fn options(self) -> Options {
        let options = Options::ttl(TTL);
        match self {
            Self::None | Self::SingleFlight => options,
            Self::Lease => options.lease(TTL),
            Self::LeaseAndXFetch => options.lease(TTL).refresh_ahead(RefreshAhead::XFetch(1.0)),
        }
    }
}

/// What everybody asks in the end: it counts for each window how often, and for the hottest key.
struct Origin {
    began: Instant,
    all: [AtomicU64; WINDOWS],
    hottest: [AtomicU64; WINDOWS],
    /// Who asks for the hottest key now, and the most who ever did.
    now: AtomicU64,
    most: AtomicU64,
}

impl Origin {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            all: Default::default(),
            hottest: Default::default(),
            now: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    async fn load(&self, rank: usize) -> u64 {
        let window = self.began.elapsed().as_millis() / WINDOW.as_millis();
        let window = usize::try_from(window).unwrap_or(WINDOWS).min(WINDOWS - 1);
        self.all[window].fetch_add(1, Ordering::Relaxed);
        if rank == 0 {
            self.hottest[window].fetch_add(1, Ordering::Relaxed);
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
        }
        sleep(COMPUTE).await;
        if rank == 0 {
            self.now.fetch_sub(1, Ordering::Relaxed);
        }
        rank as u64
    }

    fn sum(of: &[AtomicU64; WINDOWS]) -> u64 {
        of.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Ranks by Zipf's law: the n-th is asked for a n-th as often as the first.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        sums.iter_mut().for_each(|share| *share /= sum);
        Self(sums)
    }

    fn rank(&self, chance: f64) -> usize {
        self.0
            .partition_point(|share| *share < chance)
            .min(self.0.len() - 1)
    }
}

/// Numbers at random, by xorshift: enough for a load.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

async fn call(cache: &SharedCache, origin: &Arc<Origin>, rank: usize, how: Protection) -> Outcome {
    let key = format!("user:{rank}");
    if let Protection::None = how {
        // As it is written where nobody thinks of others.
        if cache.get::<u64>(&key).await?.is_none() {
            cache.set(&key, origin.load(rank).await, TTL).await?;
        }
        return Ok(());
    }
    let origin = Arc::clone(origin);
    let load = move |_| async move { Ok::<_, larder::Error>(origin.load(rank).await) };
    cache.get_or_set_with(&key, how.options(), load).await?;
    Ok(())
}

/// Calls again and again until it is over; answers how long each call took.
async fn caller(
    cache: SharedCache,
    origin: Arc<Origin>,
    zipf: Arc<Zipf>,
    seed: u64,
    how: Protection,
    over: Arc<AtomicBool>,
) -> Vec<Duration> {
    let (mut chance, mut times) = (Chance(seed), Vec::new());
    // Not all in step.
    sleep(PAUSE.mul_f64(chance.next())).await;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        if let Err(error) = call(&cache, &origin, zipf.rank(chance.next()), how).await {
            eprintln!("herd: {error}");
        }
        times.push(began.elapsed());
        sleep(PAUSE).await;
    }
    times
}

struct Seen {
    origin: Arc<Origin>,
    /// Computed, and not stored because of what happened meanwhile.
    refused: u64,
    times: Vec<Duration>,
}

async fn herd(url: &str, how: Protection) -> Outcome<Seen> {
    let mut processes: Vec<SharedCache> = Vec::new();
    for _ in 0..PROCESSES {
        let redis = Prefixed::new(Redis::connect(url).await?, "herd:");
        processes.push(Arc::new(Tiered::new(Moka::new(10_000), redis)));
    }
    processes[0].clear().await?;
    let (origin, zipf) = (Arc::new(Origin::new()), Arc::new(Zipf::new(KEYS)));
    let over = Arc::new(AtomicBool::new(false));
    let mut calling = JoinSet::new();
    for (at, cache) in (1..).zip(&processes) {
        for number in 0..CALLERS {
            let seed = (at * CALLERS + number) * 0x9E37_79B9;
            let (origin, zipf, over) = (origin.clone(), zipf.clone(), over.clone());
            calling.spawn(caller(cache.clone(), origin, zipf, seed, how, over));
        }
    }
    sleep(SPAN).await;
    over.store(true, Ordering::Relaxed);
    let mut times = calling.join_all().await.concat();
    times.sort_unstable();
    for cache in &processes {
        cache.shutdown().await;
    }
    let refused = processes.iter().map(|cache| cache.stats().outrun).sum();
    Ok(Seen {
        origin,
        refused,
        times,
    })
}

fn print(all: &[(&str, Seen)]) {
    println!("\nCalls of the origin in each half second, of them for the hottest key\n");
    print!("| second |");
    all.iter().for_each(|(name, _)| print!(" {name} |"));
    print!("\n|-|");
    all.iter().for_each(|_| print!("-|"));
    for window in 0..WINDOWS {
        print!("\n| {:.1} |", (WINDOW * window as u32).as_secs_f64());
        for (_, seen) in all {
            let count = |of: &[AtomicU64; WINDOWS]| of[window].load(Ordering::Relaxed);
            print!(
                " {}, {} |",
                count(&seen.origin.all),
                count(&seen.origin.hottest)
            );
        }
    }
    println!(
        "\n\n| | calls of the origin | for the hottest key | at a time | not stored | calls | p99 | p99.9 | max |"
    );
    println!("|-|-|-|-|-|-|-|-|-|");
    for (name, seen) in all {
        let Seen {
            origin,
            refused,
            times,
        } = seen;
        let at = |part: f64| times.get((times.len() as f64 * part) as usize);
        let time = |part| at(part).or(times.last()).map_or(0.0, Duration::as_secs_f64) * 1e3;
        println!(
            "| {name} | {} | {} | {} | {refused} | {} | {:.1} ms | {:.0} ms | {:.0} ms |",
            Origin::sum(&origin.all),
            Origin::sum(&origin.hottest),
            origin.most.load(Ordering::Relaxed),
            times.len(),
            time(0.99),
            time(0.999),
            time(1.0)
        );
    }
}

/// A server of its own, ended when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start() -> Outcome<(Server, String)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let given = env::var("LARDER_REDIS_SERVER").ok();
    let names = given
        .into_iter()
        .chain(["redis-server", "valkey-server"].map(str::to_owned));
    let started = names.into_iter().find_map(|name| {
        let mut command = Command::new(name);
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .ok()
    });
    let server =
        Server(started.ok_or("no redis-server and no valkey-server: `make herd` fetches one")?);
    let url = format!("redis://127.0.0.1:{port}/0");
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Redis::connect(&url).await {
        if Instant::now() > until {
            return Err(error.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok((server, url))
}

async fn run(given: Option<String>) -> Outcome {
    let (_server, url) = match given {
        Some(url) => (None, url),
        None => {
            let (server, url) = start().await?;
            (Some(server), url)
        }
    };
    let mut all = Vec::new();
    for (name, how) in ALL {
        println!("{name}: {SPAN:?} ...");
        all.push((name, herd(&url, how).await?));
    }
    print(&all);
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let given = env::args().nth(1);
    match run(given).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("herd: {error}");
            ExitCode::FAILURE
        }
    }
}
