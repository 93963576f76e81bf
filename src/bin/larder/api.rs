//! A manager, asked by HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::http::Http;

/// For an answer: a node that is emptied first takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before a request is made again of which there were too many.
const AGAIN: Duration = Duration::from_millis(200);

/// The longest answer.
const MAX_ANSWER: usize = 64 << 20;

/// Where a manager is, and what it asks for.
pub(crate) struct Api {
    /// Before the paths.
    base: String,
    token: Option<String>,
    http: Http,
}

impl Api {
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Self, Failure> {
        let url: Uri = url
            .parse()
            .map_err(|_| "a manager's url is http://host:port")?;
        Ok(Self {
            base: url.path().trim_end_matches('/').to_owned(),
            token,
            http: Http::of(&url)?,
        })
    }

    /// A text as a part of a query.
    pub(crate) fn encoded(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, String::new()).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, String::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.ask(Method::POST, path, serde_json::to_string(body)?)
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, Failure> {
        let asked = async {
            loop {
                let (status, answer) = self.once(&method, path, body.clone()).await?;
                if status != StatusCode::TOO_MANY_REQUESTS {
                    return Ok::<_, Failure>((status, answer));
                }
                // Of this program's own, perhaps.
                sleep(AGAIN).await;
            }
        };
        let Ok(answer) = timeout(PATIENCE, asked).await else {
            return Err(format!("the manager does not answer within {PATIENCE:?}").into());
        };
        let (status, body) = answer?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| "what answers is no manager of this version".into());
        }
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        match said["error"]["message"].as_str() {
            Some(why) => Err(why.into()),
            None => Err(format!("what answers is no manager: HTTP {status}").into()),
        }
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.base))
            .header("host", self.http.called())
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = self.http.send(request).await;
        let answer =
            answer.map_err(|error| format!("the manager cannot be asked: {}", whole(&*error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the manager's answer broke off: {error}"))?;
        Ok((status, body.to_bytes()))
    }
}

/// An error with its causes, which hyper keeps to itself.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
