//! What an operation sends through a link.

use std::future::Future;
use std::time::Duration;

use redis::{Cmd, Pipeline, ServerError, Value};

use super::get::{Failure, Found, Get, Got};
use super::slot::Link;

/// Something that is sent at once and answered at once.
pub(super) trait Request: Sync {
    type Answer: Send;

    /// Whether it sees to its own bound once it is sent.
    const BOUNDED: bool = false;

    /// Whether it changes nothing, so that it may be sent a second time.
    fn is_read(&self) -> bool;

    /// What becomes of it says about the link, beyond that somebody is there.
    fn tells(&self) -> Tells {
        Tells::All
    }

    /// Within what it is answered, if not within `operation_timeout`.
    fn bound(&self) -> Option<Duration> {
        None
    }

    fn send(&self, link: &Link) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The server's refusal, if that is what it answered.
    fn refusal(answer: &Self::Answer) -> Option<&ServerError>;
}

/// What the outcome of a request says about its link.
#[derive(Clone, Copy, PartialEq, Eq)]
// An application's own commands go over a ring alone.
#[cfg_attr(not(feature = "ring"), allow(dead_code))]
pub(super) enum Tells {
    /// Whether the server is of use.
    All,
    /// That somebody answers: what an application is told by its own commands and scripts is its own affair.
    Presence,
    /// Nothing: no answer is waited for.
    Nothing,
}

/// One command.
pub(super) struct One<'a> {
    pub(super) cmd: &'a Cmd,
    pub(super) read: bool,
    pub(super) bound: Option<Duration>,
    pub(super) tells: Tells,
}

impl<'a> One<'a> {
    /// One that may change something.
    pub(super) fn of(cmd: &'a Cmd) -> Self {
        Self {
            cmd,
            read: false,
            bound: None,
            tells: Tells::All,
        }
    }
}

impl Request for One<'_> {
    type Answer = Value;

    fn is_read(&self) -> bool {
        self.read
    }

    fn tells(&self) -> Tells {
        self.tells
    }

    fn bound(&self) -> Option<Duration> {
        self.bound
    }

    async fn send(&self, link: &Link) -> Result<Value, Failure> {
        let mut conn = link.conn();
        // Boxed, for it is large, and every layer above would hold it twice.
        Ok(Box::pin(conn.send_packed_command(self.cmd)).await?)
    }

    fn refusal(answer: &Value) -> Option<&ServerError> {
        match answer {
            Value::ServerError(error) => Some(error),
            _ => None,
        }
    }
}

/// Several commands, with the number of replies that come.
pub(super) struct Many<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) replies: usize,
    pub(super) read: bool,
    pub(super) bound: Option<Duration>,
    pub(super) tells: Tells,
}

impl<'a> Many<'a> {
    /// Some that may change something.
    ///
    /// All replies of a transaction are asked for, those of MULTI and the QUEUED ones too: told to skip them, redis-rs 1.8.1
    /// computes 1 - 2 in a usize when the server refuses MULTI itself.
    pub(super) fn of(pipeline: &'a Pipeline) -> Self {
        let around = if pipeline.is_transaction() { 2 } else { 0 };
        Self {
            pipeline,
            replies: pipeline.len() + around,
            read: false,
            bound: None,
            tells: Tells::All,
        }
    }
}

impl Request for Many<'_> {
    type Answer = Vec<Value>;

    fn is_read(&self) -> bool {
        self.read
    }

    fn tells(&self) -> Tells {
        self.tells
    }

    fn bound(&self) -> Option<Duration> {
        self.bound
    }

    async fn send(&self, link: &Link) -> Result<Vec<Value>, Failure> {
        let mut conn = link.conn();
        let replies = conn.send_packed_commands(self.pipeline, 0, self.replies);
        Ok(Box::pin(replies).await?)
    }

    fn refusal(answer: &Vec<Value>) -> Option<&ServerError> {
        // MULTI itself is allowed where nothing inside it is.
        answer.iter().find_map(One::refusal)
    }
}

impl Request for Get<'_> {
    type Answer = Got;
    const BOUNDED: bool = true;

    fn is_read(&self) -> bool {
        true
    }

    async fn send(&self, link: &Link) -> Result<Got, Failure> {
        let here = link.is_at(self.here);
        link.gather.ask(self, || link.conn(), here, self.load).await
    }

    fn refusal(answer: &Got) -> Option<&ServerError> {
        match &answer.found {
            Found::Refused(error) => Some(error),
            _ => None,
        }
    }
}
