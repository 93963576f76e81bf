//! The envelope, to the byte as docs/FORMAT.md has it: header, payload, checksum. All numbers are little endian.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::refusal::Refusal;

/// The first byte: the one that no MessagePack value begins with, nor ASCII, nor UTF-8 text.
pub(super) const MAGIC: u8 = 0xC1;
const VERSION: u8 = 1;
const FLAG_NONE: u8 = 1;
const FLAG_MARKS: u8 = 2;
const FLAG_REARMED: u8 = 4;
const FLAG_VALIDATED: u8 = 8;
const FLAGS: u8 = FLAG_NONE | FLAG_MARKS | FLAG_REARMED | FLAG_VALIDATED;

/// The length of the header, in bytes.
pub const HEADER_BYTES: usize = 28;
const CHECKSUM_BYTES: usize = 8;
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// What the header says, besides magic, version and the payload's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) codec: u8,
    pub(super) none: bool,
    /// Whether marks follow, which the server appends.
    pub(super) marked: bool,
    /// Whether the value's life is over, and it was rearmed.
    pub(super) rearmed: bool,
    /// Whether the payload begins with what the origin calls the value's version.
    pub(super) validated: bool,
    pub(super) schema: u32,
    pub(super) ring_epoch: u64,
    pub(super) grace_ms: u32,
    pub(super) compute_us: u32,
}

/// Writes an envelope around a payload without copying it.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + 256);
        bytes.resize(HEADER_BYTES, 0);
        Self(bytes)
    }

    /// Where to append the payload.
    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(super) fn payload_len(&self) -> usize {
        self.0.len().saturating_sub(HEADER_BYTES)
    }

    /// The payload must be at most `u32::MAX` bytes long; the caller has checked its bound.
    pub(super) fn finish(mut self, key: &str, header: &Header) -> Bytes {
        let len = u32::try_from(self.payload_len()).unwrap_or(u32::MAX);
        let mut head = [0; HEADER_BYTES];
        head[..4].copy_from_slice(&[
            MAGIC,
            VERSION,
            header.codec,
            u8::from(header.none) * FLAG_NONE
                + u8::from(header.marked) * FLAG_MARKS
                + u8::from(header.rearmed) * FLAG_REARMED
                + u8::from(header.validated) * FLAG_VALIDATED,
        ]);
        head[4..8].copy_from_slice(&header.schema.to_le_bytes());
        head[8..16].copy_from_slice(&header.ring_epoch.to_le_bytes());
        head[16..20].copy_from_slice(&header.grace_ms.to_le_bytes());
        head[20..24].copy_from_slice(&header.compute_us.to_le_bytes());
        head[24..28].copy_from_slice(&len.to_le_bytes());
        self.0[..HEADER_BYTES].copy_from_slice(&head);
        let checksum = checksum(key, &self.0);
        self.0.extend_from_slice(&checksum.to_le_bytes());
        self.0.into()
    }
}

/// Bound to the key: a value under another key, by a swap or a misrouted answer, is refused.
fn checksum(key: &str, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, xxh3_64(key.as_bytes()))
}

/// Whether bytes that do not begin with [`MAGIC`] are an envelope but for that: a damaged one, and nobody's text or bytes.
pub(super) fn lacks_only_magic(bytes: &[u8]) -> bool {
    let marked = bytes.get(3).is_some_and(|flags| flags & FLAG_MARKS != 0);
    let marks = bytes.last_chunk().map(|length| u16::from_le_bytes(*length));
    let marks = marks.filter(|_| marked).map_or(0, usize::from);
    let payload_len = bytes.len().checked_sub(OVERHEAD_BYTES + marks);
    let stated = bytes.get(HEADER_BYTES - 4..HEADER_BYTES);
    let stated = stated
        .and_then(|len| len.try_into().ok())
        .map(u32::from_le_bytes);
    bytes.get(1) == Some(&VERSION)
        && payload_len.is_some_and(|len| stated.is_some_and(|stated| stated as usize == len))
}

/// The ring epoch of an envelope whose first [`HEADER_BYTES`] these are; nothing if they are no envelope's. Whether it is
/// undamaged only the whole of it tells.
#[cfg(feature = "ring")]
pub(super) fn ring_epoch(head: &[u8]) -> Option<u64> {
    let head: &[u8; HEADER_BYTES] = head.first_chunk()?;
    let [magic, version, _, flags, _, _, _, _, rest @ ..] = head;
    let [e0, e1, e2, e3, e4, e5, e6, e7, ..] = rest;
    let known = *magic == MAGIC && *version == VERSION && flags & !FLAGS == 0;
    known.then(|| u64::from_le_bytes([*e0, *e1, *e2, *e3, *e4, *e5, *e6, *e7]))
}

/// For how many milliseconds a value is kept past its life, of which these bytes are the envelope if they are one, and whether
/// it was rearmed.
pub(super) fn grace(bytes: &[u8]) -> (u32, bool) {
    match bytes.first_chunk::<20>() {
        Some([MAGIC, VERSION, _, flags, rest @ ..]) => {
            let [_, _, _, _, _, _, _, _, _, _, _, _, grace @ ..] = rest;
            (u32::from_le_bytes(*grace), flags & FLAG_REARMED != 0)
        }
        _ => (0, false),
    }
}

/// The marks behind an envelope, apart from the rest; nothing where it has none.
#[cfg(feature = "redis")]
pub(super) fn marks(bytes: &[u8]) -> Result<(&[u8], Option<Marks>), Refusal> {
    let marked =
        bytes.first() == Some(&MAGIC) && bytes.get(3).is_some_and(|flags| flags & FLAG_MARKS != 0);
    if !marked {
        return Ok((bytes, None));
    }
    let length = bytes.last_chunk().map(|length| u16::from_le_bytes(*length));
    let start = length.and_then(|length| bytes.len().checked_sub(length.into()));
    let (rest, marks) = start
        .and_then(|start| bytes.split_at_checked(start))
        .ok_or(Refusal::Length)?;
    let marks = Marks::read(marks).ok_or(Refusal::Length)?;
    Ok((rest, Some(marks)))
}

/// What a value says of the invalidations that it has not seen: the generations of its namespace and tags when its compute
/// began.
#[cfg(feature = "redis")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// How much of the key is its namespace, in bytes.
    pub(crate) namespace: usize,
    pub(crate) generation: u64,
    pub(crate) tags: Vec<(Box<str>, u64)>,
}

#[cfg(feature = "redis")]
impl Marks {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (namespace, bytes) = bytes.split_first_chunk()?;
        let (generation, bytes) = bytes.split_first_chunk()?;
        let ([count], mut bytes) = bytes.split_first_chunk()?;
        let mut tags = Vec::new();
        for _ in 0..*count {
            let ([length], rest) = bytes.split_first_chunk()?;
            let (name, rest) = rest.split_at_checked((*length).into())?;
            let (generation, rest) = rest.split_first_chunk()?;
            let name = std::str::from_utf8(name).ok()?;
            tags.push((name.into(), u64::from_le_bytes(*generation)));
            bytes = rest;
        }
        // What is left is when it was stored, which few ask for, and the length, which was read already.
        (bytes.len() == 10).then(|| Self {
            namespace: u16::from_le_bytes(*namespace).into(),
            generation: u64::from_le_bytes(*generation),
            tags,
        })
    }
}

/// When a value that has marks was stored, in milliseconds by its server's clock.
#[cfg(feature = "redis")]
pub(super) fn stored_ms(bytes: &[u8]) -> Option<u64> {
    let (_, marks) = marks(bytes).ok()?;
    marks?;
    let (rest, _) = bytes.split_last_chunk::<2>()?;
    rest.last_chunk().map(|stored| u64::from_le_bytes(*stored))
}

/// Header and payload of bytes that begin with [`MAGIC`].
pub(super) fn open<'b>(key: &str, bytes: &'b [u8]) -> Result<(Header, &'b [u8]), Refusal> {
    let Some((body, sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(Refusal::Length);
    };
    let Some((head, payload)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Refusal::Length);
    };
    let [_, version, codec, flags, s0, s1, s2, s3, rest @ ..] = head;
    let [e0, e1, e2, e3, e4, e5, e6, e7, rest @ ..] = rest;
    let [g0, g1, g2, g3, c0, c1, c2, c3, l0, l1, l2, l3] = rest;
    if *version != VERSION || flags & !FLAGS != 0 {
        return Err(Refusal::Version);
    }
    if u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize != payload.len() {
        return Err(Refusal::Length);
    }
    if checksum(key, body) != u64::from_le_bytes(*sum) {
        return Err(Refusal::Checksum);
    }
    let header = Header {
        codec: *codec,
        none: flags & FLAG_NONE != 0,
        marked: flags & FLAG_MARKS != 0,
        rearmed: flags & FLAG_REARMED != 0,
        validated: flags & FLAG_VALIDATED != 0,
        schema: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
        ring_epoch: u64::from_le_bytes([*e0, *e1, *e2, *e3, *e4, *e5, *e6, *e7]),
        grace_ms: u32::from_le_bytes([*g0, *g1, *g2, *g3]),
        compute_us: u32::from_le_bytes([*c0, *c1, *c2, *c3]),
    };
    Ok((header, payload))
}
