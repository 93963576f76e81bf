//! From bytes to values of one type.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{Format, envelope, schema_id};
use crate::clock::Moment;
use crate::entry::Entry;
use crate::failure::Failure;
use crate::refusal::Refusal;
use crate::validator::Validator;
use crate::value::Kind;

/// Reads values of one type.
pub(crate) struct Reader<'f> {
    pub(super) format: &'f Format,
    pub(super) kind: &'static Kind,
    pub(super) schema: u32,
}

impl Reader<'_> {
    /// As [`Format::open`], for a value of this type; and its grace.
    pub(crate) fn read(
        &self,
        key: &str,
        bytes: &[u8],
        now: Moment,
    ) -> Result<(Entry, Duration), Refusal> {
        let Format {
            codec,
            max_value_bytes,
            ..
        } = self.format;
        if bytes.len() > max_value_bytes.saturating_add(envelope::OVERHEAD_BYTES) {
            return Err(Refusal::TooLarge);
        }
        let decoded = |kind, bytes| {
            let value = codec.decode(kind, bytes);
            value.map_err(|_| Refusal::Payload)
        };
        if !codec.enveloped() {
            let entry = Entry::new(decoded(self.kind, bytes)?, now, None).bare(true);
            return Ok((entry, Duration::ZERO));
        }
        if bytes.first() != Some(&envelope::MAGIC) {
            if envelope::lacks_only_magic(bytes) {
                return Err(Refusal::Foreign);
            }
            let value = self.kind.from_plain(bytes).ok_or(Refusal::Foreign)?;
            return Ok((Entry::new(value, now, None).bare(true), Duration::ZERO));
        }
        let (header, mut payload) = envelope::open(key, bytes)?;
        let kind = match header.schema {
            schema if schema == self.schema => self.kind,
            schema if schema == failure_schema() && header.rearmed => Kind::of::<Failure>(),
            _ => return Err(Refusal::Schema),
        };
        if header.codec != codec.id() {
            return Err(Refusal::Codec);
        }
        let mut validator = None;
        if header.validated {
            let (read, rest) = Validator::read(payload).ok_or(Refusal::Payload)?;
            (validator, payload) = (Some(Arc::new(read)), rest);
        }
        let value = match (header.none, payload) {
            (true, &[depth]) => self.kind.none_at(depth).ok_or(Refusal::Payload)?,
            (true, _) => return Err(Refusal::Payload),
            (false, payload) => decoded(kind, payload)?,
        };
        let mut entry = Entry::new(value, now, None).with_wire_fields(
            header.ring_epoch,
            header.compute_us,
            header.rearmed,
        );
        if validator.is_some() {
            entry = entry.validated(validator);
        }
        Ok((entry, Duration::from_millis(header.grace_ms.into())))
    }
}

/// Of a failure that stands in the place of a value, whatever the value's type.
pub(super) fn failure_schema() -> u32 {
    static SCHEMA: LazyLock<u32> = LazyLock::new(|| schema_id("larder.failure", 0));
    *SCHEMA
}
