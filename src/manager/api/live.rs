//! What a ring does at the moment, as a stream of events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::v1::refusal;
use crate::manager::live::Watching;

/// For one stream: a little less than a connection lives, so that it has an end. Whoever wants more asks again.
const LIFE: Duration = Duration::from_secs(50);

pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    let Some(watching) = app.live.watch() else {
        let why = "too many look on";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "busy", why).into_response();
    };
    let end = Instant::now() + LIFE;
    let ending = app.ending.clone();
    let stream = unfold(
        (watching, ending),
        move |(mut watching, mut ending)| async move {
            let seen = tokio::select! {
                seen = timeout_at(end, next(&mut watching)) => seen.ok()??,
                _ = ending.wait_for(|ending| *ending) => return None,
            };
            let event = Event::default().event("ring").data(&*seen);
            Some((Ok::<_, Infallible>(event), (watching, ending)))
        },
    );
    // A connection that lives on would be closed in the middle of the next stream; and a proxy that gathers what it hands on would hold it back.
    let plain = [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (plain, Sse::new(stream)).into_response()
}

async fn next(watching: &mut Watching) -> Option<Arc<str>> {
    watching.seen.changed().await.ok()?;
    Some(Arc::clone(&watching.seen.borrow_and_update()))
}
