//! One request: a response that is kept, or the handler's.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use tower_service::Service;

use super::body::CacheBody;
use super::control::Control;
use super::handler::{Answer, Handler, State, made};
use super::page::Page;
use super::{CacheLayer, PASS};
use crate::cache::{Cache, Life, Sharing, apart, at_hand_for_now, is_due, refresh, refresh_ahead};
use crate::clock::Moment;
use crate::options::Options;
use crate::report::{Report, Source};

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
    type Future = BoxFuture<'static, Answer<B, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The one that is ready.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let asked = layer.judge(&parts);
            let call = |key, asked| Call {
                layer: &layer,
                key,
                asked,
            };
            match &asked {
                Asked::Pass => layer.passed(inner, Request::from_parts(parts, body)).await,
                Asked::OnlyIfCached(key) => {
                    let found = call(key, parts).found().await;
                    Ok(found.unwrap_or_else(|| layer.timed_out("miss")))
                }
                Asked::Head(key) => {
                    let call = call(key, parts);
                    match call.found().await {
                        Some(answer) => Ok(answer),
                        None => {
                            let request = Request::from_parts(call.asked, body);
                            layer.passed(inner, request).await
                        }
                    }
                }
                Asked::Get { key, force } => call(key, parts).answered(inner, body, *force).await,
            }
        })
    }
}

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
        let wants_anew = control.no_cache || control.life().is_some_and(|life| life.is_zero());
        match is_head {
            // It has no body to keep.
            true if wants_anew => return Asked::Pass,
            true => return Asked::Head(key),
            false => {}
        }
        if control.only_if_cached {
            return Asked::OnlyIfCached(key);
        }
        let force = wants_anew || views.force_if.as_ref().is_some_and(|force| force(request));
        Asked::Get { key, force }
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

    /// There is no response, in time or at all.
    fn timed_out<B: Body>(&self, from: &'static str) -> Response<CacheBody<B>> {
        let status = StatusCode::GATEWAY_TIMEOUT;
        self.told(response_of(status, HeaderMap::new(), Bytes::new()), from)
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

/// A request whose response may be kept.
struct Call<'c, C> {
    layer: &'c CacheLayer<C>,
    key: &'c str,
    asked: request::Parts,
}

impl<C: Cache> Call<'_, C> {
    /// A response that is kept, if there is one.
    async fn found<B: Body>(&self) -> Option<Response<CacheBody<B>>> {
        let (cache, options) = (&self.layer.cache, &self.layer.views.options);
        if let Some((page, life)) = at_hand_for_now(cache, self.key, options) {
            return Some(self.at_hand(&page, life));
        }
        let looked = cache.get_with::<Page>(self.key, options.clone()).await;
        let looked = looked.ok()?;
        let page = looked.value.filter(|_| !looked.explanation.is_stale())?;
        let left = looked.explanation.hit().map(|hit| hit.remaining)?;
        let end = left.duration().map(|left| cache.core().now().after(left));
        Some(self.of(&page, Source::Store, end))
    }

    /// The response: kept, made and kept, or the handler's alone.
    async fn answered<S, A, B>(self, inner: S, body: A, force: bool) -> Answer<B, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        A: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send + 'static,
    {
        let (cache, views) = (&self.layer.cache, &self.layer.views);
        let (core, default_ttl) = (cache.core(), cache.core().settings().default_ttl);
        let make = |handler| made(Arc::clone(views), default_ttl, handler);
        let handler = || Handler::new(inner, Request::from_parts(self.asked.clone(), body));
        if !force && let Some((page, life)) = at_hand_for_now(cache, self.key, &views.options) {
            if let Some(life) = life
                && is_due(core, &views.options, life)
            {
                refresh_ahead(cache, self.key, life, self.options(), make(handler()));
            }
            return Ok(self.at_hand(&page, life));
        }
        let (report, handler) = (Report::new(), handler());
        // A store's error is nothing to a client.
        let options = self.options().report(&report).error_ttl(PASS).unstrict();
        let make = make(handler.clone());
        let page = match force {
            true => refresh(cache, self.key, options, Sharing::Own, make).await,
            false => apart(cache, self.key, options, make).await,
        };
        match (page, handler.own()) {
            // Its own response, rather than an older one of others. But for a failure there is nothing better.
            (Ok(_), Some((own, false))) => {
                // Nor is that an answer to anybody any more. What fails is counted.
                let _ = cache.delete(self.key).await;
                own.map(|own| self.layer.told(own, "pass"))
            }
            (Ok(page), _) => Ok(self.reported(&page, &report)),
            (Err(_), Some((own, _))) => own.map(|own| self.layer.told(own, "pass")),
            (Err(_), None) => match handler.take() {
                // Another's response is not shared.
                State::Ready(inner, request) => self.layer.passed(inner, request).await,
                // It took longer than it may, or panicked.
                State::Called | State::Answered { .. } => Ok(self.layer.timed_out("pass")),
            },
        }
    }

    /// Those of the layer, with the tags of this request.
    fn options(&self) -> Options {
        let views = &self.layer.views;
        let mut options = views.options.clone();
        if let Some(tags) = &views.tags {
            tags(&self.asked)
                .into_iter()
                .for_each(|tag| options.add(tag.into()));
        }
        options
    }

    /// A response out of memory: within its life, or past it and to be answered still.
    fn at_hand<B: Body>(&self, page: &Page, life: Option<Life>) -> Response<CacheBody<B>> {
        let source = life.map_or(Source::Stale, |_| Source::Memory);
        self.of(page, source, life.map(Life::end))
    }

    /// A response out of the cache, or on its way into it.
    fn reported<B: Body>(&self, page: &Page, report: &Report) -> Response<CacheBody<B>> {
        let source = report.source().unwrap_or(Source::Computed);
        self.of(page, source, report.end())
    }

    fn of<B: Body>(
        &self,
        page: &Page,
        source: Source,
        end: Option<Moment>,
    ) -> Response<CacheBody<B>> {
        let life = page.life();
        let (from, age) = match source {
            // What is gone of its life.
            Source::Memory | Source::Store => {
                let left = end.map(|end| end.since(self.layer.cache.core().now()));
                let gone = life.zip(left).map(|(life, left)| life.saturating_sub(left));
                ("hit", gone)
            }
            // It is past its life, and nobody tells by how much.
            Source::Stale => ("stale", life),
            // Made for this request, or for another at the same time.
            Source::Computed | Source::Joined => ("miss", life.map(|_| Duration::ZERO)),
        };
        self.kept(page, from, age)
    }

    fn kept<B: Body>(
        &self,
        page: &Page,
        from: &'static str,
        age: Option<Duration>,
    ) -> Response<CacheBody<B>> {
        let with_body = self.asked.method != Method::HEAD;
        let (status, mut headers, body) = page.answer(&self.asked.headers, with_body);
        if let Some(age) = age {
            headers.insert(header::AGE, age.as_secs().into());
        }
        self.layer.told(response_of(status, headers, body), from)
    }
}
