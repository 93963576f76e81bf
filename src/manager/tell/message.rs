//! What an administrator is told at once.

use serde_json::json;

use crate::manager::event::{Event, Kind};
use crate::ring::registry;

/// Events in one message, at most: the last ones.
const MAX_EVENTS: usize = 100;

/// What is written of one text, in characters.
const MAX_TEXT: usize = 300;

/// What happened to a ring since the message before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    ring: String,
    /// With their numbers, in order of time.
    events: Vec<(u64, Event)>,
    /// Further ones, before these.
    more: u64,
}

impl Message {
    /// What is to be told of events after this one, the latest of them first; none if nobody wants to know.
    pub(super) fn of(ring: &str, after: u64, lines: &[registry::Event]) -> Option<Self> {
        let told = lines.iter().filter(|(id, _)| *id > after);
        // What another version wrote is not told where it is not understood.
        let told = told.filter_map(|(id, line)| {
            let event: Event = serde_json::from_str(line).ok()?;
            event.kind.is_told().then_some((*id, event))
        });
        let mut events: Vec<_> = told.collect();
        let kept = events.len().min(MAX_EVENTS);
        let left_out = events.split_off(kept).len();
        events.reverse();
        // What is kept no more was something, whatever it was.
        let lost = lines.last().map_or(0, |(oldest, _)| {
            oldest.saturating_sub(after).saturating_sub(1)
        });
        let more = lost + left_out as u64;
        let ring = plain(ring);
        (!events.is_empty() || more > 0).then_some(Self { ring, events, more })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.events.len() as u64 + self.more
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let events = self.events.iter().map(|(id, event)| {
            json!({
                "id": id,
                "kind": event.kind.as_str(),
                "node": event.node.as_deref().map(plain),
                "text": plain(&event.text),
                "at": event.at,
            })
        });
        let mut message = json!({ "ring": self.ring, "events": events.collect::<Vec<_>>() });
        if self.more > 0 {
            message["more"] = self.more.into();
        }
        message.to_string()
    }

    /// One line: what it is, or how many there are.
    pub(super) fn subject(&self) -> String {
        match &self.events[..] {
            [(_, event)] if self.more == 0 => {
                format!("[larder] {}: {}", self.ring, what(event))
            }
            _ => format!("[larder] {}: {} events", self.ring, self.count()),
        }
    }

    /// One line an event.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (_, event) in &self.events {
            let (at, what) = (iso(event.at), what(event));
            text += &match event.text.is_empty() {
                true => format!("{at} {what}\n"),
                false => format!("{at} {what}: {}\n", plain(&event.text)),
            };
        }
        if self.more > 0 {
            text += &format!("and {} more, before these\n", self.more);
        }
        text
    }
}

/// The kind in words, and the node.
fn what(event: &Event) -> String {
    let words = words(event.kind);
    match &event.node {
        Some(node) => format!("{words}: {}", plain(node)),
        None => words.to_owned(),
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Added => "added",
        Kind::Changed => "has another url",
        Kind::Removed => "removed",
        Kind::AddedElsewhere => "put on the map by another program",
        Kind::RemovedElsewhere => "taken off the map by another program",
        Kind::TakenOver => "another program's map is managed from now on",
        Kind::Restored => "the map was written again",
        Kind::Rebuilt => "all positions were chosen anew",
        Kind::Suspected => "fails",
        Kind::Recovered => "well again",
        Kind::Ejected => "taken off the ring, since it fails",
        Kind::Returned => "back on the ring",
        Kind::Draining => "loses its keys",
        Kind::Drained => "has no keys any more",
        Kind::Frozen => "nothing is taken off the ring for now",
        Kind::Thawed => "nodes are judged again",
    }
}

/// A text on one line, not too long.
fn plain(text: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let kept = text.chars().map(|c| if odd(c) { ' ' } else { c });
    let mut kept: String = kept.take(MAX_TEXT).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        kept.push('…');
    }
    kept
}

/// Seconds since 1970 as ISO 8601 has them, in UTC.
fn iso(at: u64) -> String {
    // The last second with a year of four digits.
    let at = at.min(253_402_300_799);
    let (days, second) = (at / 86400, at % 86400);
    // Years begin in March here, so that a leap day is the last of one, and counting begins with the year 0. There are 146,097 days in 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn line(id: u64, kind: Kind, text: &str) -> registry::Event {
        let mut event = Event::new(kind, Some("10.0.0.1:6379/0".to_owned()), text);
        event.at = 1_700_000_000 + id;
        (id, event.line())
    }

    #[test]
    fn a_message_has_what_is_new_and_of_interest_in_order_of_time() {
        let lines = [
            line(9, Kind::Returned, ""),
            line(8, Kind::Added, ""),
            line(7, Kind::Ejected, "no answer\r\nBcc: x"),
            line(6, Kind::Suspected, "no answer"),
            line(5, Kind::Removed, ""),
        ];
        let message = Message::of("HASH_RING_MAP", 5, &lines).unwrap();
        assert_eq!(message.subject(), "[larder] HASH_RING_MAP: 2 events");
        assert_eq!(
            message.text(),
            "2023-11-14T22:13:27Z taken off the ring, since it fails: 10.0.0.1:6379/0: no answer  Bcc: x\n\
             2023-11-14T22:13:29Z back on the ring: 10.0.0.1:6379/0\n"
        );
        let json: Value = serde_json::from_str(&message.json()).unwrap();
        let event = json!({"id": 9, "kind": "returned", "node": "10.0.0.1:6379/0", "text": "", "at": 1_700_000_009});
        assert_eq!(json["ring"], "HASH_RING_MAP");
        assert_eq!(json["events"][1], event);
        assert_eq!(
            (json["events"].as_array().unwrap().len(), &json["more"]),
            (2, &Value::Null)
        );

        let message = Message::of("HASH_RING_MAP", 7, &lines).unwrap();
        assert_eq!(
            message.subject(),
            "[larder] HASH_RING_MAP: back on the ring: 10.0.0.1:6379/0"
        );
        assert_eq!(Message::of("m", 9, &lines), None);
        assert_eq!(Message::of("m", 0, &[]), None);
        assert_eq!(Message::of("m", 7, &lines[1..]), None);
        let strange = [
            (3, "no json".to_owned()),
            (2, r#"{"kind":"new_kind","at":1}"#.to_owned()),
        ];
        assert_eq!(Message::of("m", 1, &strange), None);
    }

    #[test]
    fn a_message_is_bounded() {
        let lines: Vec<_> = (1..=1000)
            .rev()
            .map(|id| line(id, Kind::Ejected, &"x".repeat(5000)))
            .collect();
        let message = Message::of("m", 0, &lines).unwrap();
        assert_eq!((message.count(), message.events.len()), (1000, MAX_EVENTS));
        assert_eq!(message.events.last().unwrap().0, 1000);
        assert!(message.text().ends_with("\nand 900 more, before these\n"));
        assert_eq!(message.subject(), "[larder] m: 1000 events");
        assert!(message.json().len() < 64 << 10, "{}", message.json().len());
        let json: Value = serde_json::from_str(&message.json()).unwrap();
        assert_eq!(json["more"], 900);
        // What is kept no more is counted, and told of even if all that is left is of no interest.
        let kept: Vec<_> = (500..=501)
            .rev()
            .map(|id| line(id, Kind::Suspected, ""))
            .collect();
        let message = Message::of("m", 9, &kept).unwrap();
        assert_eq!(
            (message.count(), message.text().as_str()),
            (490, "and 490 more, before these\n")
        );
    }

    #[test]
    fn times_are_what_they_are() {
        for (at, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(iso(at), written);
        }
        // Day by day, for four hundred years.
        let (mut year, mut month, mut date) = (1970, 1, 1);
        for day in 0..146_097_u64 {
            assert_eq!(
                iso(day * 86400),
                format!("{year:04}-{month:02}-{date:02}T00:00:00Z")
            );
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            date += 1;
            if date > length {
                (month, date) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
