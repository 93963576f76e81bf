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
    let mut young = Vec::new();
    for process in 0..world.processes.len() {
        for key in 0..KEYS {
            if compare(world, process, key, false).await {
                young.push((process, key));
            }
        }
    }
    // What stood in is gone by then, and nothing excuses the others.
    let bounds = young
        .iter()
        .map(|(process, _)| world.processes[*process].bound);
    if let Some(bound) = bounds.max() {
        sleep(bound).await;
    }
    for (process, key) in young {
        compare(world, process, key, true).await;
    }
    true
}

/// Compares a copy in memory with what is stored, and with all that is known: nothing is excused by a bound now, but for what stood in for a
/// server that could not store it. A delete that finds nothing there is told to nobody, so that is behind by the bound at most: whether a
/// copy may be such a one, and is to be looked at again once it cannot be any more.
async fn compare(world: &World, process: usize, key: usize, again: bool) -> bool {
    let (cache, name) = (&world.processes[process].cache, key_name(key));
    let Peek::Hit(entry) = cache.peek(&name) else {
        return false;
    };
    let Ok(copy) = entry.downcast::<Held>() else {
        return false;
    };
    let Ok(stored) = world.processes[process].below.get::<Held>(&name).await else {
        return false;
    };
    world.tally.compared.fetch_add(1, Ordering::Relaxed);
    let judge = Judge {
        ledger: &world.ledger,
        tally: &world.tally,
        writer,
        processes: world.processes.len(),
    };
    let own = copy.computed && copy.process == process;
    let age = world.ledger.now().saturating_sub(copy.born);
    let bound = world.processes[process].bound.as_nanos() as u64;
    let is_stored = stored.as_ref() == Some(&*copy);
    let is_young = own && !is_stored && age <= bound && !again;
    let reading = Reading {
        process,
        bound: if is_young { bound } else { 0 },
        began: world.ledger.now(),
        may_join: false,
        memory: true,
    };
    judge.read(key, reading, Some(&copy));
    // What stood in for a server that was away may differ from what others stored there, for so long.
    let stands_in = own && age <= OUTAGE.as_nanos() as u64;
    let same = match &stored {
        _ if stands_in => true,
        Some(_) => is_stored,
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
    is_young
}
