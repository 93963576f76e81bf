//! Each lookup is held against an oracle that scans the map from its first entry to its last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::error::ErrorKind;

/// xorshift64*: the same maps on every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    /// A position of a random number of digits, at times next to another or at an end of the range.
    fn position(&mut self) -> u32 {
        match self.below(8) {
            0 => self.below(20),
            1 => u32::MAX - self.below(20),
            2 => 1_000_000_000 - 10 + self.below(20),
            3 => (self.below(16) << 28) + self.below(3),
            _ => self.next() >> self.below(32),
        }
    }
}

type Fields = Vec<(String, String)>;

fn url(node: u32) -> String {
    format!("redis://:secret@10.0.0.{node}:6379/0")
}

/// A map of up to `most` positions on up to 5 nodes, some of them padded, some in several spellings.
fn fields(random: &mut Random, most: u32) -> Fields {
    let map: BTreeMap<u32, u32> = (0..random.below(most + 1))
        .map(|_| (random.position(), random.below(5)))
        .collect();
    let mut fields = Fields::new();
    for (position, node) in map {
        let spellings = random.below(4) % 3;
        if spellings != 1 {
            fields.push((position.to_string(), url(node)));
        }
        if spellings != 0 {
            fields.push((format!("{position:010}"), url(node)));
        }
    }
    // As a Redis hash gives them: in no order.
    for i in (1..fields.len()).rev() {
        fields.swap(i, random.below(i as u32 + 1) as usize);
    }
    fields.dedup_by(|one, other| one.0 == other.0);
    fields
}

fn number(field: &str) -> u32 {
    field.parse().unwrap()
}

/// The scan of the map's entries in each order, a hash at a time.
struct Oracle {
    numeric: Vec<(u32, String)>,
    text: Vec<(u32, String)>,
}

impl Oracle {
    fn new(fields: &Fields) -> Self {
        let mut sorted = fields.clone();
        sorted.sort();
        let text: Vec<_> = sorted
            .into_iter()
            .map(|(field, url)| (number(&field), url))
            .collect();
        let mut numeric = text.clone();
        numeric.sort();
        Self { numeric, text }
    }

    fn numeric(&self, hash: u32) -> Option<&str> {
        scan(&self.numeric, hash)
    }

    /// The SDK's loop, but for the `KeyError` that it raises where no plain spelling exists.
    fn sdk(&self, hash: u32) -> Option<&str> {
        scan(&self.text, hash)
    }
}

fn scan(entries: &[(u32, String)], hash: u32) -> Option<&str> {
    let found = entries.iter().find(|(position, _)| *position > hash);
    found.or(entries.first()).map(|(_, url)| url.as_str())
}

fn node_of_hash(ring: &Ring, hash: u32) -> Option<&str> {
    Some(ring.nodes()[ring.owner_of_hash(hash)?].as_str())
}

/// Hashes where an answer may change, and some others.
fn probes(random: &mut Random, fields: &Fields) -> Vec<u32> {
    let mut probes = vec![0, 1, u32::MAX - 1, u32::MAX];
    for (field, _) in fields {
        let at = number(field);
        probes.extend([at.wrapping_sub(1), at, at.wrapping_add(1)]);
    }
    probes.extend((0..100).map(|_| random.next()));
    probes
}

#[test]
fn both_orders_answer_as_a_scan_does() {
    let mut random = Random(1);
    for round in 0..600 {
        let most = [3, 12, 60, 300][round % 4];
        let fields = fields(&mut random, most);
        let numeric = Ring::from_fields(fields.clone(), Order::Auto).unwrap();
        let sdk = Ring::from_fields(fields.clone(), Order::Lexicographic).unwrap();
        let oracle = Oracle::new(&fields);
        for hash in probes(&mut random, &fields) {
            assert_eq!(
                node_of_hash(&numeric, hash),
                oracle.numeric(hash),
                "{hash} in {fields:?}"
            );
            assert_eq!(
                node_of_hash(&sdk, hash),
                oracle.sdk(hash),
                "{hash} in {fields:?}"
            );
        }
        assert_eq!(numeric.order(), Order::Numeric);
        assert_eq!(sdk.order(), Order::Lexicographic);
        assert_eq!(numeric.nodes(), sdk.nodes());
        assert_eq!(numeric.digest(), sdk.digest());
    }
}

#[test]
fn a_map_and_its_fields_are_one_ring() {
    let mut random = Random(2);
    for _ in 0..100 {
        let fields = fields(&mut random, 50);
        let map = fields
            .iter()
            .map(|(field, url)| (number(field), url.clone()));
        let ring = Ring::from_map(map);
        assert_eq!(
            ring,
            Ring::from_fields(fields.clone(), Order::Numeric).unwrap()
        );
        let mut distinct: Vec<_> = fields.iter().map(|(field, _)| number(field)).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(ring.positions(), distinct.len());
        assert!(ring.iter().map(|(position, _)| position).eq(distinct));
    }
}

#[test]
fn a_map_written_for_all_readers_is_one_ring_in_both_orders() {
    let mut random = Random(3);
    for round in 0..200 {
        let map: BTreeMap<_, _> = (0..random.below(200))
            .map(|_| (random.position(), url(random.below(9))))
            .collect();
        let map: Vec<_> = map.into_iter().collect();
        let fields = fields_for_readers(&map);
        let numeric = Ring::from_map(map);
        let sdk = Ring::from_fields(fields.clone(), Order::Lexicographic).unwrap();
        assert_eq!(numeric.positions(), sdk.positions());
        for hash in probes(&mut random, &fields) {
            assert_eq!(
                node_of_hash(&numeric, hash),
                node_of_hash(&sdk, hash),
                "{hash} in round {round}"
            );
        }
    }
}

#[test]
fn fields_of_ten_digits_are_written_once() {
    let map = [0, 999_999_999, 1_000_000_000, u32::MAX].map(|position| (position, url(1)));
    let names: Vec<_> = fields_for_readers(&map)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    let expected = [
        "0",
        "0000000000",
        "999999999",
        "0999999999",
        "1000000000",
        "4294967295",
    ];
    assert_eq!(names, expected);
}

#[test]
fn maps_of_the_python_server_differ_between_the_orders_as_the_scan_does() {
    for nodes in [1_u32, 2, 3, 4, 8, 40] {
        let urls: Vec<_> = (0..nodes).map(url).collect();
        let map = python_positions(&urls, 5);
        let fields: Fields = map
            .iter()
            .map(|(position, url)| (position.to_string(), url.clone()))
            .collect();
        let numeric = Ring::from_map(map);
        let sdk = Ring::from_fields(fields.clone(), Order::Lexicographic).unwrap();
        let oracle = Oracle::new(&fields);
        for key in (0..500).map(|i| format!("key:{i}")) {
            let hash = key_hash(&key);
            assert_eq!(numeric.node_for(&key), oracle.numeric(hash));
            assert_eq!(sdk.node_for(&key), oracle.sdk(hash));
        }
    }
}

#[test]
fn the_rule_is_strictly_greater_and_wraps() {
    let map = [
        (10, "a".to_owned()),
        (20, "b".to_owned()),
        (u32::MAX, "c".to_owned()),
    ];
    let ring = Ring::from_map(map);
    let owners: Vec<_> = [0, 9, 10, 19, 20, u32::MAX - 1, u32::MAX]
        .map(|hash| node_of_hash(&ring, hash).unwrap())
        .into();
    assert_eq!(owners, ["a", "a", "b", "b", "c", "c", "a"]);
}

#[test]
fn one_position_owns_every_key() {
    for position in [0, 1, 1 << 31, u32::MAX] {
        let ring = Ring::from_map([(position, url(1))]);
        for hash in [0, 1, position.wrapping_sub(1), position, u32::MAX] {
            assert_eq!(ring.owner_of_hash(hash), Some(0));
        }
        assert_eq!(ring.shares(), [1.0]);
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    for ring in [
        Ring::default(),
        Ring::from_fields([], Order::Lexicographic).unwrap(),
    ] {
        assert!(ring.is_empty());
        assert_eq!(ring.positions(), 0);
        assert_eq!(ring.owner("key"), None);
        assert_eq!(ring.node_for(""), None);
        assert_eq!(ring.owner_of_hash(u32::MAX), None);
        assert!(ring.nodes().is_empty() && ring.shares().is_empty());
        assert_eq!(ring.digest(), 0x2D06_8005_38D3_94C2);
    }
}

#[test]
fn a_repeated_position_keeps_its_last_url() {
    let map = [(7, url(1)), (9, url(2)), (7, url(3)), (7, url(2))];
    let ring = Ring::from_map(map);
    assert_eq!(ring.positions(), 2);
    assert_eq!(
        ring.nodes(),
        [url(2)],
        "urls without a position are not nodes"
    );
}

#[test]
fn garbage_refuses_the_whole_map() {
    let fields = [
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "1.0",
        "1e3",
        "0x10",
        "1_000",
        "4294967296",
        "٣",
        "１",
        "x",
        "\0",
    ];
    let long = "9".repeat(100_000);
    for field in fields.into_iter().chain([long.as_str()]) {
        for order in [Order::Auto, Order::Numeric, Order::Lexicographic] {
            let map = [("5".to_owned(), url(1)), (field.to_owned(), url(2))];
            let error = Ring::from_fields(map, order).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.context().next().unwrap().0, "field");
            assert!(error.to_string().len() < 400);
        }
    }
    let zeros = format!("{}5", "0".repeat(100_000));
    let ring = Ring::from_fields([(zeros, url(1))], Order::Lexicographic).unwrap();
    assert_eq!(ring.iter().next(), Some((5, url(1).as_str())));
}

#[test]
fn spellings_of_one_position_must_agree() {
    let spelt = |urls: [u32; 3]| {
        let names = ["0000000005", "5", "05"].map(str::to_owned);
        names.into_iter().zip(urls.map(url)).collect::<Fields>()
    };
    for order in [Order::Numeric, Order::Lexicographic] {
        assert_eq!(
            Ring::from_fields(spelt([1, 1, 1]), order)
                .unwrap()
                .positions(),
            1
        );
        for urls in [[1, 1, 2], [1, 2, 1], [2, 1, 1]] {
            let error = Ring::from_fields(spelt(urls), order).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.context().next(), Some(("field", "5")));
            assert!(!format!("{error:?}").contains("secret"));
        }
    }
}

#[test]
fn no_password_gets_out() {
    let ring = Ring::from_map([(1, url(1)), (2, "not a secret url".to_owned())]);
    let shown = format!("{ring:?} {ring:#?}");
    assert!(
        shown.contains("10.0.0.1:6379/0") && !shown.contains("secret"),
        "{shown}"
    );
    for swapped in [
        url(1),
        "redis://:secret".to_owned(),
        ":secret@10.0.0.1".to_owned(),
    ] {
        let error = Ring::from_fields([(swapped, "5".to_owned())], Order::Numeric).unwrap_err();
        assert!(!format!("{error:?}").contains("secret"));
    }
}

/// Owners from 65,535 on do not fit into a bucket.
#[test]
fn more_nodes_than_a_bucket_can_name() {
    let mut random = Random(4);
    let map: BTreeMap<_, _> = (0..70_000)
        .map(|node| (random.next(), format!("redis://n{node:05}")))
        .collect();
    let ring = Ring::from_map(map.clone());
    assert!(ring.nodes().len() > 65_536);
    for hash in (0..20_000)
        .map(|_| random.next())
        .chain(map.keys().copied().take(500))
    {
        let successor = map.range(hash..).find(|(position, _)| **position > hash);
        let (_, url) = successor.or(map.first_key_value()).unwrap();
        assert_eq!(node_of_hash(&ring, hash), Some(url.as_str()));
    }
}

/// As many positions as a reader takes, spread and all in one bucket.
#[test]
fn the_largest_map_builds_and_answers() {
    for spread in [8_589, 1] {
        let position = |i: u32| 77 + i * spread;
        let map: Vec<_> = (0..500_000).map(|i| (position(i), url(i % 3))).collect();
        let start = Instant::now();
        let ring = Ring::from_map(map.clone());
        let fields = map
            .iter()
            .map(|(position, url)| (position.to_string(), url.clone()));
        let sdk = Ring::from_fields(fields, Order::Lexicographic).unwrap();
        // Tens of milliseconds each when optimized; a quadratic build would take hours.
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(ring.digest(), sdk.digest());
        for i in (0..499_999).step_by(997) {
            let next = Some(((i + 1) % 3) as usize);
            assert_eq!(ring.owner_of_hash(position(i)), next);
            assert_eq!(ring.owner_of_hash(position(i + 1) - 1), next);
        }
        assert_eq!(ring.owner_of_hash(position(499_999)), Some(0));
    }
}

#[test]
fn shares_are_the_lengths_of_what_each_node_owns() {
    let mut random = Random(5);
    for _ in 0..200 {
        let fields = fields(&mut random, 40);
        let mut ends: Vec<u64> = fields
            .iter()
            .map(|(field, _)| u64::from(number(field)))
            .collect();
        ends.extend([0, 1 << 32]);
        ends.sort_unstable();
        for order in [Order::Numeric, Order::Lexicographic] {
            let ring = Ring::from_fields(fields.clone(), order).unwrap();
            let mut lengths = vec![0; ring.nodes().len()];
            for stretch in ends.windows(2).filter(|stretch| stretch[0] < stretch[1]) {
                if let Some(owner) = ring.owner_of_hash(stretch[0] as u32) {
                    lengths[owner] += stretch[1] - stretch[0];
                }
            }
            let shares: Vec<_> = lengths
                .iter()
                .map(|sum| *sum as f64 / 2_f64.powi(32))
                .collect();
            assert_eq!(ring.shares(), shares);
            assert!(ring.is_empty() || (shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn the_digest_is_of_the_documented_bytes() {
    let spelt = [
        ("0000000007", "redis://b/0"),
        ("4000000000", "redis://a/0"),
        ("7", "redis://b/0"),
    ];
    let fields = spelt.map(|(field, url)| (field.to_owned(), url.to_owned()));
    let ring = Ring::from_fields(fields.clone(), Order::Lexicographic).unwrap();
    let text = b"7 redis://b/0\n4000000000 redis://a/0\n";
    assert_eq!(ring.digest(), xxh3_64(text));
    // Pinned: managers and readers of different versions compare it.
    assert_eq!(ring.digest(), 12_695_239_727_678_134_283);
    let mut turned = fields;
    turned.reverse();
    assert_eq!(
        Ring::from_fields(turned, Order::Numeric).unwrap().digest(),
        ring.digest()
    );
    assert_ne!(
        Ring::from_map([(7, "redis://b/0".to_owned())]).digest(),
        ring.digest()
    );
}

#[test]
fn rings_compare_by_content() {
    let map = || [(1, url(1)), (2, url(2))];
    let ring = Ring::from_map(map());
    assert_eq!(ring, ring.clone());
    let mut turned = map();
    turned.reverse();
    assert_eq!(ring, Ring::from_map(turned));
    assert_ne!(ring, Ring::from_map([(1, url(1)), (2, url(3))]));
    let fields = map().map(|(position, url)| (position.to_string(), url));
    // In text order, "5" stands behind "40", and "05" before it.
    let spelt = |five: &str| {
        let fields = [(five.to_owned(), url(1)), ("40".to_owned(), url(2))];
        Ring::from_fields(fields, Order::Lexicographic).unwrap()
    };
    assert_ne!(spelt("5"), spelt("05"));
    assert_eq!(spelt("05"), spelt("005"));
    assert_ne!(
        ring,
        Ring::from_fields(fields, Order::Lexicographic).unwrap()
    );
}

#[test]
fn orders_have_names() {
    for (text, order) in [
        ("auto", Order::Auto),
        ("numeric", Order::Numeric),
        ("lexicographic", Order::Lexicographic),
    ] {
        assert_eq!(text.parse::<Order>().unwrap(), order);
        assert_eq!(order.to_string(), text);
    }
    assert_eq!("lex".parse::<Order>().unwrap(), Order::Lexicographic);
    for text in ["", "Numeric", "numerical", "lexi"] {
        assert_eq!(text.parse::<Order>().unwrap_err().kind(), ErrorKind::Config);
    }
}

#[test]
fn labels_name_the_place_alone() {
    for (url, shown) in [
        ("redis://127.0.0.1", "127.0.0.1:6379/0"),
        ("redis://127.0.0.1/", "127.0.0.1:6379/0"),
        ("redis://127.0.0.1:7001/2", "127.0.0.1:7001/2"),
        (
            "REDISS://Node-1.Example_x:7001/02/",
            "node-1.example_x:7001/2",
        ),
        ("redis://:secret@h:1/0", "h:1/0"),
        ("redis://user:secret@h:1", "h:1/0"),
        ("redis://secret@h", "h:6379/0"),
        ("redis://:sec@ret@@h:1/0", "h:1/0"),
        ("redis://u:sec%40ret%2F@h:1/0", "h:1/0"),
        ("redis://u:sec:ret@[::1]:7001/3", "[::1]:7001/3"),
        ("redis://[2001:DB8::7]/1", "[2001:db8::7]:6379/1"),
        ("redis://[fe80::1%25eth0]:1", "[fe80::1%25eth0]:1/0"),
        ("redis://h:1/0?protocol=3#secret", "h:1/0"),
        ("redis://h?db=secret", "h:6379/0"),
        ("redis://höst:1/0", "höst:1/0"),
    ] {
        assert_eq!(label(url), shown, "{url}");
    }
}

#[test]
fn what_is_no_url_has_no_label() {
    for url in [
        "",
        "secret",
        "secret@h:1",
        "http://h:1/0",
        "redis+unix:///secret",
        "redis://",
        "redis:///0",
        "redis://:secret",
        "redis://user:secret",
        "redis://u:1234/secret@h:1/0",
        "redis://u:1234?secret@h:1/0",
        "redis://u:1234#secret@h:1/0",
        "redis://:secret%40h:1/0",
        "redis://u%3Asecret%40h:1/0",
        "redis://h:65536/0",
        "redis://h:+1/0",
        "redis://h:1/secret",
        "redis://h:1/0/1",
        "redis://h:1/99999999999",
        "redis://h:1:secret/0",
        "redis://::1/0",
        "redis://[secret]:1/0",
        "redis://[::1:1/0",
        "redis://[::1]secret/0",
        "redis://se cret:1/0",
        "redis://h\n:1/0",
    ] {
        assert_eq!(label(url), "?", "{url}");
    }
}

#[test]
fn places_depend_on_the_set_of_nodes_alone() {
    let nodes: Vec<_> = (0..40).map(url).collect();
    let map = positions_for(&nodes, 160);
    assert_eq!(map.len(), 40 * 160);
    assert!(map.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let mut turned = nodes.clone();
    turned.reverse();
    turned.push(url(3));
    assert_eq!(positions_for(&turned, 160), map);
    let open: Vec<_> = nodes
        .iter()
        .map(|url| url.replace(":secret@", ""))
        .collect();
    let places = |map: Vec<(u32, String)>| {
        map.into_iter()
            .map(|(at, url)| (at, label(&url)))
            .collect::<Vec<_>>()
    };
    assert_eq!(places(positions_for(&open, 160)), places(map));
    assert!(positions_for(&nodes, 0).is_empty());
    assert!(positions_for(&[] as &[&str], 160).is_empty());
}

#[test]
fn a_place_is_the_hash_of_its_documented_name() {
    let map = positions_for(&["redis://:secret@h:1/2"], 3);
    let mut named: Vec<_> = (0..3)
        .map(|i| xxh3_64(format!("h:1/2_vnode{i}").as_bytes()) as u32)
        .collect();
    named.sort_unstable();
    assert!(map.iter().map(|(position, _)| *position).eq(named));
}

#[test]
fn nodes_that_meet_on_a_place_all_keep_their_number() {
    // At 160,000 positions about three meet by chance.
    let many: Vec<_> = (0..1000).map(|i| format!("redis://n{i}")).collect();
    assert_eq!(positions_for(&many, 160).len(), 160_000);
    // All of these have the label "?", so they meet everywhere.
    let alike = positions_for(&["x", "y", "z"], 160);
    for name in ["x", "y", "z"] {
        assert_eq!(alike.iter().filter(|(_, url)| url == name).count(), 160);
    }
}

#[test]
fn a_node_that_joins_moves_its_share_alone() {
    let mut nodes: Vec<_> = (0..10).map(url).collect();
    let before = Ring::from_map(positions_for(&nodes, 160));
    nodes.push(url(10));
    let after = Ring::from_map(positions_for(&nodes, 160));
    let keys = 20_000;
    let moved = (0..keys)
        .map(|i| format!("key:{i}"))
        .filter(|key| before.node_for(key) != after.node_for(key));
    let moved: Vec<_> = moved.collect();
    assert!(
        moved
            .iter()
            .all(|key| after.node_for(key) == Some(&url(10)))
    );
    assert!(
        moved.len() < keys * 12 / 110,
        "{} of {keys} moved",
        moved.len()
    );
}

/// "plumless" and "buckeroo" have one CRC-32, and so has whatever else differs in these two words alone.
#[test]
fn the_python_map_gives_a_shared_position_to_the_later_node() {
    let nodes = ["redis://plumless:1/0", "redis://buckeroo:1/0"];
    for (first, last) in [(0, 1), (1, 0)] {
        let map = python_positions(&[nodes[first], nodes[last]], 5);
        assert_eq!(map.len(), 5);
        assert!(map.iter().all(|(_, url)| url == nodes[last]));
    }
}
