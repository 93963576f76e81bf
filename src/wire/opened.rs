//! What stands under a key: as the server answered, and opened.

use bytes::Bytes;

use super::command::deadline;
use super::marks::carrying;
use super::reply::code;
use crate::clock::Moment;
use crate::codec::{Marks, Reader};
use crate::core::Core;
use crate::entry::{Answer, Entry, Want};
use crate::error::{ErrorKind, Result};
use crate::generation::Record;
use crate::refusal::Refusal;
use crate::value::Value;

/// What stands under a key, as the server answered.
pub(crate) struct Raw {
    reply: Result<Option<Vec<u8>>>,
    deadline: Moment,
    now: Moment,
    /// What was known of the reader's namespace before it was asked for.
    known: Option<Record>,
}

impl Raw {
    /// The answer to a question of `now`.
    #[inline]
    pub(super) fn new(
        reply: Result<Option<Vec<u8>>>,
        pttl: Option<i64>,
        want: Want,
        now: Moment,
    ) -> Self {
        let deadline = if want.deadline {
            deadline(pttl, now)
        } else {
            Moment::NEVER
        };
        Self {
            reply,
            deadline,
            now,
            known: None,
        }
    }

    /// With what was known of the reader's namespace before it was asked for.
    #[inline]
    pub(super) fn knowing(self, known: Option<Record>) -> Self {
        Self { known, ..self }
    }
}

/// Whether what was read must be read with its life, which the reader did not want: it has a grace.
pub(super) fn lacks_life(core: &Core, want: Want, bytes: &[u8]) -> bool {
    !want.deadline && !core.format().grace(bytes).is_zero()
}

/// A value that it takes more to judge than what was known when it was asked for.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) answer: Answer,
    /// Nothing of a value that carries none.
    pub(super) marks: Option<Marks>,
    /// When it was asked for.
    pub(super) since: Moment,
    /// What was known of the reader's namespace before that. A value of its generation is judged by it, as fresh as it is.
    pub(super) known: Option<Record>,
}

/// Opens what one read came to.
pub(crate) struct Opener<'c> {
    core: &'c Core,
    want: Want,
    reader: Option<Reader<'c>>,
}

impl<'c> Opener<'c> {
    pub(crate) fn new(core: &'c Core, want: Want) -> Self {
        let reader = want.kind.map(|kind| core.format().reader(kind));
        Self { core, want, reader }
    }

    pub(super) fn core(&self) -> &'c Core {
        self.core
    }

    pub(super) fn want(&self) -> Want {
        self.want
    }

    /// The answer that it is, or what is still to be judged. What is no value for this reader is a miss, counted.
    ///
    /// # Errors
    ///
    /// The server's, or why it could not be asked.
    pub(crate) fn open(&self, key: &str, raw: Raw) -> Result<Result<Answer, Box<Opened>>> {
        let bytes = match raw.reply {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Ok(Answer::default())),
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::TooLarge => Refusal::TooLarge,
                    _ if code(&error) == Some("WRONGTYPE") => Refusal::WrongType,
                    _ => return Err(error),
                };
                return Ok(Ok(self.refused(key, why)));
            }
        };
        let opened = self.core.format().marks(&bytes).and_then(|(rest, marks)| {
            let (entry, grace) = match &self.reader {
                Some(reader) => reader.read(key, rest, raw.now)?,
                None => {
                    let bytes = Bytes::copy_from_slice(rest);
                    let entry = Entry::new(Value::encoded(bytes), raw.now, None);
                    let format = self.core.format();
                    let rearmed = format.is_rearmed(rest);
                    (entry.with_wire_fields(0, 0, rearmed), format.grace(rest))
                }
            };
            Ok((entry.ending(raw.deadline, grace), marks))
        });
        let (entry, marks) = match opened {
            Ok(opened) => opened,
            Err(why) => return Ok(Ok(self.refused(key, why))),
        };
        if !self.want.stale && (entry.is_rearmed() || entry.is_stale(raw.now)) {
            return Ok(Ok(Answer::default()));
        }
        if let Some(marks) = &marks
            && marks.tags.is_empty()
            && let Some(known) = marks.known_among(raw.known, self.want)
        {
            return Ok(Ok(carrying(entry.into(), None, known.as_of)));
        }
        Ok(Err(Box::new(Opened {
            answer: entry.into(),
            marks,
            since: raw.now,
            known: raw.known,
        })))
    }

    fn refused(&self, key: &str, why: Refusal) -> Answer {
        self.core.refuse(key, why);
        Answer::refused(why)
    }
}

impl Marks {
    /// What was known of the generation that a value carries when it was asked for.
    pub(super) fn known_among(&self, known: Option<Record>, want: Want) -> Option<Record> {
        known.filter(|known| {
            self.namespace == want.namespace && known.generation == Some(self.generation)
        })
    }
}
