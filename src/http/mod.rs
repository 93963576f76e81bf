//! Cached views: a layer for tower, and so for axum, whose responses are kept in a cache.
//!
//! ```
//! # #[cfg(feature = "moka")]
//! # mod shown {
//! use std::time::Duration;
//! use axum::{Router, http::HeaderName, routing::get};
//! use larder::{Moka, Options};
//! use larder::http::CacheLayer;
//!
//! # pub
//! fn app() -> Router {
//!     let cache = Moka::new(10_000);
//!     let views = CacheLayer::new(cache)
//!         .options(Options::ttl(Duration::from_secs(60)).grace(Duration::from_secs(3600)))
//!         .hit_header(HeaderName::from_static("x-cache"));
//!     Router::new()
//!         .route("/works", get(|| async { "all of them" }))
//!         .layer(views)
//! }
//! # }
//! # #[cfg(feature = "moka")]
//! # shown::app();
//! ```
//!
//! # What is cached
//!
//! The answers to `GET`, and `HEAD` is answered from those. A response is kept if all of this holds; what is not is passed by as it is:
//!
//! * its status is a success other than 206, or what [`store_if`](CacheLayer::store_if) says;
//! * its `Cache-Control` says neither `private`, `no-store` nor `no-cache`, and it sets no cookie: unless
//!   [`keep_private`](CacheLayer::keep_private) and [`keep_cookies`](CacheLayer::keep_cookies) say otherwise;
//! * the request had no `Authorization`, unless that is one of the headers it [varies by](CacheLayer::vary), or
//!   [`share_authorized`](CacheLayer::share_authorized) was said;
//! * it varies by no header that the layer does not know of;
//! * its body has no more than [`max_body`](CacheLayer::max_body) bytes, a mebibyte unless set, and no trailers.
//!
//! What a handler makes of a cookie of the request is nothing that a layer can see: such a response says `private`, or the layer varies by it.
//!
//! # For how long
//!
//! As the response says (`s-maxage`, then `max-age`), else as the layer's options do, else as the cache does. A handler says more by putting a
//! [`Caching`] into the extensions of its response: ttl, tags, that it is not to be kept.
//!
//! With a [grace](crate::Options::grace), a response past its life is the answer where its handler answers a status of 500 or above (stale if error), or is
//! slower than the [soft timeout](crate::Options::soft_timeout) (stale while revalidate). With
//! [`refresh_ahead`](crate::Options::refresh_ahead), it is made anew before its end.
//!
//! # One at a time
//!
//! Requests of one key at the same time share one run of the handler, in a task of its own that goes on when its client goes away. A response that is
//! not kept is never shared: the others run the handler themselves, and for a second nobody waits for another's there, nor is anything kept.
//!
//! # The key
//!
//! `view/HOST/PATH?QUERY` behind the cache's [`key_prefix`](crate::core::Settings::key_prefix), the query sorted by name; or
//! [fixed](CacheLayer::key), or [computed](CacheLayer::key_by). Hosts are apart because handlers and redirects may answer by them; a request whose `Host` is no
//! host, or another than its uri says, is passed by. Headers of proxies, `X-Forwarded-Host` say, are not looked at: a handler that does [varies](CacheLayer::vary) by them.
//!
//! axum's `nest` takes the path of the nested router off before a layer within sees the request. With feature `axum`, the whole path is the key all the same;
//! without, name it by [`within`](CacheLayer::within), or two nested routers with one cache answer for each other.
//!
//! # What a client sees
//!
//! `ETag` (of the body, unless the handler gave one), `Age`, and 304 to a request that has the response already.

mod body;
mod conditional;
mod control;
mod handler;
mod key;
mod page;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{request, response};
use tower_layer::Layer;

use self::key::Named;
use crate::cache::Cache;
use crate::options::Options;
use crate::ttl::Ttl;

pub use self::body::CacheBody;
pub use self::service::CacheService;

type OfRequest<R> = Arc<dyn Fn(&request::Parts) -> R + Send + Sync>;

/// What a handler says of how its response is kept: put into the response's extensions.
///
/// ```
/// use std::time::Duration;
/// use larder::http::Caching;
///
/// let mut response = http::Response::new("hello");
/// let caching = Caching::new().ttl(Duration::from_secs(5)).tag("greetings");
/// response.extensions_mut().insert(caching);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Caching {
    ttl: Option<Ttl>,
    tags: Vec<Box<str>>,
    is_not_kept: bool,
}

impl Caching {
    /// Nothing is said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long, whatever `Cache-Control` says to others.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = Some(ttl.into());
        self
    }

    /// A tag of the response, for [`invalidate_tag`](Cache::invalidate_tag).
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// It is not kept.
    #[must_use]
    pub fn not_kept(mut self) -> Self {
        self.is_not_kept = true;
        self
    }
}

/// Keeps responses in a cache. See the [module](self) for what, and for how long.
#[derive(Clone)]
pub struct CacheLayer<C> {
    cache: C,
    views: Arc<Views>,
}

#[derive(Clone)]
struct Views {
    named: Named,
    vary: Vec<HeaderName>,
    options: Options,
    max_body: usize,
    unless: Option<OfRequest<bool>>,
    force_if: Option<OfRequest<bool>>,
    store_if: Arc<dyn Fn(&response::Parts) -> bool + Send + Sync>,
    tags: Option<OfRequest<Vec<String>>>,
    hit_header: Option<HeaderName>,
    keeps_private: bool,
    keeps_cookies: bool,
    shares_authorized: bool,
    obeys_clients: bool,
}

impl<C: fmt::Debug> fmt::Debug for CacheLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<C: Cache> CacheLayer<C> {
    /// A layer over a cache, with its defaults.
    #[must_use]
    pub fn new(cache: C) -> Self {
        let views = Views {
            named: Named::Uri {
                with_host: true,
                with_query: true,
                within: "".into(),
            },
            vary: Vec::new(),
            options: Options::default(),
            max_body: 1 << 20,
            unless: None,
            force_if: None,
            store_if: Arc::new(|response| response.status.is_success()),
            tags: None,
            hit_header: None,
            keeps_private: false,
            keeps_cookies: false,
            shares_authorized: false,
            obeys_clients: false,
        };
        Self {
            cache,
            views: Arc::new(views),
        }
    }

    /// The cache.
    #[must_use]
    pub fn get_ref(&self) -> &C {
        &self.cache
    }

    fn with(mut self, set: impl FnOnce(&mut Views)) -> Self {
        set(Arc::make_mut(&mut self.views));
        self
    }

    /// For how long responses are kept that do not say so themselves: [`options`](Self::options) with a ttl alone.
    #[must_use]
    pub fn ttl(self, ttl: impl Into<Ttl>) -> Self {
        self.options(Options::ttl(ttl))
    }

    /// How responses are kept: ttl, grace, timeouts, lease, refresh ahead, tags.
    #[must_use]
    pub fn options(self, options: impl Into<Options>) -> Self {
        self.with(|views| views.options = options.into())
    }

    /// One key for all requests, as it is behind the cache's prefix: for a view that is the same whatever is asked.
    #[must_use]
    pub fn key(self, key: impl Into<Arc<str>>) -> Self {
        self.with(|views| views.named = Named::Fixed(key.into()))
    }

    /// A key made of the request, as it is behind the cache's prefix. What does not do as a key is not cached.
    #[must_use]
    pub fn key_by(self, key: impl Fn(&request::Parts) -> String + Send + Sync + 'static) -> Self {
        self.with(|views| views.named = Named::Computed(Arc::new(key)))
    }

    /// Answers alike whatever the query is: for views that do not look at it. Nothing to a key that is given or made.
    #[must_use]
    pub fn ignore_query(self) -> Self {
        self.with(|views| {
            if let Named::Uri { with_query, .. } = &mut views.named {
                *with_query = false;
            }
        })
    }

    /// Answers alike whatever host is asked: for views that do not look at it, nor any redirect they make. Nothing to a key that is given or made.
    #[must_use]
    pub fn ignore_host(self) -> Self {
        self.with(|views| {
            if let Named::Uri { with_host, .. } = &mut views.named {
                *with_host = false;
            }
        })
    }

    /// What stands before the path in the key: for a layer within a router that takes it off, where feature `axum` does not see to
    /// it. Two such routers with one cache would answer for each other.
    #[must_use]
    pub fn within(self, path: impl Into<Arc<str>>) -> Self {
        self.with(|views| {
            if let Named::Uri { within, .. } = &mut views.named {
                *within = path.into();
            }
        })
    }

    /// Headers of the request that tell requests apart. Each value of each is a response of its own.
    #[must_use]
    pub fn vary(self, headers: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|views| views.vary = headers.into_iter().collect())
    }

    /// Passes requests by for which this is true.
    #[must_use]
    pub fn unless(self, unless: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|views| views.unless = Some(Arc::new(unless)))
    }

    /// Makes a response anew, and keeps that, where this is true.
    #[must_use]
    pub fn force_if(self, force: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|views| views.force_if = Some(Arc::new(force)))
    }

    /// Keeps responses for which this is true; successes unless set. What the [module](self) lists besides holds all the same.
    #[must_use]
    pub fn store_if(
        self,
        store: impl Fn(&response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|views| views.store_if = Arc::new(store))
    }

    /// Tags that are made of the request.
    #[must_use]
    pub fn tags(
        self,
        tags: impl Fn(&request::Parts) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|views| views.tags = Some(Arc::new(tags)))
    }

    /// The longest body that is kept, in bytes. A mebibyte unless set.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.with(|views| views.max_body = bytes)
    }

    /// A header that says where a response came from: `hit`, `stale`, `miss`, or `pass` for one that is not cached. None unless set.
    #[must_use]
    pub fn hit_header(self, name: HeaderName) -> Self {
        self.with(|views| views.hit_header = Some(name))
    }

    /// Keeps responses that say `private`, `no-store` or `no-cache`, too: where those are meant for caches beyond.
    #[must_use]
    pub fn keep_private(self, keeps: bool) -> Self {
        self.with(|views| views.keeps_private = keeps)
    }

    /// Keeps responses that set cookies, cookies and all: every client is sent the same ones.
    #[must_use]
    pub fn keep_cookies(self, keeps: bool) -> Self {
        self.with(|views| views.keeps_cookies = keeps)
    }

    /// Answers requests with an `Authorization` like others: where it decides whether they are answered, in a layer before this one, and
    /// not what.
    #[must_use]
    pub fn share_authorized(self, shares: bool) -> Self {
        self.with(|views| views.shares_authorized = shares)
    }

    /// Obeys `Cache-Control` of requests: `no-store` passes by, `no-cache` and `max-age=0` make a response anew, `only-if-cached` is answered 504 where there is
    /// none. Off unless set, since any client could have all work done for each of its requests.
    #[must_use]
    pub fn obey_clients(self, obeys: bool) -> Self {
        self.with(|views| views.obeys_clients = obeys)
    }

    /// The key of a request: for [`delete`](Cache::delete), say. Nothing for one whose host is none.
    ///
    /// ```
    /// # #[cfg(feature = "moka")] {
    /// let views = larder::http::CacheLayer::new(larder::Moka::new(10));
    /// let request = http::Request::get("/works?limit=15&mock=true").header("host", "example.org");
    /// let (request, ()) = request.body(()).unwrap().into_parts();
    /// assert_eq!(views.key_of(&request).unwrap(), "view/example.org/works?limit=15&mock=true");
    /// # }
    /// ```
    #[must_use]
    pub fn key_of(&self, request: &request::Parts) -> Option<String> {
        let prefix = &self.cache.core().settings().key_prefix;
        key::key(prefix, &self.views.named, &self.views.vary, request)
    }
}

impl Views {
    /// Whether requests with an `Authorization` are told apart, or all the same.
    fn takes_authorized(&self) -> bool {
        self.shares_authorized || self.vary.contains(&header::AUTHORIZATION)
    }
}

impl<C: Cache, S> Layer<S> for CacheLayer<C> {
    type Service = CacheService<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService::new(self.clone(), inner)
    }
}

/// For so long nobody waits where a response turned out not to be one to keep.
const PASS: Duration = Duration::from_secs(1);
