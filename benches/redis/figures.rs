//! What was measured, and how it is printed.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

/// One measurement: operations a second, and microseconds of this process's CPU for each.
pub(crate) struct Sample {
    rate: f64,
    cpu: f64,
}

pub(crate) struct Clock {
    wall: Instant,
    cpu: ProcessTime,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: ProcessTime::now(),
        }
    }

    pub(crate) fn runs_for(&self) -> Duration {
        self.wall.elapsed()
    }

    pub(crate) fn stop(self, operations: usize) -> Sample {
        let operations = operations as f64;
        Sample {
            rate: operations / self.wall.elapsed().as_secs_f64(),
            cpu: self.cpu.elapsed().as_secs_f64() * 1e6 / operations,
        }
    }
}

/// The measurements of one peer, round by round.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) rates: Vec<f64>,
    pub(crate) cpu: Vec<f64>,
}

impl Figures {
    pub(crate) fn add(&mut self, sample: Sample) {
        self.rates.push(sample.rate);
        self.cpu.push(sample.cpu);
    }

    /// One line, the rate divided by `unit`.
    pub(crate) fn print(&self, name: &str, unit: f64) {
        let (rate, least, most) = spread(self.rates.iter().map(|rate| rate / unit));
        let (cpu, cheapest, dearest) = spread(self.cpu.iter().copied());
        println!(
            "  {name:<20} {rate:>8.1} ({least:.1}..{most:.1})    cpu {cpu:>8.2} ({cheapest:.2}..{dearest:.2})"
        );
    }
}

pub(crate) fn ratio(name: &str, ours: &[f64], theirs: &[f64], target: &str) -> String {
    let (median, min, max) = spread(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
    format!("ratio {name} {median:.2} ({min:.2}..{max:.2}) target {target}")
}

fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    (
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1],
    )
}
