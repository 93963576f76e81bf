//! What a response says about being cached.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};

/// The directives of `Cache-Control` that matter here, by RFC 9111. Others are nothing to a cache like this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) only_if_cached: bool,
    pub(super) must_revalidate: bool,
    max_age: Option<u64>,
    s_maxage: Option<u64>,
}

impl Control {
    /// All such headers together.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            // What is no text says nothing that could be relied on.
            let Ok(text) = value.to_str() else {
                control.no_store = true;
                continue;
            };
            split(text).for_each(|directive| control.take(directive));
        }
        control
    }

    fn take(&mut self, directive: &str) {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name.trim(), Some(argument.trim().trim_matches('"'))),
            None => (directive.trim(), None),
        };
        let seconds = || {
            let argument = argument.unwrap_or_default();
            let is_number =
                !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_digit());
            // Too large a number is for very long, and what is none for not at all.
            let number = argument.parse().unwrap_or(u64::from(u32::MAX));
            Some(if is_number { number } else { 0 })
        };
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "only-if-cached" => self.only_if_cached = true,
            // Of two, the shorter.
            "max-age" => self.max_age = self.max_age.into_iter().chain(seconds()).min(),
            "s-maxage" => self.s_maxage = self.s_maxage.into_iter().chain(seconds()).min(),
            _ => {}
        }
    }

    /// For how long a cache that many share may keep it, if it says so.
    pub(super) fn life(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age).map(Duration::from_secs)
    }

    /// Whether it is for one client alone, or for nobody to keep.
    pub(super) fn is_kept_from_others(&self) -> bool {
        self.no_store || self.no_cache || self.private
    }
}

/// For how long a response says that it may be kept, less the age that it has already.
pub(super) fn life(headers: &HeaderMap, control: Control) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let said = control.life().or_else(|| {
        let expires = httpdate::parse_http_date(text(header::EXPIRES)?);
        let date = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        let now = date.unwrap_or_else(SystemTime::now);
        // What is no date is over already.
        let left = expires
            .ok()
            .and_then(|expires| expires.duration_since(now).ok());
        Some(left.unwrap_or_default())
    })?;
    let age = text(header::AGE)
        .and_then(|age| age.parse().ok())
        .unwrap_or(0);
    Some(said.saturating_sub(Duration::from_secs(age)))
}

/// Whether a response is one to be seen as it comes.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
    })
}

/// At commas that stand in no quotes.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// Whether a response is told apart by no other headers of the request than these.
pub(super) fn varies_by(headers: &HeaderMap, known: &[HeaderName]) -> bool {
    headers.get_all(header::VARY).iter().all(|value| {
        let Ok(text) = value.to_str() else {
            return false;
        };
        text.split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .all(|name| {
                known
                    .iter()
                    .any(|known| known.as_str().eq_ignore_ascii_case(name))
            })
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn control(values: &[&'static str]) -> Control {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        Control::of(&headers)
    }

    #[test]
    fn directives_are_read() {
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(control(&[]).life(), None);
        assert_eq!(control(&["max-age=60"]).life(), secs(60));
        assert_eq!(control(&["Max-Age = \"60\" , public"]).life(), secs(60));
        assert_eq!(control(&["max-age=60", "s-maxage=5"]).life(), secs(5));
        assert_eq!(control(&["max-age=60, max-age=7"]).life(), secs(7));
        assert_eq!(control(&["max-age=soon"]).life(), secs(0));
        assert_eq!(control(&["max-age"]).life(), secs(0));
        assert_eq!(control(&["max-age=-1"]).life(), secs(0));
        assert_eq!(
            control(&["max-age=99999999999999999999999"]).life(),
            secs(u32::MAX.into())
        );
        for kept in [
            "no-store",
            "public, PRIVATE",
            "no-cache=\"set-cookie\"",
            "private=\"a, b\", max-age=5",
        ] {
            assert!(control(&[kept]).is_kept_from_others(), "{kept}");
        }
        for shared in ["public", "x=\"no-store\"", "x=\"a, private\"", "no-storex"] {
            assert!(!control(&[shared]).is_kept_from_others(), "{shared}");
        }
    }

    #[test]
    fn a_date_says_how_long_where_nothing_else_does() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let headers: HeaderMap = pairs.collect();
            life(&headers, Control::of(&headers))
        };
        let date = (header::DATE, "Tue, 15 Nov 1994 12:45:26 GMT");
        let later = (header::EXPIRES, "Tue, 15 Nov 1994 12:46:26 GMT");
        assert_eq!(of(&[]), None);
        assert_eq!(
            of(&[date.clone(), later.clone()]),
            Some(Duration::from_secs(60))
        );
        let aged = (header::AGE, "50");
        assert_eq!(
            of(&[date.clone(), later.clone(), aged.clone()]),
            Some(Duration::from_secs(10))
        );
        let control = (header::CACHE_CONTROL, "max-age=70");
        assert_eq!(
            of(&[date, later, control, aged]),
            Some(Duration::from_secs(20))
        );
        for over in ["0", "-1", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(
                of(&[(header::EXPIRES, over)]),
                Some(Duration::ZERO),
                "{over}"
            );
        }
    }

    #[test]
    fn a_header_that_is_no_text_keeps_others_off() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"max-age=5\xff").unwrap();
        headers.insert(header::CACHE_CONTROL, value);
        assert!(Control::of(&headers).is_kept_from_others());
    }

    #[test]
    fn what_varies_is_known_or_not() {
        let known = [header::ACCEPT, header::ACCEPT_LANGUAGE];
        let varies = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::VARY, HeaderValue::from_static(value));
            varies_by(&headers, &known)
        };
        assert!(varies_by(&HeaderMap::new(), &[]));
        for value in ["accept", "Accept, ACCEPT-language", ""] {
            assert!(varies(value), "{value}");
        }
        for value in ["*", "accept, cookie", "acc"] {
            assert!(!varies(value), "{value}");
        }
    }
}
