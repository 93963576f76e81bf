//! Figures against their bounds, and the table of them.

use std::fmt::Write;
use std::time::Duration;

/// The deadline of one operation.
pub(crate) const D: Duration = Duration::from_millis(250);

/// Added to each bound on a time, since two cores also run other things.
pub(crate) const ALLOWANCE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Figure {
    text: String,
    bound: String,
    ok: bool,
    /// Whether it depends on how busy the machine is.
    timing: bool,
}

/// What one row measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    attempt: u32,
}

impl Report {
    /// Of a row that could not be measured.
    pub(crate) fn broken(why: &str) -> Self {
        let mut report = Self::default();
        report.add(why.to_owned(), String::new(), false, false);
        report
    }

    pub(crate) fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.figures.iter().all(|figure| figure.ok)
    }

    /// Whether nothing but times is wrong.
    pub(crate) fn only_late(&self) -> bool {
        self.figures.iter().all(|figure| figure.ok || figure.timing)
    }

    /// A time and its bound, to which the allowance comes.
    pub(crate) fn within(&mut self, what: &str, took: Duration, bound: Duration) {
        let ok = took <= bound + ALLOWANCE;
        self.add(
            format!("{what} {}", time(took)),
            format!("<= {}", time(bound)),
            ok,
            true,
        );
    }

    /// A quotient of two times.
    pub(crate) fn ratio(&mut self, what: &str, value: f64, bound: f64) {
        let ok = value <= bound;
        self.add(
            format!("{what} {value:.2}"),
            format!("<= {bound:.2}"),
            ok,
            true,
        );
    }

    /// What must never happen.
    pub(crate) fn none(&mut self, what: &str, count: u64) {
        self.add(format!("{what} {count}"), "0".to_owned(), count == 0, false);
    }

    pub(crate) fn at_most(&mut self, what: &str, count: u64, bound: u64) {
        self.add(
            format!("{what} {count}"),
            format!("<= {bound}"),
            count <= bound,
            false,
        );
    }

    pub(crate) fn at_least(&mut self, what: &str, count: u64, bound: u64) {
        self.add(
            format!("{what} {count}"),
            format!(">= {bound}"),
            count >= bound,
            false,
        );
    }

    /// A share of a whole, in percent.
    pub(crate) fn share(&mut self, what: &str, part: u64, whole: u64, bound: f64) {
        let percent = 100.0 * part as f64 / whole.max(1) as f64;
        let ok = percent <= bound;
        self.add(
            format!("{what} {percent:.1} %"),
            format!("<= {bound:.0} %"),
            ok,
            false,
        );
    }

    /// For the reader alone.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.add(text.into(), "-".to_owned(), true, false);
    }

    fn add(&mut self, text: String, bound: String, ok: bool, timing: bool) {
        self.figures.push(Figure {
            text,
            bound,
            ok,
            timing,
        });
    }
}

/// A time as people read it.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 2000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// All figures, one a line.
pub(crate) fn table(rows: &[(&str, &str, Report)]) -> String {
    let mut text = format!(
        "D = {}, the deadline of one operation. Each bound on a time is met up to {} more, for a busy machine.\n\n\
         | row | fault | figure | bound | ok |\n|-|-|-|-|-|\n",
        time(D),
        time(ALLOWANCE)
    );
    for (number, name, report) in rows {
        let name = name.replace('_', " ");
        let (mut number, mut name) = (*number, &*name);
        for figure in &report.figures {
            let verdict = match (figure.ok, report.attempt) {
                (false, _) => "NO".to_owned(),
                (true, 1) => "yes".to_owned(),
                (true, attempt) => format!("yes, attempt {attempt}"),
            };
            let (text_, bound) = (&figure.text, &figure.bound);
            let _ = writeln!(
                text,
                "| {number} | {name} | {text_} | {bound} | {verdict} |"
            );
            (number, name) = ("", "");
        }
    }
    text
}
