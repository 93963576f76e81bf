//! The page at `/`: three files, that ask for all they show by `/api/v1`.

use axum::Router;
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing but these files runs or is shown, nothing is asked of anybody else, and nobody puts it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Anybody may have them: there is nothing of the ring in them.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let html = include_str!("page/index.html");
    let (script, style) = (include_str!("page/page.js"), include_str!("page/page.css"));
    let icon = include_str!("page/icon.svg");
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", html)))
        .route(
            "/page.js",
            get(async || file("text/javascript; charset=utf-8", script)),
        )
        .route(
            "/page.css",
            get(async || file("text/css; charset=utf-8", style)),
        )
        .route("/icon.svg", get(async || file("image/svg+xml", icon)))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A manager of another version may be next.
        (header::CACHE_CONTROL, "no-cache"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    (headers, text).into_response()
}
