//! The calls of the Python server, and its answers: HTTP 200 whatever came of it, and a `respCode` that says what.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::App;
use super::params::{Params, Wrong};
use super::v1::refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::manager::member::shown;
use crate::wire::NodeAddr;

/// What ends a password in a url, and what is read as a character that was encoded.
const ENDS: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b'%')
    .add(b'/')
    .add(b'?')
    .add(b'#');

const SUCCESS: &str = "请求成功";
const FAILED: &str = "请求处理失败";

pub(super) async fn call(
    State(app): State<Arc<App>>,
    Path(call): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = Params::of(&uri, &headers, &body);
    match call.as_str() {
        "add" => add(&app, &params).await,
        "remove" => remove(&app, &params).await,
        "check" => {
            app.check().await;
            answer(200, SUCCESS, json!({}))
        }
        "info" => match info(&app).await {
            Ok(nodes) => answer(200, SUCCESS, json!(nodes)),
            Err(error) => failed(&error),
        },
        _ => nowhere().await,
    }
}

/// Another method than `POST`.
pub(super) async fn not_a_post(Path(call): Path<String>) -> Response {
    match call.as_str() {
        "add" | "remove" | "check" | "info" => answer(405, "方式不被允许", json!({})),
        _ => nowhere().await,
    }
}

/// A path that leads nowhere.
pub(super) async fn nowhere() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
    )
    .into_response()
}

async fn add(app: &App, params: &Params) -> Response {
    let read = || {
        let host = params.text("host")?;
        let port = params.number("port", 0, 65535)?;
        let db = params.number("db", 0, 15)?;
        Ok((host, port, db, params.optional("password")?))
    };
    let (host, port, db, password) = match read() {
        Ok(read) => read,
        Err(wrong) => return refused(&wrong),
    };
    let url = match url_of(&host, port, db, password.as_deref()) {
        Ok(url) => url,
        Err(error) => return unreachable(&error),
    };
    match is_taken(app, &host, port).await {
        Ok(true) => return answer(500, "节点已存在", json!({})),
        Ok(false) => {}
        Err(error) => return failed(&error),
    }
    let probed = match app.admin.nodes.fresh(&url) {
        Ok(node) => app.admin.nodes.probe(&node).await,
        Err(error) => Err(error),
    };
    if let Err(error) = probed {
        return unreachable(&error);
    }
    match app.changed(app.admin.add(&url).await) {
        Ok(_) => answer(200, SUCCESS, json!({})),
        Err(error) => failed(&error),
    }
}

async fn remove(app: &App, params: &Params) -> Response {
    let read = || {
        let host = params.text("host")?;
        let port = params.number("port", 0, 65535)?;
        Ok((host, port, params.number("db", 0, 15)?))
    };
    let (host, port, db) = match read() {
        Ok(read) => read,
        Err(wrong) => return refused(&wrong),
    };
    let name = format!("{}:{port}/{db}", host.to_lowercase());
    match app.admin.controller.look().await {
        Ok(cluster) if cluster.members.contains_key(&name) => {}
        Ok(_) => return answer(500, "node不存在", json!({})),
        Err(error) => return failed(&error),
    }
    match app.changed(app.admin.remove(&name, true).await) {
        Ok(_) => answer(200, SUCCESS, json!({})),
        Err(error) => failed(&error),
    }
}

/// The url of a node that was named by its parts, as the Python server writes it.
fn url_of(host: &str, port: i64, db: i64, password: Option<&str>) -> Result<String> {
    // As it is but for what would end it: the Python server's positions are hashes of the url as that server writes it.
    let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, ENDS).to_string();
    let user = password.map_or_else(String::new, |password| format!(":{}@", encoded(password)));
    if host.contains(['@', '/', '?', '#']) {
        return Err(Error::new(ErrorKind::Config, "the host is none"));
    }
    let url = format!("redis://{user}{host}:{port}/{db}");
    NodeAddr::parse(&url).map(|_| url)
}

/// Whether a node of the ring has this host and port, whatever its database.
async fn is_taken(app: &App, host: &str, port: i64) -> Result<bool> {
    let cluster = app.admin.controller.look().await?;
    let place = format!("{}:{port}/", host.to_lowercase());
    Ok(cluster
        .members
        .iter()
        .any(|(name, member)| name.starts_with(&place) && member.state.is_on()))
}

async fn info(app: &App) -> Result<Vec<Value>> {
    let cluster = app.admin.controller.look().await?;
    let on = cluster.members.into_iter();
    let on = on.filter(|(_, member)| member.state.is_on());
    let asked = on.map(|(name, member)| info_of(app, name, member.url));
    Ok(join_all(asked.collect::<Vec<_>>()).await)
}

async fn info_of(app: &App, name: String, url: String) -> Value {
    let info = match app.admin.nodes.at(&url) {
        Ok(node) => node.info().await,
        Err(error) => Err(error),
    };
    let info: Map<String, Value> = match info {
        Ok(pairs) => pairs
            .into_iter()
            .map(|(name, value)| (name, parsed(&value)))
            .collect(),
        Err(error) => Map::from_iter([("error".to_owned(), json!(error.to_string()))]),
    };
    json!({ "node_url": format!("redis://{}", shown(&name)), "node_info": info })
}

/// A value of `INFO` as Python's client reads it: a number, a text, or what several fields make.
fn parsed(value: &str) -> Value {
    let plain = |value: &str| match (value.parse::<i64>(), value.parse::<f64>()) {
        (Ok(number), _) => json!(number),
        (_, Ok(number)) if value.contains('.') => json!(number),
        _ => json!(value),
    };
    if !value.contains(',') || !value.contains('=') {
        return plain(value);
    }
    let fields = value.split(',').filter_map(|field| field.rsplit_once('='));
    fields
        .map(|(name, value)| (name.to_owned(), plain(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn refused(wrong: &Wrong) -> Response {
    if wrong.code == 500 {
        return answer(wrong.code, &wrong.why, json!({}));
    }
    let body = json!({ "respCode": wrong.code, "respMsg": wrong.why, "data": { "result": {} } });
    written(&body, "application/json; charset=utf-8")
}

fn unreachable(error: &Error) -> Response {
    answer(500, &format!("节点无法连接:{}", error.message()), json!({}))
}

fn failed(error: &Error) -> Response {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => answer(10403, "redis出错", json!({})),
        _ => answer(500, &format!("{FAILED}:{error}"), json!({})),
    }
}

fn answer(code: u16, message: &str, result: Value) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let body = json!({
        "timestamp": now.map_or(0, |now| now.as_secs()),
        "respCode": code,
        "respMsg": message,
        "result": result,
    });
    written(&body, "application/json")
}

fn written(body: &Value, kind: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}
