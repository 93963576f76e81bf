//! Payloads: their form, how deep they may go, and random ones.

use std::collections::HashMap;
use std::fmt::Debug;

use larder::codec::{Format, HEADER_BYTES, Refusal};
use larder::value::Cacheable;
use larder::{Clock, Entry, Kind, Value};
use serde::{Deserialize, Serialize};

use super::{ByHand, CHECKSUM_BYTES, hex, open, value};

#[test]
fn payloads_are_as_the_document_says() {
    fn payload<T: Cacheable + PartialEq + Debug>(value: T, expected: &[u8]) {
        let kind = Kind::of::<T>();
        let mut bytes = Vec::new();
        kind.to_messagepack(&Value::new(value.clone()), &mut bytes)
            .expect("an encoding");
        assert_eq!(hex(&bytes), hex(expected), "{value:?}");
        let back = kind.from_messagepack(&bytes).expect("its own bytes");
        assert_eq!(*back.downcast::<T>().expect("a T"), value);
    }
    payload((1_u8, 'x'), b"\x92\x01\xa1x");
    payload([1_u8, 2], b"\x92\x01\x02");
    payload(vec![vec![1_u8]], b"\x91\xc4\x01\x01");
    payload(Shape::Unit, b"\xa4Unit");
    payload(Shape::Pair(1, -1), b"\x81\xa4Pair\x92\x01\xff");
    payload(Some(300_u64), b"\xcd\x01\x2c");
    payload(0.5_f32, b"\xca\x3f\x00\x00\x00");
    payload(0.5_f64, b"\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00");
    payload((), b"\xc0");
}

type Json = serde_json::Value;

/// What a reader makes of lists in lists in lists, with the given payload in the innermost.
fn nested(lists: usize, innermost: u8) -> Result<(), Refusal> {
    let mut payload = vec![0x91; lists];
    payload.push(innermost);
    let format = Format::default().schema::<Json>("json");
    let bytes = ByHand::new("json", &payload).bytes("k");
    open::<Json>(&format, "k", &bytes).map(|_| ())
}

#[test]
fn the_64th_nested_list_is_refused() {
    let (nil, empty_list) = (0xC0, 0x90);
    assert_eq!(nested(63, nil), Ok(()));
    assert_eq!(nested(62, empty_list), Ok(()));
    for lists in [64, 65, 1000, 1 << 20] {
        assert_eq!(nested(lists, nil), Err(Refusal::Payload), "{lists}");
    }
    assert_eq!(nested(63, empty_list), Err(Refusal::Payload));
}

/// Writing knows no such bound: what is nested too deeply is stored, and then a miss.
#[test]
fn a_chain_of_64_structs_is_written_and_not_read() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Link {
        next: Option<Box<Link>>,
    }
    let chain = |links: usize| {
        let mut chain = Link { next: None };
        for _ in 1..links {
            chain = Link {
                next: Some(Box::new(chain)),
            };
        }
        let entry = Entry::new(Value::new(chain), Clock::default().now(), None);
        let format = Format::default();
        let bytes = format.seal("k", &entry).expect("an encoding");
        open::<Link>(&format, "k", &bytes).map(|_| ())
    };
    assert_eq!(chain(63), Ok(()));
    assert_eq!(chain(64), Err(Refusal::Payload));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inside {
    answer: Option<Option<u64>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Blob { bytes: Vec<u8> },
}

/// Not what anybody wants, but what docs/FORMAT.md says: should one of these change, so must the document.
#[test]
fn the_known_limits_are_where_the_document_puts_them() {
    let through = |value: Value, kind| {
        let entry = Entry::new(value, Clock::default().now(), None);
        let bytes = Format::default().seal("k", &entry).expect("an encoding");
        Format::default().open("k", &bytes, Some(kind), entry.born())
    };
    let lost = through(
        Value::new(Inside { answer: Some(None) }),
        Kind::of::<Inside>(),
    );
    assert_eq!(
        value::<Inside>(lost.expect("a value")),
        Inside { answer: None }
    );
    let blob = Tagged::Blob {
        bytes: vec![1, 2, 3],
    };
    let refused = through(Value::new(blob), Kind::of::<Tagged>()).map(|_| ());
    assert_eq!(refused, Err(Refusal::Payload));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Text(String),
    Pair(u8, i64),
    Fields { blob: Vec<u8>, half: f64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Anything {
    shapes: Vec<Shape>,
    named: HashMap<String, Option<u32>>,
    letter: char,
    inner: Option<Box<Anything>>,
}

/// Numbers that are random enough, and the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.roll(40)).map(|_| self.roll(256) as u8).collect()
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn shape(&mut self) -> Shape {
        match self.roll(4) {
            0 => Shape::Unit,
            1 => Shape::Text(self.text()),
            2 => Shape::Pair(self.roll(256) as u8, self.roll(1 << 31) as i64 - (1 << 30)),
            _ => Shape::Fields {
                blob: self.bytes(),
                half: self.roll(1000) as f64 / 2.0,
            },
        }
    }

    fn anything(&mut self, depth: u64) -> Anything {
        Anything {
            shapes: (0..self.roll(5)).map(|_| self.shape()).collect(),
            named: (0..self.roll(5))
                .map(|_| {
                    (
                        self.text(),
                        (self.roll(2) == 0).then(|| self.roll(1 << 20) as u32),
                    )
                })
                .collect(),
            letter: char::from_u32(self.roll(0xD800) as u32).unwrap_or('?'),
            inner: (depth > 0).then(|| Box::new(self.anything(depth - 1))),
        }
    }
}

#[test]
fn random_values_come_back_and_their_damage_does_not() {
    let (mut dice, format) = (Dice(1), Format::default());
    for round in 0..300 {
        let anything = dice.anything(round % 4);
        let key = format!("key:{}", dice.roll(1 << 30));
        let entry = Entry::new(Value::new(anything.clone()), Clock::default().now(), None)
            .in_ring_epoch(dice.roll(1 << 31));
        let bytes = format.seal(&key, &entry).expect("an encoding").to_vec();
        let back = open::<Anything>(&format, &key, &bytes).expect("a good envelope");
        assert_eq!(back.ring_epoch(), entry.ring_epoch());
        assert_eq!(value::<Anything>(back), anything, "round {round}");
        for _ in 0..50 {
            let mut damaged = bytes.clone();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(damaged.len() as u64) as usize;
                damaged[at] = damaged[at].wrapping_add(1 + dice.roll(255) as u8);
            }
            if damaged != bytes {
                assert!(open::<Anything>(&format, &key, &damaged).is_err());
            }
        }
    }
}

#[test]
fn random_payloads_are_a_value_or_a_refusal_and_never_a_panic() {
    let (mut dice, format) = (Dice(2), Format::default().schema::<Anything>("any"));
    let good = format
        .seal(
            "k",
            &Entry::new(Value::new(dice.anything(2)), Clock::default().now(), None),
        )
        .expect("an encoding");
    let payload = good[HEADER_BYTES..good.len() - CHECKSUM_BYTES].to_vec();
    for _ in 0..20_000 {
        let mut payload = payload.clone();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(payload.len() as u64) as usize;
            payload[at] = dice.roll(256) as u8;
        }
        payload.truncate(payload.len() - dice.roll(4) as usize);
        // The checksum fits: only the decoder stands between these bytes and the reader.
        let bytes = ByHand::new("any", &payload).bytes("k");
        let _ = open::<Anything>(&format, "k", &bytes);
    }
}
