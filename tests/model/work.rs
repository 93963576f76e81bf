//! What the processes do: tasks that read everything, and write keys of their own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::FutureExt;
use larder::{Cache, Options, SharedCache};
use tokio::time::{sleep, timeout};

use crate::barriers::Scope;
use crate::checks::{Judge, Reading};
use crate::history::What;
use crate::ledger::{COUNTERS, Held, KEYS, TAGS, lock};
use crate::process::Tier;
use crate::random::Random;
use crate::tally::Invariant;
use crate::world::{World, key_name};

/// Tasks of one process.
pub(crate) const TASKS: usize = 6;

/// No operation takes this long.
const HUNG: Duration = Duration::from_secs(10);

/// Which process writes a key or a counter: each has one task of one process.
pub(crate) fn writer(key: usize, processes: usize) -> usize {
    key % (processes * TASKS) / TASKS
}

fn counter_name(counter: usize) -> String {
    format!("n{counter}")
}

fn tag_name(tag: usize) -> String {
    format!("t{tag}")
}

type Operation<'w> = Pin<Box<dyn Future<Output = bool> + Send + 'w>>;

/// One task of one process.
pub(crate) struct Worker {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
    pub(crate) random: Random,
    /// Keys and counters that it alone writes.
    keys: Vec<usize>,
    counters: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(world: &Arc<World>, process: usize, task: usize, random: Random) -> Self {
        let all = world.processes.len() * TASKS;
        let own = |count: usize| {
            let mine = move |at: &usize| at % all == process * TASKS + task;
            (0..count).filter(mine).collect()
        };
        Self {
            world: Arc::clone(world),
            process,
            random,
            keys: own(KEYS),
            counters: own(COUNTERS),
        }
    }

    /// Works until there are no more permits to come.
    pub(crate) async fn work(mut self) {
        let world = Arc::clone(&self.world);
        while let Ok(permit) = world.permits.acquire().await {
            permit.forget();
            let gate = world.gate.read().await;
            let ok = self.operate().await;
            drop(gate);
            world.tally.operation(ok);
            world.done.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    async fn operate(&mut self) -> bool {
        let (doing, operation): (_, Operation<'_>) = match self.random.below(1000) {
            0..420 => ("get", self.get().boxed()),
            420..620 => ("get_or_set", self.get_or_set().boxed()),
            620..680 => ("get_many", self.get_many().boxed()),
            680..800 => ("set", self.set().boxed()),
            800..850 => ("delete", self.delete().boxed()),
            850..880 => ("set_many", self.set_many().boxed()),
            880..910 => ("abandon", self.abandon().boxed()),
            910..945 => ("incr", self.add().boxed()),
            945..993 => ("get a counter", self.read_counter().boxed()),
            993..999 => ("invalidate_tag", self.invalidate_tag().boxed()),
            _ => ("clear", self.clear().boxed()),
        };
        let ended = timeout(HUNG, operation).await;
        ended.unwrap_or_else(|_| {
            let text = format!("process {}: {doing}", self.process);
            self.world.tally.violated(Invariant::Hung, &text);
            false
        })
    }

    fn cache(&self) -> Tier {
        self.world.processes[self.process].cache.clone()
    }

    fn counts(&self) -> Tier {
        self.world.processes[self.process].counts.clone()
    }

    /// The tier, or now and then the store below it by itself: memory hears of writes by any handle.
    fn any_handle(&mut self) -> SharedCache {
        match self.random.percent(30) {
            true => Arc::clone(&self.world.processes[self.process].below),
            false => Arc::new(self.cache()),
        }
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            ledger: &self.world.ledger,
            tally: &self.world.tally,
            writer,
            processes: self.world.processes.len(),
        }
    }

    /// Some key: some are asked for far more often than others.
    fn any_key(&mut self) -> usize {
        let some: [usize; 3] = std::array::from_fn(|_| self.random.below(KEYS));
        some.into_iter().min().unwrap_or(0)
    }

    fn own_key(&mut self) -> usize {
        self.keys[self.random.below(self.keys.len())]
    }

    fn options(&mut self, held: &Held) -> Options {
        let ttl = match self.random.percent(10) {
            true => self.random.millis(100, 600),
            false => Duration::from_secs(60),
        };
        let options = Options::ttl(ttl);
        if held.tagged {
            return options.tag(tag_name(held.key % TAGS));
        }
        options
    }

    fn reading(&self, may_join: bool) -> Reading {
        let bound = self.world.processes[self.process].bound;
        Reading {
            process: self.process,
            bound: u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX),
            began: self.world.ledger.now(),
            may_join,
            memory: false,
        }
    }

    async fn get(&mut self) -> bool {
        let (key, cache) = (self.any_key(), self.cache());
        let name = key_name(key);
        let mut reading = self.reading(false);
        let found;
        (reading.memory, found) = answered(cache.get::<Held>(&name)).await;
        match found {
            Ok(found) => self.judge().read(key, reading, found.as_ref()),
            Err(_) => return false,
        }
        true
    }

    async fn get_many(&mut self) -> bool {
        let cache = self.cache();
        let keys: Vec<usize> = (0..4).map(|_| self.any_key()).collect();
        let names: Vec<String> = keys.iter().map(|key| key_name(*key)).collect();
        let reading = self.reading(false);
        let Ok(found) = cache.get_many::<Held>(&names).await else {
            return false;
        };
        for (key, found) in keys.into_iter().zip(found) {
            self.judge().read(key, reading, found.as_ref());
        }
        true
    }

    async fn get_or_set(&mut self) -> bool {
        let (key, cache) = (self.any_key(), self.cache());
        let tagged = self.random.percent(50);
        let longest = if self.random.percent(5) { 300 } else { 20 };
        let pause = self.random.millis(0, longest);
        let hurry = self.random.percent(5).then(|| self.random.millis(1, 10));
        let blank = Held {
            key,
            version: 0,
            serial: 0,
            born: 0,
            computed: true,
            tagged,
            process: self.process,
        };
        let options = self.options(&blank);
        let name = key_name(key);
        let reading = self.reading(true);
        let flight = Flight::new(&self.world, key);
        let compute = || async {
            let held = self.world.ledger.compute(key, self.process, tagged);
            flight.computes(held.serial);
            if !pause.is_zero() {
                sleep(pause).await;
            }
            held
        };
        let answer = cache.get_or_set(&name, options, compute);
        let found = match hurry {
            Some(hurry) => timeout(hurry, answer).await.ok(),
            None => Some(answer.await),
        };
        drop(flight);
        match found {
            Some(Ok(found)) => self.judge().read(key, reading, Some(&found)),
            Some(Err(_)) => return false,
            None => {}
        }
        true
    }

    async fn set(&mut self) -> bool {
        let (key, cache) = (self.own_key(), self.any_handle());
        let tagged = self.random.percent(50);
        let held = self.world.ledger.commit(key, self.process, tagged, false);
        let options = self.options(&held);
        let set = cache.set(&key_name(key), held.clone(), options).await;
        self.world.ledger.written(&held, set.is_ok());
        set.is_ok()
    }

    async fn delete(&mut self) -> bool {
        let (key, cache) = (self.own_key(), self.any_handle());
        let held = self.world.ledger.commit(key, self.process, false, true);
        let deleted = cache.delete(&key_name(key)).await;
        self.world.ledger.written(&held, deleted.is_ok());
        deleted.is_ok()
    }

    async fn set_many(&mut self) -> bool {
        let cache = self.cache();
        let ledger = &self.world.ledger;
        let held = self
            .keys
            .iter()
            .map(|key| ledger.commit(*key, self.process, false, false));
        let held: Vec<Held> = held.collect();
        let pairs = held.iter().map(|held| (key_name(held.key), held.clone()));
        let set = cache.set_many(pairs, Duration::from_secs(60)).await;
        for held in &held {
            ledger.written(held, set.is_ok());
        }
        set.is_ok()
    }

    /// A write whose caller goes away.
    async fn abandon(&mut self) -> bool {
        let (key, cache) = (self.own_key(), self.any_handle());
        let (deletes, hurry) = (self.random.percent(40), self.random.below(1500) as u64);
        let held = self.world.ledger.commit(key, self.process, false, deletes);
        let name = key_name(key);
        let write = async {
            match deletes {
                true => cache.delete(&name).await.map(|_| ()),
                false => {
                    cache
                        .set(&name, held.clone(), Duration::from_secs(60))
                        .await
                }
            }
        };
        let ended = timeout(Duration::from_micros(hurry), write).await;
        self.world
            .ledger
            .written(&held, matches!(ended, Ok(Ok(()))));
        true
    }

    async fn add(&mut self) -> bool {
        let Some(counter) = self.counters.first().copied() else {
            return self.get().await;
        };
        let cache = self.counts();
        let ledger = &self.world.ledger;
        lock(&ledger.counters[counter]).begin(ledger.now());
        let sum = cache.incr(&counter_name(counter), 1).await;
        let mut known = lock(&ledger.counters[counter]);
        if let Ok(sum) = &sum {
            known.told(*sum, ledger.now());
        }
        sum.is_ok()
    }

    async fn read_counter(&mut self) -> bool {
        let (counter, cache) = (self.random.below(COUNTERS), self.counts());
        let name = counter_name(counter);
        let mut reading = self.reading(false);
        let found;
        (reading.memory, found) = answered(cache.get::<i64>(&name)).await;
        match found {
            Ok(found) => self.judge().counter(counter, reading, found),
            Err(_) => return false,
        }
        true
    }

    async fn invalidate_tag(&mut self) -> bool {
        let (tag, cache) = (self.random.below(TAGS), self.cache());
        let ledger = &self.world.ledger;
        ledger.note(What::TagBegins(tag), self.process);
        let started = ledger.now();
        let told = cache.invalidate_tag(&tag_name(tag)).await;
        self.barrier(Scope::Tag(tag), started, told.is_ok());
        ledger.note(What::TagGone(tag, told.is_ok()), self.process);
        told.is_ok()
    }

    async fn clear(&mut self) -> bool {
        let (cache, scope) = match self.random.percent(60) {
            true => (self.cache(), Scope::All),
            false => (self.counts(), Scope::Counts),
        };
        let ledger = &self.world.ledger;
        ledger.note(What::ClearBegins(scope), self.process);
        let started = ledger.now();
        let cleared = cache.clear().await;
        self.barrier(scope, started, cleared.is_ok());
        ledger.note(What::Cleared(cleared.is_ok()), self.process);
        cleared.is_ok()
    }

    fn barrier(&self, scope: Scope, started: u64, ok: bool) {
        if ok {
            let mut barriers = lock(&self.world.ledger.barriers);
            let now = self.world.ledger.now();
            barriers.push(scope, self.process, started, now);
        }
    }
}

/// The answer, and whether it was there at once: memory's is.
async fn answered<R>(mut asked: impl Future<Output = R> + Unpin) -> (bool, R) {
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut asked).poll(cx))).await;
    match first {
        Poll::Ready(answer) => (true, answer),
        Poll::Pending => (false, asked.await),
    }
}

/// A call of `get_or_set`, however it ends: until then others may be handed what it computes.
struct Flight<'w> {
    world: &'w World,
    key: usize,
    serial: std::sync::atomic::AtomicU64,
}

impl<'w> Flight<'w> {
    fn new(world: &'w World, key: usize) -> Self {
        Self {
            world,
            key,
            serial: 0.into(),
        }
    }

    fn computes(&self, serial: u64) {
        self.serial.store(serial, Ordering::Relaxed);
        self.world.tally.computes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let serial = self.serial.load(Ordering::Relaxed);
        if serial != 0 {
            self.world.ledger.computed(self.key, serial);
        }
    }
}
