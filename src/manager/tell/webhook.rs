//! A server that is told by HTTP.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::message::Message;
use super::settings::Secret;
use super::stream::{Stream, bare, shown, without_tls};
use crate::error::{Error, ErrorKind, Result};

/// How long it may take, and how long the rest of an answer that is good anyway.
const WITHIN: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(1);

/// What is read of an answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Where a `POST` of JSON goes: `{"ring": .., "events": [{"id": .., "kind": .., "node": .., "text": .., "at": ..}]}`, with `at` in seconds since
/// 1970, a `node` of `null` where it is about all of them, and `"more"` where there are more than 100, as many as are left out before these. Any
/// answer of 200 to 299 within ten seconds is success; redirects are not followed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Webhook {
    /// `http://` or, with the crate's feature `tls`, `https://`, for a host whose certificate one of the system's roots vouches for (or one in the
    /// file that the environment variable `SSL_CERT_FILE` names). User and password in it are sent by `Authorization: Basic`. Of all of it, only
    /// host and port are ever shown.
    pub url: Secret,
    /// What is sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
}

impl Webhook {
    /// The one at this url, without a token.
    #[must_use]
    pub fn new(url: impl Into<Secret>) -> Self {
        let (url, token) = (url.into(), None);
        Self { url, token }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Endpoint::of(self).map_or_else(|_| "?".to_owned(), |endpoint| endpoint.shown());
        f.debug_struct("Webhook")
            .field("at", &at)
            .field("token", &self.token)
            .finish()
    }
}

/// A webhook that was understood.
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    /// With what else has to be secret.
    path: String,
    authorization: Option<HeaderValue>,
}

impl Endpoint {
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no url, or a token that cannot be sent; [`ErrorKind::Unsupported`] for TLS in a build without it.
    pub(super) fn of(webhook: &Webhook) -> Result<Self> {
        let no_url = || wrong("the url is none, like http://host:port/path or https://host/path");
        // The parser's words might hold a part of it.
        let url: Uri = webhook.url.expose().parse().map_err(|_| no_url())?;
        let authority = url.authority().ok_or_else(no_url)?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(no_url()),
        };
        if tls && !cfg!(feature = "tls") {
            return Err(without_tls());
        }
        let host = bare(authority.host());
        if host.is_empty() {
            return Err(no_url());
        }
        let at = authority.as_str();
        let (user, at) = match at.rsplit_once('@') {
            Some((user, at)) => (Some(user), at),
            None => (None, at),
        };
        // The parser takes any text for a port, and says that there is none.
        let port = match at.strip_prefix(authority.host()) {
            Some("") => Some(usual_port(tls)),
            _ => authority.port_u16().filter(|port| *port > 0),
        };
        let port = port.ok_or_else(no_url)?;
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: url
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            authorization: authorization(user, webhook.token.as_ref())?,
        })
    }

    /// All that may be shown of it.
    pub(super) fn shown(&self) -> String {
        shown(&self.host, self.port)
    }

    /// Tells it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] where it is not there, [`ErrorKind::Rejected`] where it does not want to know, [`ErrorKind::Timeout`] after ten
    /// seconds.
    ///
    /// # Cancellation
    ///
    /// Dropped, it may have been told or not.
    pub(super) async fn send(&self, message: &Message) -> Result<()> {
        let at = self.shown();
        let told = timeout(WITHIN, self.post(message.json())).await;
        let answer = told.unwrap_or_else(|_| {
            let why = format!("no answer from {at} within {WITHIN:?}");
            Err(Error::new(ErrorKind::Timeout, why))
        })?;
        if !answer.is_success() {
            let why = format!("{at} answered {}", answer.as_u16());
            return Err(Error::new(ErrorKind::Rejected, why));
        }
        Ok(())
    }

    async fn post(&self, json: String) -> Result<http::StatusCode> {
        let stream = Stream::connect(&self.host, self.port, self.tls).await?;
        // An error of this one says nothing of what was asked.
        let failed = |error: hyper::Error| {
            let why = format!("{}: {error}", self.shown());
            Error::new(ErrorKind::Unavailable, why)
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_ANSWER);
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = made.map_err(failed)?;
        let request = self.request(json)?;
        let asked = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            // Whoever hangs up on a server in the middle of its answer may be taken for one who was not there.
            let _ = timeout(REST, read(answer)).await;
            Ok(status)
        };
        let driven = async {
            // What went wrong is what the request fails with.
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            status = asked => status,
            never = driven => match never {},
        }
    }

    fn request(&self, json: String) -> Result<Request<Full<Bytes>>> {
        let usual = self.port == usual_port(self.tls);
        let shown = self.shown();
        let host = match usual {
            true => shown.rsplit_once(':').map_or(&*shown, |(host, _)| host),
            false => &*shown,
        };
        let mut request = Request::post(&self.path)
            .header(HOST, host)
            .header(
                USER_AGENT,
                concat!("larder-manager/", env!("CARGO_PKG_VERSION")),
            )
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(Bytes::from(json)));
        request.map_err(|_| wrong("the url cannot be asked for"))
    }
}

fn wrong(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("webhook: {why}"))
}

fn usual_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// What is shown to a server that asks who comes.
fn authorization(user: Option<&str>, token: Option<&Secret>) -> Result<Option<HeaderValue>> {
    let text = match (user, token) {
        (Some(_), Some(_)) => return Err(wrong("a token, or a user in the url: one of them")),
        (Some(user), None) => format!("Basic {}", STANDARD.encode(credentials(user))),
        (None, Some(token)) => format!("Bearer {}", token.expose()),
        (None, None) => return Ok(None),
    };
    let value = HeaderValue::from_str(&text);
    let mut value = value.map_err(|_| wrong("the token holds what cannot be sent"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Reads an answer, and throws it away.
async fn read(answer: Response<Incoming>) {
    let mut body = Limited::new(answer.into_body(), MAX_ANSWER);
    while let Some(Ok(_)) = body.frame().await {}
}

/// User and password as they are, without their escapes.
fn credentials(user: &str) -> Vec<u8> {
    // Of a user without a password there is an empty one.
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut both: Vec<u8> = percent_decode_str(user).collect();
    both.push(b':');
    both.extend(percent_decode_str(password));
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::of(&Webhook::new(url))
    }

    #[test]
    fn urls_are_understood() {
        for (url, shown, host, path) in [
            ("http://h", "h:80", "h", "/"),
            ("http://h:8080/a/b?c=d#e", "h:8080", "h:8080", "/a/b?c=d"),
            ("http://[::1]:9/x", "[::1]:9", "[::1]:9", "/x"),
            ("http://[::1]", "[::1]:80", "[::1]", "/"),
        ] {
            let endpoint = endpoint(url).unwrap();
            assert_eq!(
                (endpoint.shown().as_str(), endpoint.path.as_str()),
                (shown, path)
            );
            let request = endpoint.request("{}".to_owned()).unwrap();
            assert_eq!(
                (request.uri().to_string().as_str(), &request.headers()[HOST]),
                (path, &HeaderValue::from_str(host).unwrap())
            );
            assert!(!request.headers().contains_key(AUTHORIZATION));
        }
        if cfg!(feature = "tls") {
            let endpoint = endpoint("https://hooks.example.org/x").unwrap();
            assert_eq!(endpoint.shown(), "hooks.example.org:443");
            assert_eq!(
                endpoint.request(String::new()).unwrap().headers()[HOST],
                "hooks.example.org"
            );
        }
        let known = endpoint("http://us%40er:p%3Aw@h/").unwrap();
        let sent = STANDARD.encode("us@er:p:w");
        assert_eq!(known.authorization.unwrap(), format!("Basic {sent}"));
        let mut webhook = Webhook::new("http://h/");
        webhook.token = Some("abc".into());
        assert_eq!(
            Endpoint::of(&webhook).unwrap().authorization.unwrap(),
            "Bearer abc"
        );
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_repeated() {
        for wrong in [
            "",
            "canary",
            "/canary",
            "ftp://canary/",
            "redis://:canary@h:1/0",
            "http://",
            "http:///canary",
            "http://canary@",
            "http://h:0/canary",
            "http://h:canary/",
            "http://h:99999/canary",
            "http://h:/canary",
            "http://h/can ary",
        ] {
            let error = endpoint(wrong)
                .map(|endpoint| endpoint.shown())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
            let shown = format!("{error} {error:?} {:?}", Webhook::new(wrong));
            assert!(!shown.contains("canary"), "{shown}");
        }
        for (url, token) in [("http://h", "can\nary"), ("http://canary@h", "canary")] {
            let mut webhook = Webhook::new(url);
            webhook.token = Some(token.into());
            let error = Endpoint::of(&webhook)
                .map(|endpoint| endpoint.shown())
                .unwrap_err();
            assert!(
                !format!("{error} {error:?} {webhook:?}").contains("ary"),
                "{error}"
            );
        }
    }
}
