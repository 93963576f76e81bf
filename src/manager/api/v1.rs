//! The manager's own calls, in JSON: `/api/v1`.

use std::sync::Arc;

use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use crate::error::{Error, ErrorKind};
use crate::manager::cluster::{By, Cluster, is_unknown};
use crate::manager::controller::Done;
use crate::manager::event::Event;
use crate::manager::member::{State as NodeState, shown};
use crate::ringmap::{Move, key_hash, label};

/// Events in one answer, at most.
const MAX_EVENTS: usize = 1000;

type Answer = Result<Json<Value>, Refusal>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/nodes", get(nodes).post(add).delete(remove))
        .route("/api/v1/nodes/check", post(check))
        .route("/api/v1/nodes/drain", post(drain))
        .route("/api/v1/ring", get(ring))
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
        if kind.split(';').next() != Some("application/json") {
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

/// A node as it is shown.
#[derive(Debug, Serialize)]
struct NodeView {
    node: String,
    state: NodeState,
    share: f64,
    positions: usize,
    flaps: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<f64>,
    /// Why it fails, or was taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

fn views(app: &App, cluster: &Cluster) -> Vec<NodeView> {
    let failing = app.status.borrow().failing.clone();
    let shares = cluster.shares();
    let members = cluster.members.iter();
    let views = members.map(|(name, member)| {
        let (share, positions) = shares.get(name.as_str()).copied().unwrap_or_default();
        let why = failing
            .get(name)
            .or(Some(&member.why))
            .filter(|why| !why.is_empty());
        NodeView {
            node: shown(name),
            state: member.state,
            share,
            positions,
            flaps: member.flaps,
            part: member.part,
            why: why.cloned(),
        }
    });
    views.collect()
}

async fn nodes(State(app): State<Arc<App>>) -> Answer {
    let cluster = app.controller.look().await?;
    Ok(Json(
        json!({ "epoch": epoch(&cluster), "nodes": views(&app, &cluster) }),
    ))
}

/// A node that somebody wants on the ring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNode {
    url: String,
}

async fn add(State(app): State<Arc<App>>, Body(new): Body<NewNode>) -> Answer {
    Ok(changed(&app.add(&new.url).await?))
}

#[derive(Deserialize)]
struct WhichNode {
    node: String,
    /// That it may be the last one.
    #[serde(default)]
    last: bool,
}

async fn remove(State(app): State<Arc<App>>, Query(which): Query<WhichNode>) -> Answer {
    let name = App::name(&which.node);
    Ok(changed(&app.remove(&name, which.last).await?))
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

async fn drain(State(app): State<Arc<App>>, Body(drain): Body<Drain>) -> Answer {
    let name = App::name(&drain.node);
    let step = |cluster: &mut Cluster| cluster.drain(&name, Some(drain.steps));
    let done = app.changed(app.controller.apply(None, step).await)?;
    Ok(changed(&done))
}

async fn rebuild(State(app): State<Arc<App>>) -> Answer {
    let rebuild = |cluster: &mut Cluster| {
        cluster.rebuild();
        Ok(())
    };
    let done = app.changed(app.controller.apply(None, rebuild).await)?;
    Ok(changed(&done))
}

async fn check(State(app): State<Arc<App>>) -> Answer {
    app.check().await;
    nodes(State(app)).await
}

/// What was changed: the map's epoch, and which keys moved.
fn changed(done: &Done) -> Json<Value> {
    let mut answer = moved(&done.cluster.moves());
    answer["epoch"] = done.epoch.into();
    Json(answer)
}

fn moved(moves: &[Move]) -> Value {
    let share: f64 = moves.iter().map(|moved| moved.share).sum();
    let moves: Vec<Value> = moves
        .iter()
        .map(|moved| json!({ "from": moved.from, "to": moved.to, "share": moved.share }))
        .collect();
    json!({ "moved": share, "moves": moves })
}

/// What would be done.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Preview {
    Add {
        url: String,
    },
    Remove {
        node: String,
    },
    Drain {
        node: String,
        #[serde(default = "one")]
        steps: u32,
    },
    Rebuild {},
}

fn one() -> u32 {
    1
}

async fn preview(State(app): State<Arc<App>>, Body(preview): Body<Preview>) -> Answer {
    let mut cluster = app.controller.look().await?;
    match preview {
        Preview::Add { url } => {
            crate::wire::NodeAddr::parse(&url)?;
            cluster.add(&url, By::Person);
        }
        Preview::Remove { node } => cluster.remove(&App::name(&node))?,
        Preview::Drain { node, steps } => cluster.drain(&App::name(&node), Some(steps))?,
        Preview::Rebuild {} => cluster.rebuild(),
    }
    Ok(Json(moved(&cluster.moves())))
}

async fn ring(State(app): State<Arc<App>>) -> Answer {
    let cluster = app.controller.look().await?;
    let (labels, per_node, order) = cluster.form();
    Ok(Json(json!({
        "epoch": epoch(&cluster),
        "nodes": cluster.on(),
        "positions": cluster.positions_count(),
        "fields": cluster.fields(),
        "labels": labels,
        "vnodes": per_node,
        "lookup": order.to_string(),
        "edited": cluster.is_edited(),
        "imbalance": cluster.imbalance(),
    })))
}

#[derive(Deserialize)]
struct WhichKey {
    key: String,
}

async fn locate(State(app): State<Arc<App>>, Query(which): Query<WhichKey>) -> Answer {
    let cluster = app.controller.look().await?;
    let ring = cluster
        .ring_before()
        .with_hash_tags(cluster.has_hash_tags());
    let node = ring.node_for(&which.key).map(label);
    let hash = key_hash(&which.key);
    Ok(Json(
        json!({ "key": which.key, "hash": hash, "node": node }),
    ))
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

async fn events(State(app): State<Arc<App>>, Query(since): Query<Since>) -> Answer {
    let count = since.count.clamp(1, MAX_EVENTS);
    let events = app.controller.registry.events(count).await?;
    let events = events.into_iter().filter(|(id, _)| *id > since.after);
    let events = events.filter_map(|(id, line)| {
        let event: Event = serde_json::from_str(&line).ok()?;
        let mut shown = serde_json::to_value(event).ok()?;
        shown["id"] = id.into();
        Some(shown)
    });
    Ok(Json(json!({ "events": events.collect::<Vec<_>>() })))
}

async fn health(State(app): State<Arc<App>>) -> Answer {
    let status = app.status.borrow().clone();
    Ok(Json(json!({
        "leads": status.leads,
        "frozen": status.frozen.map(|freeze| freeze.as_str()),
        "manager_redis": app.controller.registry.is_up(),
        "error": status.error.map(|error| error.to_string()),
        "failing": status.failing.iter().map(|(name, why)| (shown(name), why)).collect::<std::collections::BTreeMap<_, _>>(),
    })))
}

fn epoch(cluster: &Cluster) -> u64 {
    cluster.epoch().parse().unwrap_or(0)
}
