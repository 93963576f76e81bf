//! Random operations, compared with a naive map.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::SharedCache;
use crate::cache::Cache;
use crate::conformance::Profile;
use crate::conformance::trial::{AppError, Trial, random, refused};
use crate::error::ErrorKind;
use crate::ttl::{Remaining, Ttl};
use crate::wrap::prefixed::Prefixed;

const OPERATIONS: u32 = 2_000;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A value that stands under a key, and whether it lives for ever. Lives that end are longer than the case.
#[derive(Clone, Debug)]
struct Held {
    value: Content,
    for_ever: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Text(String),
    /// An integer that was set: digits for everybody.
    Digits(i64),
    /// An integer that was computed: of its own type alone.
    Computed(i64),
}

impl Content {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Digits(integer) => Some(integer.to_string()),
            Self::Computed(_) => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Text(_) => None,
            Self::Digits(integer) | Self::Computed(integer) => Some(*integer),
        }
    }
}

/// The store and the map, and what is done to both.
struct Run {
    cache: Prefixed<SharedCache>,
    profile: Profile,
    map: BTreeMap<&'static str, Held>,
    dice: u64,
}

/// Tells the seed if the case fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the random operations began from seed {:#018x}", self.0);
        }
    }
}

/// What two thousand random operations answer is what a map would answer.
pub async fn random_operations_match_a_naive_map(cache: SharedCache, profile: Profile) {
    let seed = Seed(random() | 1);
    random_operations(cache, profile, seed.0).await;
}

async fn random_operations(cache: SharedCache, profile: Profile, seed: u64) {
    let t = Trial::new(cache.clone(), profile);
    let beside = t.key("beside");
    t.set(&beside, "stays".to_owned()).await;
    let mut run = Run {
        cache: Prefixed::new(cache, t.key("view:")),
        profile,
        map: BTreeMap::new(),
        dice: seed,
    };
    for _ in 0..OPERATIONS {
        match run.roll(13) {
            0..3 => run.read().await,
            3 => run.read_many().await,
            4..7 => run.write().await,
            7 => run.write_many().await,
            8 => run.remove().await,
            9 => run.count().await,
            10 => run.touch().await,
            11 => run.compute().await,
            _ => run.compute_many().await,
        }
    }
    t.holds(&beside, "stays".to_owned()).await;
    t.is_idle();
}

impl Run {
    /// A number below `sides`, by xorshift.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % sides
    }

    fn name(&mut self) -> &'static str {
        NAMES[usize::try_from(self.roll(NAMES.len() as u64)).unwrap_or(0)]
    }

    fn names(&mut self) -> Vec<&'static str> {
        (0..self.roll(5)).map(|_| self.name()).collect()
    }

    fn integer(&mut self) -> i64 {
        i64::try_from(self.roll(2001)).unwrap_or(0) - 1000
    }

    fn word(&mut self) -> String {
        format!("word {}", self.roll(1000))
    }

    /// A ttl of each kind, and whether it is for ever; nothing for one that is over already.
    fn ttl(&mut self) -> (Ttl, Option<bool>) {
        match self.roll(6) {
            0 => (Ttl::After(Duration::ZERO), None),
            1 | 2 => (Ttl::After(Duration::from_secs(1000)), Some(false)),
            _ => (Ttl::Forever, Some(true)),
        }
    }

    fn put(&mut self, name: &'static str, value: Content, for_ever: Option<bool>) {
        match for_ever {
            Some(for_ever) if self.profile.stores() => {
                self.map.insert(name, Held { value, for_ever });
            }
            _ => {
                self.map.remove(name);
            }
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.map.get(name)?.value.text()
    }

    fn held_integer(&self, name: &str) -> Option<i64> {
        self.map.get(name)?.value.integer()
    }

    async fn read(&mut self) {
        let name = self.name();
        match self.roll(5) {
            0 => assert_eq!(
                self.cache.get::<String>(name).await.unwrap(),
                self.text(name)
            ),
            1 => assert_eq!(
                self.cache.get::<i64>(name).await.unwrap(),
                self.held_integer(name)
            ),
            2 => {
                let got = self.cache.get_shared::<String>(name).await.unwrap();
                assert_eq!(got, self.text(name).map(Arc::new));
            }
            3 => assert_eq!(
                self.cache.has(name).await.unwrap(),
                self.map.contains_key(name)
            ),
            _ => {
                let got = self.cache.ttl(name).await.unwrap();
                let for_ever = self.map.get(name).map(|held| held.for_ever);
                assert_eq!(got.map(|left| left == Remaining::Forever), for_ever);
            }
        }
    }

    async fn read_many(&mut self) {
        let names = self.names();
        if self.roll(2) == 0 {
            let want: Vec<_> = names.iter().map(|name| self.text(name)).collect();
            assert_eq!(self.cache.get_many::<String>(&names).await.unwrap(), want);
        } else {
            let found = names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), self.held_integer(name)?)));
            let want: HashMap<_, _> = found.collect();
            assert_eq!(self.cache.get_dict::<i64>(&names).await.unwrap(), want);
        }
    }

    async fn write(&mut self) {
        let (name, (ttl, for_ever)) = (self.name(), self.ttl());
        let (word, integer) = (self.word(), self.integer());
        let free = !self.map.contains_key(name);
        let value = match self.roll(2) {
            0 => Content::Text(word.clone()),
            _ => Content::Digits(integer),
        };
        if self.roll(2) == 0 {
            match &value {
                Content::Text(_) => self.cache.set(name, word, ttl).await.unwrap(),
                _ => self.cache.set(name, integer, ttl).await.unwrap(),
            }
            self.put(name, value, for_ever);
        } else {
            let added = match &value {
                Content::Text(_) => self.cache.add(name, word, ttl).await.unwrap(),
                _ => self.cache.add(name, integer, ttl).await.unwrap(),
            };
            assert_eq!(added, free);
            if added {
                self.put(name, value, for_ever);
            }
        }
    }

    async fn write_many(&mut self) {
        let (names, (ttl, for_ever)) = (self.names(), self.ttl());
        let pairs: Vec<_> = names.into_iter().map(|name| (name, self.word())).collect();
        self.cache.set_many(pairs.clone(), ttl).await.unwrap();
        for (name, word) in pairs {
            self.put(name, Content::Text(word), for_ever);
        }
    }

    async fn remove(&mut self) {
        match self.roll(8) {
            0 => {
                self.cache.clear().await.unwrap();
                self.map.clear();
            }
            1..5 => {
                let name = self.name();
                let removed = self.cache.delete(name).await.unwrap();
                assert_eq!(removed, self.map.remove(name).is_some());
            }
            _ => {
                let mut names = self.names();
                // A store may count a key given twice once or twice.
                names.sort_unstable();
                names.dedup();
                let removed = self.cache.delete_many(&names).await.unwrap();
                let held = names
                    .iter()
                    .filter(|name| self.map.remove(**name).is_some());
                assert_eq!(removed, held.count() as u64);
            }
        }
    }

    async fn count(&mut self) {
        let (name, by) = (self.name(), self.integer());
        let answer = match self.roll(2) {
            0 => self.cache.incr(name, by).await,
            _ => self.cache.decr(name, -by).await,
        };
        if !self.profile.counts() {
            return refused(answer, ErrorKind::Unsupported);
        }
        let (current, for_ever) = match self.map.get(name) {
            None => (0, true),
            Some(Held {
                value: Content::Digits(current),
                for_ever,
            }) => (*current, *for_ever),
            Some(_) => return refused(answer, ErrorKind::NotACounter),
        };
        assert_eq!(answer.unwrap(), current + by);
        self.put(name, Content::Digits(current + by), Some(for_ever));
    }

    async fn touch(&mut self) {
        let (name, (ttl, for_ever)) = (self.name(), self.ttl());
        let answer = self.cache.touch(name, ttl).await;
        if !self.profile.touches() {
            return refused(answer, ErrorKind::Unsupported);
        }
        assert_eq!(answer.unwrap(), self.map.contains_key(name));
        if let Some(held) = self.map.get(name).cloned() {
            self.put(name, held.value, for_ever);
        }
    }

    async fn compute(&mut self) {
        let (name, (ttl, for_ever)) = (self.name(), self.ttl());
        let (word, integer) = (self.word(), self.integer());
        let (text, held) = (self.text(name), self.held_integer(name));
        match self.roll(4) {
            0 => {
                let got = self.cache.get_or_set(name, ttl, || async { integer });
                assert_eq!(got.await.unwrap(), held.unwrap_or(integer));
                self.computed(name, held.is_none(), Content::Computed(integer), for_ever);
            }
            1 => {
                let got = self
                    .cache
                    .get_or_set_shared(name, ttl, || async { word.clone() });
                assert_eq!(*got.await.unwrap(), text.clone().unwrap_or(word.clone()));
                self.computed(name, text.is_none(), Content::Text(word), for_ever);
            }
            2 => {
                let attempt = || async { Ok::<_, AppError>(word.clone()) };
                let got = self.cache.try_get_or_set(name, ttl, attempt).await;
                assert_eq!(got.unwrap(), text.clone().unwrap_or(word.clone()));
                self.computed(name, text.is_none(), Content::Text(word), for_ever);
            }
            _ => {
                let attempt = || async { Err::<String, _>(AppError::Origin("down")) };
                let got = self.cache.try_get_or_set_shared(name, ttl, attempt).await;
                assert_eq!(got.ok(), text.map(Arc::new));
            }
        }
    }

    /// What a compute leaves behind. With a zero ttl nothing is stored, and nothing removed either.
    fn computed(
        &mut self,
        name: &'static str,
        was_missing: bool,
        value: Content,
        for_ever: Option<bool>,
    ) {
        if was_missing && for_ever.is_some() {
            self.put(name, value, for_ever);
        }
    }

    async fn compute_many(&mut self) {
        let (names, (ttl, for_ever)) = (self.names(), self.ttl());
        let word = self.word();
        let left_out = self.name();
        let compute = |missing: Vec<String>| {
            let word = &word;
            async move {
                let computed = missing.into_iter().filter(|key| key != left_out);
                computed
                    .map(|key| (key, word.clone()))
                    .collect::<HashMap<_, _>>()
            }
        };
        let got = self
            .cache
            .get_or_set_many(&names, ttl, compute)
            .await
            .unwrap();
        let fresh = |name: &str| (name != left_out).then(|| word.clone());
        let want: Vec<_> = names
            .iter()
            .map(|name| self.text(name).or(fresh(name)))
            .collect();
        assert_eq!(got, want);
        for name in names {
            if self.text(name).is_none() && name != left_out {
                self.computed(name, true, Content::Text(word.clone()), for_ever);
            }
        }
    }
}
