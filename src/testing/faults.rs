//! The switchboard of a [`Faulty`](super::Faulty) store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::known;
use crate::error::{Error, ErrorKind, Result};

/// A delay is cut to this.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It answers an error of kind `Unavailable`, and does nothing.
    Fail,
    /// It is done, and its answer is lost: an error of kind `Timeout`.
    LoseAnswer,
    /// It begins this much later, at most 10 seconds.
    Delay(Duration),
    /// It does not begin before [`Faults::release`].
    Stall,
    /// It is done, and does not answer before [`Faults::release`].
    StallAnswer,
}

/// A handle on the faults of a [`Faulty`](super::Faulty) store. Cheap to clone; what one clone sets holds for all.
///
/// Faults add up: a call that is to stall and to fail stalls, then fails.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<State>);

#[derive(Debug, Default)]
struct State {
    rules: Mutex<Rules>,
    /// How many rules there are: read without the lock, so that a store without faults is as fast as ever.
    count: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Rules {
    list: Vec<Rule>,
    next_id: u64,
    /// Calls that are stalled right now.
    stalled: usize,
}

#[derive(Debug)]
struct Rule {
    id: u64,
    /// Of every operation, if none is named.
    operation: Option<&'static str>,
    fault: Fault,
    left: Option<u64>,
}

/// The faults that one call meets.
#[derive(Debug, Default)]
struct Plan {
    fail: bool,
    lose_answer: bool,
    delay: Duration,
    stalls: Vec<u64>,
    answer_stalls: Vec<u64>,
}

impl Faults {
    /// Every call of an operation meets this fault, until [`heal`](Self::heal).
    ///
    /// # Panics
    ///
    /// If there is no such operation; see [`OPERATIONS`](super::OPERATIONS).
    #[track_caller]
    pub fn always(&self, operation: &str, fault: Fault) {
        self.add(Some(known(operation)), fault, None);
    }

    /// The next `calls` calls of an operation meet this fault.
    ///
    /// # Panics
    ///
    /// If there is no such operation; see [`OPERATIONS`](super::OPERATIONS).
    #[track_caller]
    pub fn next(&self, operation: &str, calls: u64, fault: Fault) {
        self.add(Some(known(operation)), fault, Some(calls));
    }

    /// Every call of any operation meets this fault, until [`heal`](Self::heal).
    pub fn always_any(&self, fault: Fault) {
        self.add(None, fault, None);
    }

    /// The next `calls` calls of any operation meet this fault.
    pub fn next_any(&self, calls: u64, fault: Fault) {
        self.add(None, fault, Some(calls));
    }

    /// Lets the stalled calls go on, and stalls no further ones. Other faults stay.
    pub fn release(&self) {
        self.retain(|rule| !matches!(rule.fault, Fault::Stall | Fault::StallAnswer));
    }

    /// Ends all faults; stalled calls go on.
    pub fn heal(&self) {
        self.retain(|_| false);
    }

    /// Waits until at least `calls` calls are stalled at the same time.
    pub async fn stalled(&self, calls: usize) {
        self.until(|rules| rules.stalled >= calls).await;
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, operation: Option<&'static str>, fault: Fault, left: Option<u64>) {
        let mut rules = self.rules();
        let id = rules.next_id;
        rules.next_id += 1;
        rules.list.push(Rule {
            id,
            operation,
            fault,
            left,
        });
        self.0.count.store(rules.list.len(), Ordering::Release);
    }

    fn retain(&self, keep: impl Fn(&Rule) -> bool) {
        let mut rules = self.rules();
        rules.list.retain(keep);
        self.0.count.store(rules.list.len(), Ordering::Release);
        drop(rules);
        self.0.changed.notify_waiters();
    }

    async fn until(&self, mut done: impl FnMut(&Rules) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.rules()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a read would meet a fault.
    pub(super) fn concern_reads(&self) -> bool {
        let reads = ["fetch", "contains", "fetch_many", "claim"];
        self.0.count.load(Ordering::Acquire) > 0
            && self.rules().list.iter().any(|rule| {
                rule.left != Some(0) && rule.operation.is_none_or(|name| reads.contains(&name))
            })
    }

    fn plan(&self, operation: &'static str) -> Plan {
        let mut plan = Plan::default();
        if self.0.count.load(Ordering::Acquire) == 0 {
            return plan;
        }
        for rule in &mut self.rules().list {
            if rule.left == Some(0) || rule.operation.is_some_and(|name| name != operation) {
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            match rule.fault {
                Fault::Fail => plan.fail = true,
                Fault::LoseAnswer => plan.lose_answer = true,
                Fault::Delay(delay) => plan.delay = plan.delay.max(delay.min(MAX_DELAY)),
                Fault::Stall => plan.stalls.push(rule.id),
                Fault::StallAnswer => plan.answer_stalls.push(rule.id),
            }
        }
        plan
    }

    /// What comes before a call.
    async fn before(&self, operation: &'static str) -> Result<Plan> {
        let plan = self.plan(operation);
        if !plan.delay.is_zero() {
            tokio::time::sleep(plan.delay).await;
        }
        self.stall(&plan.stalls).await;
        if plan.fail {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the store was told to fail",
            ));
        }
        Ok(plan)
    }

    /// What comes between a call and its answer.
    async fn after(&self, plan: Plan) -> Result<()> {
        self.stall(&plan.answer_stalls).await;
        if plan.lose_answer {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the store was told to lose its answer",
            ));
        }
        Ok(())
    }

    /// Runs one call between the faults that come before and after it.
    pub(super) async fn through<R: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        let plan = self.before(operation).await?;
        let answer = call.await;
        self.after(plan).await?;
        answer
    }

    /// The same for a call with one answer for each of `keys` keys.
    pub(super) async fn through_many<R: Send>(
        &self,
        operation: &'static str,
        keys: usize,
        call: impl Future<Output = Vec<Result<R>>> + Send,
    ) -> Vec<Result<R>> {
        let answers = self.through(operation, async { Ok(call.await) }).await;
        answers.unwrap_or_else(|error| (0..keys).map(|_| Err(error.clone())).collect())
    }

    async fn stall(&self, by: &[u64]) {
        if by.is_empty() {
            return;
        }
        self.rules().stalled += 1;
        let _stalled = Stalled(self);
        self.0.changed.notify_waiters();
        self.until(|rules| !rules.list.iter().any(|rule| by.contains(&rule.id)))
            .await;
    }
}

/// A call that is stalled, until it goes on or is dropped.
struct Stalled<'f>(&'f Faults);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.rules().stalled -= 1;
    }
}
