//! Many clients of one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, Redis};
use tokio::time::sleep;

use crate::load::{Behind, Tally, admin, info, keys, until};
use crate::report::{D, Report, time};
use crate::support::Server;

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(100);

/// As many clients as the files that this process may have open allow, of which each takes three: its own end of a
/// connection and the proxy's two.
fn clients() -> usize {
    let limit = std::process::Command::new("sh")
        .args(["-c", "ulimit -n"])
        .output();
    let limit = limit.expect("start sh").stdout;
    let limit = String::from_utf8_lossy(&limit).trim().parse();
    // It may be unlimited.
    let limit: usize = limit.unwrap_or(usize::MAX);
    // A thousand of them, not optimized, are all that two cores can do.
    let most = if cfg!(debug_assertions) { 300 } else { 1000 };
    (limit.saturating_sub(200) / 3).min(most)
}

/// Reads or computes some shared keys until `done`; answers what it saw and, for each operation that ended after
/// the first, when that was and whether it was a hit.
async fn client(
    cache: Redis,
    turn: usize,
    pause: Duration,
    done: Arc<AtomicBool>,
) -> (Tally, Vec<(Instant, bool)>) {
    let keys = keys(50);
    let (mut tally, mut seen) = (Tally::default(), Vec::new());
    for key in keys.iter().cycle().skip(turn % 50) {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let computed = tally.read_or_compute(&cache, key).await;
        seen.push((Instant::now(), !computed));
        sleep(pause).await;
    }
    (tally, seen)
}

/// The most connections of any window, and the moment, of samples of a counter.
fn peak(samples: &[(Instant, u64)], from: Instant) -> u64 {
    let later: Vec<_> = samples.iter().filter(|(at, _)| *at >= from).collect();
    let rise = |(i, (at, count)): (usize, &&(Instant, u64))| {
        let end = later[i..]
            .iter()
            .take_while(|(end, _)| *end - *at <= WINDOW);
        end.last().map_or(0, |(_, last)| last - count)
    };
    later.iter().enumerate().map(rise).max().unwrap_or(0)
}

/// When 95 of 100 reads are hits for the first time, for a window.
fn warm(seen: &[(Instant, bool)], from: Instant) -> Duration {
    let step = Duration::from_millis(20);
    let mut at = from;
    while at < from + SECOND * 20 {
        let of: Vec<_> = seen
            .iter()
            .filter(|(when, _)| (at..at + WINDOW).contains(when))
            .collect();
        let hits = of.iter().filter(|(_, hit)| *hit).count();
        if !of.is_empty() && hits * 100 >= of.len() * 95 {
            return at - from;
        }
        at += step;
    }
    SECOND * 20
}

/// Kills the server after half a second and starts it two seconds later; answers when that was, and how many
/// connections had been accepted at each moment of six seconds.
async fn outage(behind: &Behind) -> (Vec<(Instant, u64)>, Instant, Instant) {
    let done = AtomicBool::new(false);
    let sampled = async {
        let mut samples = Vec::new();
        while !done.load(Ordering::Relaxed) {
            samples.push((Instant::now(), behind.proxy.accepted()));
            sleep(Duration::from_millis(5)).await;
        }
        samples
    };
    let acted = async {
        sleep(SECOND / 2).await;
        behind.server.kill();
        let killed = Instant::now();
        sleep(SECOND * 2).await;
        behind.server.restart().await;
        let back = Instant::now();
        sleep(SECOND * 7 / 2).await;
        done.store(true, Ordering::Relaxed);
        (killed, back)
    };
    let (samples, (killed, back)) = tokio::join!(sampled, acted);
    (samples, killed, back)
}

/// A server restarts empty while many clients use it. The proxy counts what they try meanwhile.
pub(crate) async fn all_reconnect_at_once() -> Report {
    let clients = clients();
    let behind = Behind::start_with(&["--maxclients", "2000"]).await;
    let url = behind.url();
    // As many operations in a second, however many clients there are.
    let pause = Duration::from_micros(200) * u32::try_from(clients).expect("few");
    let built = (0..clients).map(|_| Redis::builder(&url).build());
    let caches: Vec<Redis> = built.map(|cache| cache.expect("a url")).collect();
    // All at once, on a busy machine: not each at the first attempt.
    let up = async || caches.iter().all(|cache| cache.status().up);
    until(SECOND * 20, up).await;
    let done = Arc::new(AtomicBool::new(false));
    let working: Vec<_> = caches
        .iter()
        .enumerate()
        .map(|(turn, cache)| tokio::spawn(client(cache.clone(), turn, pause, Arc::clone(&done))))
        .collect();
    let (samples, killed, back) = outage(&behind).await;
    done.store(true, Ordering::Relaxed);
    let (mut all, mut seen) = (Tally::default(), Vec::new());
    for client in working {
        let (tally, its) = client.await.expect("a client");
        all.add(tally);
        seen.extend(its);
    }
    let count_at = |when: Instant| {
        samples
            .iter()
            .rfind(|(at, _)| *at <= when)
            .map_or(0, |s| s.1)
    };
    let away = count_at(back) - count_at(killed);
    let mut report = Report::default();
    report.within("95 % of the reads hit after", warm(&seen, back), SECOND * 2);
    let most = peak(&samples, back);
    let share = most as f64 / clients as f64;
    report.ratio("most connections in 100 ms / clients", share, 0.5);
    // Pauses of half a second in the mean, and shorter ones at first.
    let seconds = (back - killed).as_secs_f64();
    let each = away as f64 / seconds / clients as f64;
    report.at_most(
        "attempts of a client in ten seconds away",
        (each * 10.0) as u64,
        50,
    );
    report.none("errors of get_or_set", all.failures());
    report.none("wrong", all.wrong);
    // A read and a write.
    report.within("max get_or_set", all.max(), D * 2);
    report.at_least("clients", clients as u64, 200);
    report.note(format!(
        "{clients} clients, back: {} connections a second at the peak; away for {}: {away} attempts, at most {} in 100 ms",
        most * 10,
        time(back - killed),
        peak(&samples, killed)
    ));
    report
}

/// Twice as many clients as the server admits.
pub(crate) async fn too_many_clients() -> Report {
    let server = Server::start_with(&["--maxclients", "20"]).await;
    let mut connection = admin(&server).await;
    let url = server.url(0);
    let caches: Vec<Redis> = (0..40)
        .map(|_| Redis::builder(&url).build().expect("a url"))
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = caches
        .iter()
        .enumerate()
        .map(|(turn, cache)| {
            tokio::spawn(client(
                cache.clone(),
                turn,
                Duration::from_millis(40),
                Arc::clone(&done),
            ))
        })
        .collect();
    sleep(SECOND * 3).await;
    let turned_away = info(&mut connection, "rejected_connections").await;
    done.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for client in clients {
        all.add(client.await.expect("a client").0);
    }
    let (up, down): (Vec<Redis>, Vec<Redis>) =
        caches.into_iter().partition(|cache| cache.status().up);
    let mut report = Report::default();
    report.none("errors of get_or_set", all.failures());
    report.at_least("clients admitted", up.len() as u64, 15);
    report.at_least("clients turned away", down.len() as u64, 20);
    let counted: Vec<u64> = down.iter().map(|cache| cache.stats().read_errors).collect();
    let uncounted = counted.iter().filter(|errors| **errors == 0).count();
    report.none("of them without counted errors", uncounted as u64);
    let each = turned_away / 3 / down.len().max(1) as u64;
    report.at_most("attempts of each in a second", each, 5);
    // A read and a write.
    report.within("max get_or_set", all.max(), D * 2);
    report.note(format!("{turned_away} connections rejected"));
    drop(up);
    let some = || down.iter().filter(|cache| cache.status().up).count();
    let recovery = until(SECOND * 10, async || some() >= 19.min(down.len())).await;
    report.within("others in after", recovery, SECOND * 2);
    report
}
