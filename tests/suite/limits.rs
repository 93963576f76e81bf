//! Limits of a whole cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::testing::{Fault, Faulty};
use larder::{Cache, Context, ErrorKind, Moka, Options, RefreshAhead};
use tokio::sync::Semaphore;

use crate::fleet::eventually;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(80);
const PATIENT: Duration = Duration::from_secs(10);

/// Computes that stop until they are let on.
#[derive(Clone)]
struct Stops {
    inside: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
    on: Arc<Semaphore>,
}

impl Stops {
    fn new() -> Self {
        Self {
            inside: Arc::default(),
            most: Arc::default(),
            on: Arc::new(Semaphore::new(0)),
        }
    }

    async fn compute(self) -> larder::Result<u32> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.on
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        Ok(7)
    }

    fn inside(&self) -> u32 {
        self.inside.load(Ordering::SeqCst)
    }
}

fn calls(
    cache: &Moka,
    stops: &Stops,
    count: u32,
) -> Vec<tokio::task::JoinHandle<larder::Result<u32>>> {
    let call = |at: u32| {
        let (cache, stops) = (cache.clone(), stops.clone());
        tokio::spawn(async move {
            let compute = |_: Context| stops.compute();
            cache
                .get_or_set_with(&format!("key {at}"), HOUR, compute)
                .await
        })
    };
    (0..count).map(call).collect()
}

#[tokio::test]
async fn no_more_computes_run_than_may() {
    let cache = Moka::builder()
        .max_computes(2)
        .leader_patience(PATIENT)
        .build();
    let stops = Stops::new();
    let calls = calls(&cache, &stops, 8);
    eventually(PATIENT, "two are inside", async || stops.inside() == 2).await;
    stops.on.add_permits(8);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 7);
    }
    assert_eq!(stops.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn who_has_no_turn_in_time_is_told_so_or_has_the_stale_value() {
    let graced = || Options::ttl(SHORT).grace(HOUR);
    let cache = Moka::builder()
        .max_computes(1)
        .leader_patience(SHORT)
        .build();
    cache
        .get_or_set("old", graced(), || async { 1_u32 })
        .await
        .unwrap();
    eventually(PATIENT, "its life is over", async || {
        cache.get::<u32>("old").await.unwrap().is_none()
    })
    .await;
    let stops = Stops::new();
    let held = calls(&cache, &stops, 1);
    eventually(PATIENT, "one is inside", async || stops.inside() == 1).await;
    let busy = cache.get_or_set("new", HOUR, || async { 2_u32 }).await;
    assert_eq!(busy.unwrap_err().kind(), ErrorKind::Busy);
    let stale = cache.get_or_set("old", graced(), || async { 2_u32 }).await;
    assert_eq!(stale.unwrap(), 1);
    let options = Options::ttl(HOUR).hard_timeout(SHORT / 4);
    let busy = cache.get_or_set("new", options, || async { 2_u32 }).await;
    assert_eq!(
        busy.unwrap_err().kind(),
        ErrorKind::Busy,
        "the hard timeout is sooner"
    );
    assert_eq!((cache.stats().busy, cache.stats().computes), (2, 2));
    stops.on.add_permits(1);
    for call in held {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn no_more_values_are_refreshed_than_may() {
    let cache = Moka::builder().max_refreshes(2).build();
    let options = || Options::ttl(HOUR).refresh_ahead(RefreshAhead::Within(2 * HOUR));
    let stops = Stops::new();
    for at in 0..5 {
        let (key, first) = (at.to_string(), |_: Context| async {
            Ok::<_, larder::Error>(1_u32)
        });
        cache.get_or_set_with(&key, options(), first).await.unwrap();
        let stops = stops.clone();
        let anew = move |_: Context| stops.compute();
        assert_eq!(
            cache.get_or_set_with(&key, options(), anew).await.unwrap(),
            1
        );
    }
    eventually(PATIENT, "two are inside", async || stops.inside() == 2).await;
    assert_eq!(cache.stats().refreshes, 2);
    stops.on.add_permits(2);
    cache.shutdown().await;
    assert_eq!(cache.get::<u32>("0").await.unwrap(), Some(7));
    assert_eq!(cache.get::<u32>("4").await.unwrap(), Some(1));
}

/// What the cache was built with holds for calls that do not say otherwise, and a compute has the last word.
#[tokio::test]
async fn a_call_stands_over_the_cache_and_a_compute_over_both() {
    let own = Options::ttl(HOUR).tag("cache").grace(HOUR);
    let cache = Moka::builder().options(own).default_ttl(SHORT).build();
    let left = async |key| {
        let left = cache.ttl(key).await.unwrap().expect("it is there");
        left.duration().expect("it ends").as_secs().div_ceil(60)
    };
    cache
        .get_or_set("plain", larder::Ttl::Default, || async { 1_u32 })
        .await
        .unwrap();
    assert_eq!(
        left("plain").await,
        60,
        "of the cache's options, over its default"
    );
    let call = Options::ttl(2 * HOUR).tag("call");
    cache
        .get_or_set("call", call.clone(), || async { 1_u32 })
        .await
        .unwrap();
    assert_eq!(left("call").await, 120);
    let compute = |context: Context| async move {
        context.set_ttl(3 * HOUR);
        context.tag("compute");
        let tags: Vec<_> = context.options().tags().map(str::to_owned).collect();
        assert_eq!(tags, ["call", "cache", "compute"]);
        Ok::<_, larder::Error>(1_u32)
    };
    cache
        .get_or_set_with("compute", call.clone(), compute)
        .await
        .unwrap();
    assert_eq!(left("compute").await, 180);
    cache.invalidate_tag("compute").await.unwrap();
    assert!(!cache.has("compute").await.unwrap() && cache.has("call").await.unwrap());
    cache.invalidate_tag("cache").await.unwrap();
    assert!(!cache.has("call").await.unwrap() && !cache.has("plain").await.unwrap());
}

/// A stale value has the tags that it was stored with, whatever those of the call are: once one is invalidated, nobody is given it.
#[tokio::test]
async fn an_invalidated_stale_value_is_not_handed_to_who_comes_later() {
    let cache = Moka::builder().leader_patience(PATIENT).build();
    let graced = || Options::ttl(SHORT).grace(HOUR).soft_timeout(Duration::ZERO);
    let tagged = |context: Context| async move {
        context.tag("g");
        Ok::<_, larder::Error>(1_u32)
    };
    cache.get_or_set_with("k", graced(), tagged).await.unwrap();
    eventually(PATIENT, "its life is over", async || {
        cache.get::<u32>("k").await.unwrap().is_none()
    })
    .await;
    let stops = Stops::new();
    let slow = stops.clone();
    let first = cache.get_or_set_with("k", graced(), move |_| slow.compute());
    assert_eq!(first.await.unwrap(), 1, "as of before");
    cache.invalidate_tag("g").await.unwrap();
    let later = cache.get_or_set("k", graced(), || async { 2_u32 }).await;
    assert_eq!(later.unwrap(), 2);
    stops.on.add_permits(1);
    cache.shutdown().await;
    assert_ne!(cache.get::<u32>("k").await.unwrap(), Some(1));
}

/// A stale value whose tag is invalidated between the read and the ticket of a compute that fails does not come back.
#[tokio::test]
async fn what_was_invalidated_before_the_ticket_does_not_come_back() {
    let memory = Moka::new(100);
    let cache = Faulty::remote(memory.clone());
    let graced = || Options::ttl(SHORT).grace(HOUR).tag("g");
    let attempt = async |fails: bool| {
        let compute = || async move {
            match fails {
                true => Err(larder::Error::new(ErrorKind::Compute, "down")),
                false => Ok(1_u32),
            }
        };
        cache.try_get_or_set("k", graced(), compute).await
    };
    attempt(false).await.unwrap();
    eventually(PATIENT, "its life is over", async || {
        cache.get::<u32>("k").await.unwrap().is_none()
    })
    .await;
    cache.faults().next("begin", 1, Fault::Stall);
    let invalidates = async {
        cache.faults().stalled(1).await;
        memory.invalidate_tag("g").await.unwrap();
        cache.faults().release();
    };
    let (failed, ()) = tokio::join!(attempt(true), invalidates);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Compute);
    assert_eq!(attempt(true).await.unwrap_err().kind(), ErrorKind::Compute);
}
