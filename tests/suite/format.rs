//! The bytes of docs/FORMAT.md, as golden vectors, and damaged in every way that is cheap to try.

mod payload;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::codec::{Format, HEADER_BYTES, Plain, Refusal};
use larder::ring::{Publication, publish};
use larder::value::Cacheable;
use larder::{Clock, Entry, Kind, Validator, Value};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::support::Server;

const DOCUMENT: &str = include_str!("../../docs/FORMAT.md");
const CHECKSUM_BYTES: usize = 8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    email: Option<String>,
}

fn ada() -> User {
    User {
        id: 42,
        name: "Ada".to_owned(),
        email: None,
    }
}

/// Schema names of our own: what `type_name` prints may change with the compiler.
fn format() -> Format {
    Format::default()
        .schema::<User>("example.User")
        .schema::<String>("example.text")
        .schema::<Vec<u8>>("example.bytes")
        .schema::<u64>("example.u64")
        .schema::<Option<u64>>("example.maybe")
        .schema::<Option<Option<u64>>>("example.maybe2")
        .schema::<Vec<String>>("example.list")
}

struct Vector<T> {
    key: &'static str,
    value: T,
    schema: &'static str,
    version: u32,
    epoch: u64,
    compute: Duration,
    hex: &'static str,
}

fn vector<T>(key: &'static str, value: T, schema: &'static str, hex: &'static str) -> Vector<T> {
    Vector {
        key,
        value,
        schema,
        version: 0,
        epoch: 0,
        compute: Duration::ZERO,
        hex,
    }
}

/// The example of docs/FORMAT.md.
fn example() -> Vector<User> {
    Vector {
        version: 3,
        epoch: 7,
        compute: Duration::from_micros(1500),
        ..vector(
            "app:user:42",
            ada(),
            "example.User",
            "c1010100835b27b4070000000000000000000000dc0500001500000083a269642aa46e616d65a3416461a5656d61696cc0d406555b147b6088",
        )
    }
}

/// Runs a check on every vector, whatever its type.
macro_rules! each_vector {
    ($check:ident) => {
        $check(&example());
        $check(&vector("user:42", ada(), "example.User", "c10101002f7ffd5a000000000000000000000000000000001500000083a269642aa46e616d65a3416461a5656d61696cc0e7b7d4f171168d74"));
        $check(&vector("greeting", "hello".to_owned(), "example.text", "c1010100393164d70000000000000000000000000000000006000000a568656c6c6fe4a61efe893ef91d"));
        $check(&vector("blob", vec![0_u8, 0xC1, 0xFF], "example.bytes", "c10101005d72427f0000000000000000000000000000000005000000c40300c1ff7d43ff81868a9f77"));
        $check(&vector("answer", 42_u64, "example.u64", "c101010040b42db200000000000000000000000000000000010000002a612338dfc423e6f2"));
        $check(&vector("absent", None::<u64>, "example.maybe", "c10101015e71166f0000000000000000000000000000000001000000000f5c1ede8a3521f7"));
        $check(&vector("absent", Some(None::<u64>), "example.maybe2", "c1010101ac618e43000000000000000000000000000000000100000001d195ff1d97c98274"));
        $check(&vector("names", vec!["Ada".to_owned(), "Alan".to_owned()], "example.list", "c10101001f27cd6c000000000000000000000000000000000a00000092a3416461a4416c616e3072e4d075ed7e06"));
    };
}

fn sealed<T: Cacheable>(vector: &Vector<T>) -> Bytes {
    let entry = Entry::new(
        Value::new(vector.value.clone()),
        Clock::default().now(),
        None,
    )
    .in_ring_epoch(vector.epoch)
    .computed_in(vector.compute);
    let format = format().schema_version(vector.version);
    format.seal(vector.key, &entry).expect("it has an encoding")
}

fn open<T: Cacheable>(format: &Format, key: &str, bytes: &[u8]) -> Result<Entry, Refusal> {
    let bytes = Bytes::copy_from_slice(bytes);
    format.open(key, &bytes, Some(Kind::of::<T>()), Clock::default().now())
}

fn value<T: Cacheable>(entry: Entry) -> T {
    let value = entry.downcast::<T>().expect("the wanted type");
    T::clone(&value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("a byte")
    };
    digits.chunks(2).map(byte).collect()
}

/// An envelope made here from the words of the document, with a checksum that fits whatever is in it.
struct ByHand<'a> {
    magic: u8,
    version: u8,
    codec: u8,
    flags: u8,
    schema: u32,
    epoch: u64,
    grace_ms: u32,
    compute_us: u32,
    claimed: Option<u32>,
    payload: &'a [u8],
}

impl<'a> ByHand<'a> {
    fn new(schema: &str, payload: &'a [u8]) -> Self {
        Self {
            magic: 0xC1,
            version: 1,
            codec: 1,
            flags: 0,
            schema: schema_id(schema, 0),
            epoch: 0,
            grace_ms: 0,
            compute_us: 0,
            claimed: None,
            payload,
        }
    }

    fn bytes(&self, key: &str) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a short payload");
        let mut bytes = vec![self.magic, self.version, self.codec, self.flags];
        bytes.extend(self.schema.to_le_bytes());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.grace_ms.to_le_bytes());
        bytes.extend(self.compute_us.to_le_bytes());
        bytes.extend(self.claimed.unwrap_or(length).to_le_bytes());
        bytes.extend(self.payload);
        let checksum = xxh3_64_with_seed(&bytes, xxh3_64(key.as_bytes()));
        bytes.extend(checksum.to_le_bytes());
        bytes
    }
}

fn schema_id(name: &str, version: u32) -> u32 {
    let text = [name.as_bytes(), &[0], &version.to_le_bytes()].concat();
    xxh3_64(&text) as u32
}

fn golden<T: Cacheable + PartialEq + Debug>(vector: &Vector<T>) {
    let bytes = unhex(vector.hex);
    assert_eq!(
        hex(&sealed(vector)),
        vector.hex,
        "sealed under {}",
        vector.key
    );
    let payload = &bytes[HEADER_BYTES..bytes.len() - CHECKSUM_BYTES];
    let by_hand = ByHand {
        flags: bytes[3],
        schema: schema_id(vector.schema, vector.version),
        epoch: vector.epoch,
        compute_us: u32::try_from(vector.compute.as_micros()).expect("a short time"),
        ..ByHand::new("", payload)
    };
    assert_eq!(hex(&by_hand.bytes(vector.key)), vector.hex, "by hand");
    let format = format().schema_version(vector.version);
    let entry = open::<T>(&format, vector.key, &bytes).expect("a good envelope");
    assert_eq!(entry.ring_epoch(), vector.epoch);
    assert_eq!(u128::from(entry.compute_us()), vector.compute.as_micros());
    assert_eq!(format.grace(&bytes), Duration::ZERO);
    assert!(!entry.is_bare());
    let again = format
        .seal(vector.key, &entry)
        .expect("it was sealed before");
    assert_eq!(hex(&again), vector.hex, "sealed again");
    assert_eq!(value::<T>(entry), vector.value);
    assert!(
        DOCUMENT.contains(vector.hex),
        "the document lacks {}",
        vector.hex
    );
}

#[test]
fn golden_vectors_stand_and_are_those_of_the_document() {
    each_vector!(golden);
}

#[test]
fn the_dump_in_the_document_is_the_example() {
    let is_dump = |line: &&str| line.starts_with("000000") && line.ends_with('|');
    let dump = DOCUMENT.lines().filter(is_dump);
    let digits: String = dump.map(|line| &line[8..58]).collect();
    assert_eq!(hex(&unhex(&digits)), example().hex);
}

fn damaged<T: Cacheable>(vector: &Vector<T>) {
    let format = format().schema_version(vector.version);
    let bytes = unhex(vector.hex);
    let refused = |bytes: &[u8]| open::<T>(&format, vector.key, bytes).is_err();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(refused(&flipped), "{}: bit {bit}", vector.schema);
    }
    // Nothing at all is an empty text, and for other types as foreign as any bytes.
    for end in 1..bytes.len() {
        let cut = &bytes[..end];
        assert!(refused(cut), "{}: cut to {end}", vector.schema);
    }
    for byte in [0x00, 0x0A, 0xC1, 0xFF] {
        let longer = [bytes.as_slice(), &[byte]].concat();
        let verdict = open::<T>(&format, vector.key, &longer).expect_err("too long");
        assert_eq!(verdict, Refusal::Length);
    }
}

#[test]
fn a_flipped_bit_a_cut_and_a_byte_more_are_refused() {
    each_vector!(damaged);
}

fn elsewhere<T: Cacheable>(vector: &Vector<T>) {
    let format = format().schema_version(vector.version);
    let bytes = unhex(vector.hex);
    let verdict = |format: &Format, key| open::<T>(format, key, &bytes).map(|_| ());
    assert_eq!(verdict(&format, "another"), Err(Refusal::Checksum));
    let newer = format.clone().schema_version(vector.version + 1);
    assert_eq!(verdict(&newer, vector.key), Err(Refusal::Schema));
    let other = open::<HashMap<u8, u8>>(&format, vector.key, &bytes).map(|_| ());
    assert_eq!(other, Err(Refusal::Schema));
}

#[test]
fn another_key_type_or_schema_version_is_refused() {
    each_vector!(elsewhere);
}

fn verdict<T: Cacheable>(by_hand: &ByHand<'_>) -> Result<(), Refusal> {
    open::<T>(&format(), "k", &by_hand.bytes("k")).map(|_| ())
}

#[test]
fn headers_that_this_version_does_not_know_are_refused() {
    let payload = [0x2A];
    let good = || ByHand::new("example.u64", &payload);
    assert_eq!(verdict::<u64>(&good()), Ok(()));
    for version in [0, 2, 255] {
        let unknown = ByHand { version, ..good() };
        assert_eq!(verdict::<u64>(&unknown), Err(Refusal::Version));
    }
    for bit in 4..8 {
        let unknown = ByHand {
            flags: 1 << bit,
            ..good()
        };
        assert_eq!(verdict::<u64>(&unknown), Err(Refusal::Version));
    }
    for codec in [0, 2, 128, 255] {
        let unknown = ByHand { codec, ..good() };
        assert_eq!(verdict::<u64>(&unknown), Err(Refusal::Codec));
    }
    for magic in [0x00, 0xC0, 0xC2] {
        let unknown = ByHand { magic, ..good() };
        assert_eq!(verdict::<u64>(&unknown), Err(Refusal::Foreign));
    }
    for claimed in [0, 2, u32::MAX] {
        let unknown = ByHand {
            claimed: Some(claimed),
            ..good()
        };
        assert_eq!(verdict::<u64>(&unknown), Err(Refusal::Length));
    }
    let stale = ByHand {
        grace_ms: 9,
        ..good()
    };
    let bytes = stale.bytes("k");
    let entry = open::<u64>(&format(), "k", &bytes).expect("a known field");
    assert_eq!(format().grace(&bytes), Duration::from_millis(9));
    assert!(!entry.is_rearmed());
    let rearmed = ByHand { flags: 4, ..stale };
    let entry = open::<u64>(&format(), "k", &rearmed.bytes("k")).expect("a known flag");
    assert!(entry.is_rearmed());
}

/// What an origin calls a version comes before the value.
#[test]
fn a_version_named_by_the_origin_stands_before_the_value() {
    let validator = Validator::new().with_etag("v1");
    let entry = Entry::new(Value::new(42_u64), Clock::default().now(), None);
    let entry = entry.validated(Some(Arc::new(validator.clone())));
    let bytes = format().seal("answer", &entry).expect("it has an encoding");
    let payload = [3, 0, 0, 0, b'v', b'1', 0, 0, 0, 0, 42];
    let by_hand = |payload| ByHand {
        flags: 8,
        ..ByHand::new("example.u64", payload)
    };
    assert_eq!(hex(&bytes), hex(&by_hand(&payload).bytes("answer")));
    assert!(
        DOCUMENT.contains(&hex(&bytes)),
        "the document lacks {}",
        hex(&bytes)
    );
    let read = open::<u64>(&format(), "answer", &bytes).expect("a good envelope");
    assert_eq!(read.validator().map(|kept| &**kept), Some(&validator));
    assert_eq!(value::<u64>(read), 42);
    for payload in [&payload[..6], &[], &[42]] {
        let refused = verdict::<u64>(&by_hand(payload));
        assert_eq!(refused, Err(Refusal::Payload), "{payload:?}");
    }
    // One that says nothing is none.
    let entry = Entry::new(Value::new(42_u64), Clock::default().now(), None);
    let entry = entry.validated(Some(Arc::default()));
    let bytes = format().seal("answer", &entry).expect("it has an encoding");
    assert_eq!(bytes[3], 0);
}

#[test]
fn a_none_is_one_byte_of_depth() {
    let none = |payload| ByHand {
        flags: 1,
        ..ByHand::new("example.maybe2", payload)
    };
    for (payload, expected) in [(&[0][..], None), (&[1], Some(None))] {
        let entry = open::<Option<Option<u64>>>(&format(), "k", &none(payload).bytes("k"));
        assert_eq!(
            value::<Option<Option<u64>>>(entry.expect("a none")),
            expected
        );
    }
    for payload in [&[][..], &[2], &[255], &[0, 0]] {
        let unknown = verdict::<Option<Option<u64>>>(&none(payload));
        assert_eq!(unknown, Err(Refusal::Payload), "{payload:?}");
    }
    let not_optional = ByHand {
        flags: 1,
        ..ByHand::new("example.u64", &[0])
    };
    assert_eq!(verdict::<u64>(&not_optional), Err(Refusal::Payload));
    // Without the flag, nil is the inside of a Some.
    let nil = ByHand::new("example.maybe", &[0xC0]);
    assert_eq!(verdict::<Option<u64>>(&nil), Err(Refusal::Payload));
}

#[test]
fn payloads_of_another_shape_are_refused() {
    for payload in [
        &b"42"[..],
        &[],
        &[0x2A, 0x00],
        &[0xFF],
        &[0xC0],
        &[0xA1, b'x'],
    ] {
        let wrong = ByHand::new("example.u64", payload);
        assert_eq!(verdict::<u64>(&wrong), Err(Refusal::Payload), "{payload:?}");
    }
}

#[test]
fn lengths_that_are_only_claimed_cost_nothing() {
    let before = peak();
    let claim = |marker| [marker, 0xFF, 0xFF, 0xFF, 0xFF, 0x00];
    let bytes = claim(0xC6);
    let text = claim(0xDB);
    let list = claim(0xDD);
    let map = claim(0xDF);
    assert_eq!(
        verdict::<Vec<u8>>(&ByHand::new("example.bytes", &bytes)),
        Err(Refusal::Payload)
    );
    assert_eq!(
        verdict::<String>(&ByHand::new("example.text", &text)),
        Err(Refusal::Payload)
    );
    assert_eq!(
        verdict::<Vec<String>>(&ByHand::new("example.list", &list)),
        Err(Refusal::Payload)
    );
    assert_eq!(
        verdict::<User>(&ByHand::new("example.User", &map)),
        Err(Refusal::Payload)
    );
    assert!(peak() - before < 1 << 30, "some gigabytes were set aside");
}

/// The most memory that this process ever asked for, in bytes; other tests add some to it. 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[test]
fn what_exceeds_the_bound_is_neither_written_nor_read() {
    let now = Clock::default().now();
    let small = format().max_value_bytes(6);
    let entry = |text: &str| Entry::new(Value::new(text.to_owned()), now, None);
    let fits = small.seal("k", &entry("hello")).expect("6 bytes");
    assert_eq!(fits.len(), HEADER_BYTES + 6 + CHECKSUM_BYTES);
    assert!(open::<String>(&small, "k", &fits).is_ok());
    let error = small.seal("k", &entry("hello!")).expect_err("7 bytes");
    assert_eq!(error.kind(), larder::ErrorKind::TooLarge);
    let large = format().seal("k", &entry("hello!")).expect("no bound");
    let refused = open::<String>(&small, "k", &large).map(|_| ());
    assert_eq!(refused, Err(Refusal::TooLarge));
}

fn foreign<T: Cacheable>(bytes: &[u8]) -> Result<T, Refusal> {
    open::<T>(&format(), "k", bytes).map(value)
}

#[test]
fn bytes_without_an_envelope_are_bytes_text_or_an_integer() {
    assert_eq!(foreign::<u64>(b"42"), Ok(42));
    assert_eq!(foreign::<i64>(b"-42"), Ok(-42));
    assert_eq!(foreign::<String>(b"42"), Ok("42".to_owned()));
    assert_eq!(foreign::<Vec<u8>>(b"\xff\x00"), Ok(vec![255, 0]));
    assert_eq!(foreign::<String>(b""), Ok(String::new()));
    for text in [
        &b"042"[..],
        b"+42",
        b" 42",
        b"42\n",
        b"4.2",
        b"",
        b"-0",
        b"256",
    ] {
        assert_eq!(foreign::<u8>(text), Err(Refusal::Foreign), "{text:?}");
    }
    assert_eq!(foreign::<String>(b"\xff"), Err(Refusal::Foreign));
    assert_eq!(foreign::<Vec<u8>>(b"\xc1"), Err(Refusal::Length));
    assert_eq!(foreign::<bool>(b"true"), Err(Refusal::Foreign));
    assert_eq!(foreign::<User>(b"{}"), Err(Refusal::Foreign));
}

fn plain(format: &Format, value: Value) -> Vec<u8> {
    let entry = Entry::new(value, Clock::default().now(), None).bare(true);
    format.seal("k", &entry).expect("an encoding").to_vec()
}

#[test]
fn integers_that_may_be_bare_are_digits() {
    assert_eq!(plain(&format(), Value::new(42_u64)), b"42");
    assert_eq!(
        plain(&format(), Value::new(i64::MIN)),
        b"-9223372036854775808"
    );
    // Other types have an envelope, whatever the entry allows.
    assert_eq!(plain(&format(), Value::new(ada()))[0], 0xC1);
}

#[test]
fn the_plain_codec_writes_what_other_languages_read() {
    let format = Format::default().codec(Plain);
    let text = plain(&format, Value::new(ada()));
    assert_eq!(text, br#"{"id":42,"name":"Ada","email":null}"#);
    assert_eq!(open::<User>(&format, "k", &text).map(value), Ok(ada()));
    assert_eq!(plain(&format, Value::new("42".to_owned())), b"42");
    assert_eq!(plain(&format, Value::new(42_u64)), b"42");
    assert_eq!(plain(&format, Value::new(vec![0_u8, 0xC1])), [0, 0xC1]);
    assert_eq!(plain(&format, Value::new(true)), b"true");
    assert_eq!(plain(&format, Value::new(None::<u64>)), b"null");
    let now = Clock::default().now();
    let refused = format.seal("k", &Entry::new(Value::new(Some(None::<u64>)), now, None));
    assert_eq!(
        refused.expect_err("null is None").kind(),
        larder::ErrorKind::Encode
    );
}

/// The map of docs/FORMAT.md, as it stands in a manager.
#[tokio::test]
async fn the_map_in_the_document_is_what_is_published() {
    let positions = [
        (5, "redis://10.0.0.1:6379/0".to_owned()),
        (3_000_000_000, "redis://:secret@10.0.0.2:6379/0".to_owned()),
    ];
    let server = Server::start().await;
    let map = Publication::of_positions(positions).writer("example");
    let epoch = publish(&server.url(13), &map).await.expect("published");
    assert_eq!(epoch, 1);
    for key in ["HASH_RING_MAP", "HASH_RING_META", "HASH_RING_HISTORY"] {
        let fields = server.raw(13, &["HGETALL", key]).await;
        let fields: HashMap<String, String> = redis::from_redis_value(fields).expect("a hash");
        assert!(!fields.is_empty(), "{key}");
        for (field, value) in fields {
            let line = format!("{field:<10}  {value}");
            assert!(
                DOCUMENT.contains(&line),
                "the document lacks {line:?} of {key}"
            );
        }
    }
}
