//! Placement as the Python pair has it: vectors that `scripts/placement_vectors.py` works out on its own.

use larder::ring::{Order, Ring, fields_for_readers, python_positions};
use serde_json::Value;

/// A map of the vectors, with the key's node at each key's place in `sdk` and `numeric`.
struct Case {
    name: String,
    nodes: Vec<String>,
    per_node: Option<usize>,
    fields: Vec<(String, String)>,
    sdk: Vec<usize>,
    numeric: Vec<usize>,
}

fn vectors() -> (Vec<String>, Vec<Case>) {
    let text = include_str!("../vectors/placement.json");
    let vectors: Value = serde_json::from_str(text).expect("the vectors are JSON");
    let maps = vectors["maps"].as_array().expect("a list of maps");
    (strings(&vectors["keys"]), maps.iter().map(case).collect())
}

fn case(map: &Value) -> Case {
    let nodes = strings(&map["nodes"]);
    let fields = map["fields"].as_array().expect("a list of fields");
    let field = |pair: &Value| {
        let node = pair[1].as_u64().expect("an index") as usize;
        (string(&pair[0]), nodes[node].clone())
    };
    Case {
        name: string(&map["name"]),
        per_node: map["per_node"].as_u64().map(|number| number as usize),
        fields: fields.iter().map(field).collect(),
        sdk: digits(&map["sdk"]),
        numeric: digits(&map["numeric"]),
        nodes,
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(string)
        .collect()
}

fn string(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn digits(value: &Value) -> Vec<usize> {
    let digit = |c: char| c.to_digit(10).expect("a digit") as usize;
    string(value).chars().map(digit).collect()
}

fn assert_places(case: &Case, keys: &[String], ring: &Ring, owners: &[usize]) {
    assert_eq!(keys.len(), owners.len(), "{}", case.name);
    for (key, owner) in keys.iter().zip(owners) {
        let expected = Some(case.nodes[*owner].as_str());
        assert_eq!(
            ring.node_for(key),
            expected,
            "{key:?} on {} in {} order",
            case.name,
            ring.order()
        );
    }
}

#[test]
fn lexicographic_order_is_the_sdk_to_the_key() {
    let (keys, cases) = vectors();
    for case in &cases {
        let ring = Ring::from_fields(case.fields.clone(), Order::Lexicographic).expect(&case.name);
        assert_places(case, &keys, &ring, &case.sdk);
    }
}

#[test]
fn numeric_order_is_the_true_next_position() {
    let (keys, cases) = vectors();
    for case in &cases {
        for order in [Order::Auto, Order::Numeric] {
            let ring = Ring::from_fields(case.fields.clone(), order).expect(&case.name);
            assert_places(case, &keys, &ring, &case.numeric);
        }
    }
}

#[test]
fn the_vectors_cover_maps_on_which_the_orders_differ() {
    let (keys, cases) = vectors();
    assert!(keys.len() >= 300);
    let differing = cases.iter().filter(|case| case.sdk != case.numeric).count();
    assert!(differing >= 4, "{differing} maps");
    let (healed, plain): (Vec<_>, Vec<_>) = cases
        .iter()
        .partition(|case| case.name.ends_with("_healed"));
    assert_eq!(healed.len(), plain.len());
    assert!(healed.iter().all(|case| case.sdk == case.numeric));
}

#[test]
fn python_positions_are_what_the_server_writes() {
    for case in vectors().1 {
        let Some(per_node) = case.per_node else {
            continue;
        };
        let map = python_positions(&case.nodes, per_node);
        let mut fields = if case.name.ends_with("_healed") {
            fields_for_readers(&map)
        } else {
            map.iter()
                .map(|(position, url)| (position.to_string(), url.clone()))
                .collect()
        };
        let mut expected = case.fields;
        fields.sort();
        expected.sort();
        assert_eq!(fields, expected, "{}", case.name);
    }
}
