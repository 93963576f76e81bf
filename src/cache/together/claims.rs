//! What stands under many keys, and who may compute them.

use std::time::Duration;

use super::Calls;
use super::round::{Begin, Round};
use crate::cache::Cache;
use crate::cache::bulk::bounded_many;
use crate::cache::single::wanted;
use crate::entry::{Answer, Claim, Lease, Right};
use crate::error::{Error, Result};
use crate::value::Cacheable;

/// What stands under a key, with who may compute it, where that is leased for so long.
pub(super) type Asking = Result<(Answer, Option<(Right, Duration)>)>;

impl<T: Cacheable> Round<T> {
    /// The right to compute what rests there and is nothing to this call, where computes are leased. The answer is what nobody leases.
    pub(super) async fn claim_anew<C: Cache>(
        &mut self,
        calls: &Calls<'_, C>,
        begin: Vec<Begin>,
    ) -> Vec<Begin> {
        let keys: Vec<&str> = begin.iter().map(|begin| begin.key.as_str()).collect();
        if keys.is_empty() || calls.of("").leased().is_none() {
            return begin;
        }
        let asked = asked::<T, C>(calls, &keys, true).await;
        let mut unleased = Vec::new();
        for (begin, asked) in begin.into_iter().zip(asked) {
            let Ok((_, right)) = asked else {
                unleased.push(begin);
                continue;
            };
            let stale = begin.still(calls).await;
            unleased.extend(self.settle(calls, begin, stale, right));
        }
        unleased
    }
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
