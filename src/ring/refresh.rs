//! Reads the map, judges it, and takes it over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

use super::file::Saved;
use super::follow::Follower;
use super::history::{History, lineage, missing};
use super::lock::lock;
use super::map::{self, Meta, Reading, Rules};
use super::signals::{SETTLE, SETTLE_LONGEST};
use super::snapshot::{Placed, Snapshot};

/// Maps up to this many fields are read whole each time.
const SMALL: usize = 2000;

/// How long it may take to read the map once: two questions, each with its own bound.
const READING: Duration = Duration::from_secs(10);

/// Readings in a row that meet another epoch than was just told, at most.
const READINGS: usize = 5;

impl Follower {
    /// Reads the map and takes it over if it is good and new. A map found missing is looked for until it would have
    /// been there if somebody was just rewriting it.
    pub(super) async fn refresh(&self, whole: bool) -> Result<()> {
        let began = Instant::now();
        let until = began + SETTLE_LONGEST;
        let known_missing = lock(&self.progress).empty;
        loop {
            self.due_within(READING);
            let missing = match self.read(whole).await? {
                Some(reading) if reading.raw.fields.is_empty() => reading,
                Some(reading) => {
                    lock(&self.progress).empty = false;
                    if self.accept(reading).await? {
                        self.recent.confirmed(began);
                    }
                    return Ok(());
                }
                None => {
                    lock(&self.progress).confirmed = Some(self.clock.now());
                    self.recent.confirmed(began);
                    return Ok(());
                }
            };
            if known_missing || Instant::now() + SETTLE > until {
                lock(&self.progress).empty = true;
                return self.accept(missing).await.map(|_| ());
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// The map, with the history since the epoch in use; nothing if it seems to be the same.
    pub(super) async fn read(&self, whole: bool) -> Result<Option<Reading>> {
        let (manager, keys) = (&self.manager, &self.settings.keys);
        let (fields, meta) = map::probe(manager, keys).await?;
        map::check_size(fields, self.settings.rules.bounds.fields)?;
        if !whole && fields > SMALL && self.seems_unchanged(fields, meta.as_ref()) {
            return Ok(None);
        }
        let known = self.current.load().stated;
        let mut newest = meta.map_or(0, |meta| meta.epoch);
        // A map that is published between the two questions has another history.
        for _ in 0..READINGS {
            let reading = match map::read(manager, keys, missing(known, newest)).await {
                // Who may read the map may not read its history everywhere.
                Err(error) if error.kind() == ErrorKind::Rejected => {
                    let reading = map::read(manager, keys, missing(0, 0)).await?;
                    self.warn_of_history(newest);
                    reading
                }
                reading => reading?,
            };
            let found = reading.raw.epoch();
            if found == newest || found == known {
                return Ok(Some(reading));
            }
            newest = found;
        }
        let why = "the map changes faster than it can be read";
        Err(Error::new(ErrorKind::Unavailable, why).during("read the map"))
    }

    fn seems_unchanged(&self, fields: usize, meta: Option<&Meta>) -> bool {
        let current = self.current.load();
        current
            .raw
            .as_ref()
            .is_some_and(|raw| raw.fields.len() == fields && raw.meta.as_ref() == meta)
    }

    /// Takes a map over, if it is good and new; whether it is the one in use now.
    pub(super) async fn accept(&self, reading: Reading) -> Result<bool> {
        let current = self.current.load_full();
        if current.raw.as_deref() != Some(&reading.raw) {
            let (placed, unreadable) = self.place(&current, reading).await?;
            self.warn(&placed.good);
            self.warn_of_regress(current.stated, placed.good.stated);
            if let Some(epoch) = unreadable {
                self.warn_of_history(epoch);
            }
            if !self.replace(&current, placed) {
                self.nudge();
                return Ok(false);
            }
        }
        let mut progress = lock(&self.progress);
        (progress.confirmed, progress.last_error) = (Some(self.clock.now()), None);
        Ok(true)
    }

    /// Judges a map, and tells since when each key belongs to its owner. A large one is judged aside, where it keeps
    /// nobody waiting.
    pub(super) async fn place(
        &self,
        current: &Arc<Snapshot>,
        reading: Reading,
    ) -> Result<(Placed, Option<u64>)> {
        let rules = self.settings.rules;
        let placed = if reading.raw.fields.len() <= SMALL {
            placed(current, reading, rules)
        } else {
            let current = Arc::clone(current);
            let aside = move || placed(&current, reading, rules);
            let aside = tokio::task::spawn_blocking(aside).await;
            aside.map_err(|_| Error::new(ErrorKind::Unavailable, "the runtime is ending"))?
        };
        placed.map_err(|error| error.with("key", &self.settings.keys.map))
    }

    /// Swaps the snapshot, with what the new owners of keys have not heard of. Whether it did: not where it was closed
    /// meanwhile, or another task has put a map in place.
    fn put_in_place(&self, current: &Arc<Snapshot>, next: &Arc<Snapshot>) -> bool {
        let mut recent = self.recent.hold();
        let now = self.current.load_full();
        if self.is_closed() || !Arc::ptr_eq(&now, current) {
            // It took over what nodes owed that came back with it.
            self.departed.remember(next.lost_to(&now));
            return false;
        }
        self.departed.remember(current.lost_to(next));
        recent.owe(current, next);
        self.current.store(Arc::clone(next));
        true
    }

    pub(super) fn replace(&self, current: &Arc<Snapshot>, placed: Placed) -> bool {
        let epoch = placed.good.epoch;
        let window = self.settings.window();
        let next = current.next(placed, &self.settings.nodes, window, &self.departed);
        let next = Arc::new(next);
        if !self.put_in_place(current, &next) {
            return false;
        }
        // Only now: until then, copies of what is read by the next map are as if of another view, and its nodes are asked.
        next.listen();
        lock(&self.progress).changes += 1;
        tracing::info!(target: "larder::ring", event = "map_changed", epoch, nodes = next.node_count(), positions = next.ring.positions());
        if let (Some(path), Some(raw)) = (self.settings.snapshot_file.clone(), next.raw.clone()) {
            let lineage = next.lineage.clone();
            self.saver.save(path, Saved { raw, lineage });
        }
        true
    }

    fn warn(&self, good: &map::GoodMap) {
        if good.edited {
            tracing::warn!(target: "larder::ring", event = "map_edited",
                "the map does not fit its digest: somebody changed it who does not know its meta; what was stored until now \
                 counts as too old for the keys that moved, and entries are written without an epoch");
        }
        let mut progress = lock(&self.progress);
        if !progress.warned && good.rule_unknown {
            progress.warned = true;
            tracing::warn!(target: "larder::ring", event = "order_assumed",
                "the map does not say in which order it is read: numeric is assumed; readers of the Python SDK sort as text \
                 and place some keys elsewhere (choose Order::Lexicographic to follow them)");
        }
        if !progress.warned && good.epoch == 0 {
            progress.warned = true;
            tracing::info!(target: "larder::ring", event = "no_epoch",
                "the map has no epoch: after a node left and came back, a value's ttl is the only bound on its age");
        }
    }

    fn warn_of_regress(&self, known: u64, stated: u64) {
        if stated != 0 && stated < known {
            tracing::warn!(target: "larder::ring", event = "epoch_went_back", known, stated,
                "the map's epoch went back: the manager lost publications or begins anew; what was stored until now counts as                  too old for the keys that moved, and is written without an epoch until the epoch is greater again");
        }
    }

    fn warn_of_history(&self, epoch: u64) {
        let mut progress = lock(&self.progress);
        if !progress.history_warned {
            progress.history_warned = true;
            tracing::warn!(target: "larder::ring", event = "history_unreadable", epoch,
                "an entry of the map's history cannot be read: entries of that epoch and before are misses");
        }
    }

    pub(super) fn failed(&self, error: &Error) {
        let mut progress = lock(&self.progress);
        let text = error.to_string();
        if error.kind() == ErrorKind::Config || self.manager.is_up() {
            progress.refused += 1;
        }
        // Once for each cause, not once a second.
        if progress.last_error.as_ref() != Some(&text) {
            tracing::warn!(target: "larder::ring", event = "map_refused", error = %text, "the last good map stays in use");
        }
        progress.last_error = Some(text);
    }

    /// Takes the map of the file over, if there is a good one.
    pub(super) async fn restore(&self) -> bool {
        let Some(path) = self.settings.snapshot_file.clone() else {
            return false;
        };
        let Some(Saved { raw, lineage }) = Saved::load(path).await else {
            return false;
        };
        let Ok(good) = raw.judge(self.settings.rules) else {
            return false;
        };
        self.warn(&good);
        let current = self.current.load_full();
        let placed = Placed {
            stated: raw.epoch(),
            views: current.views_with(&good.ring, &lineage),
            good,
            raw,
            lineage,
        };
        let next = current.next(placed, &self.settings.nodes, Duration::ZERO, &self.departed);
        next.listen();
        self.current.store(Arc::new(next));
        tracing::warn!(target: "larder::ring", event = "map_restored", "the manager gave no map: the one saved last is used");
        true
    }
}

/// A map that was read, judged, and the newest epoch whose entry in the history is unreadable.
fn placed(current: &Snapshot, reading: Reading, rules: Rules) -> Result<(Placed, Option<u64>)> {
    let good = reading.raw.judge(rules)?;
    let history = if *reading.epochs.end() == good.stated {
        History::read(
            reading.epochs,
            reading.history,
            good.ring.order(),
            good.ring.has_hash_tags(),
            rules.bounds.fields,
        )
    } else {
        History::default()
    };
    let before = (&current.lineage, current.stated, &current.ring);
    let (lineage, stated) = lineage(before, &good, &history);
    let raw = Arc::new(reading.raw);
    let placed = Placed {
        views: current.views_with(&good.ring, &lineage),
        good,
        raw,
        stated,
        lineage,
    };
    Ok((placed, history.unreadable))
}
