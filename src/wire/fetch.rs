//! Reads of one key.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use futures_util::future::join;

use super::ask::Answer as Joint;
use super::exchange::Joined;
use super::get::{Found, Got};
use super::node::{Node, strange};
use super::opened::{Opened, Opener, Raw, lacks_life};
use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Answer, Want};
use crate::error::{Error, Result};
use crate::generation::Record;

/// A get that goes with others to its node, of which it holds nothing meanwhile.
pub(crate) struct Joining {
    joined: Joined,
    since: Moment,
    /// What was known of the reader's namespace then.
    known: Record,
}

/// A get that came back with something else than a value or nothing.
pub(crate) struct Came {
    joining: Joining,
    with: Joint,
}

/// How far [`together`] got.
pub(crate) enum Together {
    Done(Answer),
    Failed(Error),
    /// [`Node::fetch`] does the rest.
    Rest(Option<Rest>),
}

/// What [`together`] came to.
pub(crate) enum Rest {
    Came(Box<Came>),
    /// A value that it takes more to judge than what was known when it was asked for.
    Opened(Box<Opened>),
    /// A value that must be read with its life.
    Life,
}

/// Reads one key together with others, if `join` finds any on their way. Apart from [`Node::fetch`] because nearly all reads
/// of a busy store end here, and need a small future only.
pub(crate) async fn together(
    core: &Core,
    key: &str,
    want: Want,
    mut join: impl FnMut(&Waker) -> Option<Joining>,
) -> Together {
    let Some(joining) = poll_fn(|cx| Poll::Ready(join(cx.waker()))).await else {
        return Together::Rest(None);
    };
    let (reply, pttl) = match joining.joined.answer().await {
        Joint::Got(Got {
            found: Found::Bytes(bytes),
            pttl,
        }) => (Some(bytes), pttl),
        Joint::Got(Got {
            found: Found::Nothing,
            pttl,
        }) => (None, pttl),
        with => return Together::Rest(Some(Rest::Came(Box::new(Came { joining, with })))),
    };
    if reply
        .as_ref()
        .is_some_and(|bytes| lacks_life(core, want, bytes))
    {
        return Together::Rest(Some(Rest::Life));
    }
    let raw = Raw::new(Ok(reply), pttl, want, joining.since).knowing(Some(joining.known));
    match Opener::new(core, want).open(key, raw) {
        Ok(Ok(answer)) => Together::Done(answer),
        Ok(Err(opened)) => Together::Rest(Some(Rest::Opened(opened))),
        Err(error) => Together::Failed(error),
    }
}

impl Node {
    /// Sends a key along with others that are on their way to this node, if there are any.
    pub(crate) fn join(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        waker: &Waker,
    ) -> Option<Joining> {
        let known = self.known_of(core, key, want)?;
        // Before the question: what is left of a life counts from here.
        let now = std::time::Instant::now();
        let connection = self.connection(key);
        let joined = connection.join(key, want.deadline, now.into(), waker)?;
        let since = core.settings().clock.at(now);
        Some(Joining {
            joined,
            since,
            known,
        })
    }

    /// Reads one key, or goes on with what [`together`] left.
    pub(crate) async fn fetch(
        &self,
        core: &Core,
        key: &str,
        want: Want,
        rest: Option<Rest>,
    ) -> Result<Answer> {
        let connection = self.connection(key);
        let mut want = want;
        let (mut got, mut since) = match rest {
            Some(Rest::Opened(opened)) => return self.judge(core, key, want, opened).await,
            Some(Rest::Came(came)) => {
                let Came { joining, with } = *came;
                let Joining { joined, since, .. } = joining;
                let got = connection.rejoined(key, want.deadline, &joined, with);
                (got.await?, since)
            }
            rest => {
                if matches!(rest, Some(Rest::Life)) {
                    want = want.with_deadline();
                }
                let since = core.now();
                // At the same time, for what was read is judged by it.
                let known = self.know_namespace(core, key, want);
                let (got, ()) = join(connection.get(key, want.deadline), known).await;
                (got?, since)
            }
        };
        if matches!(&got.found, Found::Bytes(bytes) if lacks_life(core, want, bytes)) {
            want = want.with_deadline();
            since = core.now();
            got = connection.get(key, true).await?;
        }
        let reply = match got.found {
            Found::Nothing => Ok(None),
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::Refused(error) => Err(connection.server_error("get", &error)),
            Found::Strange => return Err(strange(connection, "get")),
        };
        let raw = Raw::new(reply, got.pttl, want, since);
        match Opener::new(core, want).open(key, raw)? {
            Ok(answer) => Ok(answer),
            Err(opened) => self.judge(core, key, want, opened).await,
        }
    }
}
