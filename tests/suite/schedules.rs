//! Callers whose computes hang, err, panic or are dropped, at random and by the thousand: nobody is left to wait, and nothing comes back
//! that was deleted.
//!
//! Time is the test's own, so a schedule takes no longer than its steps. What a seed leads to is always the same: a schedule that fails
//! says how to run it again.

mod plan;

use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use larder::testing::{Clock, Faults, Faulty};
use larder::{Cache, Context, ErrorKind, Moka, Options, SharedCache, Tiered};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use plan::{Act, Call, Ends, Fate, Plan, Store, Write};

const SCHEDULES: u64 = 4_000;

/// How long one may wait for others: four patiences, and then some calls of the store.
const BOUND: Duration = Duration::from_secs(1);

/// What computes past all else are given up after.
const MAX_COMPUTE: Duration = Duration::from_secs(16 * 60);

/// What happened when, in the order of one counter.
#[derive(Default)]
struct History {
    steps: AtomicU64,
    /// When each key was last found deleted.
    deleted: Mutex<[u64; plan::KEYS]>,
    /// When the calls that set values ended: of two writes at a time, either comes first.
    set: Mutex<HashMap<u64, u64>>,
}

impl History {
    fn step(&self) -> u64 {
        self.steps.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn deleted(&self) -> [u64; plan::KEYS] {
        *self.deleted.lock().expect("no panic")
    }

    /// Until when a value may have got in.
    fn latest(&self, value: u64) -> u64 {
        let set = self.set.lock().expect("no panic");
        set.get(&value).copied().unwrap_or(value)
    }

    fn set(&self, value: u64, ended: u64) {
        self.set.lock().expect("no panic").insert(value, ended);
    }

    fn delete(&self, keys: &[usize], at: u64) {
        let mut deleted = self.deleted.lock().expect("no panic");
        keys.iter()
            .for_each(|key| deleted[*key] = deleted[*key].max(at));
    }
}

/// A value is the step in which its compute, or the call that set it, began.
type Answer = Result<u64, Failed>;

#[derive(Clone, Debug)]
enum Failed {
    Origin,
    Cache(ErrorKind),
    LeftOut,
}

impl From<larder::Error> for Failed {
    fn from(error: larder::Error) -> Self {
        Self::Cache(error.kind())
    }
}

/// Runs a compute as is planned, and notes that it began.
async fn compute(
    ends: Ends,
    after: Duration,
    began: Arc<AtomicBool>,
    history: Arc<History>,
) -> Answer {
    let value = history.step();
    began.store(true, Ordering::SeqCst);
    sleep(after).await;
    match ends {
        Ends::Value => Ok(value),
        Ends::Error => Err(Failed::Origin),
        // Without a word of the hook for panics.
        Ends::Panic => resume_unwind(Box::new("as planned")),
        Ends::Never => std::future::pending().await,
    }
}

struct World {
    cache: SharedCache,
    faults: Faults,
    clock: Clock,
    history: Arc<History>,
}

impl World {
    fn of(plan: &Plan) -> Self {
        let clock = Clock::manual();
        let memory = || {
            Moka::builder()
                .max_entries(100)
                .clock(clock.clone())
                .leader_patience(plan::PATIENCE)
                .store_timeout(plan::STORE_TIMEOUT)
                .max_computes(plan.max_computes)
                .build()
        };
        let remote = Faulty::remote(memory());
        let faults = remote.faults();
        let cache: SharedCache = match plan.store {
            Store::Memory => Arc::new(memory()),
            Store::Remote => Arc::new(remote),
            Store::Tiers => Arc::new(Tiered::new(memory(), remote)),
        };
        Self {
            cache,
            faults,
            clock,
            history: Arc::default(),
        }
    }

    async fn call(self: Arc<Self>, call: Call, began: Arc<AtomicBool>) -> Vec<(usize, Answer)> {
        let (cache, history) = (&self.cache, Arc::clone(&self.history));
        let Call {
            act,
            key,
            ends,
            after,
            options,
            ..
        } = call;
        let name = plan::name(key);
        let one = |answer| vec![(key, answer)];
        match act {
            Act::Borrowing => {
                let computing = || compute(ends, after, began, history);
                one(cache.try_get_or_set(&name, options, computing).await)
            }
            Act::Apart => {
                let computing = move |_: Context| compute(ends, after, began, history);
                one(cache.get_or_set_with(&name, options, computing).await)
            }
            Act::Many => {
                let keys: Vec<String> = (0..plan::KEYS).map(plan::name).collect();
                let computing = |missing: Vec<String>, _| {
                    let (began, history) = (Arc::clone(&began), Arc::clone(&history));
                    async move {
                        let answer = compute(ends, after, began, history).await;
                        missing
                            .into_iter()
                            .map(|key| (key, answer.clone()))
                            .collect()
                    }
                };
                let answers = cache.get_or_set_many_with(&keys, options, computing).await;
                match answers {
                    Ok(answers) => {
                        let each = answers.into_iter().enumerate();
                        // No compute leaves a key out.
                        each.map(|(key, answer)| (key, answer.unwrap_or(Err(Failed::LeftOut))))
                            .collect()
                    }
                    Err(failed) => one(Err(failed.into())),
                }
            }
            Act::Read => match cache.get::<u64>(&name).await {
                Ok(Some(value)) => one(Ok(value)),
                Ok(None) => Vec::new(),
                Err(error) => one(Err(error.into())),
            },
        }
    }

    async fn write(&self, write: Write, key: usize) {
        let (history, name) = (&self.history, plan::name(key));
        let began = history.step();
        let (done, keys): (_, &[usize]) = match write {
            Write::Delete => (self.cache.delete(&name).await.is_ok(), &[key]),
            Write::Clear => (self.cache.clear().await.is_ok(), &[0, 1]),
            // What stood there before is gone; what is set is no older than the call.
            Write::Set => {
                history.set(began, u64::MAX);
                let set = self.cache.set(&name, began, Options::ttl(plan::LONG));
                let done = set.await.is_ok();
                history.set(began, history.step());
                (done, &[key])
            }
        };
        // What a failed write leaves below is another test's.
        if done {
            history.delete(keys, began);
        }
    }

    /// No answer is older than what was deleted before the call.
    fn judge(&self, answers: &[(usize, Answer)], deleted: [u64; plan::KEYS]) -> Result<(), String> {
        for (key, answer) in answers {
            match answer {
                Ok(value) if self.history.latest(*value) < deleted[*key] => {
                    return Err(format!(
                        "key {key}: {value} came back, deleted in step {}",
                        deleted[*key]
                    ));
                }
                Err(Failed::LeftOut) => return Err(format!("key {key} has no answer")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What became of a caller.
enum Ended {
    Answered(Vec<(usize, Answer)>),
    Gone,
    /// Within its bound it had no answer; whether its own compute ran by then.
    Stranded {
        computing: bool,
    },
}

async fn caller(
    world: Arc<World>,
    call: Call,
    mut over: watch::Receiver<bool>,
) -> Result<(), String> {
    sleep(call.at).await;
    let deleted = world.history.deleted();
    let (began, fate) = (Arc::new(AtomicBool::new(false)), call.fate);
    let (own, told) = (call.clone(), format!("{call:?}"));
    let calling = Arc::clone(&world).call(own, Arc::clone(&began));
    let ended = match fate {
        Fate::Waits => match timeout(BOUND, calling).await {
            Ok(answers) => Ended::Answered(answers),
            Err(_) => Ended::Stranded {
                computing: began.load(Ordering::SeqCst),
            },
        },
        Fate::GoesAway(after) => match timeout(after, calling).await {
            Ok(answers) => Ended::Answered(answers),
            Err(_) => Ended::Gone,
        },
        // Looked at once, and never again, nor let go of before all is over.
        Fate::Parks => {
            let mut calling = pin!(calling);
            let first = poll_fn(|cx| Poll::Ready(calling.as_mut().poll(cx))).await;
            match first {
                Poll::Ready(answers) => Ended::Answered(answers),
                Poll::Pending => {
                    let _ = over.wait_for(|over| *over).await;
                    Ended::Gone
                }
            }
        }
    };
    match ended {
        Ended::Answered(answers) => world.judge(&answers, deleted),
        Ended::Gone => Ok(()),
        // Who waits for a compute of its own that never ends waits as long as it likes.
        Ended::Stranded { computing } if computing && call.ends == Ends::Never => Ok(()),
        Ended::Stranded { .. } => Err(format!("no answer within {BOUND:?}: {told}")),
    }
}

/// A schedule, from its seed.
async fn schedule(seed: u64) -> Result<(), String> {
    let plan = Plan::of(seed);
    let world = Arc::new(World::of(&plan));
    let (over, is_over) = watch::channel(false);
    let ticking = {
        let clock = world.clock.clone();
        tokio::spawn(async move {
            loop {
                sleep(plan::TICK).await;
                clock.advance(plan::TICK);
            }
        })
    };
    let mut callers = JoinSet::new();
    let mut parked = JoinSet::new();
    for call in plan.calls {
        let at = if matches!(call.fate, Fate::Parks) {
            &mut parked
        } else {
            &mut callers
        };
        at.spawn(caller(Arc::clone(&world), call, is_over.clone()));
    }
    for (at, write, key) in plan.writes {
        let world = Arc::clone(&world);
        callers.spawn(async move {
            sleep(at).await;
            world.write(write, key).await;
            Ok(())
        });
    }
    for (from, until, operation, fault) in plan.faults {
        let faults = world.faults.clone();
        callers.spawn(async move {
            sleep(from).await;
            faults.always(operation, fault);
            sleep(until).await;
            faults.heal();
            Ok(())
        });
    }
    ended(&mut callers).await?;
    world.faults.heal();
    // Others are parked still: they hold nobody up.
    for key in 0..plan::KEYS {
        let deleted = world.history.deleted();
        let (history, began) = (Arc::clone(&world.history), Arc::default());
        let name = plan::name(key);
        let options = Options::ttl(plan::LONG);
        let computing = || compute(Ends::Value, Duration::ZERO, began, history);
        let last = world.cache.try_get_or_set(&name, options, computing);
        match timeout(BOUND, last).await {
            Ok(Ok(value)) => world.judge(&[(key, Ok(value))], deleted)?,
            // Two computes before it hung or failed.
            Ok(Err(Failed::Cache(ErrorKind::Timeout | ErrorKind::Compute | ErrorKind::Busy))) => {}
            Ok(Err(failed)) => return Err(format!("key {key} at last: {failed:?}")),
            Err(_) => return Err(format!("key {key} at last: no answer within {BOUND:?}")),
        }
    }
    over.send_replace(true);
    ended(&mut parked).await?;
    ticking.abort();
    // What nobody waits for ends, too.
    let until = Instant::now() + MAX_COMPUTE;
    while world.cache.core().in_flight() > 0 {
        if Instant::now() > until {
            return Err(format!(
                "{} flights are left behind",
                world.cache.core().in_flight()
            ));
        }
        sleep(MAX_COMPUTE / 64).await;
    }
    timeout(BOUND, world.cache.shutdown())
        .await
        .map_err(|_| "shutdown did not end".to_owned())
}

/// All of them have their answers, or are gone. One whose compute panicked in it has ended so.
async fn ended(callers: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    while let Some(ended) = callers.join_next().await {
        match ended {
            Ok(outcome) => outcome?,
            Err(error) => {
                let panic = error.into_panic();
                let planned = panic.downcast_ref::<&str>();
                if planned != Some(&"as planned") {
                    return Err(format!("a panic that was not planned: {planned:?}"));
                }
            }
        }
    }
    Ok(())
}

fn run(seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(schedule(seed))
}

/// `SCHEDULE=seed` runs that one alone, `SCHEDULES=count` as many.
#[test]
fn nobody_is_stranded_whatever_becomes_of_computes() {
    let given = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match given("SCHEDULE") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SCHEDULES").unwrap_or(SCHEDULES),
    };
    for seed in seeds {
        if let Err(why) = run(seed) {
            panic!(
                "schedule {seed}: {why}\n{:?}\nonce more: SCHEDULE={seed} cargo test --all-features --test suite schedules",
                Plan::of(seed)
            );
        }
    }
}
