//! A read of one key that tells what it came to.

use std::time::Duration;

use futures_util::future::join;
use redis::{Value, pipe};

use super::command::{integer, text};
use super::node::{Node, checked, strange};
use super::opened::{Opener, Raw};
use crate::core::Core;
use crate::entry::{Answer, Want};
use crate::error::{ErrorKind, Result};
use crate::explain::{Outcome, Place, Trace, Why};

impl Node {
    /// What the node holds under a key, at a place that is this node.
    pub(crate) async fn trace(&self, place: Place, core: &Core, key: &str, want: Want) -> Trace {
        let place = place.at(self.label());
        let connection = self.connection(key);
        if connection.owes(key) {
            return Trace::missing(place, Why::Owed);
        }
        let asked = !connection.fails_at_once();
        let mut age = None;
        let answer = self.aged(core, key, want.or_stale(), &mut age).await;
        let unavailable = |error| matches!(error, Some(ErrorKind::Unavailable));
        let spared = !asked && unavailable(answer.as_ref().err().map(|error| error.kind()));
        let mut trace = Trace::of(place, answer, want, core.now());
        if let Some(place) = trace.last_mut() {
            match &mut place.outcome {
                Outcome::Hit(hit) | Outcome::Stale(hit) => hit.age = age,
                Outcome::Miss(why) if spared => *why = Why::BreakerOpen,
                Outcome::Miss(_) => {}
            }
        }
        trace
    }

    /// What stands under a key, and for how long by the node's own clock.
    async fn aged(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        age: &mut Option<Duration>,
    ) -> Result<Answer> {
        let (connection, since) = (self.connection(key), core.now());
        let mut questions = pipe();
        questions
            .cmd("GET")
            .arg(key)
            .cmd("PTTL")
            .arg(key)
            .cmd("TIME");
        // At the same time, for what was read is judged by it.
        let known = self.know_namespace(core, key, want);
        let (replies, ()) = join(connection.read_pipeline("get", &questions), known).await;
        let mut replies = replies?.into_iter();
        let (value, pttl, now) = (replies.next(), replies.next(), replies.next());
        let reply = match checked(connection, "get", value.unwrap_or(Value::Nil)) {
            Ok(Value::Nil) => Ok(None),
            Ok(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Ok(_) => return Err(strange(connection, "get")),
            Err(error) => Err(error),
        };
        if let Ok(Some(bytes)) = &reply {
            let stored = core.format().stored_ms(bytes);
            let passed = stored.zip(now.as_ref().and_then(millis));
            *age = passed.map(|(stored, now)| Duration::from_millis(now.saturating_sub(stored)));
        }
        let raw = Raw::new(reply, pttl.as_ref().and_then(integer), want, since);
        match Opener::new(core, want).open(key, raw)? {
            Ok(answer) => Ok(answer),
            Err(opened) => self.judge(core, key, want, opened).await,
        }
    }
}

/// The milliseconds of an answer to `TIME`.
fn millis(reply: &Value) -> Option<u64> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let part = |at: usize| parts.get(at).and_then(text)?.parse::<u64>().ok();
    part(0)?.checked_mul(1000)?.checked_add(part(1)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_milliseconds() {
        let part = |text: &str| Value::BulkString(text.into());
        let time =
            |parts: &[&str]| millis(&Value::Array(parts.iter().map(|text| part(text)).collect()));
        assert_eq!(time(&["12", "345678"]), Some(12_345));
        for strange in [
            &["12"][..],
            &[],
            &["x", "1"],
            &["18446744073709551615", "0"],
        ] {
            assert_eq!(time(strange), None);
        }
        assert_eq!(millis(&Value::Nil), None);
    }
}
