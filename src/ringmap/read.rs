//! The entries of a map, checked and made small.

use ahash::AHashMap;

use super::label::label;
use crate::error::{Error, ErrorKind, Result};

/// The number that a field of the map spells, leading zeros allowed.
pub(super) fn position(field: &str) -> Result<u32> {
    // Digits are checked here because `parse` takes a plus sign too.
    let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| field.parse().ok()).flatten().ok_or_else(|| {
        // Field and value swapped by hand would put a url, with its password, into an error.
        let shown = if field.contains(['@', ':']) {
            label(field)
        } else {
            field.to_owned()
        };
        Error::new(ErrorKind::Config, "a field of the ring map is no position").with("field", shown)
    })
}

/// Urls numbered as they are met, so that a map of many positions holds each url once.
#[derive(Default)]
pub(super) struct Urls(AHashMap<String, u32>);

impl Urls {
    pub(super) fn id(&mut self, url: String) -> u32 {
        if let Some(&id) = self.0.get(&url) {
            return id;
        }
        let id = self.0.len() as u32;
        self.0.insert(url, id);
        id
    }

    /// The urls that `points` use, sorted, and for each id met its place among them.
    pub(super) fn ranked(self, points: &[(u32, u32)]) -> (Vec<String>, Vec<u32>) {
        let mut used = vec![false; self.0.len()];
        for &(_, id) in points {
            used[id as usize] = true;
        }
        let mut ranks = vec![0; used.len()];
        let mut nodes: Vec<_> = self
            .0
            .into_iter()
            .filter(|(_, id)| used[*id as usize])
            .collect();
        nodes.sort_unstable();
        for (rank, (_, id)) in nodes.iter().enumerate() {
            ranks[*id as usize] = rank as u32;
        }
        (nodes.into_iter().map(|(url, _)| url).collect(), ranks)
    }

    pub(super) fn contradiction(&self, one: (u32, u32), two: (u32, u32)) -> Error {
        let named = |id| {
            self.0
                .iter()
                .find(|(_, known)| **known == id)
                .map(|(url, _)| label(url))
        };
        Error::new(
            ErrorKind::Config,
            "the ring map gives one position to two nodes",
        )
        .with("field", one.0)
        .with("one", named(one.1).unwrap_or_default())
        .with("other", named(two.1).unwrap_or_default())
    }
}

/// Replaces ids by places in the sorted list of urls.
pub(super) fn rank(points: &mut [(u32, u32)], ranks: &[u32]) {
    for point in points {
        point.1 = ranks[point.1 as usize];
    }
}
