//! Which requests are answered alike.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{self, HeaderName};
use http::request::Parts;

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
    },
    Fixed(Arc<str>),
    Computed(Arc<dyn Fn(&Parts) -> String + Send + Sync>),
}

/// The key of a request, behind the cache's prefix.
pub(super) fn key(prefix: &str, named: &Named, vary: &[HeaderName], request: &Parts) -> String {
    let mut key = prefix.to_owned();
    match named {
        Named::Fixed(name) => key.push_str(name),
        Named::Computed(name) => key.push_str(&name(request)),
        Named::Uri {
            with_host,
            with_query,
        } => {
            let mut uri = String::new();
            if *with_host {
                uri.push_str(&host(request));
            }
            uri.push_str(request.uri.path());
            let query = request.uri.query().filter(|_| *with_query);
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
    key
}

/// Which host is asked. What follows may answer by it.
fn host(request: &Parts) -> String {
    let authority = request.uri.authority().map(|authority| authority.as_str());
    let named = request
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    authority.or(named).unwrap_or_default().to_ascii_lowercase()
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

    const URI: Named = Named::Uri {
        with_host: true,
        with_query: true,
    };

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    fn of(uri: &str) -> String {
        key("", &URI, &[], &parts(uri, &[]))
    }

    #[test]
    fn a_view_is_its_uri() {
        assert_eq!(of("/users/42"), "view//users/42");
        assert_eq!(of("/works?b=2&a=1&&b=1"), "view//works?a=1&b=2&b=1");
        assert_eq!(of("/works?"), "view//works");
        assert_eq!(of("http://Example.org/a"), "view/example.org/a");
        let hosted = parts("/a", &[("host", "Example.org")]);
        assert_eq!(key("BEI:", &URI, &[], &hosted), "BEI:view/example.org/a");
        let named = Named::Uri {
            with_host: false,
            with_query: false,
        };
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
    fn a_long_uri_is_hashed() {
        let long = |end: &str| of(&format!("/{}{end}", "x".repeat(3000)));
        assert_eq!(long("a").len(), "view/#".len() + 32);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn chosen_headers_tell_requests_apart() {
        let vary = [header::ACCEPT, header::ACCEPT_LANGUAGE];
        let of = |headers: &[(&str, &str)]| key("", &URI, &vary, &parts("/a", headers));
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
