//! The handler behind a layer: called once, for all who wait or for its own client.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderName};
use http::{Request, Response, StatusCode, response};
use http_body::Body;
use tower_service::Service;
use tracing::Instrument as _;

use super::body::CacheBody;
use super::control::{Control, is_stream, life, varies_by};
use super::page::Page;
use super::{Caching, Views};
use crate::context::Context;
use crate::error::Error;
use crate::ttl::Ttl;

/// A response, or the service's own error.
pub(super) type Answer<B, E> = Result<Response<CacheBody<B>>, E>;

/// Why there is no response to keep.
pub(super) enum Missed {
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

/// A request on its way to its handler, and what that answered where it is not kept. Clones are the same one.
pub(super) struct Handler<S, A, B: Body, E>(Arc<Mutex<State<S, A, B, E>>>);

pub(super) enum State<S, A, B: Body, E> {
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

/// What a client wants only under a condition. Whether it has the response already is for the layer to say: the handler is to answer with
/// all of it.
const CONDITIONS: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

impl<S, A, B: Body, E> Handler<S, A, B, E> {
    /// One that is to be called with this request, whatever conditions it has.
    pub(super) fn new(inner: S, mut request: Request<A>) -> Self {
        for name in CONDITIONS {
            request.headers_mut().remove(name);
        }
        Self(Arc::new(Mutex::new(State::Ready(inner, request))))
    }

    fn state(&self) -> MutexGuard<'_, State<S, A, B, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has come to; from now on it is called.
    pub(super) fn take(&self) -> State<S, A, B, E> {
        std::mem::replace(&mut *self.state(), State::Called)
    }

    fn answered(&self, answer: Answer<B, E>, missed: Missed) -> Missed {
        let is_failure = matches!(missed, Missed::Failed);
        *self.state() = State::Answered { answer, is_failure };
        missed
    }

    /// What it answered to its own client, where that is not for others, and whether it is a failure. One that is to be called yet stays so.
    pub(super) fn own(&self) -> Option<(Answer<B, E>, bool)> {
        let mut state = self.state();
        if !matches!(*state, State::Answered { .. }) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Called) {
            State::Answered { answer, is_failure } => Some((answer, is_failure)),
            State::Ready(..) | State::Called => None,
        }
    }
}

impl<S, A, B> Handler<S, A, B, S::Error>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    /// What it answers, if it is a response to keep. Else it is put by for its own client.
    async fn make(
        &self,
        views: &Views,
        default_ttl: Ttl,
        context: &Context,
    ) -> Result<Page, Missed> {
        let State::Ready(mut inner, request) = self.take() else {
            return Err(Missed::Failed);
        };
        let response = match inner.call(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.answered(Err(error), Missed::Failed)),
        };
        let (parts, body) = response.into_parts();
        let Some(ttl) = views.keeps(&parts) else {
            let missed = match parts.status.is_server_error() {
                true => Missed::Failed,
                false => Missed::Passed,
            };
            let own = Response::from_parts(parts, CacheBody::passed(body));
            return Err(self.answered(Ok(own), missed));
        };
        let body = match CacheBody::read(body, views.max_body).await {
            Ok(body) => body,
            Err(body) => {
                let missed = match body.is_broken() {
                    true => Missed::Failed,
                    false => Missed::Passed,
                };
                return Err(self.answered(Ok(Response::from_parts(parts, body)), missed));
            }
        };
        if let Some(ttl) = ttl {
            context.set_ttl(ttl);
        }
        if Control::of(&parts.headers).must_revalidate {
            // Not past its life, whatever happens.
            context.set_grace(Duration::ZERO);
        }
        if let Some(caching) = parts.extensions.get::<Caching>() {
            caching.tags.iter().for_each(|tag| context.tag(tag.clone()));
        }
        let life = context.options().ttl.resolve(default_ttl);
        Ok(Page::new(&parts, body, life))
    }
}

/// The compute of a response.
pub(super) fn made<S, A, B>(
    views: Arc<Views>,
    default_ttl: Ttl,
    handler: Handler<S, A, B, S::Error>,
) -> impl FnOnce(Context) -> BoxFuture<'static, Result<Page, Missed>> + Send + 'static
where
    S: Service<Request<A>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send + 'static,
{
    move |context| {
        let making = async move {
            let made = handler.make(&views, default_ttl, &context).await;
            if matches!(made, Err(Missed::Failed)) {
                // The next one tries again.
                context.keeps_failures(Duration::ZERO);
            }
            made
        };
        Box::pin(making.in_current_span())
    }
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
