//! Memory against what is stored, when all is quiet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder::{Backend, Cache, Peek};
use tokio::time::sleep;

use crate::checks::{Judge, Reading};
use crate::ledger::{Held, KEYS, lock};
use crate::tally::Invariant;
use crate::work::writer;
use crate::world::{World, key_name};

/// After all is in order, memory has heard of everything within that time.
const QUIET: Duration = Duration::from_millis(200);

/// How long a process keeps what it computed and could not store.
const OUTAGE: Duration = Duration::from_secs(1);

/// Waits until nothing is wrong, nobody works and nothing is owed, and compares. Whether it came to that.
pub(crate) async fn quiet(world: &Arc<World>) -> bool {
    let _gate = world.gate.write().await;
    if !world.settled().await {
        println!(
            "NOT SETTLED: a node is down, unheard or in debt though nothing is wrong any more"
        );
        return false;
    }
    sleep(QUIET).await;
    for process in 0..world.processes.len() {
        for key in 0..KEYS {
            compare(world, process, key).await;
        }
    }
    true
}

/// Compares a copy in memory with what is stored, and with all that is known: nothing is excused by a bound now.
async fn compare(world: &World, process: usize, key: usize) {
    let (cache, name) = (&world.processes[process].cache, key_name(key));
    let Peek::Hit(entry) = cache.peek(&name) else {
        return;
    };
    let Ok(copy) = entry.downcast::<Held>() else {
        return;
    };
    let Ok(stored) = world.processes[process].below.get::<Held>(&name).await else {
        return;
    };
    world.tally.compared.fetch_add(1, Ordering::Relaxed);
    let judge = Judge {
        ledger: &world.ledger,
        tally: &world.tally,
        writer,
        processes: world.processes.len(),
    };
    let reading = Reading {
        process,
        bound: 0,
        began: world.ledger.now(),
        may_join: false,
        memory: true,
    };
    judge.read(key, reading, Some(&copy));
    // What stood in for a server that was away may differ from what others stored there, for so long. It is not older: that
    // was judged.
    let stands_in = copy.computed
        && copy.process == process
        && world.ledger.now() - copy.born <= OUTAGE.as_nanos() as u64;
    let same = match &stored {
        _ if stands_in => true,
        Some(stored) => *stored == *copy,
        // A copy ends with the value's life. And a server that evicts may evict the generation that a value carries: so
        // nobody finds it there any more, while copies stand.
        None => matches!(cache.peek(&name), Peek::Ask) || world.evicted.load(Ordering::Relaxed),
    };
    if !same {
        let entry = world.ledger.entry(key);
        let history = entry.history.with(&lock(&world.ledger.events));
        let text = format!("process {process}: {copy:?}, stored {stored:?}\n{history}");
        world.tally.violated(Invariant::Quiet, &text);
    }
}
