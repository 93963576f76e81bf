//! Counters: integers that one writer adds to. They carry no version, so a read is judged by what the counter was.

use std::collections::VecDeque;

const REMEMBERED: usize = 128;

/// One addition.
#[derive(Clone, Copy, Debug)]
struct Step {
    started: u64,
    /// The sum and when it was told; nothing while it is under way, or if it failed.
    told: Option<(i64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(VecDeque<Step>);

impl Counter {
    pub(crate) fn begin(&mut self, now: u64) {
        self.0.push_back(Step {
            started: now,
            told: None,
        });
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// The last addition was told its sum.
    pub(crate) fn told(&mut self, sum: i64, now: u64) {
        if let Some(step) = self.0.back_mut() {
            step.told = Some((sum, now));
        }
    }

    /// Whether a reader may find this: it was the sum at some time after `cutoff`, and not cleared before `dead`. Whatever is
    /// undecided allows everything, and so does a counter that nobody added to after `unsure`.
    pub(crate) fn allows(&self, found: i64, cutoff: u64, dead: u64, unsure: Option<u64>) -> bool {
        // Steps from the last one that was told by the cutoff on.
        let told_by = |step: &Step| step.told.is_some_and(|(_, at)| at <= cutoff);
        let first = self.0.iter().rposition(told_by);
        let Some(first) = first else {
            return true;
        };
        let last_told = self.0[first].told.map_or(0, |(_, at)| at);
        if unsure.is_some_and(|at| at >= last_told.min(cutoff)) {
            return true;
        }
        self.0.range(first..).any(|step| match step.told {
            None => true,
            Some((sum, at)) => sum == found && (at >= dead || step.started >= dead),
        })
    }
}
