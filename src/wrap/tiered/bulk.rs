//! Many keys over two tiers.

use crate::backend::{Backend, Peek};
use crate::entry::{Answer, Claim, Draft, Entry, Lease, Right, Stored, Ticket, Want};
use crate::error::Result;

use super::Inner;
use super::copies::Noted;

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    pub(super) async fn fetch_each(&self, keys: &[&str], want: Want) -> Vec<Result<Answer>> {
        let found = self.each_in_l1(keys, want).await;
        let missing = keys.iter().zip(&found).filter(|(_, found)| found.is_none());
        let (wanted, noted): (Vec<&str>, Vec<Noted>) =
            missing.map(|(key, _)| (*key, self.note(key))).unzip();
        let want = self.wanted(want);
        let answers = self.l2.fetch_many(&wanted, want).await;
        let mut answers = answers.into_iter().zip(noted);
        let mut all = Vec::with_capacity(keys.len());
        for (key, found) in keys.iter().zip(found) {
            if let Some(entry) = found {
                all.push(Ok(entry.into()));
                continue;
            }
            let Some((answer, noted)) = answers.next() else {
                all.push(Ok(Answer::default()));
                continue;
            };
            if let Ok(answer) = &answer {
                self.fill(key, noted, answer).await;
            }
            all.push(answer);
        }
        all
    }

    /// What `l2` holds under keys, and who may compute them. Memory was asked before.
    pub(super) async fn claim_each(
        &self,
        keys: &[&str],
        want: Want,
        lease: Lease,
    ) -> Vec<Result<Claim>> {
        let noted: Vec<Noted> = keys.iter().map(|key| self.note(key)).collect();
        let want = self.wanted(want.or_stale());
        let claims = self.l2.claim(keys, want, lease).await;
        let mut all = Vec::with_capacity(keys.len());
        for ((key, noted), claim) in keys.iter().zip(noted).zip(claims) {
            all.push(match claim {
                Ok(claim) => {
                    self.fill(key, noted, &claim.answer).await;
                    Ok(claim)
                }
                Err(error) => match self.stale_in_l1(key, want).await {
                    Some(stale) => Ok(Claim::new(stale, Right::Granted(Ticket::lost(error)))),
                    None => Err(error),
                },
            });
        }
        all
    }

    /// What `l1` holds under many keys, as far as it may be answered.
    async fn each_in_l1(&self, keys: &[&str], want: Want) -> Vec<Option<Entry>> {
        let mut found: Vec<_> = keys.iter().map(|_| None).collect();
        if !self.holds_copies {
            return found;
        }
        let mut asked = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match self.l1.peek(key) {
                Peek::Hit(entry) if entry.is_rearmed() && !want.stale => {}
                Peek::Hit(entry) => found[index] = Some(entry),
                Peek::Ask => asked.push(index),
                Peek::Miss => {}
            }
        }
        if !asked.is_empty() {
            let wanted: Vec<&str> = asked.iter().map(|&index| keys[index]).collect();
            let answers = self.l1.fetch_many(&wanted, want).await;
            for (index, answer) in asked.into_iter().zip(answers) {
                found[index] = answer.ok().and_then(|answer| answer.entry);
            }
        }
        // What is past its life here may stand anew below.
        let now = self.core.now();
        let trusted = |(found, key): (Option<Entry>, &&str)| {
            found.filter(|entry| !entry.is_stale(now) && self.trusts(key, entry))
        };
        found.into_iter().zip(keys).map(trusted).collect()
    }

    pub(super) async fn store_each(&self, drafts: Vec<(String, Draft)>) -> Vec<Result<Stored>> {
        let copy = |(key, draft): &(String, Draft)| {
            let noted = self.note(key);
            let copy = self.copy_of(key, draft, noted);
            (key.clone(), noted, copy, self.stands_in(draft, noted))
        };
        let copies: Vec<_> = drafts.iter().map(copy).collect();
        let keys: Vec<&str> = drafts.iter().map(|(key, _)| key.as_str()).collect();
        self.make_way(&keys).await;
        let answers = self.l2.store_many(drafts).await;
        for ((key, noted, copy, stands_in), answer) in copies.into_iter().zip(&answers) {
            self.settle(&key, noted, copy, stands_in, answer);
        }
        answers
    }

    pub(super) async fn remove_each(&self, keys: &[&str]) -> Vec<Result<bool>> {
        self.make_way(keys).await;
        let answers = self.l2.remove_many(keys).await;
        for key in keys {
            self.drop_copy(key);
        }
        answers
    }
}
