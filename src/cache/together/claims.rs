//! What stands under many keys, and who may compute them.

use std::sync::Arc;
use std::time::Duration;

use super::round::{Begin, Round};
use super::{Answers, Calls};
use crate::cache::Cache;
use crate::cache::bulk::bounded_many;
use crate::cache::call::Asked;
use crate::cache::lease::Held;
use crate::cache::single::wanted;
use crate::entry::{Answer, Claim, Lease, Right};
use crate::error::{Error, Result};
use crate::flight::{Landing, Lead};
use crate::report::Source;
use crate::value::Cacheable;

/// What stands under a key, with who may compute it, where that is leased for so long.
pub(super) type Asking = Result<(Answer, Option<(Right, Duration)>)>;

impl<T: Cacheable> Round<T> {
    /// The right to compute what rests there and is nothing to this call, where computes are leased; or what came meanwhile. The
    /// answer is what nobody leases.
    pub(super) async fn claim_anew<C: Cache, E: From<Error>>(
        &mut self,
        calls: &Calls<'_, C>,
        answers: &mut Answers<T, E>,
        begin: Vec<Begin>,
    ) -> Vec<Begin> {
        let keys: Vec<&str> = begin.iter().map(|begin| begin.key.as_str()).collect();
        if keys.is_empty() || calls.of("").leased().is_none() {
            return begin;
        }
        let asked = asked::<T, C>(calls, &keys, true).await;
        let mut unleased = Vec::new();
        for (begin, asked) in begin.into_iter().zip(asked) {
            let Ok((answer, right)) = asked else {
                unleased.push(begin);
                continue;
            };
            let Begin { key, lead, .. } = begin;
            let Some((key, lead, _)) = found(calls, answers, (key, lead), answer, &right) else {
                continue;
            };
            let begin = Begin { key, lead, ..begin };
            let stale = begin.still(calls).await;
            unleased.extend(self.settle(calls, begin, stale, right));
        }
        unleased
    }
}

/// Answers a key with what stands there, if that is an answer. A lease is given back then.
pub(super) fn found<T: Cacheable, C: Cache, E: From<Error>>(
    calls: &Calls<'_, C>,
    answers: &mut Answers<T, E>,
    (key, lead): (String, Lead),
    answer: Answer,
    right: &Option<(Right, Duration)>,
) -> Option<(String, Lead, Asked<T>)> {
    let call = calls.of(&key);
    let found = call.found::<T>(answer);
    if let Asked::Fresh(..) | Asked::Rearmed(_) | Asked::Failed(_) = found
        && let Some((Right::Granted(ticket), life)) = right
    {
        drop(Held::new(calls.cache, &key, ticket, *life));
    }
    match found {
        Asked::Fresh(value, _, source) => {
            lead.found(Landing::of(Arc::clone(&value) as _));
            answers.found(calls, key, value, source);
        }
        Asked::Rearmed(value) => {
            lead.found(Landing::stale(Arc::clone(&value) as _));
            answers.found(calls, key, value, Source::Stale);
        }
        Asked::Failed(failure) => {
            let error = call.failed(&failure);
            lead.found(Landing::failure(failure as _));
            answers.insert(key, Err(error.into()));
        }
        found => return Some((key, lead, found)),
    }
    None
}

/// What stands under keys, and who may compute each if that is leased.
pub(super) async fn asked<T: Cacheable, C: Cache>(
    calls: &Calls<'_, C>,
    keys: &[&str],
    anew: bool,
) -> Vec<Asking> {
    let Some(first) = keys.first() else {
        return Vec::new();
    };
    let (cache, core, any) = (calls.cache, calls.cache.core(), calls.of(first));
    let failed = |error: Error| keys.iter().map(|_| Err(error.clone())).collect();
    let Some(life) = any.leased() else {
        let fetched = cache.fetch_many(keys, any.want::<T>());
        let fetched = async { Ok(bounded_many(core, keys.len(), fetched).await) };
        let unleased = |answer: Result<Answer>| answer.map(|answer| (answer, None));
        return match any.in_time(fetched).await {
            Ok(answers) => answers.into_iter().map(unleased).collect(),
            Err(error) => failed(error),
        };
    };
    let before: Vec<_> = keys.iter().map(|key| calls.of(key).before()).collect();
    let lease = if anew {
        Lease::of(life).anew()
    } else {
        Lease::of(life)
    };
    let claims = cache.claim(keys, wanted::<T, C>(cache).or_stale(), lease);
    let claims = async { Ok(bounded_many(core, keys.len(), claims).await) };
    let leased = |(claim, before): (Result<Claim>, _)| {
        let Claim { answer, mut right } = claim?;
        if let Right::Granted(ticket) = &mut right {
            ticket.before = before;
        }
        Ok((answer, Some((right, life))))
    };
    match any.in_time(claims).await {
        Ok(claims) => claims.into_iter().zip(before).map(leased).collect(),
        Err(error) => failed(error),
    }
}
