use super::*;
use crate::ringmap::tests::Random;
use crate::ringmap::{Ring, moves};

fn ring(layout: &Layout) -> Ring {
    let url = |(at, node): (u32, &str)| (at, format!("redis://{node}"));
    Ring::from_map(layout.iter().map(url))
}

fn node(i: usize) -> String {
    format!("10.0.{}.{}:6379/0", i / 250, i % 250)
}

/// Nodes come and go at random; what each change moved, and how even it left things: the worst of the shares, and of the positions.
fn walk(random: &mut Random, per_node: usize, most: usize, changes: usize) -> (f64, f64) {
    let mut layout = Layout::new(per_node);
    let (mut present, mut gone) = (Vec::new(), Vec::<(String, Vec<u32>)>::new());
    let (mut uneven, mut many) = (1.0_f64, 1.0_f64);
    for change in 0..changes {
        let before = ring(&layout);
        let joins = present.len() < 2 || (present.len() < most && random.below(2) == 0);
        let who = if joins {
            let back = !gone.is_empty() && random.below(2) == 0;
            let (name, had) = match back {
                true => gone.swap_remove(random.below(gone.len() as u32) as usize),
                false => (node(change), Vec::new()),
            };
            layout.join(&name, &had);
            present.push(name.clone());
            name
        } else {
            let name = present.swap_remove(random.below(present.len() as u32) as usize);
            let had = layout.leave(&name);
            if random.below(2) == 0 {
                gone.push((name.clone(), had));
            }
            name
        };
        let after = ring(&layout);
        for moved in moves(&before, &after) {
            let (own, other) = match joins {
                true => (&moved.to, &moved.from),
                false => (&moved.from, &moved.to),
            };
            assert_eq!(own.as_ref(), Some(&who), "{moved:?}");
            assert_ne!(other.as_ref(), Some(&who));
        }
        assert_eq!(after.nodes().len(), present.len());
        uneven = uneven.max(layout.imbalance());
        many = many.max(layout.len() as f64 / (per_node * present.len()) as f64);
    }
    (uneven, many)
}

#[test]
fn the_walk_that_the_docs_quote() {
    for (per_node, bound) in [(160, 1.1), (40, 1.15), (5, 1.5)] {
        let walks = (1..=6).map(|seed| {
            let mut random = Random::new(seed);
            walk(&mut random, per_node, 2 + seed as usize * 4, 100)
        });
        let worst = |(a, b): (f64, f64), (c, d)| (a.max(c), b.max(d));
        let (uneven, many) = walks.fold((0.0, 0.0), worst);
        println!(
            "{per_node} positions a node: {uneven:.3} times the mean, {many:.2} times the positions"
        );
        assert!(uneven <= bound, "{per_node}: {uneven}");
        assert!(many <= 3.0, "{per_node}: {many}");
    }
}

#[test]
fn a_node_that_comes_back_is_where_it_was() {
    let mut layout = Layout::new(160);
    (0..8).for_each(|i| layout.join(&node(i), &[]));
    let before = ring(&layout);
    for i in 0..8 {
        let had = layout.leave(&node(i));
        assert!(layout.positions_of(&node(i)).is_empty());
        layout.join(&node(i), &had);
        assert!(moves(&before, &ring(&layout)).is_empty(), "{i}");
    }
    // One that is there already has its part.
    let same = layout.clone();
    layout.join(&node(3), &[]);
    assert_eq!(layout, same);
}

#[test]
fn a_node_is_emptied_in_steps() {
    let mut layout = Layout::new(160);
    (0..5).for_each(|i| layout.join(&node(i), &[]));
    let whole = layout.share(&node(0));
    let had = layout.shrink(&node(0), 0.5);
    assert_eq!(had.len(), 160);
    let half = layout.share(&node(0));
    assert!((half / whole - 0.5).abs() < 0.02, "{half} of {whole}");
    layout.shrink(&node(0), 0.0);
    assert_eq!(layout.share(&node(0)), 0.0);
    layout.join(&node(0), &had);
    assert!((layout.share(&node(0)) / whole - 1.0).abs() < 0.02);
}

#[test]
fn a_node_that_is_emptied_is_given_nothing() {
    let mut layout = Layout::of_all(&(0..5).map(node).collect::<Vec<_>>(), 160);
    layout.close(&node(0));
    layout.shrink(&node(0), 0.2);
    let part = layout.share(&node(0));
    layout.leave(&node(1));
    assert_eq!(layout.share(&node(0)), part);
    layout.close(&node(2));
    layout.shrink(&node(2), 0.0);
    assert_eq!(layout.share(&node(0)), part);
    layout.join(&node(0), &[]);
    assert!(layout.share(&node(0)) > part);
    // Whoever is left has it all, wanted or not.
    layout.close(&node(4));
    for gone in [0, 3] {
        layout.leave(&node(gone));
    }
    assert_eq!(layout.share(&node(4)), 1.0);
}

#[test]
fn many_at_once_have_the_same() {
    let nodes: Vec<String> = (0..1000).map(node).collect();
    let mut layout = Layout::of_all(&nodes, 160);
    assert_eq!(layout.len(), 160_000);
    assert!(layout.imbalance() < 1.001, "{}", layout.imbalance());
    layout.leave(&node(7));
    assert!(layout.imbalance() < 1.01, "{}", layout.imbalance());
    assert!(Layout::of_all(&[""; 0], 160).is_empty());
    // Back on an empty ring, where it was.
    let mut layout = Layout::of_all(&nodes[..1], 5);
    let had = layout.leave(&nodes[0]);
    layout.join(&nodes[0], &had);
    assert_eq!(layout.positions_of(&nodes[0]), had);
}

#[test]
fn small_and_odd_maps_are_borne() {
    let mut layout = Layout::new(0);
    assert!(layout.leave("nobody").is_empty() && layout.is_empty());
    layout.join("a", &[]);
    assert_eq!(
        (layout.len(), layout.share("a"), layout.imbalance()),
        (1, 1.0, 1.0)
    );
    layout.shrink("a", 0.0);
    assert_eq!(layout.share("a"), 1.0);
    layout.join("b", &[]);
    assert_eq!(layout.share("b"), 0.5);
    layout.leave("a");
    assert_eq!(layout.share("b"), 1.0);
    assert!(!layout.leave("b").is_empty() && layout.is_empty());
    // Positions side by side leave nothing to take.
    let crowded = (0..10).map(|at| (at, "a".to_owned()));
    let mut crowded = Layout::of(crowded, 5);
    crowded.join("b", &[u32::MAX, 0]);
    assert!(crowded.share("b") > 0.4);
}
