//! A mail as it is sent: plain text, in ASCII whatever it says.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes in one line of Base64: 76 characters.
const LINE: usize = 57;

/// Bytes in one encoded word, which has 75 characters at most.
const WORD: usize = 42;

/// Somebody with an address, and perhaps a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) address: Address,
    name: String,
}

impl Person {
    /// Of `name@host` or `Name <name@host>`, with addresses in ASCII: whatever else is in the name of a host has a form in it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>') {
            Some(rest) => rest.rsplit_once('<')?,
            None => ("", text),
        };
        let quoted = |name: &str| {
            let inside = name.strip_prefix('"')?.strip_suffix('"')?;
            Some(inside.to_owned())
        };
        let name = name.trim();
        let name = quoted(name).unwrap_or_else(|| name.to_owned());
        let odd = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
        if name.contains(char::is_control) || address.contains(odd) {
            return None;
        }
        let address = address.parse().ok()?;
        Some(Self { address, name })
    }

    fn header(&self) -> String {
        let address = &self.address;
        match self.name.as_str() {
            "" => address.to_string(),
            name if name.is_ascii() => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                format!("\"{name}\" <{address}>")
            }
            name => format!("{} <{address}>", words(name)),
        }
    }
}

/// Writes a mail. `subject` is one line, and no line of `text` is longer than 900 characters. The same of both makes the same `Message-ID`, by which
/// servers know what came twice.
pub(super) fn letter(
    from: &Person,
    to: &[Person],
    subject: &str,
    text: &str,
    now: SystemTime,
) -> Vec<u8> {
    let print = xxh3_128(format!("{subject}\n{text}").as_bytes());
    let to: Vec<String> = to.iter().map(Person::header).collect();
    let subject = match subject.is_ascii() {
        true => subject.to_owned(),
        false => words(subject),
    };
    let (encoding, text) = match text.is_ascii() {
        true => ("7bit", text.trim_end().replace('\n', "\r\n")),
        false => ("base64", lines(&text.replace('\n', "\r\n"))),
    };
    let head = [
        format!("Date: {}", date(now)),
        format!("From: {}", from.header()),
        format!("To: {}", to.join(",\r\n ")),
        format!("Subject: {subject}"),
        format!(
            "Message-ID: <larder.{print:032x}@{}>",
            from.address.domain()
        ),
        "MIME-Version: 1.0".to_owned(),
        "Content-Type: text/plain; charset=utf-8".to_owned(),
        format!("Content-Transfer-Encoding: {encoding}"),
        // Nobody who is on holiday has to say so.
        "Auto-Submitted: auto-generated".to_owned(),
    ];
    format!("{}\r\n\r\n{text}", head.join("\r\n")).into_bytes()
}

/// In UTC, which mails spell otherwise than HTTP does.
fn date(now: SystemTime) -> String {
    httpdate::fmt_http_date(now).replace("GMT", "+0000")
}

/// A text in encoded words, a line each.
fn words(text: &str) -> String {
    let mut words = vec![String::new()];
    for c in text.chars() {
        // A character is in one word.
        let full = |word: &String| word.len() + c.len_utf8() > WORD;
        if words.last().is_none_or(full) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let encoded = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

/// A text in lines of Base64.
fn lines(text: &str) -> String {
    let lines = text
        .as_bytes()
        .chunks(LINE)
        .map(|line| STANDARD.encode(line));
    lines.collect::<Vec<_>>().join("\r\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn person(text: &str) -> Person {
        Person::parse(text).unwrap()
    }

    fn written(subject: &str, text: &str) -> String {
        let to = [person("a@example.org"), person("B \"C\" <b@example.org>")];
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let letter = letter(&person("Jörg <j@example.org>"), &to, subject, text, now);
        String::from_utf8(letter).unwrap()
    }

    #[test]
    fn a_letter_is_what_mail_is() {
        let print = xxh3_128(b"[larder] m: 2 events\none\ntwo\n");
        let expected = format!(
            "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
             From: =?utf-8?B?SsO2cmc=?= <j@example.org>\r\n\
             To: a@example.org,\r\n \"B \\\"C\\\"\" <b@example.org>\r\n\
             Subject: [larder] m: 2 events\r\n\
             Message-ID: <larder.{print:032x}@example.org>\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 7bit\r\n\
             Auto-Submitted: auto-generated\r\n\
             \r\n\
             one\r\ntwo"
        );
        assert_eq!(written("[larder] m: 2 events", "one\ntwo\n"), expected);
    }

    #[test]
    fn what_is_not_ascii_is_written_in_it() {
        let (subject, text) = ("grüße ".repeat(40), "ä…\nö\n".repeat(100));
        let letter = written(&subject, &text);
        assert!(letter.is_ascii());
        assert!(letter.lines().all(|line| line.len() <= 78), "{letter}");
        let (head, body) = letter.split_once("\r\n\r\n").unwrap();
        let decoded = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        assert_eq!(
            decoded(&body.replace("\r\n", "")),
            text.replace('\n', "\r\n")
        );
        let head = head.split("Subject: ").nth(1).unwrap();
        let words = head.split("=?utf-8?B?").skip(1);
        let words = words.map(|word| decoded(word.split("?=").next().unwrap()));
        assert_eq!(words.collect::<String>(), subject);
    }

    #[test]
    fn people_are_who_they_are() {
        for (text, name, address) in [
            ("a@h.example", "", "a@h.example"),
            (" A B <a@h.example> ", "A B", "a@h.example"),
            ("\"A, B\" <a@h.example>", "A, B", "a@h.example"),
            ("<a@h.example>", "", "a@h.example"),
            ("a+b@[127.0.0.1]", "", "a+b@[127.0.0.1]"),
        ] {
            let person = person(text);
            assert_eq!(
                (person.name.as_str(), person.address.to_string().as_str()),
                (name, address)
            );
        }
        for text in [
            "",
            "a",
            "@h",
            "a@",
            "a@h, b@h",
            "A <a@h",
            "a@h>",
            "a b@h",
            "a@h\r\nBcc: b@h",
            "A\r\nBcc: b <a@h>",
            "ä@h",
            "a@ä.example",
            "A <a@h> <",
        ] {
            assert_eq!(Person::parse(text), None, "{text}");
        }
    }
}
