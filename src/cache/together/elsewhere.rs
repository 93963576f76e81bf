//! Keys that other processes compute.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::round::{Begin, Round};
use super::{Answers, ByKey, Calls};
use crate::cache::Cache;
use crate::cache::call::{Led, Stale};
use crate::cache::lease::Watch;
use crate::core::MAX_WAIT;
use crate::error::{Error, Result};
use crate::flight::{Landing, Lead};
use crate::report::Source;
use crate::value::Cacheable;

/// A key that another process has the lease of, for so long unless it is renewed.
pub(super) struct Elsewhere<T> {
    pub(super) key: String,
    pub(super) lead: Lead,
    pub(super) stale: Option<Stale<T>>,
    /// Something past its life stands there, for others.
    pub(super) is_spared: bool,
    pub(super) left: Duration,
}

/// Waits for what other processes compute.
pub(super) struct Waits<'c, C, T> {
    calls: &'c Calls<'c, C>,
    waiting: Vec<Elsewhere<T>>,
    ended: Ended<T>,
}

/// What that came to.
pub(super) struct Ended<T> {
    pub(super) answers: ByKey<Result<Arc<T>>>,
    /// What they have lost, or took too long for: this call leads it from now on.
    pub(super) led: ByKey<Led<T>>,
    /// What they compute still.
    pub(super) left: Vec<Elsewhere<T>>,
}

impl<'c, C: Cache, T: Cacheable> Waits<'c, C, T> {
    pub(super) fn new(calls: &'c Calls<'c, C>, waiting: Vec<Elsewhere<T>>) -> Self {
        let ended = Ended {
            answers: ByKey::default(),
            led: ByKey::default(),
            left: Vec::new(),
        };
        Self {
            calls,
            waiting,
            ended,
        }
    }

    /// Until none is waited for any more or, unless this is the `last` time, some have fallen to this call.
    pub(super) async fn end(mut self, last: bool) -> Result<Ended<T>> {
        let (calls, mut watch) = (self.calls, Watch::new());
        let call = calls.of("");
        let bound = call.bound();
        let soft = call.soft().map(|soft| Instant::now() + soft.min(MAX_WAIT));
        while let Some(first) = self.waiting.first() {
            let first = calls.cache.stored_key(&first.key).into_owned();
            let written = calls.cache.core().fence().watch(&first);
            let left = self.waiting.iter().map(|waiting| waiting.left).min();
            let soft = soft.filter(|_| self.waiting.iter().any(|waiting| waiting.stale.is_some()));
            let until = soft.map_or(bound, |soft| soft.min(bound));
            if watch.look(written, left.unwrap_or_default(), until).await {
                self.look().await?;
            } else {
                self.take_stale();
                if bound <= Instant::now() {
                    self.give_up().await;
                }
            }
            if !last && !self.ended.led.is_empty() {
                // Others wait for these; those that are left are for the next round.
                self.ended.left = std::mem::take(&mut self.waiting);
            }
        }
        Ok(self.ended)
    }

    /// Looks how things stand by now.
    async fn look(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let leads = waiting.map(|waiting| (waiting.key, waiting.lead)).collect();
        let mut round = Round::<T>::asking(leads);
        let mut found = Answers::<T, Error>::default();
        round.ask(self.calls, &mut found).await?;
        self.ended.answers.extend(found.0);
        self.ended.led.extend(round.led);
        self.waiting = round.elsewhere;
        Ok(())
    }

    /// Answers what is past its life.
    fn take_stale(&mut self) {
        let now = self.calls.cache.core().now();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let stale = waiting.stale.take();
            let Some(stale) = stale.filter(|stale| !stale.entry.is_expired(now)) else {
                self.waiting.push(waiting);
                continue;
            };
            let Elsewhere { key, lead, .. } = waiting;
            lead.found(Landing::stale(Arc::clone(&stale.value) as _));
            self.calls.of(&key).told(Source::Stale);
            self.ended.answers.insert(key, Ok(stale.value));
        }
    }

    /// Computes the others here too; they are stored by whoever is first.
    async fn give_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let begin = waiting.map(|waiting| Begin {
            key: waiting.key,
            lead: waiting.lead,
            stale: false,
            is_spared: waiting.is_spared,
        });
        let mut round = Round::<T>::of(ByKey::default());
        round.begin(self.calls, begin.collect()).await;
        self.ended.led.extend(round.led);
    }
}
