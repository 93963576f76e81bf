//! The manager's own calls, in JSON: `/api/v1`.

use std::sync::Arc;

use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::App;
use crate::error::{Error, ErrorKind};
use crate::manager::cluster::is_unknown;
use crate::manager::member::shown;
use crate::manager::view::{
    ArcsView, EventsView, Findings, Located, Moved, NodesView, Plan, RingView,
};

type Answer<T> = Result<Json<T>, Refusal>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/nodes", get(nodes).post(add).delete(remove))
        .route("/api/v1/nodes/check", post(check))
        .route("/api/v1/nodes/drain", post(drain))
        .route("/api/v1/ring", get(ring))
        .route("/api/v1/ring/arcs", get(arcs))
        .route("/api/v1/ring/verify", get(verify))
        .route("/api/v1/ring/where", get(locate))
        .route("/api/v1/ring/preview", post(preview))
        .route("/api/v1/ring/rebuild", post(rebuild))
        .route("/api/v1/events", get(events))
        .route("/api/v1/health", get(health))
        .method_not_allowed_fallback(not_allowed)
}

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    why: String,
}

pub(super) fn refusal(status: StatusCode, code: &'static str, why: impl Into<String>) -> Refusal {
    let why = why.into();
    Refusal { status, code, why }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.why } });
        (self.status, Json(body)).into_response()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            _ if is_unknown(&error) => (StatusCode::NOT_FOUND, "not_found"),
            ErrorKind::Config | ErrorKind::Key => (StatusCode::BAD_REQUEST, "bad_request"),
            ErrorKind::Busy => (StatusCode::CONFLICT, "conflict"),
            ErrorKind::Rejected => (StatusCode::BAD_GATEWAY, "rejected"),
            _ => (StatusCode::BAD_GATEWAY, "unreachable"),
        };
        refusal(status, code, error.to_string())
    }
}

async fn not_allowed() -> Refusal {
    refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "not_allowed",
        "this path has other methods",
    )
}

/// A body that has to be JSON, and to say so: a form of another page cannot.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<App>) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let why = "a body has to be JSON, and to say so: Content-Type: application/json";
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", why));
        }
        let body = axum::body::Bytes::from_request(request, state).await;
        let bad = |why: String| refusal(StatusCode::BAD_REQUEST, "bad_request", why);
        let body = body.map_err(|_| bad("the body broke off".to_owned()))?;
        // The parser's words may hold what is a password.
        let read = serde_json::from_slice(&body).map_err(|error| {
            bad(format!(
                "the body is not what this call takes, at line {} column {}",
                error.line(),
                error.column()
            ))
        })?;
        Ok(Self(read))
    }
}

async fn nodes(State(app): State<Arc<App>>) -> Answer<NodesView> {
    let mut view = app.admin.nodes().await?;
    let status = app.status.borrow();
    for node in &mut view.nodes {
        if let Some(why) = status.failing.get(&node.node) {
            node.why = Some(why.clone());
        }
    }
    Ok(Json(view))
}

/// A node that somebody wants on the ring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNode {
    url: Option<String>,
    /// One that was taken off or drained, by the url that it had.
    node: Option<String>,
}

async fn add(State(app): State<Arc<App>>, Body(new): Body<NewNode>) -> Answer<Moved> {
    let added = match (&new.url, &new.node) {
        (Some(url), None) => app.admin.add(url).await,
        (None, Some(node)) => app.admin.put_back(node).await,
        _ => {
            let why = "either the url of a new node, or the name of one to be put back";
            return Err(refusal(StatusCode::BAD_REQUEST, "bad_request", why));
        }
    };
    Ok(Json(app.changed(added)?))
}

#[derive(Deserialize)]
struct WhichNode {
    node: String,
    /// That it may be the last one.
    #[serde(default)]
    last: bool,
}

async fn remove(State(app): State<Arc<App>>, Query(which): Query<WhichNode>) -> Answer<Moved> {
    let removed = app.admin.remove(&which.node, which.last).await;
    Ok(Json(app.changed(removed)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    node: String,
    #[serde(default = "ten")]
    steps: u32,
}

fn ten() -> u32 {
    10
}

async fn drain(State(app): State<Arc<App>>, Body(drain): Body<Drain>) -> Answer<Moved> {
    let drained = app.admin.drain(&drain.node, drain.steps).await;
    Ok(Json(app.changed(drained)?))
}

/// A body that says nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn rebuild(State(app): State<Arc<App>>, Body(Nothing {}): Body<Nothing>) -> Answer<Moved> {
    Ok(Json(app.changed(app.admin.rebuild().await)?))
}

async fn check(State(app): State<Arc<App>>, Body(Nothing {}): Body<Nothing>) -> Answer<NodesView> {
    app.check().await;
    // Whether or not it is this manager that judges them.
    let failed = app.admin.probe().await?;
    let mut view = app.admin.nodes().await?;
    for node in &mut view.nodes {
        // Of now, whatever it was taken off for.
        let why = failed.iter().find(|(name, _)| *name == node.node);
        node.why = why.map(|(_, why)| why.clone());
    }
    Ok(Json(view))
}

async fn preview(State(app): State<Arc<App>>, Body(plan): Body<Plan>) -> Answer<Moved> {
    Ok(Json(app.admin.preview(&plan).await?))
}

async fn ring(State(app): State<Arc<App>>) -> Answer<RingView> {
    Ok(Json(app.admin.ring().await?))
}

async fn arcs(State(app): State<Arc<App>>) -> Answer<ArcsView> {
    Ok(Json(app.admin.arcs().await?))
}

async fn verify(State(app): State<Arc<App>>) -> Answer<Findings> {
    Ok(Json(app.admin.verify().await?))
}

#[derive(Deserialize)]
struct WhichKey {
    key: String,
}

async fn locate(State(app): State<Arc<App>>, Query(which): Query<WhichKey>) -> Answer<Located> {
    let mut located = app.admin.locate(&[which.key]).await?;
    let why = "there is no key";
    let located = located.pop();
    Ok(Json(located.ok_or_else(|| {
        refusal(StatusCode::BAD_REQUEST, "bad_request", why)
    })?))
}

#[derive(Deserialize)]
struct Since {
    /// The number of the last event that is known.
    #[serde(default)]
    after: u64,
    #[serde(default = "hundred")]
    count: usize,
}

fn hundred() -> usize {
    100
}

async fn events(State(app): State<Arc<App>>, Query(since): Query<Since>) -> Answer<EventsView> {
    Ok(Json(app.admin.events(since.after, since.count).await?))
}

async fn health(State(app): State<Arc<App>>) -> Answer<Value> {
    let status = app.status.borrow().clone();
    Ok(Json(json!({
        "leads": status.leads,
        "frozen": status.frozen.map(|freeze| freeze.as_str()),
        "manager_redis": app.admin.controller.registry.is_up(),
        "error": status.error.map(|error| error.to_string()),
        "failing": status.failing.iter().map(|(name, why)| (shown(name), why)).collect::<std::collections::BTreeMap<_, _>>(),
    })))
}
