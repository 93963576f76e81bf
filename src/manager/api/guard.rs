//! Who may ask, how often, and how much.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::App;
use super::v1::refusal;

/// The longest body, in bytes.
const MAX_BODY: usize = 16 << 10;

/// For a body to arrive.
const BODY: Duration = Duration::from_secs(5);

/// What is asked of each request.
pub(in crate::manager) struct Guard {
    token: Option<String>,
    /// The names by which the manager is called; none, and any will do.
    hosts: Vec<String>,
    /// Of requests that are answered, and of those that are not: who has no token takes nothing from who has one.
    answered: Bucket,
    refused: Bucket,
}

/// So many in a second, and so many at once.
struct Bucket {
    room: Mutex<(f64, Instant)>,
    rate: f64,
}

impl Guard {
    pub(in crate::manager) fn new(
        token: Option<String>,
        hosts: &[String],
        at: IpAddr,
        rate: u32,
    ) -> Self {
        let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let hosts = match hosts {
            // Whoever has no token is told by a name that leads here that it is meant for somebody else.
            [] if at.is_loopback() => own.into_iter().chain([named(&at.to_string())]).collect(),
            hosts => hosts.iter().map(|host| named(host)).collect(),
        };
        Self {
            token,
            hosts,
            answered: Bucket::new(rate),
            refused: Bucket::new(rate),
        }
    }

    /// Why a request is not answered.
    fn refuses(&self, method: &Method, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).map(str::to_lowercase);
        let called = host.as_deref().map(without_port);
        let known = |called: &str| self.hosts.iter().any(|host| host == called);
        if !self.hosts.is_empty() && !called.is_some_and(known) {
            return Some((
                StatusCode::FORBIDDEN,
                "this manager is not called by that name (Host)",
            ));
        }
        let site = text(header::HeaderName::from_static("sec-fetch-site"));
        let is_foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
        // Another page cannot read what is answered, but have a manager be busy.
        if is_foreign {
            return Some((
                StatusCode::FORBIDDEN,
                "another page's requests are not answered (Sec-Fetch-Site)",
            ));
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let origin = text(header::ORIGIN).map(|origin| {
                origin
                    .split_once("://")
                    .map_or(origin, |(_, at)| at)
                    .to_lowercase()
            });
            let foreign = origin.is_some_and(|origin| Some(&origin) != host.as_ref());
            if foreign {
                return Some((
                    StatusCode::FORBIDDEN,
                    "another page's requests are not answered (Origin)",
                ));
            }
        }
        let token = self.token.as_ref()?;
        let shown = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let fits = shown
            .is_some_and(|(_, shown)| bool::from(shown.trim().as_bytes().ct_eq(token.as_bytes())));
        (!fits).then_some((
            StatusCode::UNAUTHORIZED,
            "a token is asked for: Authorization: Bearer TOKEN",
        ))
    }
}

impl Bucket {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate.max(1));
        Self {
            room: Mutex::new((rate, Instant::now())),
            rate,
        }
    }

    /// Whether there is room for one more.
    fn admits(&self) -> bool {
        let mut bucket = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.saturating_duration_since(bucket.1).as_secs_f64();
        bucket.0 = (bucket.0 + since * self.rate).min(self.rate);
        bucket.1 = now;
        let room = bucket.0 >= 1.0;
        bucket.0 -= f64::from(u8::from(room));
        room
    }
}

/// A name as it stands in a `Host` header, without a port.
fn named(host: &str) -> String {
    let host = host.to_lowercase();
    match host.parse::<Ipv6Addr>() {
        Ok(addr) => format!("[{addr}]"),
        Err(_) => without_port(&host).to_owned(),
    }
}

fn without_port(host: &str) -> &str {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    }
}

/// Before every request but `/healthz`.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Some((status, why)) = app.guard.refuses(request.method(), request.headers()) {
        if !app.guard.refused.admits() {
            return busy();
        }
        let code = if status == StatusCode::UNAUTHORIZED {
            "unauthorized"
        } else {
            "forbidden"
        };
        let mut refused = refusal(status, code, why).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            refused
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        return refused;
    }
    if !app.guard.answered.admits() {
        return busy();
    }
    let (parts, body) = request.into_parts();
    let request = match timeout(BODY, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => Request::from_parts(parts, Body::from(body)),
        Ok(Err(error)) if is_too_long(&error) => {
            let why = "the body is longer than 16 KiB";
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "too_large", why).into_response();
        }
        Ok(Err(_)) => {
            return refusal(StatusCode::BAD_REQUEST, "bad_request", "the body broke off")
                .into_response();
        }
        Err(_) => {
            let why = "the body did not arrive within 5 seconds";
            return refusal(StatusCode::REQUEST_TIMEOUT, "timeout", why).into_response();
        }
    };
    next.run(request).await
}

fn busy() -> Response {
    let why = "too many requests";
    refusal(StatusCode::TOO_MANY_REQUESTS, "busy", why).into_response()
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(guard: &Guard, method: Method, headers: &[(&'static str, &str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        guard
            .refuses(&method, &map)
            .map(|(status, _)| status.as_u16())
    }

    #[test]
    fn whoever_has_no_business_here_is_refused() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let open = Guard::new(None, &[], loopback, 10);
        let get = |headers: &[(&'static str, &str)]| asked(&open, Method::GET, headers);
        let post = |headers: &[(&'static str, &str)]| asked(&open, Method::POST, headers);
        for host in ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"] {
            assert_eq!(get(&[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:80",
            "",
            "localhost:x",
        ] {
            assert_eq!(get(&[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(get(&[]), Some(403));
        assert_eq!(
            post(&[
                ("host", "localhost:8080"),
                ("origin", "http://localhost:8080")
            ]),
            None
        );
        assert_eq!(
            post(&[
                ("host", "localhost:8080"),
                ("origin", "http://evil.example")
            ]),
            Some(403)
        );
        assert_eq!(
            post(&[
                ("host", "localhost:8080"),
                ("origin", "http://localhost:9090")
            ]),
            Some(403)
        );
        assert_eq!(
            post(&[("host", "localhost:8080"), ("origin", "null")]),
            Some(403)
        );
        assert_eq!(
            post(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]),
            Some(403)
        );
        assert_eq!(
            post(&[("host", "localhost"), ("sec-fetch-site", "same-origin")]),
            None
        );

        let token = "t".repeat(32);
        let far: IpAddr = "10.0.0.1".parse().unwrap();
        let shut = Guard::new(Some(token.clone()), &[], far, 10);
        let get = |headers: &[(&'static str, &str)]| asked(&shut, Method::GET, headers);
        assert_eq!(get(&[("host", "cache.example")]), Some(401));
        for (value, status) in [
            (format!("Bearer {token}"), None),
            (format!("bearer  {token}"), None),
            (format!("Basic {token}"), Some(401)),
            (token.clone(), Some(401)),
            (format!("Bearer {token}x"), Some(401)),
            ("Bearer ".to_owned(), Some(401)),
        ] {
            assert_eq!(get(&[("authorization", &value)]), status, "{value}");
        }
        let named = Guard::new(None, &["Cache.example".to_owned()], far, 10);
        assert_eq!(
            asked(&named, Method::GET, &[("host", "cache.EXAMPLE:80")]),
            None
        );
        assert_eq!(
            asked(&named, Method::GET, &[("host", "localhost")]),
            Some(403)
        );
    }

    #[test]
    fn more_than_so_many_in_a_second_are_too_many() {
        let bucket = Bucket::new(5);
        assert_eq!((0..50).filter(|_| bucket.admits()).count(), 5);
    }
}
