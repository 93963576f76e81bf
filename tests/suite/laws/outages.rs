//! What a process does while the store below its memory is away.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use larder::testing::{Clock, Fault, Faulty};
use larder::{Backend, Cache, Entry, ErrorKind, Moka, Tiered, Value};

const MINUTE: Duration = Duration::from_secs(60);
const MILLI: Duration = Duration::from_millis(1);

struct World {
    clock: Clock,
    below: Moka,
    l2: Faulty<Moka>,
    cache: Tiered<Moka, Faulty<Moka>>,
    computes: AtomicUsize,
}

fn world(outage_ttl: Option<Duration>) -> World {
    let clock = Clock::manual();
    let moka = || Moka::builder().clock(clock.clone()).build();
    let below = moka();
    let l2 = Faulty::remote(below.clone());
    let mut builder = Tiered::builder(moka(), l2.clone());
    if let Some(ttl) = outage_ttl {
        builder = builder.outage_ttl(ttl);
    }
    World {
        below,
        l2,
        cache: builder.build(),
        clock: clock.clone(),
        computes: AtomicUsize::new(0),
    }
}

impl World {
    fn fails(&self) {
        for operation in ["fetch", "store", "remove", "fetch_many", "store_many"] {
            self.l2.faults().always(operation, Fault::Fail);
        }
    }

    async fn ask(&self) -> usize {
        let compute = || async { self.computes.fetch_add(1, SeqCst) + 1 };
        self.cache.get_or_set("k", MINUTE, compute).await.unwrap()
    }
}

#[tokio::test]
async fn each_process_computes_once_in_outage_ttl() {
    let world = world(None);
    world.fails();
    for second in 1..=5 {
        for _ in 0..100 {
            assert_eq!(world.ask().await, second);
        }
        world.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(world.computes.load(SeqCst), 5);
}

#[tokio::test]
async fn what_was_computed_meanwhile_gives_way_once_the_store_is_back() {
    let world = world(None);
    world.fails();
    assert_eq!(world.ask().await, 1);
    world.l2.faults().heal();
    // Another process stores its own: past this one's cache.
    let entry = Entry::new(Value::new(77_usize), world.clock.now(), None);
    world.below.store("k", entry.into()).await.unwrap();
    world.clock.advance(Duration::from_secs(1) - MILLI);
    assert_eq!(world.ask().await, 1);
    world.clock.advance(MILLI);
    assert_eq!(world.ask().await, 77);
    assert_eq!(world.computes.load(SeqCst), 1);
}

#[tokio::test]
async fn a_delete_that_fails_still_empties_memory() {
    let world = world(None);
    world.fails();
    assert_eq!(world.ask().await, 1);
    assert!(world.cache.delete("k").await.is_err());
    assert_eq!(world.ask().await, 2);
    assert!(world.cache.set("k", 9_usize, MINUTE).await.is_err());
    assert_eq!(world.ask().await, 3, "a set that failed is not kept");
}

#[tokio::test]
async fn a_shorter_life_stays_shorter_and_zero_keeps_nothing() {
    let short = world(Some(MINUTE));
    short.fails();
    let ten = Duration::from_secs(10);
    let ask = async || {
        short
            .cache
            .get_or_set("k", ten, || async { 1 })
            .await
            .unwrap()
    };
    ask().await;
    short.clock.advance(ten);
    assert_eq!(
        short.cache.get::<i32>("k").await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let none = world(Some(Duration::ZERO));
    none.fails();
    assert_eq!((none.ask().await, none.ask().await), (1, 2));
}

#[tokio::test]
async fn many_keys_are_kept_too() {
    let world = world(None);
    world.fails();
    let keys = ["a", "b"];
    for _ in 0..3 {
        let all = world.cache.get_or_set_many(&keys, MINUTE, |keys| async {
            world.computes.fetch_add(keys.len(), SeqCst);
            keys.into_iter().map(|key| (key, 1_u8)).collect()
        });
        assert_eq!(all.await.unwrap(), [Some(1), Some(1)]);
    }
    assert_eq!(world.computes.load(SeqCst), 2);
}
