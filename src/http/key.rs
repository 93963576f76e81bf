//! Which requests are answered alike.

use std::fmt::Write as _;
use std::sync::Arc;

use http::Uri;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::Authority;

use crate::digest;

/// What a view's key begins with, behind the cache's prefix.
const VIEW: &str = "view/";

/// A longer one is hashed.
const MOST: usize = 512;

/// What a key is made of.
#[derive(Clone)]
pub(super) enum Named {
    /// Host, path, and sorted query.
    Uri {
        with_host: bool,
        with_query: bool,
        /// What a router took off the path before it came here.
        within: Arc<str>,
    },
    Fixed(Arc<str>),
    Computed(Arc<dyn Fn(&Parts) -> String + Send + Sync>),
}

/// The key of a request, behind the cache's prefix; nothing where it is not to be told which host is asked.
pub(super) fn key(
    prefix: &str,
    named: &Named,
    vary: &[HeaderName],
    request: &Parts,
) -> Option<String> {
    let mut key = prefix.to_owned();
    match named {
        Named::Fixed(name) => key.push_str(name),
        Named::Computed(name) => key.push_str(&name(request)),
        Named::Uri {
            with_host,
            with_query,
            within,
        } => {
            let mut uri = String::new();
            if *with_host {
                uri.push_str(&host(request)?);
            }
            let asked = whole(request);
            uri.push_str(within);
            uri.push_str(asked.path());
            let query = asked.query().filter(|_| *with_query);
            let query = sorted(query.unwrap_or_default());
            if !query.is_empty() {
                uri.push('?');
                uri.push_str(&query);
            }
            key.push_str(VIEW);
            if uri.len() > MOST || uri.chars().any(char::is_control) {
                let _ = write!(key, "#{}", digest::text(uri.as_bytes()));
            } else {
                key.push_str(&uri);
            }
        }
    }
    if !vary.is_empty() {
        let _ = write!(key, "#{}", digest::text(&varied(vary, request)));
    }
    Some(key)
}

/// What was asked, before a router took anything off it.
fn whole(request: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    &request.uri
}

/// Which host is asked, empty if none. What follows may answer by it, so nothing else may be taken for one: not what holds a part of a
/// path, and not one of two.
fn host(request: &Parts) -> Option<String> {
    let mut named = request.headers.get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    let named = match first {
        None => None,
        Some(host) if host.is_empty() => None,
        Some(host) => Some(Authority::try_from(host.as_bytes()).ok()?),
    };
    let host = match (request.uri.authority(), named) {
        (Some(authority), Some(named)) if authority.as_str() != named.as_str() => return None,
        (Some(authority), _) => authority.as_str().to_ascii_lowercase(),
        (None, Some(named)) => named.as_str().to_ascii_lowercase(),
        (None, None) => String::new(),
    };
    (second.is_none() && !host.contains('@')).then_some(host)
}

/// The parts of a query in the order of their bytes: those that say the same have one key, but for how they are encoded.
fn sorted(query: &str) -> String {
    let mut parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    // Of one name, the order may say something.
    parts.sort_by_key(|part| part.split('=').next().unwrap_or_default());
    parts.join("&")
}

/// The headers that tell requests apart: each one's values with their lengths before them.
fn varied(vary: &[HeaderName], request: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in vary {
        let values: Vec<_> = request.headers.get_all(name).iter().collect();
        bytes.extend_from_slice(&(values.len() as u64).to_le_bytes());
        for value in values {
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn uri(with_host: bool, with_query: bool) -> Named {
        Named::Uri {
            with_host,
            with_query,
            within: "".into(),
        }
    }

    fn key(prefix: &str, named: &Named, vary: &[HeaderName], request: &Parts) -> String {
        super::key(prefix, named, vary, request).unwrap()
    }

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    fn of(asked: &str) -> String {
        key("", &uri(true, true), &[], &parts(asked, &[]))
    }

    #[test]
    fn a_view_is_its_uri() {
        assert_eq!(of("/users/42"), "view//users/42");
        assert_eq!(of("/works?b=2&a=1&&b=1"), "view//works?a=1&b=2&b=1");
        assert_eq!(of("/works?"), "view//works");
        assert_eq!(of("http://Example.org/a"), "view/example.org/a");
        let hosted = parts("/a", &[("host", "Example.org")]);
        assert_eq!(
            key("BEI:", &uri(true, true), &[], &hosted),
            "BEI:view/example.org/a"
        );
        let named = uri(false, false);
        assert_eq!(
            key("", &named, &[], &parts("/a?b", &[("host", "x")])),
            "view//a"
        );
    }

    #[test]
    fn a_key_may_be_given_or_computed() {
        let request = parts("/users/42?x=1", &[("accept", "text/html")]);
        let fixed = Named::Fixed("binary".into());
        assert_eq!(key("BEI:", &fixed, &[], &request), "BEI:binary");
        let computed = Named::Computed(Arc::new(|parts: &Parts| {
            format!("len {}", parts.uri.path().len())
        }));
        assert_eq!(key("", &computed, &[], &request), "len 9");
    }

    #[test]
    fn what_is_no_host_is_no_key() {
        for host in [
            "example.org/admin",
            "h/works?x=",
            "a@b",
            "ex\u{e4}mple",
            "a b",
            "a#b",
        ] {
            let request = parts("/users", &[("host", host)]);
            let made = super::key("", &uri(true, true), &[], &request);
            assert_eq!(made, None, "{host}");
        }
        let two = parts("/", &[("host", "a"), ("host", "b")]);
        assert_eq!(super::key("", &uri(true, true), &[], &two), None);
        let other = parts("http://shop.org/", &[("host", "evil.org")]);
        assert_eq!(super::key("", &uri(true, true), &[], &other), None);
        let same = parts("http://shop.org:80/", &[("host", "shop.org:80")]);
        assert_eq!(key("", &uri(true, true), &[], &same), "view/shop.org:80/");
    }

    #[test]
    fn what_a_router_took_off_is_put_back() {
        let within = Named::Uri {
            with_host: false,
            with_query: true,
            within: "/v1".into(),
        };
        assert_eq!(
            key("", &within, &[], &parts("/a?b=1", &[])),
            "view//v1/a?b=1"
        );
    }

    #[test]
    fn a_long_uri_is_hashed() {
        let long = |end: &str| of(&format!("/{}{end}", "x".repeat(3000)));
        assert_eq!(long("a").len(), "view/#".len() + 32);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn chosen_headers_tell_requests_apart() {
        let vary = [header::ACCEPT, header::ACCEPT_LANGUAGE];
        let of = |headers: &[(&str, &str)]| key("", &uri(true, true), &vary, &parts("/a", headers));
        let keys = [
            of(&[]),
            of(&[("accept", "")]),
            of(&[("accept", "a")]),
            of(&[("accept-language", "a")]),
            of(&[("accept", "a"), ("accept", "b")]),
            of(&[("accept", "ab")]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(
            of(&[("accept", "a")]),
            of(&[("accept", "a"), ("cookie", "1")])
        );
    }
}
