//! Some callers on a ring, for whoever wants to see one at work: `make cluster`, or
//! `cargo run --example load -- redis://127.0.0.1:6379/13`.
//!
//! A few things are asked for often, and most hardly ever. A line every ten seconds says what came of it; ctrl-C ends it.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Cache, DistributedRedis};
use tokio::time::{interval, sleep};

const CALLERS: u64 = 8;
const THINGS: f64 = 5000.0;
/// What the origin takes for one of them.
const ORIGIN: Duration = Duration::from_millis(2);
/// Between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(15);
const LIFE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    computes: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = env::args().nth(1) else {
        eprintln!("load MANAGER_URL");
        return ExitCode::from(2);
    };
    let ring = match DistributedRedis::connect(&url).await {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let counts = Arc::new(Counts::default());
    for caller in 1..=CALLERS {
        tokio::spawn(call(ring.clone(), Arc::clone(&counts), caller));
    }
    let mut lines = interval(Duration::from_secs(10));
    lines.tick().await;
    loop {
        tokio::select! {
            _ = lines.tick() => {}
            _ = tokio::signal::ctrl_c() => return ExitCode::SUCCESS,
        }
        let (calls, computes) = (
            counts.calls.swap(0, Ordering::Relaxed),
            counts.computes.swap(0, Ordering::Relaxed),
        );
        println!("{calls} calls in ten seconds, {computes} computed");
    }
}

/// Asks for one thing after the other.
async fn call(ring: DistributedRedis, counts: Arc<Counts>, seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    loop {
        // Xorshift: <https://www.jstatsoft.org/article/view/v008i14>.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let even = (state >> 11) as f64 / (1_u64 << 53) as f64;
        let thing = (even.powi(4) * THINGS) as u64;
        let compute = || async {
            counts.computes.fetch_add(1, Ordering::Relaxed);
            sleep(ORIGIN).await;
            format!("thing {thing} ").repeat(20)
        };
        // A cache that fails computes: there is no error to be seen here.
        let _ = ring
            .get_or_set(&format!("thing:{thing}"), LIFE, compute)
            .await;
        counts.calls.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
}
