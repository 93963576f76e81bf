//! The body of what is answered: one that is kept, or one that passes by.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// A body is waited for so long before it is passed by.
const READING: Duration = Duration::from_secs(2);

/// The body of a response that went through a [`CacheLayer`](super::CacheLayer): whole, if it came from the cache or went into it, else as the handler
/// answered it.
pub struct CacheBody<B: Body>(Kind<B>);

enum Kind<B: Body> {
    /// All of it; nothing once it was taken.
    Whole(Bytes),
    Passed {
        /// What was read of it before that was known.
        read: VecDeque<Frame<B::Data>>,
        rest: Pin<Box<B>>,
    },
    /// It ended in an error while it was read.
    Broken {
        read: VecDeque<Frame<B::Data>>,
        error: Option<B::Error>,
    },
}

// What is pinned is boxed.
impl<B: Body> Unpin for CacheBody<B> {}

impl<B: Body> fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Whole(_) => "CacheBody(whole)",
            Kind::Passed { .. } => "CacheBody(passed)",
            Kind::Broken { .. } => "CacheBody(broken)",
        })
    }
}

impl<B: Body> CacheBody<B> {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.0, Kind::Broken { .. })
    }

    /// One that is not looked into.
    pub(super) fn passed(body: B) -> Self {
        Self(Kind::Passed {
            read: VecDeque::new(),
            rest: Box::pin(body),
        })
    }
}

impl<B: Body<Data = Bytes>> CacheBody<B> {
    /// Reads a body that is not longer than `most`; a longer one, one with trailers, and one that breaks are handed back to be
    /// passed by.
    pub(super) async fn read(body: B, most: usize) -> Result<Bytes, Self> {
        let hint = body.size_hint();
        if hint.lower() > most as u64 {
            return Err(Self::passed(body));
        }
        let mut rest = Box::pin(body);
        let (mut read, mut len) = (VecDeque::new(), 0_usize);
        // One that takes its time is one to be seen as it comes.
        let until = Handle::try_current()
            .is_ok()
            .then(|| Instant::now() + READING);
        loop {
            let next = match until {
                Some(until) => match timeout_at(until, rest.frame()).await {
                    Ok(next) => next,
                    Err(_) => return Err(Self(Kind::Passed { read, rest })),
                },
                None => rest.frame().await,
            };
            let Some(frame) = next else {
                break;
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    let error = Some(error);
                    return Err(Self(Kind::Broken { read, error }));
                }
            };
            let data = frame.data_ref().map(Bytes::len);
            read.push_back(frame);
            len = len.saturating_add(data.unwrap_or(0));
            if data.is_none() || len > most {
                return Err(Self(Kind::Passed { read, rest }));
            }
        }
        let mut frames = read.into_iter().filter_map(|frame| frame.into_data().ok());
        let first = frames.next().unwrap_or_default();
        if first.len() == len {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(&first);
        frames.for_each(|frame| whole.extend_from_slice(&frame));
        Ok(whole.freeze())
    }
}

impl<B: Body<Data = Bytes>> Body for CacheBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Passed { read, rest } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.as_mut().poll_frame(cx),
            },
            Kind::Broken { read, error } => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Poll::Ready(error.take().map(Err)),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Passed { read, rest } => read.is_empty() && rest.is_end_stream(),
            Kind::Broken { read, error } => read.is_empty() && error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Passed { read, rest } if read.is_empty() => rest.size_hint(),
            Kind::Passed { .. } | Kind::Broken { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    fn body(frames: Frames) -> impl Body<Data = Bytes, Error = &'static str> {
        StreamBody::new(futures_util::stream::iter(frames))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    async fn all<B>(body: CacheBody<B>) -> (String, bool, Option<B::Error>)
    where
        B: Body<Data = Bytes>,
    {
        let (mut text, mut trailers, mut error) = (String::new(), false, None);
        let mut body = body;
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Ok(Err(_)) => trailers = true,
                Err(broken) => error = Some(broken),
            }
        }
        (text, trailers, error)
    }

    #[tokio::test]
    async fn a_short_body_is_read_whole() {
        for frames in [vec![data("ab"), data(""), data("cd")], vec![data("abcd")]] {
            let read = CacheBody::read(body(frames), 4).await;
            assert_eq!(read.unwrap(), "abcd");
        }
        let read = CacheBody::read(body(vec![]), 0).await;
        assert_eq!(read.unwrap(), "");
        let whole = CacheBody::<http_body_util::Empty<Bytes>>::whole(Bytes::from_static(b"abcd"));
        assert_eq!(whole.size_hint().exact(), Some(4));
        assert_eq!(
            all(whole).await,
            ("abcd".to_owned(), false, None::<Infallible>)
        );
    }

    #[tokio::test]
    async fn any_other_passes_by_with_nothing_lost() {
        let long = || vec![data("ab"), data("cd"), data("ef")];
        let passed = CacheBody::read(body(long()), 3).await.unwrap_err();
        assert_eq!(all(passed).await, ("abcdef".to_owned(), false, None));
        let mut with_trailers = long();
        with_trailers.push(Ok(Frame::trailers(HeaderMap::new())));
        let passed = CacheBody::read(body(with_trailers), 100).await.unwrap_err();
        assert_eq!(all(passed).await, ("abcdef".to_owned(), true, None));
        let broken = CacheBody::read(body(vec![data("ab"), Err("cut off")]), 100).await;
        let (text, _, error) = all(broken.unwrap_err()).await;
        assert_eq!((text.as_str(), error), ("ab", Some("cut off")));
    }

    #[tokio::test]
    async fn a_body_that_says_that_it_is_long_is_not_read() {
        let full = http_body_util::Full::new(Bytes::from_static(b"abcdef"));
        let passed = CacheBody::read(full, 3).await.unwrap_err();
        assert_eq!(passed.size_hint().exact(), Some(6));
    }
}
