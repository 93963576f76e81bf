//! One compute per key, whatever happens to the one who computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, PATIENT, Seats, Trial};
use crate::error::ErrorKind;
use crate::ttl::Ttl;

type Answer = Result<u64, AppError>;
type Call = JoinHandle<Answer>;

const CROWD: usize = 10_000;

/// Callers of one cold key: a leader that stops in its compute, and all others, who wait for it.
struct Crowd {
    t: Trial<SharedCache>,
    key: String,
    gate: Gate,
    seats: Seats,
    computes: AtomicUsize,
}

impl Crowd {
    fn new(t: Trial<SharedCache>) -> Arc<Self> {
        Arc::new(Self {
            key: t.key("a"),
            t,
            gate: Gate::default(),
            seats: Seats::new(),
            computes: AtomicUsize::new(0),
        })
    }

    /// A caller that leads: its compute stops at the gate, then ends as told.
    async fn lead(&self, end: impl Fn() -> Answer + Send + Sync) -> Answer {
        let call = self
            .t
            .cache
            .try_get_or_set(&self.key, Ttl::Forever, || async {
                self.computes.fetch_add(1, Ordering::SeqCst);
                self.gate.pass().await;
                end()
            });
        call.await
    }

    /// Callers that find a leader. Should one of them have to compute, `answer` is its value.
    async fn followers(self: &Arc<Self>, count: usize, answer: Answer) -> Vec<Call> {
        let follower = || {
            let (crowd, answer) = (Arc::clone(self), answer.clone());
            tokio::spawn(async move {
                let call = crowd
                    .t
                    .cache
                    .try_get_or_set(&crowd.key, Ttl::Forever, || async {
                        crowd.computes.fetch_add(1, Ordering::SeqCst);
                        answer
                    });
                crowd.seats.take(call).await
            })
        };
        let calls = (0..count).map(|_| follower()).collect();
        self.seats.taken(count).await;
        calls
    }

    fn computes(&self) -> usize {
        self.computes.load(Ordering::SeqCst)
    }
}

/// Tells of each call how it ended, the ends sorted and counted.
async fn ends(calls: Vec<Call>) -> Vec<(String, usize)> {
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    for call in calls {
        let end = match call.await {
            Ok(Ok(value)) => value.to_string(),
            Ok(Err(AppError::Origin(text))) => text.to_owned(),
            Ok(Err(AppError::Cache(error))) => error.kind().to_string(),
            Err(lost) => panic!("a waiter was lost: {lost}"),
        };
        *ends.entry(end).or_default() += 1;
    }
    ends.into_iter().collect()
}

fn all(end: &str, count: usize) -> Vec<(String, usize)> {
    vec![(end.to_owned(), count)]
}

/// Ten thousand callers of a cold key share one compute.
pub async fn ten_thousand_callers_share_one_compute(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let before = crowd.t.cache.stats().coalesced;
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| Ok(1)).await }
    });
    crowd.gate.entered().await;
    let calls = crowd.followers(CROWD - 1, Ok(2)).await;
    crowd.gate.open();
    assert_eq!(leader.await.unwrap().unwrap(), 1);
    let ends = ends(calls).await;
    crowd.t.is_idle();
    assert_eq!(crowd.computes(), 1);
    assert_eq!(ends, all("1", CROWD - 1));
    assert_eq!(crowd.t.cache.stats().coalesced - before, CROWD as u64 - 1);
    crowd.t.holds(&crowd.key, 1_u64).await;
}

/// Ten thousand callers whose leader goes away: one of them computes.
pub async fn a_dropped_leader_is_replaced(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| Ok(1)).await }
    });
    crowd.gate.entered().await;
    let calls = crowd.followers(CROWD - 1, Ok(2)).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    assert_eq!(ends(calls).await, all("2", CROWD - 1));
    crowd.t.holds(&crowd.key, 2_u64).await;
    crowd.t.is_idle();
    assert_eq!(crowd.computes(), 2);
}

/// Ten thousand callers whose leader panics: one of them computes.
pub async fn a_panicking_leader_is_replaced(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| panic!("as the case means it to")).await }
    });
    crowd.gate.entered().await;
    let calls = crowd.followers(CROWD - 1, Ok(2)).await;
    crowd.gate.open();
    assert!(leader.await.unwrap_err().is_panic());
    assert_eq!(ends(calls).await, all("2", CROWD - 1));
    crowd.t.holds(&crowd.key, 2_u64).await;
    crowd.t.is_idle();
    assert_eq!(crowd.computes(), 2);
}

/// Ten thousand callers whose leader is held without being polled: once the patience of one is over, it computes for
/// all. What the leader computes in the end is its own answer, and is not stored.
pub async fn a_parked_leader_is_replaced(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache.clone(), profile));
    let mut leader = Box::pin(crowd.lead(|| Ok(1)));
    while crowd.computes() == 0 {
        let _ = tokio::time::timeout(Duration::from_millis(1), &mut leader).await;
    }
    let calls = crowd.followers(CROWD - 2, Ok(3)).await;
    let began = Instant::now();
    let impatient = cache.get_or_set(&crowd.key, Ttl::Forever, || async { 2_u64 });
    assert_eq!(impatient.await.unwrap(), 2);
    let patience = cache.core().settings().leader_patience;
    assert!(
        began.elapsed() < patience + PATIENT,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(ends(calls).await, all("2", CROWD - 2));
    assert_eq!(
        crowd.computes(),
        1,
        "its own, besides that of the impatient one"
    );
    crowd.t.is_idle();
    crowd.gate.open();
    assert_eq!(leader.await.unwrap(), 1);
    crowd.t.holds(&crowd.key, 2_u64).await;
    crowd.t.is_idle();
}

/// A leader that errs gets its error, and one of those who wait tries once more.
pub async fn an_erring_leader_is_replaced_once(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| Err(AppError::Origin("first"))).await }
    });
    crowd.gate.entered().await;
    let calls = crowd.followers(1000, Ok(2)).await;
    crowd.gate.open();
    let error = leader.await.unwrap().unwrap_err();
    assert!(matches!(error, AppError::Origin("first")));
    assert_eq!(ends(calls).await, all("2", 1000));
    crowd.t.holds(&crowd.key, 2_u64).await;
    crowd.t.is_idle();
    assert_eq!(crowd.computes(), 2);
}

/// Where the second one errs too, all who still wait are told, with its error as text.
pub async fn a_second_error_is_told_to_all(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| Err(AppError::Origin("first"))).await }
    });
    crowd.gate.entered().await;
    let mut calls = crowd.followers(1000, Err(AppError::Origin("second"))).await;
    crowd.gate.open();
    assert!(leader.await.unwrap().is_err());
    let mut told = None;
    let index = calls.len() - 1;
    if let Err(AppError::Cache(error)) = calls.swap_remove(index).await.unwrap() {
        told = Some(error);
    }
    let ends = ends(calls).await;
    crowd.t.is_idle();
    assert_eq!(crowd.computes(), 2);
    let by_kind = |kind: ErrorKind| {
        ends.iter()
            .find(|(end, _)| *end == kind.to_string())
            .map(|(_, n)| *n)
    };
    let others = 999 - usize::from(told.is_some());
    assert_eq!(by_kind(ErrorKind::Compute), Some(others), "{ends:?}");
    if let Some(error) = told {
        assert!(error.message().contains("second"), "{error}");
    }
    crowd.t.lacks::<u64>(&crowd.key).await;
}

/// Computes that hang hold nobody for ever: who waits gets an error of kind `Timeout`, and the key is free afterwards.
pub async fn hanging_computes_hold_nobody_for_ever(cache: SharedCache, profile: Profile) {
    let (t, computes) = (Trial::new(cache, profile), Arc::new(AtomicUsize::new(0)));
    let key = t.key("a");
    let hang = |_| {
        let (cache, key, computes) = (t.cache.clone(), key.clone(), Arc::clone(&computes));
        tokio::spawn(async move {
            let call = cache.get_or_set(&key, Ttl::Forever, || {
                computes.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<u64>()
            });
            call.await
        })
    };
    let calls: Vec<_> = (0..20).map(hang).collect();
    let deadline = Instant::now() + t.cache.core().settings().leader_patience * 6 + PATIENT;
    let told = || calls.iter().filter(|call| call.is_finished()).count();
    while told() + computes.load(Ordering::SeqCst) < calls.len() {
        assert!(Instant::now() < deadline, "only {} of 20 were told", told());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let hung = computes.load(Ordering::SeqCst);
    assert!(
        (2..=3).contains(&hung),
        "{hung} computes: the leader, and one or two that took over"
    );
    for call in calls {
        call.abort();
        if let Ok(answer) = call.await {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
        }
    }
    let got = t.cache.get_or_set(&key, Ttl::Forever, || async { 5_u64 });
    assert_eq!(got.await.unwrap(), 5);
    t.is_idle();
}

/// Where all callers go away, nothing is left behind, and the next one computes.
pub async fn callers_that_all_go_away_leave_nothing(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(Trial::patient(cache, profile));
    let leader = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.lead(|| Ok(1)).await }
    });
    crowd.gate.entered().await;
    let mut calls = crowd.followers(1000, Ok(2)).await;
    // Waiters first, or one of them would lead.
    calls.push(leader);
    calls.iter().for_each(JoinHandle::abort);
    for call in calls {
        let _ = call.await;
    }
    crowd.t.is_idle();
    let got = crowd
        .t
        .cache
        .get_or_set(&crowd.key, Ttl::Forever, || async { 3_u64 })
        .await;
    let want = crowd.t.cache.get::<u64>(&crowd.key).await.unwrap();
    assert!(want.is_none() != profile.stores());
    assert_eq!(got.unwrap(), want.unwrap_or(3));
}

/// Two types under one key are two computes, and neither caller gets the other's value.
pub async fn two_types_never_mix(cache: SharedCache, profile: Profile) {
    let t = Trial::new(cache, profile);
    let key = t.key("a");
    let (text_gate, integer_gate) = (Gate::default(), Gate::default());
    let text = t.cache.get_or_set(&key, Ttl::Forever, || async {
        text_gate.pass().await;
        "text".to_owned()
    });
    let integer = t.cache.get_or_set(&key, Ttl::Forever, || async {
        integer_gate.pass().await;
        5_u64
    });
    let both_compute = async {
        text_gate.entered().await;
        integer_gate.entered().await;
        text_gate.open();
        integer_gate.open();
    };
    let (text, integer, ()) = tokio::join!(text, integer, both_compute);
    assert_eq!(text.unwrap(), "text");
    assert_eq!(integer.unwrap(), 5);
    t.is_idle();
    let text = t.cache.get::<String>(&key).await.unwrap();
    let integer = t.cache.get::<u64>(&key).await.unwrap();
    let held = usize::from(text.is_some()) + usize::from(integer.is_some());
    assert_eq!(held, usize::from(profile.stores()), "one of them, whole");
}
