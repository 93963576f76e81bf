//! `make demo`: memory over a ring of three Redis nodes, and who answers when what happens.
//!
//! The script that starts the servers, `scripts/demo.sh`, says what it tells this program.

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use larder::ring::{Publication, label, publish};
use larder::{Cache, DistributedRedis, Moka, Tiered};
use serde::{Deserialize, Serialize};

const USERS: u64 = 120;
const HOUR: Duration = Duration::from_secs(3600);
/// What the origin takes for one user.
const ORIGIN: Duration = Duration::from_millis(2);
/// Nothing here waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Handle = Tiered<Moka, DistributedRedis>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

/// What `scripts/demo.sh` started.
struct Servers {
    manager: String,
    nodes: Vec<String>,
    pids: Vec<String>,
    dir: String,
    binary: String,
}

impl Servers {
    fn from_env() -> Option<Self> {
        let list = |name| Some(env::var(name).ok()?.split(',').map(str::to_owned).collect());
        Some(Self {
            manager: env::var("LARDER_DEMO_MANAGER").ok()?,
            nodes: list("LARDER_DEMO_NODES")?,
            pids: list("LARDER_DEMO_PIDS")?,
            dir: env::var("LARDER_DEMO_DIR").ok()?,
            binary: env::var("LARDER_REDIS_SERVER").ok()?,
        })
    }

    fn kill(&self, node: usize) -> Outcome {
        let killed = Command::new("kill")
            .args(["-KILL", &self.pids[node]])
            .status()?;
        killed.success().then_some(()).ok_or("kill failed".into())
    }

    fn start(&self, node: usize) -> Outcome {
        let place = label(&self.nodes[node]);
        let port = place.split([':', '/']).nth(1).unwrap_or_default();
        // Left running: whoever started the others stops this one too.
        Command::new(&self.binary)
            .arg(format!("{}/{port}.conf", self.dir))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(())
    }
}

fn key(id: u64) -> String {
    format!("user:{id}")
}

async fn load_user(id: u64) -> User {
    tokio::time::sleep(ORIGIN).await;
    let name = format!("user {id}");
    User { id, name }
}

fn over(ring: &DistributedRedis) -> Handle {
    Tiered::new(Moka::new(10_000), ring.clone())
}

fn heading(title: &str) {
    println!("\n{title}");
    println!("    {:<42} computed  memory  Redis    median   slowest", "");
}

/// Reads all users through a handle, and prints who answered.
async fn read_all(handle: &Handle, what: &str) -> Outcome {
    let before = handle.stats();
    let mut times = Vec::new();
    for id in 0..USERS {
        let began = Instant::now();
        let user: User = handle.get_or_set(&key(id), HOUR, || load_user(id)).await?;
        times.push(began.elapsed());
        if user.id != id {
            return Err(format!("{} answered with user {}", key(id), user.id).into());
        }
    }
    times.sort_unstable();
    let after = handle.stats();
    let computed = after.computes - before.computes;
    let memory = after.memory_hits - before.memory_hits;
    let redis = after.store_hits - before.store_hits;
    let median = times[times.len() / 2].as_secs_f64() * 1e3;
    let slowest = times[times.len() - 1].as_secs_f64() * 1e3;
    println!(
        "    {what:<42} {computed:>8}  {memory:>6}  {redis:>5}  {median:>5.3} ms  {slowest:>5.2} ms"
    );
    Ok(())
}

async fn until(mut done: impl AsyncFnMut() -> Outcome<bool>, what: &str) -> Outcome<Duration> {
    let began = Instant::now();
    while !done().await? {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what} did not happen in {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(began.elapsed())
}

async fn run(servers: &Servers) -> Outcome {
    println!("The map: each node's share of {USERS} keys");
    publish(
        &servers.manager,
        &Publication::of_nodes(&servers.nodes, 160),
    )
    .await?;
    let ring = DistributedRedis::connect(&servers.manager).await?;
    let owned = |node: &str| {
        let owns = |id: &u64| ring.node_for(&key(*id)).as_deref() == Some(node);
        (0..USERS).filter(owns).count()
    };
    for node in &servers.nodes {
        println!("    {:<42} {:>8}", label(node), owned(&label(node)));
    }

    heading("Cold, then warm");
    let here = over(&ring);
    read_all(&here, "nothing is anywhere").await?;
    read_all(&here, "again: nodes told of our own writes too").await?;
    read_all(&here, "and again").await?;
    let other_ring = DistributedRedis::connect(&servers.manager).await?;
    let there = over(&other_ring);
    read_all(&there, "another process, its memory empty").await?;
    read_all(&there, "again").await?;

    another_process_writes(&here, &there).await?;

    let victim = 1;
    let node = label(&servers.nodes[victim]);
    heading(&format!(
        "Node {node} is killed; {} keys are on it",
        owned(&node)
    ));
    servers.kill(victim)?;
    let fresh = over(&ring);
    read_all(&fresh, "no memory yet: its share is computed").await?;
    read_all(&fresh, "again: what it has not is kept for a second").await?;

    heading(&format!("Node {node} is started again, empty"));
    servers.start(victim)?;
    let up = async || Ok(ring.map_status().nodes.iter().all(|node| node.up));
    let took = until(up, "the node's return").await?;
    println!("    reached again {took:.0?} after its start");
    read_all(&over(&ring), "no memory yet: its share is computed").await?;
    read_all(&over(&ring), "no memory yet: all of it is back").await?;

    ring.shutdown().await;
    other_ring.shutdown().await;
    Ok(())
}

async fn another_process_writes(here: &Handle, there: &Handle) -> Outcome {
    println!("\nAnother process renames user 7");
    let _: User = here.get_or_set(&key(7), HOUR, || load_user(7)).await?;
    let renamed = User {
        id: 7,
        name: "renamed".to_owned(),
    };
    there.set(&key(7), renamed, HOUR).await?;
    let name = async |handle: &Handle| -> Outcome<String> {
        let user: Option<User> = handle.get(&key(7)).await?;
        Ok(user.map_or_else(|| "(nothing)".to_owned(), |user| user.name))
    };
    println!("    there, at once: {:?}", name(there).await?);
    let seen = async || Ok(name(here).await? == "renamed");
    let took = until(seen, "the rename").await?;
    println!("    here, {took:.1?} later: \"renamed\": the node told of the write");
    println!("\nIt clears all of {USERS} users");
    there.clear().await?;
    let gone = async || Ok(name(here).await? == "(nothing)");
    let took = until(gone, "the clear").await?;
    println!("    here, {took:.1?} later: (nothing)");
    read_all(here, "all is computed again").await
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(servers) = Servers::from_env() else {
        eprintln!("This example needs a manager and three nodes. `make demo` starts them on free");
        eprintln!("ports of this machine, runs it, and stops them.");
        return ExitCode::from(2);
    };
    match run(&servers).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tiered: {error}");
            ExitCode::FAILURE
        }
    }
}
