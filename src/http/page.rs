//! A response as it is kept.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use serde::{Deserialize, Serialize};

use super::conditional::is_not_modified;
use crate::digest;

/// A whole response: what many requests are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    status: u16,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
    /// For how long it is kept, where that has an end.
    life: Option<Duration>,
}

/// These are about one connection, not about what is answered.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// These a client is told again that has the body already.
const OF_NOT_MODIFIED: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::CONTENT_LOCATION,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::VARY,
];

impl Page {
    /// What a handler answered. One without an `ETag` is given one of its body.
    pub(super) fn new(parts: &response::Parts, body: Bytes, life: Option<Duration>) -> Self {
        let named_by_connection = |name: &HeaderName| {
            parts
                .headers
                .get_all(header::CONNECTION)
                .iter()
                .any(|value| {
                    let listed = value.to_str().unwrap_or_default().split(',');
                    listed
                        .map(str::trim)
                        .any(|listed| listed.eq_ignore_ascii_case(name.as_str()))
                })
        };
        let kept = parts.headers.iter().filter(|(name, _)| {
            !HOP_BY_HOP.contains(&name.as_str())
                && *name != header::AGE
                && *name != header::CONTENT_LENGTH
                && !named_by_connection(name)
        });
        let kept = kept.map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (name.as_str().to_owned(), value)
        });
        let mut headers: Vec<_> = kept.collect();
        if !parts.headers.contains_key(header::ETAG) {
            let etag = format!("\"{}\"", digest::text(&body));
            headers.push((header::ETAG.as_str().to_owned(), etag.into()));
        }
        Self {
            status: parts.status.as_u16(),
            headers,
            body,
            life,
        }
    }

    /// For how long it is kept, where that has an end.
    pub(super) fn life(&self) -> Option<Duration> {
        self.life
    }

    /// What a client is answered whose request had these headers: its body is left out where the client has it.
    pub(super) fn answer(
        &self,
        asked: &HeaderMap,
        with_body: bool,
    ) -> (StatusCode, HeaderMap, Bytes) {
        // What is stored was a response's once.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(name.as_str()),
                HeaderValue::from_maybe_shared(value.clone()),
            ) {
                headers.append(name, value);
            }
        }
        if status.is_success() && is_not_modified(asked, &headers) {
            let mut told = HeaderMap::new();
            for name in OF_NOT_MODIFIED {
                for value in headers.get_all(&name) {
                    told.append(&name, value.clone());
                }
            }
            return (StatusCode::NOT_MODIFIED, told, Bytes::new());
        }
        // What has no body at all has no length of one.
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, self.body.len().into());
        }
        let body = if with_body {
            self.body.clone()
        } else {
            Bytes::new()
        };
        (status, headers, body)
    }
}
