//! What is answered when a compute fails, or is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, Trial};
use crate::context::Context;
use crate::error::ErrorKind;
use crate::options::Options;
use crate::report::{Report, Source};
use crate::ttl::Ttl;
use crate::validator::Validator;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(60);

type Answer = Result<u32, AppError>;

fn graced() -> Options {
    Options::ttl(SHORT).grace(HOUR)
}

fn broken() -> Answer {
    Err(AppError::Origin("the origin is down"))
}

/// A trial with a value that has a grace, 1, whose life is over.
async fn past_its_life(cache: SharedCache, profile: Profile) -> (Trial<SharedCache>, String) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let stored = t.cache.get_or_set(&key, graced(), || async { 1_u32 });
    assert_eq!(stored.await.unwrap(), 1);
    t.expires(&key, Instant::now() + SHORT).await;
    (t, key)
}

async fn failing(t: &Trial<SharedCache>, key: &str, options: Options) -> Answer {
    t.cache
        .try_get_or_set(key, options, || async { broken() })
        .await
}

#[track_caller]
fn is_broken(answer: &Answer) {
    assert!(matches!(answer, Err(AppError::Origin(_))), "{answer:?}");
}

/// A value in its grace is answered where its compute errs, and the caller can ask whether it was. For the throttle time
/// nobody tries again; reads that chose no grace do not see it.
pub async fn a_stale_value_is_answered_when_its_compute_errs(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    let (report, tries) = (Report::new(), AtomicU32::new(0));
    for _ in 0..3 {
        let options = graced().report(&report);
        let got = t.cache.try_get_or_set(&key, options, || async {
            tries.fetch_add(1, Ordering::Relaxed);
            broken()
        });
        let got = got.await;
        if t.profile.stores() {
            assert_eq!(got.unwrap(), 1);
            assert_eq!(report.source(), Some(Source::Stale));
        } else {
            is_broken(&got);
        }
    }
    let want = if t.profile.stores() { 1 } else { 3 };
    assert_eq!(tries.load(Ordering::Relaxed), want);
    t.lacks::<u32>(&key).await;
    assert!(!t.cache.has(&key).await.unwrap());
    assert_eq!(t.cache.ttl(&key).await.unwrap(), None);
    t.is_idle();
}

/// Once the throttle time is over, the next caller computes, and what it computes is fresh.
pub async fn a_stale_value_is_computed_anew_after_a_while(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    let throttled = || graced().throttle(SHORT);
    let first = failing(&t, &key, throttled()).await;
    assert_eq!(first.is_ok(), t.profile.stores());
    let report = Report::new();
    let begun = Instant::now();
    let value = loop {
        let options = throttled().report(&report);
        let got = t.cache.get_or_set(&key, options, || async { 2_u32 }).await;
        if report.source() == Some(Source::Computed) {
            break got.unwrap();
        }
        assert!(report.is_stale() && begun.elapsed() < 30 * SHORT);
        tokio::time::sleep(SHORT / 10).await;
    };
    assert_eq!(value, 2);
    t.is_idle();
}

/// A value in its grace is answered where its compute panics.
pub async fn a_stale_value_is_answered_when_its_compute_panics(
    cache: SharedCache,
    profile: Profile,
) {
    let (t, key) = past_its_life(cache, profile).await;
    let (again, key) = (t.cache.clone(), key);
    let call = tokio::spawn(async move {
        let panics = || async { panic!("as it must") };
        again.get_or_set::<u32, _, _>(&key, graced(), panics).await
    });
    match call.await {
        Ok(answer) => assert_eq!(answer.ok(), t.held(1)),
        Err(lost) => assert!(lost.is_panic() && !t.profile.stores()),
    }
}

/// Who did not choose a grace is not answered a stale value, nor is anybody where it was stored without.
pub async fn a_grace_must_be_chosen_twice(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    is_broken(&failing(&t, &key, Options::ttl(SHORT)).await);
    let other = t.key("b");
    let stored = t.cache.get_or_set(&other, SHORT, || async { 1_u32 });
    stored.await.unwrap();
    t.expires(&other, Instant::now() + SHORT).await;
    is_broken(&failing(&t, &other, graced()).await);
}

/// A value that was set has a grace too.
pub async fn a_set_value_has_a_grace(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let (one, many) = (t.key("one"), t.key("many"));
    let text = || "set".to_owned();
    t.cache.set(&one, text(), graced()).await.unwrap();
    t.cache.set_many([(&many, text())], graced()).await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    for key in [&one, &many] {
        t.lacks::<String>(key).await;
        let attempt = || async { Err(AppError::Origin("down")) };
        let got = t.cache.try_get_or_set(key, graced(), attempt).await;
        assert_eq!(got.ok(), t.held(text()));
    }
}

/// Whatever was invalidated is not answered, stale or not.
pub async fn an_invalidated_value_is_never_answered_stale(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    assert!(!t.cache.delete(&key).await.unwrap(), "it held nothing");
    is_broken(&failing(&t, &key, graced()).await);
    let stored = t.cache.get_or_set(&key, graced(), || async { 2_u32 });
    stored.await.unwrap();
    t.expires(&key, Instant::now() + SHORT).await;
    assert_eq!(
        failing(&t, &key, graced()).await.is_ok(),
        t.profile.stores()
    );
    t.cache.delete(&key).await.unwrap();
    is_broken(&failing(&t, &key, graced()).await);
}

/// An absent key is free for `add`, whatever is kept of it past its life; so is it for a counter.
pub async fn a_stale_value_is_nothing_to_a_write(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    t.touched(t.cache.touch(&key, HOUR).await, false);
    t.summed(t.cache.incr(&key, 5).await, 5, 5);
    t.cache.delete(&key).await.unwrap();
    assert!(t.cache.add(&key, 3_u32, Ttl::Forever).await.unwrap());
    t.holds(&key, 3_u32).await;
}

/// `touch` gives a value another life, and its grace after that.
pub async fn a_touched_value_keeps_its_grace(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let options = Options::ttl(HOUR).grace(HOUR);
    let stored = t.cache.get_or_set(&key, options, || async { 1_u32 });
    stored.await.unwrap();
    let left = t
        .cache
        .ttl(&key)
        .await
        .unwrap()
        .and_then(|left| left.duration());
    assert!(left.is_none_or(|left| left <= HOUR), "{left:?}");
    let touched = t.cache.touch(&key, SHORT).await;
    t.touched(touched, true);
    if !t.profile.touches() {
        return;
    }
    t.expires(&key, Instant::now() + SHORT).await;
    assert_eq!(
        failing(&t, &key, graced()).await.is_ok(),
        t.profile.stores()
    );
}

/// A caller with a compute in a task of its own is answered the stale value at the soft timeout; the compute goes on, and its
/// value is stored.
pub async fn a_slow_compute_goes_on_while_its_caller_has_the_stale_value(
    cache: SharedCache,
    profile: Profile,
) {
    let (t, key) = past_its_life(cache, profile).await;
    let (gate, report) = (Arc::new(Gate::default()), Report::new());
    let options = || Options::ttl(HOUR).grace(HOUR).soft_timeout(SHORT);
    let slow = {
        let gate = Arc::clone(&gate);
        move |context: Context| async move {
            let previous = context.previous::<u32>().map(|value| *value);
            gate.pass().await;
            assert_eq!(previous, profile.stores().then_some(1));
            Ok::<_, AppError>(2_u32)
        }
    };
    let told = options().report(&report);
    let call = t.cache.get_or_set_with(&key, told, slow);
    if !t.profile.stores() {
        let open = async {
            gate.entered().await;
            gate.open();
        };
        assert_eq!(tokio::join!(call, open).0.unwrap(), 2);
        return;
    }
    assert_eq!(call.await.unwrap(), 1);
    assert!(report.is_stale());
    // Who comes later waits no longer, and does not compute: others do.
    let joins = t.cache.get_or_set(&key, options(), || async { 3_u32 });
    assert_eq!(joins.await.unwrap(), 1);
    gate.open();
    let begun = Instant::now();
    while t.cache.get::<u32>(&key).await.unwrap() != Some(2) {
        assert!(begun.elapsed() < 100 * SHORT, "it was never stored");
        tokio::time::sleep(SHORT / 10).await;
    }
}

/// Past the hard timeout a call ends, and its compute with it; the next one begins anew.
pub async fn a_hard_timeout_ends_a_call_and_its_compute(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let hard = || Options::ttl(HOUR).hard_timeout(SHORT);
    let begun = Instant::now();
    let hangs = || std::future::pending::<u32>();
    let error = t.cache.get_or_set(&key, hard(), hangs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < 50 * SHORT);
    t.is_idle();
    let again = t.cache.get_or_set(&key, hard(), || async { 2_u32 });
    assert_eq!(again.await.unwrap(), 2);
    t.holds(&key, 2_u32).await;
}

/// Who waits for another's compute waits no longer than its own hard timeout.
pub async fn a_hard_timeout_ends_waiting_for_others(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let key = t.key("a");
    let gate = Gate::default();
    let leads = t.cache.get_or_set(&key, HOUR, || async {
        gate.pass().await;
        1_u32
    });
    let waits = async {
        gate.entered().await;
        let hard = Options::ttl(HOUR).hard_timeout(SHORT);
        let waited = t.cache.get_or_set(&key, hard, || async { 2_u32 }).await;
        gate.open();
        waited.unwrap_err().kind()
    };
    let (led, waited) = tokio::join!(leads, waits);
    assert_eq!((led.unwrap(), waited), (1, ErrorKind::Timeout));
}

/// Past the hard timeout the stale value is the answer, and nobody tries again for a while.
pub async fn a_stale_value_is_answered_at_the_hard_timeout(cache: SharedCache, profile: Profile) {
    let (t, key) = past_its_life(cache, profile).await;
    for _ in 0..2 {
        let hard = graced().hard_timeout(SHORT);
        let got = t
            .cache
            .get_or_set(&key, hard, std::future::pending::<u32>)
            .await;
        assert_eq!(got.ok(), t.held(1));
    }
    t.cache.core().tasks().drain(HOUR).await;
    t.is_idle();
    let computes = t.cache.stats().computes;
    assert_eq!(computes, if t.profile.stores() { 2 } else { 3 });
}

/// A compute in a task of its own goes on past the hard timeout, and is stored; unless it was said not to.
pub async fn a_compute_of_its_own_goes_on_past_the_hard_timeout(
    cache: SharedCache,
    profile: Profile,
) {
    let t = Trial::new(cache, profile);
    for (goes_on, key) in [(true, t.key("on")), (false, t.key("off"))] {
        let gate = Arc::new(Gate::default());
        let passes = Arc::clone(&gate);
        let options = Options::ttl(HOUR).hard_timeout(SHORT).go_on(goes_on);
        let call = t.cache.get_or_set_with(&key, options, move |_| async move {
            passes.pass().await;
            Ok::<_, AppError>("late".to_owned())
        });
        let Err(AppError::Cache(error)) = call.await else {
            panic!("it is answered");
        };
        assert_eq!(error.kind(), ErrorKind::Timeout);
        if goes_on {
            gate.open();
        }
        t.cache.core().tasks().drain(HOUR).await;
        t.is_idle();
        let stored = t.cache.get::<String>(&key).await.unwrap();
        assert_eq!(stored, t.held("late".to_owned()).filter(|_| goes_on));
    }
}

/// A compute may have its value not stored.
pub async fn a_compute_may_have_its_value_not_stored(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    for value in [1_u32, 2] {
        let compute = move |context: Context| async move {
            context.do_not_store();
            Ok::<_, AppError>(value)
        };
        let got = t.cache.get_or_set_with(&key, Ttl::Forever, compute).await;
        assert_eq!(got.unwrap(), value);
        t.lacks::<u32>(&key).await;
    }
    t.is_idle();
}

/// A call tells where its answer came from.
pub async fn a_call_tells_where_its_answer_came_from(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let report = Report::new();
    for first in [true, false] {
        let options = Options::ttl(HOUR).report(&report);
        let got = t.cache.get_or_set(&key, options, || async { 1_u32 });
        got.await.unwrap();
        match report.source() {
            Some(Source::Computed) => assert!(first || !t.profile.stores()),
            Some(Source::Memory | Source::Store) => assert!(!first && t.profile.stores()),
            other => panic!("{other:?}"),
        }
    }
}

/// What the origin calls a version is kept with the value and seen by the next compute, which may answer that nothing changed: the
/// value lives anew, with its tags.
pub async fn a_compute_may_answer_that_nothing_changed(cache: SharedCache, profile: Profile) {
    let t = Trial::patient(cache, profile);
    let (key, tags) = (t.key("a"), t.cache.keeps_tags());
    let first = move |context: Context| async move {
        assert_eq!(context.validator(), None);
        assert_eq!(context.unchanged::<u32>(), None);
        context.set_validator(version("1"));
        if tags {
            context.tag("t");
        }
        Ok::<_, AppError>(1_u32)
    };
    let got = t.cache.get_or_set_with(&key, graced(), first);
    assert_eq!(got.await.unwrap(), 1);
    // What is said anew counts; where nothing is, what was said before.
    for (known, anew, ttl) in [
        ("1", Some("2"), SHORT),
        ("2", None, SHORT),
        ("2", None, HOUR),
    ] {
        t.expires(&key, Instant::now() + SHORT).await;
        let stored = t.profile.stores();
        let next = move |context: Context| async move {
            assert_eq!(context.validator(), stored.then(|| version(known)));
            if let Some(anew) = anew {
                context.set_validator(version(anew));
            }
            assert_eq!(context.unchanged::<String>(), None, "of another type");
            Ok::<_, AppError>(context.unchanged::<u32>().unwrap_or(7))
        };
        let got = t
            .cache
            .get_or_set_with(&key, Options::ttl(ttl).grace(HOUR), next);
        assert_eq!(got.await.unwrap(), if stored { 1 } else { 7 });
        // What is not stored is seen by nobody who computes next.
        let stats = t.cache.stats();
        assert_eq!(
            (stats.outrun, stats.write_errors, stats.read_errors),
            (0, 0, 0)
        );
    }
    if t.profile.stores() {
        t.holds(&key, 1_u32).await;
    }
    if tags {
        t.cache.invalidate_tag("t").await.unwrap();
        t.lacks::<u32>(&key).await;
    }
    t.is_idle();
}

fn version(etag: &str) -> Validator {
    let date = "Thu, 26 Nov 2026 00:00:00 GMT";
    Validator::new().with_etag(etag).with_last_modified(date)
}
