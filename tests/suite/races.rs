//! What must hold when callers, writers and stores meet at bad moments. Time is paused wherever time is waited for.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use larder::codec::Format;
use larder::core::{Core, Settings};
use larder::{
    Answer, Backend, Cache, Clock, Draft, Entry, Error, ErrorKind, Kind, Moka, Null, Prefixed,
    Result, SharedCache, Stored, Tiered, Value, Want, When,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A store at the end of a slow wire: a read is decided at once and its answer travels, a write travels and then happens.
#[derive(Clone, Default)]
struct Slow {
    core: Core,
    map: Arc<Mutex<HashMap<String, Entry>>>,
    fetch: Arc<AtomicU64>,
    store: Arc<AtomicU64>,
    store_many: Arc<AtomicU64>,
    remove: Arc<AtomicU64>,
}

impl Slow {
    fn with(settings: Settings) -> Self {
        Self {
            core: Core::new(settings),
            ..Self::default()
        }
    }

    fn patient(patience: Duration) -> Self {
        let mut settings = Settings::default();
        settings.leader_patience = patience;
        Self::with(settings)
    }

    /// What really stands there.
    fn raw(&self, key: &str) -> Option<u64> {
        let entry = self.map.lock().unwrap().get(key).cloned()?;
        Some(*entry.downcast::<u64>().unwrap())
    }
}

async fn travel(time: &AtomicU64) {
    let time = time.load(SeqCst);
    if time > 0 {
        sleep(ms(time)).await;
    }
}

#[async_trait::async_trait]
impl Backend for Slow {
    fn core(&self) -> &Core {
        &self.core
    }

    async fn fetch(&self, key: &str, _: Want) -> Result<Answer> {
        let entry = self.map.lock().unwrap().get(key).cloned();
        travel(&self.fetch).await;
        Ok(entry.into())
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        travel(&self.store).await;
        if key == "bad" {
            return Err(Error::new(ErrorKind::Unavailable, "down"));
        }
        let mut map = self.map.lock().unwrap();
        if draft.when == When::IfAbsent && map.contains_key(key) {
            return Ok(Stored::Present);
        }
        map.insert(key.into(), draft.entry);
        Ok(Stored::Done)
    }

    async fn store_many(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        travel(&self.store_many).await;
        let mut answers = Vec::new();
        for (key, draft) in drafts {
            answers.push(self.store(&key, draft).await);
        }
        answers
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        travel(&self.remove).await;
        Ok(self.map.lock().unwrap().remove(key).is_some())
    }

    async fn wipe(&self, prefix: &str) -> Result<()> {
        let mut map = self.map.lock().unwrap();
        map.retain(|key, _| !key.starts_with(prefix));
        Ok(())
    }
}

type Call<T> = JoinHandle<Result<T>>;

/// A caller whose compute takes this long, spawned and given the time to begin.
async fn begin(cache: &impl Cache, key: &'static str, takes: Duration, value: u64) -> Call<u64> {
    let cache = cache.clone();
    let call = tokio::spawn(async move {
        let compute = || async move {
            sleep(takes).await;
            value
        };
        cache.get_or_set(key, MINUTE, compute).await
    });
    sleep(ms(1)).await;
    call
}

/// A caller whose compute never ends.
async fn hang(cache: &impl Cache, key: &'static str) -> Call<u64> {
    let cache = cache.clone();
    let call = tokio::spawn(async move {
        cache
            .get_or_set(key, MINUTE, std::future::pending::<u64>)
            .await
    });
    sleep(ms(1)).await;
    call
}

/// A caller of many keys, spawned at once; counts the keys that it is given to compute.
fn many(
    cache: &impl Cache,
    keys: [&'static str; 2],
    computed: &Arc<AtomicUsize>,
) -> Call<Vec<Option<u64>>> {
    let (cache, computed) = (cache.clone(), Arc::clone(computed));
    tokio::spawn(async move {
        let compute = |missing: Vec<String>| {
            computed.fetch_add(missing.len(), SeqCst);
            async move { missing.into_iter().map(|key| (key, 2)).collect() }
        };
        cache.get_or_set_many(&keys, MINUTE, compute).await
    })
}

async fn delete(cache: &impl Cache, key: &'static str) -> Call<bool> {
    let cache = cache.clone();
    let call = tokio::spawn(async move { cache.delete(key).await });
    sleep(ms(10)).await;
    call
}

/// Polls a future once, as a caller does that then turns to something else.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

#[tokio::test(start_paused = true)]
async fn a_delete_waits_for_a_store_that_an_abandoned_delete_waited_for() {
    let cache = Slow::default();
    cache.store.store(500, SeqCst);
    let leader = begin(&cache, "k", ms(1), 1).await;
    sleep(ms(10)).await;
    delete(&cache, "k").await.abort();
    cache.delete("k").await.unwrap();
    leader.await.unwrap().unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn each_of_two_deletes_waits_for_the_store_under_way() {
    let cache = Slow::default();
    cache.store.store(500, SeqCst);
    cache.remove.store(100, SeqCst);
    let _leader = begin(&cache, "k", ms(1), 1).await;
    sleep(ms(10)).await;
    let _first = delete(&cache, "k").await;
    cache.delete("k").await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
    sleep(ms(1000)).await;
    assert_eq!(cache.raw("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_read_begun_during_a_delete_is_not_joined_after_it() {
    let cache = Slow::default();
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    cache.remove.store(50, SeqCst);
    cache.fetch.store(200, SeqCst);
    let deleted = delete(&cache, "k").await;
    let _early = begin(&cache, "k", ms(0), 2).await;
    assert!(deleted.await.unwrap().unwrap());
    let late = cache.get_or_set("k", MINUTE, || async { 2_u64 }).await;
    assert_eq!(late.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_compute_begun_during_a_set_does_not_overwrite_it() {
    let cache = Slow::default();
    cache.store.store(50, SeqCst);
    let set = tokio::spawn({
        let cache = cache.clone();
        async move { cache.set("k", 7_u64, MINUTE).await }
    });
    sleep(ms(10)).await;
    let computed = begin(&cache, "k", ms(300), 1).await;
    set.await.unwrap().unwrap();
    computed.await.unwrap().unwrap();
    assert_eq!(cache.raw("k"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_predecessors_failed_still_hears_of_a_delete() {
    let cache = Slow::patient(ms(100));
    let run = |takes: u64, fails: bool| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let compute = || async move {
                sleep(ms(takes)).await;
                match fails {
                    true => Err(Error::new(ErrorKind::Compute, "no")),
                    false => Ok(1_u64),
                }
            };
            cache.try_get_or_set("k", MINUTE, compute).await
        })
    };
    // Silent past its patience, and fails at 300.
    let a = run(300, true);
    sleep(ms(1)).await;
    // Leads from 100, fails at 150.
    let b = run(50, true);
    sleep(ms(1)).await;
    // Leads from 150 to 1150.
    let c = run(1000, false);
    assert!(b.await.unwrap().is_err());
    assert!(a.await.unwrap().is_err());
    sleep(ms(10)).await;
    cache.delete("k").await.unwrap();
    c.await.unwrap().unwrap();
    assert_eq!(cache.raw("k"), None);
    assert_eq!(cache.core().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_computes_hung_is_served_again() {
    let cache = Slow::default();
    let _hung = (hang(&cache, "k").await, hang(&cache, "k").await);
    // The second led after 5 seconds, and is waited for 20.
    sleep(ms(25_100)).await;
    let began = Instant::now();
    let value = cache.get_or_set("k", MINUTE, || async { 1_u64 }).await;
    assert_eq!(value.unwrap(), 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_computes_hung_is_not_lost_for_hours() {
    let cache = Slow::default();
    for _ in 0..2 {
        let _hung = hang(&cache, "k").await;
    }
    sleep(HOUR).await;
    let value = cache.get_or_set("k", MINUTE, || async { 1_u64 }).await;
    assert_eq!(value.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiters_of_two_hung_computes_are_told_after_four_times_the_patience() {
    let cache = Slow::patient(ms(100));
    // One leads at once, one after 100; which of the two that wait is open.
    let callers = [
        hang(&cache, "k").await,
        hang(&cache, "k").await,
        hang(&cache, "k").await,
    ];
    sleep(ms(390)).await;
    assert!(!callers.iter().any(JoinHandle::is_finished));
    sleep(ms(20)).await;
    let mut told = 0;
    for caller in callers {
        if caller.is_finished() {
            let error = caller.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            told += 1;
        }
    }
    assert_eq!(told, 1);
}

#[tokio::test(start_paused = true)]
async fn slow_computes_do_not_pile_up() {
    let cache = Null::new();
    let computes = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (cache, computes) = (cache.clone(), Arc::clone(&computes));
            tokio::spawn(async move {
                let compute = || async {
                    computes.fetch_add(1, SeqCst);
                    sleep(Duration::from_secs(40)).await;
                    1_u64
                };
                cache.get_or_set("k", MINUTE, compute).await
            })
        })
        .collect();
    let mut served = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        }
    }
    // The second began when the first was silent for 5 seconds; a third would have begun 20 later.
    assert_eq!((served, computes.load(SeqCst)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_to_lead_and_is_not_polled_holds_nobody_up() {
    let cache = Slow::patient(ms(100));
    let _first = hang(&cache, "k").await;
    let second = hang(&cache, "k").await;
    sleep(ms(150)).await;
    let mut parked = Box::pin(cache.get_or_set("k", MINUTE, || async { 1_u64 }));
    assert!(poll_once(&mut parked).await.is_pending());
    let waiter = begin(&cache, "k", ms(0), 1).await;
    let began = Instant::now();
    second.abort();
    waiter.await.unwrap().unwrap();
    assert!(began.elapsed() <= ms(110), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_of_many_keys_that_lost_their_leader_do_not_wait_for_each_other() {
    let cache = Slow::default();
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move {
            let compute = |_| std::future::pending::<HashMap<String, u64>>();
            cache.get_or_set_many(&["a", "b"], MINUTE, compute).await
        }
    });
    sleep(ms(1)).await;
    let computed = Arc::default();
    let (x, y) = (
        many(&cache, ["a", "b"], &computed),
        many(&cache, ["b", "a"], &computed),
    );
    sleep(ms(1)).await;
    let began = Instant::now();
    leader.abort();
    assert_eq!(x.await.unwrap().unwrap(), [Some(2), Some(2)]);
    assert_eq!(y.await.unwrap().unwrap(), [Some(2), Some(2)]);
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
    assert_eq!(computed.load(SeqCst), 2);
    assert_eq!(cache.core().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_of_many_keys_crosswise_do_not_wait_for_each_other() {
    let cache = Slow::default();
    let (a, b) = (hang(&cache, "a").await, hang(&cache, "b").await);
    let computed = Arc::default();
    let (x, y) = (
        many(&cache, ["a", "b"], &computed),
        many(&cache, ["b", "a"], &computed),
    );
    sleep(ms(1)).await;
    a.abort();
    sleep(ms(1)).await;
    b.abort();
    let began = Instant::now();
    assert_eq!(x.await.unwrap().unwrap(), [Some(2), Some(2)]);
    assert_eq!(y.await.unwrap().unwrap(), [Some(2), Some(2)]);
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_many_keys_passes_a_lead_on_while_it_waits() {
    let cache = Slow::default();
    let a = hang(&cache, "a").await;
    let _b = begin(&cache, "b", ms(4000), 1).await;
    let _many = many(&cache, ["a", "b"], &Arc::default());
    sleep(ms(1)).await;
    let one = begin(&cache, "a", ms(1), 1).await;
    let began = Instant::now();
    a.abort();
    one.await.unwrap().unwrap();
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_a_caller_of_many_keys_do_not_add_up() {
    let cache = Slow::patient(ms(100));
    let keys = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];
    for key in keys {
        let _hung = (hang(&cache, key).await, hang(&cache, key).await);
    }
    let began = Instant::now();
    let compute =
        |missing: Vec<String>| async { missing.into_iter().map(|k| (k, 1_u64)).collect() };
    cache.get_or_set_many(&keys, MINUTE, compute).await.unwrap();
    // Two rounds of four times the patience at the most.
    assert!(began.elapsed() <= ms(810), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_tier_as_l1_is_not_filled_with_what_a_delete_overtook() {
    let (memory, near, far) = (Moka::new(100), Slow::default(), Slow::default());
    let cache = Tiered::new(Tiered::new(memory.clone(), near.clone()), far.clone());
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
    assert_eq!(near.raw("k"), Some(1));
    // Memory loses its copy, as by eviction, and reads it from the near store again while a delete runs.
    memory.delete("k").await.unwrap();
    near.fetch.store(100, SeqCst);
    let read = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get::<u64>("k").await }
    });
    sleep(ms(10)).await;
    cache.delete("k").await.unwrap();
    read.await.unwrap().unwrap();
    assert_eq!((near.raw("k"), far.raw("k")), (None, None));
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
}

#[tokio::test]
async fn the_memory_of_a_tier_as_l1_hears_of_writes_by_the_bare_store() {
    let (memory, near, far) = (Moka::new(100), Slow::default(), Slow::default());
    let cache = Tiered::new(Tiered::new(memory.clone(), near.clone()), far.clone());
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
    assert!(memory.has("k").await.unwrap());
    // Without its copy in the near store, which hears only of this tier.
    near.map.lock().unwrap().clear();
    far.delete("k").await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
}

#[tokio::test]
async fn all_memories_of_an_l1_are_asked() {
    let (first, second, far) = (Moka::new(100), Moka::new(100), Slow::default());
    let cache = Tiered::new(Tiered::new(first.clone(), second.clone()), far.clone());
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    first.delete("k").await.unwrap();
    assert!(second.has("k").await.unwrap());
    far.map.lock().unwrap().clear();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_remote_l1_is_not_filled_after_a_delete() {
    let (near, far) = (Slow::default(), Slow::default());
    let cache = Tiered::new(near.clone(), far.clone());
    far.set("k", 1_u64, MINUTE).await.unwrap();
    near.store.store(50, SeqCst);
    near.remove.store(30, SeqCst);
    let read = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get::<u64>("k").await }
    });
    sleep(ms(20)).await;
    cache.delete("k").await.unwrap();
    assert_eq!(near.raw("k"), None);
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
    read.await.unwrap().unwrap();
    assert_eq!(near.raw("k"), None);
}

#[tokio::test]
async fn an_l1_holds_the_copies_of_one_namespace() {
    let (memory, store) = (Moka::new(100), Slow::default());
    let a = Tiered::new(memory.clone(), Prefixed::new(store.clone(), "a:"));
    let b = Tiered::new(memory.clone(), Prefixed::new(store.clone(), "b:"));
    a.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(b.get::<u64>("k").await.unwrap(), None);
    b.set("k", 2_u64, MINUTE).await.unwrap();
    let computed = b.get_or_set("new", MINUTE, || async { 3_u64 }).await;
    assert_eq!(computed.unwrap(), 3);
    assert_eq!(a.get::<u64>("k").await.unwrap(), Some(1));
    assert_eq!(b.get::<u64>("k").await.unwrap(), Some(2));
    assert_eq!(a.get::<u64>("new").await.unwrap(), None);
    assert_eq!((store.raw("a:k"), store.raw("b:k")), (Some(1), Some(2)));
}

/// A store of one's own that answers bytes as they stand on the wire.
#[derive(Clone, Default)]
struct InBytes {
    core: Core,
    map: Arc<Mutex<HashMap<String, Bytes>>>,
}

#[async_trait::async_trait]
impl Backend for InBytes {
    fn core(&self) -> &Core {
        &self.core
    }

    async fn fetch(&self, key: &str, _: Want) -> Result<Answer> {
        let bytes = self.map.lock().unwrap().get(key).cloned();
        let entry = bytes.map(|bytes| Entry::new(Value::encoded(bytes), self.core.now(), None));
        Ok(entry.into())
    }

    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let bytes = self.core.format().seal(key, &draft.entry)?;
        self.map.lock().unwrap().insert(key.into(), bytes);
        Ok(Stored::Done)
    }

    async fn remove(&self, key: &str) -> Result<bool> {
        Ok(self.map.lock().unwrap().remove(key).is_some())
    }

    async fn wipe(&self, _: &str) -> Result<()> {
        self.map.lock().unwrap().clear();
        Ok(())
    }
}

#[tokio::test]
async fn a_store_may_answer_bytes() {
    let store = InBytes::default();
    let cache = Prefixed::new(store.clone(), "app:");
    cache.set("k", "text".to_owned(), MINUTE).await.unwrap();
    let text = cache.get::<String>("k").await.unwrap();
    assert_eq!(text.as_deref(), Some("text"));
    assert_eq!(cache.get::<Vec<u32>>("k").await.unwrap(), None);
    // Bound to the key: the same bytes under another are no value.
    let bytes = store.map.lock().unwrap()["app:k"].clone();
    store.map.lock().unwrap().insert("app:other".into(), bytes);
    assert_eq!(cache.get::<String>("other").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_clear_waits_for_all_stores_as_long_as_for_one() {
    let cache = Slow::default();
    cache.store.store(u64::MAX >> 20, SeqCst);
    for i in 0..50 {
        let cache = cache.clone();
        tokio::spawn(async move {
            let key = format!("k{i}");
            cache.get_or_set(&key, MINUTE, || async { 1_u64 }).await
        });
    }
    sleep(ms(10)).await;
    let began = Instant::now();
    cache.clear().await.unwrap();
    assert!(began.elapsed() < ms(2200), "{:?}", began.elapsed());
}

#[test]
fn a_named_schema_is_versioned_too() {
    let now = Clock::default().now();
    let old = Format::default().schema::<String>("text");
    let new = old.clone().schema_version(2);
    let entry = Entry::new(Value::new("x".to_owned()), now, None);
    let bytes = old.seal("k", &entry).unwrap();
    let kind = Some(Kind::of::<String>());
    assert!(old.open("k", &bytes, kind, now).is_ok());
    assert!(new.open("k", &bytes, kind, now).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_its_timeout() {
    for reads in [true, false] {
        let cache = Slow::default();
        let hung = if reads { &cache.fetch } else { &cache.store };
        hung.store(u64::MAX >> 20, SeqCst);
        let began = Instant::now();
        let value = cache.get_or_set("k", MINUTE, || async { 1_u64 }).await;
        assert_eq!(value.unwrap(), 1);
        assert!(began.elapsed() < ms(2100), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_a_caller_of_many_keys_its_timeout() {
    let cache = Slow::default();
    cache.store_many.store(u64::MAX >> 20, SeqCst);
    let began = Instant::now();
    let call = many(&cache, ["a", "b"], &Arc::default());
    let values = tokio::time::timeout(MINUTE, call).await.expect("it hung");
    assert_eq!(values.unwrap().unwrap(), [Some(2), Some(2)]);
    assert!(began.elapsed() < ms(2100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_strict_bulk_call_that_fails_leaves_nothing_that_was_deleted() {
    let mut settings = Settings::default();
    settings.strict = true;
    // The order of the keys is a hash map's.
    for _ in 0..8 {
        let cache = Slow::with(settings.clone());
        cache.store_many.store(3000, SeqCst);
        let call = tokio::spawn({
            let cache = cache.clone();
            async move {
                let compute = |keys: Vec<String>| async {
                    keys.into_iter().map(|key| (key, 1_u64)).collect()
                };
                let keys = ["bad", "k1", "k2"];
                cache.get_or_set_many(&keys, MINUTE, compute).await
            }
        });
        sleep(ms(100)).await;
        cache.delete_many(&["k1", "k2"]).await.unwrap();
        assert!(call.await.unwrap().is_err());
        assert_eq!((cache.raw("k1"), cache.raw("k2")), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_not_polled_while_it_stores_leaves_nothing_after_a_delete() {
    let cache = Slow::default();
    cache.store.store(500, SeqCst);
    cache.remove.store(50, SeqCst);
    let mut parked = Box::pin(cache.get_or_set("k", MINUTE, || async { 1_u64 }));
    assert!(poll_once(&mut parked).await.is_pending());
    cache.delete("k").await.unwrap();
    // It is polled again, its store's wait being over, and dropped.
    let _ = poll_once(&mut parked).await;
    assert_eq!(cache.raw("k"), None);
    drop(parked);
    sleep(ms(1000)).await;
    assert_eq!(cache.raw("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_a_handle_with_less_patience_than_the_store_leaves_nothing() {
    let far = Slow::default();
    let cache = Tiered::builder(Moka::new(100), far.clone())
        .store_timeout(Duration::from_secs(10))
        .build();
    far.store.store(5000, SeqCst);
    let leader = begin(&cache, "k", ms(0), 1).await;
    far.delete("k").await.unwrap();
    far.remove.store(300, SeqCst);
    for _ in 0..60 {
        assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
        sleep(ms(100)).await;
    }
    leader.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tier_built_anew_over_its_memory_holds_nothing_from_before() {
    let (memory, store) = (Moka::new(100), Moka::new(100));
    let cache = Tiered::new(memory.clone(), store.clone());
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
    drop(cache);
    store.set("k", 2_u64, MINUTE).await.unwrap();
    let cache = Tiered::new(memory, store);
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn an_l1_under_a_prefix_is_kept_from_the_copies_around_it() {
    let (memory, store) = (Moka::new(100), Slow::default());
    let all = Tiered::new(memory.clone(), store.clone());
    let other = Tiered::new(
        Prefixed::new(memory.clone(), "x:"),
        Prefixed::new(store.clone(), "b:"),
    );
    other.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(all.get::<u64>("x:k").await.unwrap(), None);
    assert_eq!(all.get::<u64>("b:k").await.unwrap(), Some(1));
    // Nor is what lies further up put into it by way of a tier that leaves it alone.
    let upper = Tiered::new(Tiered::new(memory.clone(), Moka::new(100)), Slow::default());
    upper.set("k", 3_u64, MINUTE).await.unwrap();
    assert_eq!(upper.get::<u64>("k").await.unwrap(), Some(3));
    assert_eq!(all.get::<u64>("k").await.unwrap(), None);
    // A prefix that is the same above and below mixes nothing up.
    let same = Tiered::new(
        Prefixed::new(memory.clone(), "s:"),
        Prefixed::new(store.clone(), "s:"),
    );
    same.set("k", 2_u64, MINUTE).await.unwrap();
    assert!(memory.has("s:k").await.unwrap());
    assert_eq!(all.get::<u64>("s:k").await.unwrap(), Some(2));
}

#[test]
fn a_tier_of_a_store_over_itself_does_not_hang() {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = Slow::default();
            let cache = Tiered::new(store.clone(), store);
            cache.set("k", 1_u64, MINUTE).await.unwrap();
            assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
            assert!(cache.delete("k").await.unwrap());
            cache.clear().await.unwrap();
        });
        done.send(()).unwrap();
    });
    let ended = finished.recv_timeout(Duration::from_secs(10));
    ended.expect("it hung, or failed");
}

/// Runs a future without any runtime, on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn memory_keeps_its_word_outside_a_runtime() {
    let cache = Moka::builder().round_trip(false).build();
    let (origin, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let stale = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let compute = || async { origin.load(SeqCst) };
                    block_on(cache.get_or_set("k", MINUTE, compute)).unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let version = origin.fetch_add(1, SeqCst) + 1;
                    block_on(cache.delete("k")).unwrap();
                    let compute = || async { origin.load(SeqCst) };
                    let value = block_on(cache.get_or_set("k", MINUTE, compute)).unwrap();
                    stale.fetch_add(u64::from(value < version), SeqCst);
                }
            });
        }
        std::thread::sleep(ms(500));
        stop.store(true, SeqCst);
    });
    assert_eq!(stale.load(SeqCst), 0);
}

/// How the writers of a storm write.
#[derive(Clone, Copy, PartialEq)]
enum Writes {
    Delete,
    Clear,
    Bulk,
}

/// Readers compute what the origin holds; writers change the origin, invalidate, and read. What a writer reads must not
/// be older than its own write.
async fn storm(top: SharedCache, writer: SharedCache, writes: Writes) {
    let origin = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let (stale, written) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for yields in [0, 1, 2, 0, 1, 2] {
        let (top, origin, stop) = (top.clone(), origin.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let compute = || async {
                    let value = origin.load(SeqCst);
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                    value
                };
                top.get_or_set("k", MINUTE, compute).await.unwrap();
                tokio::task::yield_now().await;
            }
        }));
    }
    for _ in 0..2 {
        let (top, writer, origin, stop) =
            (top.clone(), writer.clone(), origin.clone(), stop.clone());
        let (stale, written) = (stale.clone(), written.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let version = origin.fetch_add(1, SeqCst) + 1;
                match writes {
                    Writes::Delete => drop(writer.delete("k").await.unwrap()),
                    Writes::Clear => writer.clear().await.unwrap(),
                    Writes::Bulk => drop(writer.delete_many(&["other", "k"]).await.unwrap()),
                }
                let compute = || async { origin.load(SeqCst) };
                let value = top.get_or_set("k", MINUTE, compute).await.unwrap();
                stale.fetch_add(u64::from(value < version), SeqCst);
                written.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        }));
    }
    tokio::time::sleep(ms(300)).await;
    stop.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(written.load(SeqCst) > 0);
    assert_eq!(stale.load(SeqCst), 0, "of {} writes", written.load(SeqCst));
    assert_eq!(top.core().in_flight(), 0);
    // At rest the tiers agree.
    let above = top.get::<u64>("k").await.unwrap();
    let below = writer.get::<u64>("k").await.unwrap();
    assert!(above.is_none() || below.is_none() || above == below);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_storm_of_invalidations_leaves_an_older_value() {
    for writes in [Writes::Delete, Writes::Clear, Writes::Bulk] {
        let memory: SharedCache = Arc::new(Moka::builder().round_trip(false).build());
        storm(memory.clone(), memory, writes).await;
        let below = Moka::builder().round_trip(false).build();
        let tiers: SharedCache = Arc::new(Tiered::new(Moka::new(1000), below.clone()));
        storm(tiers, Arc::new(below), writes).await;
    }
}

/// A store whose writes arrive and are not answered until it is told to: its caller hangs after the deed.
#[derive(Clone)]
struct Silent {
    inner: Moka,
    answered: Arc<tokio::sync::Notify>,
}

#[async_trait::async_trait]
impl Backend for Silent {
    fn core(&self) -> &Core {
        self.inner.core()
    }
    async fn fetch(&self, key: &str, want: Want) -> Result<Answer> {
        self.inner.fetch(key, want).await
    }
    async fn store(&self, key: &str, draft: Draft) -> Result<Stored> {
        let computed = draft.computed;
        let stored = self.inner.store(key, draft).await;
        if computed {
            self.answered.notified().await;
        }
        stored
    }
    async fn remove(&self, key: &str) -> Result<bool> {
        self.inner.remove(key).await
    }
    async fn retract(&self, key: &str, draft: &Draft) -> Result<bool> {
        self.inner.retract(key, draft).await
    }
    async fn wipe(&self, prefix: &str) -> Result<()> {
        self.inner.wipe(prefix).await
    }
    async fn add_to(&self, key: &str, by: i64, namespace: usize) -> Result<i64> {
        self.inner.add_to(key, by, namespace).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_overtaken_takes_back_its_own_value_alone() {
    let mut settings = Settings::default();
    settings.store_timeout = ms(100);
    let store = Silent {
        inner: Moka::builder().settings(settings).build(),
        answered: Arc::default(),
    };
    for many in [false, true] {
        // Polled until it has stored, and then not for a long time.
        let mut parked = if many {
            let store = store.clone();
            Box::pin(async move {
                let compute = |_| async { HashMap::from([("k".to_owned(), 1_u64)]) };
                let all = store.get_or_set_many(&["k"], MINUTE, compute).await;
                all.unwrap()[0].unwrap()
            }) as Pin<Box<dyn Future<Output = u64>>>
        } else {
            let store = store.clone();
            Box::pin(async move {
                store
                    .get_or_set("k", MINUTE, || async { 1_u64 })
                    .await
                    .unwrap()
            })
        };
        assert!(poll_once(&mut parked).await.is_pending());
        store.delete("k").await.unwrap();
        assert_eq!(store.incr("k", 5).await.unwrap(), 5, "many: {many}");
        assert_eq!(parked.await, 1);
        assert_eq!(
            store.get::<u64>("k").await.unwrap(),
            Some(5),
            "many: {many}"
        );
        store.delete("k").await.unwrap();
    }
}

/// A leader that another took over from computes still, and hears of writes though that other is gone.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_taken_over_from_does_not_outlive_a_delete() {
    const MS: Duration = Duration::from_millis(1);
    for deleted in [false, true] {
        let cache = Moka::builder().leader_patience(MS * 20).build();
        let first = tokio::spawn({
            let cache = cache.clone();
            async move {
                let compute = || async {
                    tokio::time::sleep(MS * 100).await;
                    1_u32
                };
                cache.get_or_set("k", HOUR, compute).await
            }
        });
        tokio::time::sleep(MS).await;
        // It leads once its patience is over, and goes away.
        let second = cache.get_or_set("k", HOUR, std::future::pending::<u32>);
        assert!(tokio::time::timeout(MS * 40, second).await.is_err());
        assert_eq!(cache.stats().computes, 2);
        if deleted {
            cache.delete("k").await.unwrap();
        }
        assert_eq!(first.await.unwrap().unwrap(), 1);
        let stored = cache.get::<u32>("k").await.unwrap();
        assert_eq!(stored, (!deleted).then_some(1));
        assert_eq!(cache.core().in_flight(), 0);
    }
}

/// A caller of many keys that waits while one leader after the other goes away computes in the end; it does not say that its keys were
/// left out.
#[tokio::test(start_paused = true)]
async fn a_caller_of_many_keys_computes_what_leader_after_leader_lost() {
    let cache = Moka::builder().leader_patience(HOUR).build();
    let call = |computes: bool| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let compute = move |keys: Vec<String>| async move {
                if !computes {
                    std::future::pending::<()>().await;
                }
                keys.into_iter().map(|key| (key, 2_u32)).collect()
            };
            cache.get_or_set_many(&["k"], HOUR, compute).await
        })
    };
    let mut hanging = Vec::new();
    for _ in 0..2 {
        hanging.push(call(false));
        sleep(ms(1)).await;
    }
    let last = call(true);
    sleep(ms(1)).await;
    // Who waits begins anew once the leader of a flight is lost that was cut off.
    cache.delete("k").await.unwrap();
    for other in hanging {
        other.abort();
        sleep(ms(1)).await;
    }
    assert_eq!(last.await.unwrap().unwrap(), [Some(2)]);
    assert_eq!(cache.core().in_flight(), 0);
}

/// Whoever waits for a compute of many keys that fails is told so, however many there are.
#[tokio::test(start_paused = true)]
async fn a_failing_compute_of_many_keys_is_told_to_all() {
    let cache = Moka::new(10);
    let calls = (0..6).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let compute = |keys: Vec<String>, _| async move {
                sleep(ms(10)).await;
                let failed = || larder::Error::new(larder::ErrorKind::Compute, "down");
                keys.into_iter()
                    .map(|key| (key, Err::<u32, _>(failed())))
                    .collect()
            };
            cache.get_or_set_many_with(&["k"], HOUR, compute).await
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        let answers = call.await.unwrap().unwrap();
        assert!(matches!(&answers[..], [Some(Err(_))]), "{answers:?}");
    }
    assert!(cache.stats().computes <= 3, "they do not pile up");
}

/// Who waits in flight after flight, each of which loses its leader, gives up no later than in one.
#[tokio::test(start_paused = true)]
async fn a_caller_gives_up_once_however_many_flights_it_waits_in() {
    let cache = Moka::builder().leader_patience(ms(20)).build();
    let hanging = || {
        let cache = cache.clone();
        tokio::spawn(async move {
            let answer = cache.get_or_set("k", HOUR, std::future::pending::<u32>);
            answer.await
        })
    };
    let mut leader = hanging();
    sleep(ms(1)).await;
    let began = Instant::now();
    let waiter = {
        let cache = cache.clone();
        tokio::spawn(async move {
            let answer = cache.get_or_set("k", HOUR, || async { 1_u32 }).await;
            (answer, began.elapsed())
        })
    };
    while !waiter.is_finished() {
        sleep(ms(7)).await;
        // Its flight is cut off, and another is led before it loses its leader.
        cache.delete("k").await.unwrap();
        let next = hanging();
        sleep(ms(7)).await;
        std::mem::replace(&mut leader, next).abort();
        assert!(began.elapsed() < ms(200), "it waits still");
    }
    let (answer, waited) = waiter.await.unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(waited >= ms(80) && waited <= ms(100), "{waited:?}");
}
