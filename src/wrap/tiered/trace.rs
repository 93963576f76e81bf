//! A read of one key that tells what each tier came to.

use crate::backend::Backend;
use crate::coherence::Standing;
use crate::entry::{Entry, Want};
use crate::explain::{Trace, Why};

use super::Inner;

impl<L1: Backend, L2: Backend> Inner<L1, L2> {
    pub(super) async fn trace_both(&self, key: &str, want: Want) -> Trace {
        let Some(first) = self.trace_l1(key, want).await else {
            return self.l2.trace(key, self.wanted(want)).await;
        };
        let now = self.core.now();
        let found = first.answer.as_ref().ok();
        let found = found.and_then(|answer| answer.entry.clone());
        // What is past its life here may stand anew below.
        if found.as_ref().is_some_and(|entry| !entry.is_stale(now)) {
            return first;
        }
        let noted = self.note(key);
        let mut second = self.l2.trace(key, self.wanted(want)).await;
        match &second.answer {
            Ok(answer) => {
                // Who asks for no type wants to know, not to have.
                if want.kind.is_some() {
                    self.fill(key, noted, answer).await;
                }
                second.after(first.expired().places)
            }
            // As in a read, what is here is all there is.
            Err(_) if found.is_some() => {
                second.answer = first.answer;
                second.after(first.places)
            }
            Err(_) => second.after(first.places),
        }
    }

    /// What `l1` holds, if it holds copies for this tier.
    async fn trace_l1(&self, key: &str, want: Want) -> Option<Trace> {
        if !self.holds_copies {
            return None;
        }
        let mut trace = self.l1.trace(key, want).await;
        let copy = trace.answer.as_ref().ok();
        let copy = copy.and_then(|answer| answer.entry.as_ref());
        if let Some(why) = copy.and_then(|copy| self.distrust(key, copy)) {
            trace.refuse(why);
        }
        let origin = self.l2.origin(key);
        if let Some(place) = trace.last_mut()
            && !origin.is_own()
        {
            place.hears_writes = Some(origin.is_told(self.max_staleness));
        }
        Some(trace)
    }

    fn distrust(&self, key: &str, copy: &Entry) -> Option<Why> {
        if self.trusts(key, copy) {
            return None;
        }
        Some(match copy.origin().standing(self.max_staleness) {
            Standing::OtherView => Why::Moved,
            Standing::Sound | Standing::Void => Why::Unheard,
        })
    }
}
