//! Requests that want an answer only if it is another than they have.

use http::header::{self, HeaderMap};

/// Whether the client has what these headers are of, by RFC 9110, section 13.
pub(super) fn is_not_modified(asked: &HeaderMap, ours: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        // Where this is asked, a date is not looked at.
        let Some(etag) = ours.get(header::ETAG).and_then(|etag| etag.to_str().ok()) else {
            return false;
        };
        let mut lists = asked.get_all(header::IF_NONE_MATCH).iter();
        return lists.any(|list| list.to_str().is_ok_and(|list| lists_tag(list, etag)));
    }
    let date = |headers: &HeaderMap, name| {
        let value = headers.get(name)?.to_str().ok()?;
        httpdate::parse_http_date(value).ok()
    };
    let since = date(asked, header::IF_MODIFIED_SINCE);
    let modified = date(ours, header::LAST_MODIFIED);
    since
        .zip(modified)
        .is_some_and(|(since, modified)| modified <= since)
}

/// Whether a list of tags has this one; whether either is weak is nothing to a GET.
fn lists_tag(list: &str, etag: &str) -> bool {
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let own = strong(etag);
    let mut rest = list.trim();
    if rest == "*" {
        return true;
    }
    // Commas may stand in a tag.
    while let Some(begin) = rest.find('"') {
        let Some(len) = rest[begin + 1..].find('"') else {
            return false;
        };
        let end = begin + len + 2;
        if rest[begin..end] == *own {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_tag_that_is_listed_is_not_sent_again() {
        let ours = headers(&[(header::ETAG, "\"a,b\"")]);
        for list in [
            "\"a,b\"",
            "W/\"a,b\"",
            "\"x\", \"a,b\"",
            " * ",
            "\"x\",W/\"a,b\" ,\"y\"",
        ] {
            let asked = headers(&[(header::IF_NONE_MATCH, list)]);
            assert!(is_not_modified(&asked, &ours), "{list}");
        }
        for list in ["\"a\"", "a,b", "\"a,b", "", "\"x\" a,b"] {
            let asked = headers(&[(header::IF_NONE_MATCH, list)]);
            assert!(!is_not_modified(&asked, &ours), "{list}");
        }
        let weak = headers(&[(header::ETAG, "W/\"1\"")]);
        let asked = headers(&[(header::IF_NONE_MATCH, "\"1\"")]);
        assert!(is_not_modified(&asked, &weak));
        assert!(!is_not_modified(&asked, &HeaderMap::new()));
    }

    #[test]
    fn what_is_no_younger_is_not_sent_again() {
        let at = |date| headers(&[(header::LAST_MODIFIED, date)]);
        let ours = at("Tue, 15 Nov 1994 12:45:26 GMT");
        let since = |date| headers(&[(header::IF_MODIFIED_SINCE, date)]);
        assert!(is_not_modified(
            &since("Tue, 15 Nov 1994 12:45:26 GMT"),
            &ours
        ));
        assert!(is_not_modified(
            &since("Wed, 16 Nov 1994 12:45:26 GMT"),
            &ours
        ));
        assert!(!is_not_modified(
            &since("Mon, 14 Nov 1994 12:45:26 GMT"),
            &ours
        ));
        assert!(!is_not_modified(&since("yesterday"), &ours));
        // A tag goes before a date.
        let both = headers(&[
            (header::IF_NONE_MATCH, "\"1\""),
            (header::IF_MODIFIED_SINCE, "Wed, 16 Nov 1994 12:45:26 GMT"),
        ]);
        assert!(!is_not_modified(&both, &ours));
    }
}
