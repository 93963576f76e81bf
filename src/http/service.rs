//! One request: a response that is kept, or the handler's.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request, response};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument as _;

use super::body::CacheBody;
use super::control::{Control, is_stream, life, varies_by};
use super::page::Page;
use super::{CacheLayer, Caching, PASS, Views};
use crate::cache::{Cache, apart, at_hand_for_now, is_due, look_up, refresh, refresh_ahead};
use crate::context::Context as Compute;
use crate::error::Error;
use crate::options::Options;
use crate::report::{Report, Source};
use crate::ttl::Ttl;

/// What a [`CacheLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct CacheService<C, S> {
    layer: CacheLayer<C>,
    inner: S,
}

impl<C, S> CacheService<C, S> {
    pub(super) fn new(layer: CacheLayer<C>, inner: S) -> Self {
        Self { layer, inner }
    }

    /// The service within.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, by itself.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

type Answer<B, E> = Result<Response<CacheBody<B>>, E>;

type Answering<B, E> = BoxFuture<'static, Answer<B, E>>;

impl<C, S, A, B> Service<Request<A>> for CacheService<C, S>
where
    C: Cache,
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send + 'static,
{
    type Response = Response<CacheBody<B>>;
    type Error = S::Error;
    type Future = Answering<B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The one that is ready.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match layer.judge(&parts) {
                Asked::Pass => layer.passed(inner, Request::from_parts(parts, body)).await,
                Asked::OnlyIfCached(key) => Ok(layer.only_cached(&key, &parts).await),
                Asked::Head(key) => match layer.found(&key, &parts, false).await {
                    Some(answer) => Ok(answer),
                    None => layer.passed(inner, Request::from_parts(parts, body)).await,
                },
                Asked::Get { key, force } => {
                    let asked = parts.headers.clone();
                    // Whether the client has it is for this to say: the handler is to answer with all of it.
                    CONDITIONS
                        .iter()
                        .for_each(|name| drop(parts.headers.remove(name)));
                    let tags = layer.tags_of(&parts);
                    let handler = Handler::new(inner, Request::from_parts(parts, body));
                    let call = Call {
                        layer: &layer,
                        key: &key,
                        asked: &asked,
                        tags,
                    };
                    call.answered(handler, force).await
                }
            }
        })
    }
}

/// What a client wants only under a condition.
const CONDITIONS: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// What becomes of a request.
enum Asked {
    /// It is the handler's alone.
    Pass,
    Head(String),
    OnlyIfCached(String),
    Get {
        key: String,
        force: bool,
    },
}

impl<C: Cache> CacheLayer<C> {
    fn judge(&self, request: &request::Parts) -> Asked {
        let views = &self.views;
        let is_head = request.method == Method::HEAD;
        let is_authorized = request.headers.contains_key(header::AUTHORIZATION);
        if (request.method != Method::GET && !is_head)
            // A part of a response, which is nobody else's.
            || request.headers.contains_key(header::RANGE)
            || (is_authorized && !views.takes_authorized())
            || views.unless.as_ref().is_some_and(|unless| unless(request))
        {
            return Asked::Pass;
        }
        let control = match views.obeys_clients {
            true => Control::of(&request.headers),
            false => Control::default(),
        };
        if control.no_store {
            return Asked::Pass;
        }
        let Some(key) = self.key_of(request) else {
            return Asked::Pass;
        };
        if is_head {
            return Asked::Head(key);
        }
        if control.only_if_cached {
            return Asked::OnlyIfCached(key);
        }
        let wants_anew = control.no_cache || control.life().is_some_and(|life| life.is_zero());
        let force = wants_anew || views.force_if.as_ref().is_some_and(|force| force(request));
        Asked::Get { key, force }
    }

    fn tags_of(&self, request: &request::Parts) -> Vec<String> {
        let tags = self.views.tags.as_ref();
        tags.map(|tags| tags(request)).unwrap_or_default()
    }

    /// The handler's response, as it is.
    async fn passed<S, A, B>(&self, mut inner: S, request: Request<A>) -> Answer<B, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>>,
        B: Body<Data = Bytes>,
    {
        let answer = inner.call(request).await?;
        Ok(self.told(answer.map(CacheBody::passed), "pass"))
    }

    /// A response that is kept, if there is one.
    async fn found<B: Body>(
        &self,
        key: &str,
        request: &request::Parts,
        with_body: bool,
    ) -> Option<Response<CacheBody<B>>> {
        let page = look_up::<Page, C>(&self.cache, key).await.ok()??;
        let (status, headers, body) = page.answer(&request.headers, with_body);
        Some(self.told(response_of(status, headers, body), "hit"))
    }

    async fn only_cached<B: Body>(
        &self,
        key: &str,
        request: &request::Parts,
    ) -> Response<CacheBody<B>> {
        self.found(key, request, true).await.unwrap_or_else(|| {
            let none = response_of(StatusCode::GATEWAY_TIMEOUT, HeaderMap::new(), Bytes::new());
            self.told(none, "miss")
        })
    }

    /// With the header that tells where it came from.
    fn told<B>(&self, mut response: Response<B>, from: &'static str) -> Response<B> {
        if let Some(name) = &self.views.hit_header {
            let from = HeaderValue::from_static(from);
            response.headers_mut().insert(name.clone(), from);
        }
        response
    }
}

fn response_of<B: Body>(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Why there is no response to keep.
enum Missed {
    /// There is one, for its own client.
    Passed,
    /// The handler failed.
    Failed,
    Cache(Error),
}

impl fmt::Debug for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("the response is not one to keep"),
            Self::Failed => f.write_str("the handler failed"),
            Self::Cache(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

/// A request on its way to its handler, and what that answered where it is not kept.
struct Handler<S, A, B: Body, E>(Arc<Mutex<State<S, A, B, E>>>);

enum State<S, A, B: Body, E> {
    /// Not called yet.
    Ready(S, Request<A>),
    Called,
    Answered {
        answer: Answer<B, E>,
        /// It is that the handler failed.
        is_failure: bool,
    },
}

impl<S, A, B: Body, E> Clone for Handler<S, A, B, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, A, B: Body, E> Handler<S, A, B, E> {
    fn new(inner: S, request: Request<A>) -> Self {
        Self(Arc::new(Mutex::new(State::Ready(inner, request))))
    }

    /// What it has come to; from now on it is called.
    fn take(&self) -> State<S, A, B, E> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *state, State::Called)
    }

    fn answered(&self, answer: Answer<B, E>, missed: &Missed) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_failure = matches!(missed, Missed::Failed);
        *state = State::Answered { answer, is_failure };
    }

    /// What it answered to its own client, where that is not for others. One that is to be called yet stays so.
    fn own(&self) -> Option<(Answer<B, E>, bool)> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Answered { .. }) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Called) {
            State::Answered { answer, is_failure } => Some((answer, is_failure)),
            State::Ready(..) | State::Called => None,
        }
    }
}

/// A request whose response may be kept.
struct Call<'c, C> {
    layer: &'c CacheLayer<C>,
    key: &'c str,
    asked: &'c HeaderMap,
    tags: Vec<String>,
}

impl<C: Cache> Call<'_, C> {
    /// The response: kept, made and kept, or the handler's alone.
    async fn answered<S, A, B>(
        mut self,
        handler: Handler<S, A, B, S::Error>,
        force: bool,
    ) -> Answer<B, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        A: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send + 'static,
    {
        let (cache, report) = (&self.layer.cache, Report::new());
        let default_ttl = cache.core().settings().default_ttl;
        let views = || Arc::clone(&self.layer.views);
        let mut options = self.layer.views.options.clone().report(&report);
        if !force && let Some((page, life)) = at_hand_for_now(cache, self.key, &options) {
            if let Some(life) = life
                && is_due(cache.core(), &options, life)
            {
                self.tag(&mut options);
                let made = made(views(), default_ttl, handler);
                refresh_ahead(cache, self.key, life, options, made);
            }
            return Ok(self.kept(&page, &report));
        }
        self.tag(&mut options);
        // A store's error is nothing to a client.
        let options = options.error_ttl(PASS).unstrict();
        let make = |handler| made(views(), default_ttl, handler);
        let page = if force {
            refresh(cache, self.key, options, make(handler.clone())).await
        } else {
            apart(cache, self.key, options, make(handler.clone())).await
        };
        let page = match (page, handler.own()) {
            // Its own response, rather than an older one of others. But for a failure there is nothing better.
            (Ok(_), Some((own, false))) => {
                // Nor is that an answer to anybody any more. What fails is counted.
                let _ = cache.delete(self.key).await;
                return own.map(|own| self.layer.told(own, "pass"));
            }
            (Ok(page), _) => page,
            (Err(_), Some((own, _))) => return own.map(|own| self.layer.told(own, "pass")),
            (Err(_), None) => {
                return match handler.take() {
                    State::Ready(inner, request) => self.layer.passed(inner, request).await,
                    // It took longer than it may, or panicked.
                    State::Called | State::Answered { .. } => {
                        let status = StatusCode::GATEWAY_TIMEOUT;
                        let none = response_of(status, HeaderMap::new(), Bytes::new());
                        Ok(self.layer.told(none, "pass"))
                    }
                };
            }
        };
        Ok(self.kept(&page, &report))
    }

    fn tag(&mut self, options: &mut Options) {
        if self.layer.cache.keeps_tags() {
            self.tags.drain(..).for_each(|tag| options.add(tag.into()));
        }
    }

    /// A response out of the cache, or on its way into it.
    fn kept<B: Body>(&self, page: &Page, report: &Report) -> Response<CacheBody<B>> {
        let (status, mut headers, body) = page.answer(self.asked, true);
        let source = report.source();
        if let Some(age) = self.age(page, report) {
            headers.insert(header::AGE, age.as_secs().into());
        }
        let from = match source {
            Some(Source::Memory | Source::Store) => "hit",
            Some(Source::Stale) => "stale",
            // Made for this request, or for another at the same time.
            Some(Source::Computed | Source::Joined) | None => "miss",
        };
        self.layer.told(response_of(status, headers, body), from)
    }

    /// For how long it has been kept: what is gone of its life.
    fn age(&self, page: &Page, report: &Report) -> Option<Duration> {
        let life = page.life()?;
        match report.source()? {
            Source::Memory | Source::Store => {
                let left = report.end()?.since(self.layer.cache.core().now());
                Some(life.saturating_sub(left))
            }
            // It is past its life, and nobody tells by how much.
            Source::Stale => Some(life),
            Source::Computed | Source::Joined => Some(Duration::ZERO),
        }
    }
}

/// The compute of a response.
fn made<S, A, B>(
    views: Arc<Views>,
    default_ttl: Ttl,
    handler: Handler<S, A, B, S::Error>,
) -> impl FnOnce(Compute) -> BoxFuture<'static, Result<Page, Missed>> + Send + 'static
where
    S: Service<Request<A>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send + 'static,
{
    move |compute| {
        let making = async move {
            let missed = match make(&views, default_ttl, &handler, &compute).await {
                Ok(page) => return Ok(page),
                Err(missed) => missed,
            };
            if matches!(missed, Missed::Failed) {
                // The next one tries again.
                compute.keeps_failures(Duration::ZERO);
            }
            Err(missed)
        };
        Box::pin(making.in_current_span())
    }
}

/// What the handler answers, if it is a response to keep. Else it is put by for its own client.
async fn make<S, A, B>(
    views: &Views,
    default_ttl: Ttl,
    handler: &Handler<S, A, B, S::Error>,
    compute: &Compute,
) -> Result<Page, Missed>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    let State::Ready(mut inner, request) = handler.take() else {
        return Err(Missed::Failed);
    };
    let response = match inner.call(request).await {
        Ok(response) => response,
        Err(error) => {
            handler.answered(Err(error), &Missed::Failed);
            return Err(Missed::Failed);
        }
    };
    let (parts, body) = response.into_parts();
    let Some(ttl) = views.keeps(&parts) else {
        let missed = match parts.status.is_server_error() {
            true => Missed::Failed,
            false => Missed::Passed,
        };
        let body = CacheBody::passed(body);
        handler.answered(Ok(Response::from_parts(parts, body)), &missed);
        return Err(missed);
    };
    let body = match CacheBody::read(body, views.max_body).await {
        Ok(body) => body,
        Err(body) => {
            let missed = match body.is_broken() {
                true => Missed::Failed,
                false => Missed::Passed,
            };
            handler.answered(Ok(Response::from_parts(parts, body)), &missed);
            return Err(missed);
        }
    };
    if let Some(ttl) = ttl {
        compute.set_ttl(ttl);
    }
    if Control::of(&parts.headers).must_revalidate {
        // Not past its life, whatever happens.
        compute.set_grace(Duration::ZERO);
    }
    if let Some(caching) = parts.extensions.get::<Caching>() {
        caching.tags.iter().for_each(|tag| compute.tag(tag.clone()));
    }
    let life = compute.options().ttl.resolve(default_ttl);
    Ok(Page::new(&parts, body, life))
}

impl Views {
    /// Whether a response is kept, and for how long if it says so.
    fn keeps(&self, response: &response::Parts) -> Option<Option<Ttl>> {
        let caching = response.extensions.get::<Caching>();
        let control = Control::of(&response.headers);
        let is_kept = (self.store_if)(response)
            && response.status != StatusCode::PARTIAL_CONTENT
            && response.status != StatusCode::NOT_MODIFIED
            && !is_stream(&response.headers)
            && !caching.is_some_and(|caching| caching.is_not_kept)
            && (self.keeps_private || !control.is_kept_from_others())
            && (self.keeps_cookies || !response.headers.contains_key(header::SET_COOKIE))
            && varies_by(&response.headers, &self.vary);
        let said = life(&response.headers, control).filter(|_| !self.keeps_private);
        let said = said.map(Ttl::After);
        let ttl = caching.and_then(|caching| caching.ttl).or(said);
        // What has no life is not kept, and not shared either.
        let lives = ttl != Some(Ttl::After(Duration::ZERO));
        (is_kept && lives).then_some(ttl)
    }
}
