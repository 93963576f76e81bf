//! One fleet from its start to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::faults::Fault;
use crate::history::What;
use crate::quiet::quiet;
use crate::random::Random;
use crate::schedule::{Episode, Kind, schedule};
use crate::work::{TASKS, Worker};
use crate::world::World;

/// How often operations are let through.
const TICK: Duration = Duration::from_millis(5);

/// An episode whose operations are not done by then ends without them.
const LONGEST: Duration = Duration::from_secs(15);

/// After so many violations there is no point in going on.
const ENOUGH: u64 = 20;

/// Whether everything came to order again each time.
pub(crate) async fn run(
    world: &Arc<World>,
    kinds: &[Kind],
    operations: usize,
    mut random: Random,
) -> bool {
    let kinds = kinds.iter().copied();
    let kinds: Vec<Kind> = kinds.filter(|kind| world.meets(*kind)).collect();
    let mut workers = Vec::new();
    for process in 0..world.processes.len() {
        for task in 0..TASKS {
            let own = Random::new(random.next(), 2);
            let worker = Worker::new(world, process, task, own);
            workers.push(tokio::spawn(worker.work()));
        }
    }
    let mut settled = true;
    for episode in schedule(&kinds, operations, random) {
        let compared = episode.compared;
        go_through(world, episode).await;
        if compared {
            settled &= quiet(world).await;
        }
        if world.tally.violations() >= ENOUGH {
            break;
        }
    }
    world.permits.close();
    for worker in workers {
        worker.await.expect("a worker ends");
    }
    settled
}

async fn go_through(world: &Arc<World>, episode: Episode) {
    let kind = episode.kind;
    world.tally.set_kind(kind);
    world.ledger.note(What::Begins(kind), 0);
    let began = Instant::now();
    let fault = Fault {
        world,
        random: episode.random,
        until: began + episode.span,
    };
    let operations = pace(world, episode.operations.0, episode.span);
    tokio::join!(fault.run(kind), operations);
    world.ledger.note(What::Ends(kind), 0);
    world.tally.set_kind(Kind::Calm);
    pace(world, episode.operations.1, episode.calm).await;
}

/// Lets so many operations through, spread over a time, and waits until they are done.
async fn pace(world: &World, operations: usize, span: Duration) {
    let began = Instant::now();
    let until = world.done.load(Ordering::Relaxed) + operations as u64;
    let mut let_through = 0;
    while world.done.load(Ordering::Relaxed) < until && began.elapsed() < LONGEST {
        let share = began.elapsed().as_secs_f64() / span.as_secs_f64();
        let due = (operations as f64 * share.min(1.0)) as usize;
        world.permits.add_permits(due - let_through);
        let_through = due;
        sleep(TICK).await;
    }
    // What was not begun stays undone.
    let left = world.permits.available_permits();
    world.permits.forget_permits(left);
    sleep(span.saturating_sub(began.elapsed())).await;
}
