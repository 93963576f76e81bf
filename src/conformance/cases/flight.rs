//! One compute per key, whatever happens to the one who computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Gate, PATIENT, Seats, Trial};
use crate::error::{Error, ErrorKind};
use crate::ttl::Ttl;

type Answer = Result<u64, AppError>;
type Call = JoinHandle<Answer>;

const CROWD: usize = 10_000;

/// Callers of one cold key: a leader that stops in its compute, and all others, who wait for it.
struct Crowd<C> {
    t: Trial<C>,
    key: String,
    gate: Gate,
    seats: Seats,
    computes: AtomicUsize,
}

impl<C: Cache> Crowd<C> {
    fn new(cache: &C, profile: Profile) -> Arc<Self> {
        let t = Trial::new(cache.clone(), profile);
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

/// Runs a trial that must be over before the leader's patience is: on a machine so busy that it was not, the
/// trial says nothing, and is run again. Its answer is whether it went as it should.
async fn within_patience<C: Cache, Running: Future<Output = bool>>(
    cache: &C,
    trial: impl Fn() -> Running,
) {
    let patience = cache.core().settings().leader_patience;
    for _ in 0..10 {
        let began = Instant::now();
        if trial().await {
            return;
        }
        assert!(
            began.elapsed() >= patience,
            "more computes than there should be"
        );
    }
    panic!("this machine is too slow for a leader_patience of {patience:?}");
}

/// Ten thousand callers of a cold key share one compute.
pub async fn ten_thousand_callers_share_one_compute(cache: SharedCache, profile: Profile) {
    within_patience(&cache, || async {
        let crowd = Crowd::new(&cache, profile);
        let before = cache.stats().coalesced;
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
        if crowd.computes() != 1 {
            return false;
        }
        assert_eq!(ends, all("1", CROWD - 1));
        assert_eq!(cache.stats().coalesced - before, CROWD as u64 - 1);
        crowd.t.holds(&crowd.key, 1_u64).await;
        true
    })
    .await;
}

/// Ten thousand callers whose leader goes away: one of them computes.
pub async fn a_dropped_leader_is_replaced(cache: SharedCache, profile: Profile) {
    within_patience(&cache, || async {
        let crowd = Crowd::new(&cache, profile);
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
        crowd.computes() == 2
    })
    .await;
}

/// Ten thousand callers whose leader panics: one of them computes.
pub async fn a_panicking_leader_is_replaced(cache: SharedCache, profile: Profile) {
    within_patience(&cache, || async {
        let crowd = Crowd::new(&cache, profile);
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
        crowd.computes() == 2
    })
    .await;
}

/// Ten thousand callers whose leader is held without being polled: once their patience is over, one of them computes.
/// What the leader computes in the end is its own answer, and is not stored.
pub async fn a_parked_leader_is_replaced(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(&cache, profile);
    let patience = cache.core().settings().leader_patience;
    let mut leader = Box::pin(crowd.lead(|| Ok(1)));
    while crowd.computes() == 0 {
        let _ = tokio::time::timeout(Duration::from_millis(1), &mut leader).await;
    }
    let parked = Instant::now();
    let calls = crowd.followers(CROWD - 1, Ok(2)).await;
    assert_eq!(ends(calls).await, all("2", CROWD - 1));
    assert!(
        parked.elapsed() < patience + PATIENT,
        "{:?}",
        parked.elapsed()
    );
    assert_eq!(crowd.computes(), 2);
    crowd.t.is_idle();
    crowd.gate.open();
    assert_eq!(leader.await.unwrap(), 1);
    crowd.t.holds(&crowd.key, 2_u64).await;
    crowd.t.is_idle();
}

/// A leader that errs gets its error, and one of those who wait tries once more.
pub async fn an_erring_leader_is_replaced_once(cache: SharedCache, profile: Profile) {
    within_patience(&cache, || async {
        let crowd = Crowd::new(&cache, profile);
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
        crowd.computes() == 2
    })
    .await;
}

/// Where the second one errs too, all who still wait are told, with its error as text.
pub async fn a_second_error_is_told_to_all(cache: SharedCache, profile: Profile) {
    within_patience(&cache, || async {
        let crowd = Crowd::new(&cache, profile);
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
        if crowd.computes() != 2 {
            return false;
        }
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
        true
    })
    .await;
}

/// Computes that hang hold nobody for ever: who waits gets an error of kind `Timeout`, and the key is free afterwards.
pub async fn hanging_computes_hold_nobody_for_ever(cache: SharedCache, profile: Profile) {
    let t = Arc::new(Trial::new(cache, profile));
    let key = t.key("a");
    let hang = || {
        let (t, key) = (Arc::clone(&t), key.clone());
        tokio::spawn(async move {
            let call = t
                .cache
                .get_or_set(&key, Ttl::Forever, std::future::pending::<u64>);
            call.await
        })
    };
    let mut calls: Vec<_> = (0..20).map(|_| hang()).collect();
    let patience = t.cache.core().settings().leader_patience;
    let deadline = tokio::time::Instant::now() + patience * 6 + PATIENT;
    let (mut told, mut hanging) = (0, Vec::new());
    while told < 18 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "only {told} of 18 were told"
        );
        let (done, rest): (Vec<_>, Vec<_>) = calls.into_iter().partition(JoinHandle::is_finished);
        for call in done {
            let error: Error = call.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            told += 1;
        }
        calls = rest;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for call in calls {
        call.abort();
        hanging.push(call.await);
    }
    assert_eq!(hanging.len(), 2, "the leader and the one that took over");
    let got = t
        .cache
        .get_or_set(&key, Ttl::Forever, || async { 5_u64 })
        .await;
    assert_eq!(got.unwrap(), 5);
    t.is_idle();
}

/// Where all callers go away, nothing is left behind, and the next one computes.
pub async fn callers_that_all_go_away_leave_nothing(cache: SharedCache, profile: Profile) {
    let crowd = Crowd::new(&cache, profile);
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
    let got = cache
        .get_or_set(&crowd.key, Ttl::Forever, || async { 3_u64 })
        .await;
    let want = cache.get::<u64>(&crowd.key).await.unwrap();
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
