//! How values become bytes at the edge to a network.

mod envelope;
mod reader;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
#[cfg(feature = "redis")]
use crate::generation::{MAX_TAG_BYTES, MAX_TAGS};
use crate::value::{Kind, Value};

pub use crate::refusal::Refusal;
pub use envelope::HEADER_BYTES;
#[cfg(feature = "redis")]
pub(crate) use envelope::Marks;
pub(crate) use reader::Reader;
use reader::failure_schema;

/// Turns values into bytes and back. [`MessagePack`] is the default; [`Plain`] is for keys shared with other languages.
///
/// A codec of your own usually wraps another, to compress or to encrypt: it gets each value with the table of its type.
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// The number that stands in the envelope: 1 is MessagePack, 128 to 255 are yours.
    fn id(&self) -> u8;

    /// Whether the bytes stand in an envelope, with checksum and schema. Without one they are readable by anybody, and unprotected.
    fn enveloped(&self) -> bool {
        true
    }

    /// Appends the bytes of a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value has no encoding.
    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<()>;

    /// The value of exactly these bytes. They may be anything: refuse, never panic, and bound what you allocate.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if they are not a value of this type.
    fn decode(&self, kind: &'static Kind, bytes: &[u8]) -> Result<Value>;
}

/// MessagePack with named fields, bytes as bytes, in an envelope.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

impl Codec for MessagePack {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        value.kind().to_messagepack(value, out)
    }

    fn decode(&self, kind: &'static Kind, bytes: &[u8]) -> Result<Value> {
        kind.from_messagepack(bytes)
    }
}

/// No envelope: bytes, text and integers as they are, JSON for the rest. Readable by every language,
/// without checksum, schema and ring epoch: a value of another shape is told only by JSON itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Codec for Plain {
    fn id(&self) -> u8 {
        2
    }

    fn enveloped(&self) -> bool {
        false
    }

    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let kind = value.kind();
        if kind.to_plain(value, out) {
            return Ok(());
        }
        let start = out.len();
        kind.to_json(value, out)?;
        // JSON writes Some(None) and Some(()) as it writes None; reading them as None would be wrong.
        if &out[start..] == b"null" && kind.is_some(value) {
            return Err(
                Error::new(ErrorKind::Encode, "JSON cannot tell this value from None")
                    .with("type", kind.type_name()),
            );
        }
        Ok(())
    }

    fn decode(&self, kind: &'static Kind, bytes: &[u8]) -> Result<Value> {
        match kind.from_plain(bytes) {
            Some(value) => Ok(value),
            None => kind.from_json(bytes),
        }
    }
}

/// How a store writes and reads: codec, schema ids, bound on size.
///
/// ```
/// use larder::codec::Format;
/// use larder::{Clock, Entry, Kind, Value};
/// let (format, now) = (Format::default(), Clock::default().now());
/// let bytes = format.seal("user:1", &Entry::new(Value::new("Ada".to_owned()), now, None)).unwrap();
/// let entry = format.open("user:1", &bytes, Some(Kind::of::<String>()), now).unwrap();
/// assert_eq!(*entry.into_value().downcast::<String>().unwrap(), "Ada");
/// ```
#[derive(Clone, Debug)]
pub struct Format {
    codec: Arc<dyn Codec>,
    schema_version: u32,
    schemas: Arc<HashMap<TypeId, Box<str>, ahash::RandomState>>,
    max_value_bytes: usize,
    /// Whether envelopes say that marks follow.
    marked: bool,
}

/// The longest marks, in bytes.
#[cfg(feature = "redis")]
pub(crate) const MAX_MARKS_BYTES: usize = 21 + MAX_TAGS * (9 + MAX_TAG_BYTES);

impl Default for Format {
    fn default() -> Self {
        Self {
            codec: Arc::new(MessagePack),
            schema_version: 0,
            schemas: Arc::default(),
            max_value_bytes: 8 << 20,
            marked: false,
        }
    }
}

impl Format {
    /// Sets the codec.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.codec = Arc::new(codec);
        self
    }

    /// Sets the version that goes into every schema id: raise it, and all that was stored before is a miss.
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.schema_version = version;
        self
    }

    /// Gives a type a schema name of its own, instead of `std::any::type_name`, so that two crates can share its values.
    #[must_use]
    pub fn schema<T: 'static>(mut self, name: &str) -> Self {
        Arc::make_mut(&mut self.schemas).insert(TypeId::of::<T>(), name.into());
        self
    }

    /// Sets the largest value in bytes, encoded, that is written or read. 8 MiB unless set; at most 4 GiB less one byte.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.min(u32::MAX as usize);
        self
    }

    /// The bound set by [`max_value_bytes`](Self::max_value_bytes).
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max_value_bytes
    }

    /// For a store that appends marks to what it stores.
    #[cfg(feature = "redis")]
    pub(crate) fn with_marks(mut self) -> Self {
        self.marked = true;
        self
    }

    /// Whether bytes stand in an envelope.
    #[cfg(feature = "redis")]
    pub(crate) fn is_enveloped(&self) -> bool {
        self.codec.enveloped()
    }

    /// Whether what is stored ends with marks.
    #[cfg(feature = "redis")]
    pub(crate) fn takes_marks(&self) -> bool {
        self.marked && self.codec.enveloped()
    }

    fn schema_of(&self, kind: &Kind) -> u32 {
        if Failure::is_kind(kind) {
            return failure_schema();
        }
        let given = self.schemas.get(&kind.type_id());
        schema_id(
            given.map_or(kind.type_name(), |name| name),
            self.schema_version,
        )
    }

    /// The bytes of an entry as they stand under `key`, which is the whole key as stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value has no encoding, [`ErrorKind::TooLarge`] if it exceeds the bound.
    pub fn seal(&self, key: &str, entry: &Entry) -> Result<Bytes> {
        let value = entry.value();
        if let Some(bytes) = value.as_encoded() {
            return Ok(bytes.clone());
        }
        if entry.is_bare() {
            let mut bytes = Vec::new();
            if value.kind().to_plain(value, &mut bytes) {
                self.bounded(bytes.len())?;
                return Ok(bytes.into());
            }
        }
        if !self.codec.enveloped() {
            let mut bytes = Vec::new();
            self.codec.encode(value, &mut bytes)?;
            self.bounded(bytes.len())?;
            return Ok(bytes.into());
        }
        let header = envelope::Header {
            codec: self.codec.id(),
            none: false,
            marked: self.marked,
            schema: self.schema_of(value.kind()),
            rearmed: entry.is_rearmed(),
            validated: entry.validator().is_some(),
            ring_epoch: entry.ring_epoch(),
            grace_ms: u32::try_from(entry.grace().as_millis()).unwrap_or(u32::MAX),
            compute_us: entry.compute_us(),
        };
        let mut writer = envelope::Writer::new();
        if let Some(validator) = entry.validator() {
            validator.write(writer.payload());
        }
        let none = value.kind().none_depth(value);
        match none {
            Some(depth) => writer.payload().push(depth),
            None => self.codec.encode(value, writer.payload())?,
        }
        self.bounded(writer.payload_len())?;
        Ok(writer.finish(
            key,
            &envelope::Header {
                none: none.is_some(),
                ..header
            },
        ))
    }

    fn bounded(&self, len: usize) -> Result<()> {
        if len <= self.max_value_bytes {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::TooLarge, "the encoded value exceeds the bound")
                .with("bytes", len)
                .with("bound", self.max_value_bytes),
        )
    }

    /// For how long a value is kept past its life, of which these are the stored bytes: when its key is gone in no more than
    /// this, the value is stale. [`Entry::ending`] takes both.
    #[must_use]
    pub fn grace(&self, bytes: &[u8]) -> Duration {
        let grace = self.codec.enveloped().then(|| envelope::grace(bytes).0);
        Duration::from_millis(grace.unwrap_or(0).into())
    }

    /// Whether the value of these bytes was rearmed.
    #[cfg(feature = "redis")]
    pub(crate) fn is_rearmed(&self, bytes: &[u8]) -> bool {
        self.codec.enveloped() && envelope::grace(bytes).1
    }

    /// When a value that has marks was stored, in milliseconds by its server's clock.
    #[cfg(feature = "redis")]
    pub(crate) fn stored_ms(&self, bytes: &[u8]) -> Option<u64> {
        let enveloped = self.codec.enveloped();
        enveloped.then(|| envelope::stored_ms(bytes)).flatten()
    }

    /// What stored bytes tell of themselves to who does not know their type: how long their compute took, in microseconds, and
    /// whether they are a failure in the place of a value.
    ///
    /// # Errors
    ///
    /// Why they are no value of any type.
    pub(crate) fn inspect(&self, key: &str, bytes: &[u8]) -> Result<(u32, bool), Refusal> {
        if !self.codec.enveloped() {
            return Ok((0, false));
        }
        if bytes.first() != Some(&envelope::MAGIC) {
            let damaged = envelope::lacks_only_magic(bytes);
            return if damaged {
                Err(Refusal::Foreign)
            } else {
                Ok((0, false))
            };
        }
        let (header, _) = envelope::open(key, bytes)?;
        if header.codec != self.codec.id() {
            return Err(Refusal::Codec);
        }
        let failed = header.rearmed && header.schema == failure_schema();
        Ok((header.compute_us, failed))
    }

    /// The marks of stored bytes, apart from the rest, which [`open`](Self::open) reads.
    ///
    /// # Errors
    ///
    /// Why they are not marks.
    #[cfg(feature = "redis")]
    pub(crate) fn marks<'b>(&self, bytes: &'b [u8]) -> Result<(&'b [u8], Option<Marks>), Refusal> {
        if !self.codec.enveloped() {
            return Ok((bytes, None));
        }
        envelope::marks(bytes)
    }

    /// The entry that these bytes are under `key`, without a deadline. Without a `kind` the value stays bytes.
    ///
    /// # Errors
    ///
    /// Why they are not a value for this reader.
    pub fn open(
        &self,
        key: &str,
        bytes: &Bytes,
        kind: Option<&'static Kind>,
        now: crate::clock::Moment,
    ) -> Result<Entry, Refusal> {
        match kind {
            Some(kind) => self
                .reader(kind)
                .read(key, bytes, now)
                .map(|(entry, _)| entry),
            None => Ok(Entry::new(Value::encoded(bytes.clone()), now, None)),
        }
    }

    /// For values of this type.
    pub(crate) fn reader(&self, kind: &'static Kind) -> Reader<'_> {
        Reader {
            format: self,
            kind,
            schema: self.schema_of(kind),
        }
    }

    /// The ring epoch that the first [`HEADER_BYTES`] of a stored value tell; nothing where they are no envelope of ours.
    #[cfg(feature = "ring")]
    pub(crate) fn ring_epoch(&self, head: &[u8]) -> Option<u64> {
        self.codec
            .enveloped()
            .then(|| envelope::ring_epoch(head))
            .flatten()
    }

    /// Reads an entry as another type than it was stored as, by the same rules as bytes from a server. `key` is the whole
    /// key as stored.
    ///
    /// # Errors
    ///
    /// Why it is not a value of that type.
    pub fn convert(&self, key: &str, entry: &Entry, kind: &'static Kind) -> Result<Value, Refusal> {
        let bytes = self.seal(key, entry).map_err(|_| Refusal::Payload)?;
        self.open(key, &bytes, Some(kind), entry.born())
            .map(Entry::into_value)
    }
}

/// The low half of xxh3-64 of the name, a zero byte and the version, little endian.
fn schema_id(name: &str, version: u32) -> u32 {
    // Asked for at every read. Most names are short.
    let mut room = [0; 128];
    let [v0, v1, v2, v3] = version.to_le_bytes();
    let hash = match room.get_mut(..name.len() + 5) {
        Some(text) => {
            let (start, end) = text.split_at_mut(name.len());
            start.copy_from_slice(name.as_bytes());
            end.copy_from_slice(&[0, v0, v1, v2, v3]);
            xxh3_64(text)
        }
        None => xxh3_64(&[name.as_bytes(), &[0, v0, v1, v2, v3]].concat()),
    };
    // The cut is meant: 32 bits tell types apart well enough where a checksum and a decoder follow.
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}
