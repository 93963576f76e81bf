//! The cached views of the cases.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::routing::any;
use larder::Moka;
use larder::http::CacheLayer;
use tower::ServiceExt;

use crate::World;

/// What a parameter of the query is.
fn asked(request: &Parts, name: &str) -> String {
    let query = request.uri.query().unwrap_or_default();
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

fn router(world: &World) -> Router {
    let layer = || CacheLayer::new(world.cache.clone());
    let view = |status: StatusCode| {
        let world = world.clone();
        any(move || async move { (status, format!("view {}", world.ran("view"))) })
    };
    let of = |path: &str, layer: CacheLayer<Moka>| {
        Router::new().route(path, view(StatusCode::OK)).layer(layer)
    };
    let forced = world.clone();
    Router::new()
        .merge(of("/plain", layer()))
        .merge(of("/query", layer()))
        .merge(of("/fixed", layer().key("MyCachedView")))
        .merge(of(
            "/called",
            layer().key_by(|request| format!("view of {}", asked(request, "user"))),
        ))
        .merge(of(
            "/keyed",
            layer().key_by(|request| format!("page {}", asked(request, "page"))),
        ))
        .merge(of("/unless", layer().unless(|_| true)))
        .merge(of("/forced", layer().force_if(move |_| forced.is_forced())))
        .merge(of("/filtered", layer().store_if(|_| false)))
        .merge(
            Router::new()
                .route("/failing", view(StatusCode::INTERNAL_SERVER_ERROR))
                .layer(layer()),
        )
}

pub(crate) async fn answered(world: &World, method: &str, uri: &str) -> String {
    let request = Request::builder().method(method).uri(uri);
    let request = request.body(Body::empty()).unwrap();
    let response = router(world).oneshot(request).await.unwrap();
    if !response.status().is_success() {
        return response.status().as_str().to_owned();
    }
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}
