//! Cached views, as an axum service has them.

mod kept;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use larder::Moka;
use larder::http::CacheLayer;
use tower::ServiceExt;

/// An application of one handler, and how often that ran.
#[derive(Clone)]
struct App {
    router: Router,
    runs: Arc<AtomicU32>,
}

/// What a client was answered.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Where it came from, and what it is.
    fn told(&self) -> (&str, &str) {
        (self.header("x-cache"), &self.body)
    }
}

impl App {
    /// A handler that is given the number of its run.
    fn new<C, F, Fut, R>(views: CacheLayer<C>, handler: F) -> Self
    where
        C: larder::Cache,
        F: Fn(u32, Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: IntoResponse + 'static,
    {
        let runs = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&runs);
        let handler =
            move |request: Request| handler(count.fetch_add(1, Ordering::SeqCst) + 1, request);
        let router = Router::new()
            .fallback(handler)
            .layer(views.hit_header(HeaderName::from_static("x-cache")));
        Self { router, runs }
    }

    /// One that answers the number of its run, with these headers.
    fn with(views: CacheLayer<Moka>, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self::new(views, move |run, _| async move {
            let mut response = Response::new(Body::from(format!("run {run}")));
            for (name, value) in headers {
                response.headers_mut().append(*name, value.parse().unwrap());
            }
            response
        })
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    async fn send(&self, method: Method, uri: &str, headers: &[(&str, &str)]) -> Answer {
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[]).await
    }

    async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, uri, headers).await
    }
}

fn views() -> CacheLayer<Moka> {
    CacheLayer::new(Moka::new(1000))
}
