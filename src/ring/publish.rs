//! Writes the map.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::ringmap::{Order, Ring, fields_for_readers, positions_for};
use crate::wire::{ConnectionSettings, NodeAddr, Target};

use super::history;
use super::keys::{MAP_KEY, MapKeys};
use super::map::{MAX_URL_BYTES, check_size, digest_text};
use super::registry::{Change, Found, MAX_FIELDS, NewMap, Registry, is_stale};
use super::store::DistributedRedis;

/// How often a publication that expects no epoch is tried, where others publish at the same time.
const TRIES: usize = 16;

/// A map to be published.
///
/// ```
/// use larder::ring::Publication;
/// let map = Publication::of_nodes(&["redis://127.0.0.1:7001/0", "redis://127.0.0.1:7002/0"], 160);
/// assert_eq!(map.positions().len(), 320);
/// ```
#[derive(Clone)]
pub struct Publication {
    positions: Vec<(u32, String)>,
    expected_epoch: Option<u64>,
    per_node: usize,
    lookup: Order,
    hash_tags: Option<bool>,
    writer: String,
    map_name: Option<String>,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication")
            .field("positions", &self.positions.len())
            .field("expected_epoch", &self.expected_epoch)
            .field("writer", &self.writer)
            .field("map_name", &self.map_name)
            .finish_non_exhaustive()
    }
}

impl Publication {
    /// A map with `per_node` positions for each node, chosen from `host:port/db`. 160 give a good balance.
    #[must_use]
    pub fn of_nodes(urls: &[impl AsRef<str>], per_node: usize) -> Self {
        Self {
            per_node,
            ..Self::of_positions(positions_for(urls, per_node))
        }
    }

    /// A map of positions that were chosen elsewhere.
    #[must_use]
    pub fn of_positions(positions: impl IntoIterator<Item = (u32, String)>) -> Self {
        Self {
            positions: positions.into_iter().collect(),
            expected_epoch: None,
            per_node: 0,
            lookup: Order::Numeric,
            hash_tags: None,
            writer: format!("larder/{}", env!("CARGO_PKG_VERSION")),
            map_name: None,
        }
    }

    /// Publishes only if the map's epoch is still this one; 0 for a map without meta. Otherwise it is refused.
    #[must_use]
    pub fn expecting_epoch(mut self, epoch: u64) -> Self {
        self.expected_epoch = Some(epoch);
        self
    }

    /// Says that keys are placed by their [hash tags](crate::ring::hash_tag), or that they are not. As it stands unless set; off where nothing stands. Readers that
    /// were told otherwise refuse the map, and the Python SDK knows nothing of it: to be chosen before a ring is used.
    #[must_use]
    pub fn hash_tags(mut self, tags: bool) -> Self {
        self.hash_tags = Some(tags);
        self
    }

    /// By which rule readers find a key's node. [`Order::Numeric`] unless set, and positions are so written then that the Python SDK, which
    /// sorts them as text, comes to the same. [`Order::Lexicographic`] writes each position once, as the Python server does, and has Larder's
    /// readers follow the SDK.
    #[must_use]
    pub fn lookup(mut self, order: Order) -> Self {
        self.lookup = match order {
            Order::Auto => Order::Numeric,
            order => order,
        };
        self
    }

    /// Sets who is noted as the writer.
    #[must_use]
    pub fn writer(mut self, writer: impl Into<String>) -> Self {
        self.writer = writer.into();
        self
    }

    /// Publishes under another name than `HASH_RING_MAP`, for several rings with one manager: see
    /// [`map_name`](crate::ring::DistributedRedisBuilder::map_name) for the names of the keys.
    ///
    /// ```
    /// use larder::ring::Publication;
    /// let map = Publication::of_nodes(&["redis://127.0.0.1:7001/0"], 160).in_map("HASH_RING_cart_MAP");
    /// # let _ = map;
    /// ```
    #[must_use]
    pub fn in_map(mut self, name: impl Into<String>) -> Self {
        self.map_name = Some(name.into());
        self
    }

    /// The positions and their nodes' urls.
    #[must_use]
    pub fn positions(&self) -> &[(u32, String)] {
        &self.positions
    }

    fn check(&self) -> Result<()> {
        if self.positions.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "an empty map is never published",
            ));
        }
        check_size(self.positions.len(), MAX_FIELDS / 2)?;
        let long = |(_, url): &(u32, String)| url.len() > MAX_URL_BYTES;
        if self.positions.iter().any(long) {
            let why = "a url is longer than readers of a map take";
            return Err(Error::new(ErrorKind::Config, why).with("bound", MAX_URL_BYTES));
        }
        let urls: HashSet<&str> = self.positions.iter().map(|(_, url)| url.as_str()).collect();
        urls.into_iter()
            .try_for_each(|url| NodeAddr::parse(url).map(|_| ()))
    }

    /// Notes how many positions each node has.
    #[cfg(feature = "manager")]
    pub(crate) fn per_node(mut self, count: usize) -> Self {
        self.per_node = count;
        self
    }

    /// How it is written in place of what was found.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the map is empty, too large, or holds a url that does not parse.
    pub(crate) fn change(&self, found: &Found) -> Result<Change> {
        self.check()?;
        Ok(self.written(found))
    }

    /// The same, for whoever may leave a ring without nodes, or with some of which only others know how they are reached.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the map is too large.
    #[cfg(feature = "manager")]
    pub(crate) fn change_to_any(&self, found: &Found) -> Result<Change> {
        check_size(self.positions.len(), MAX_FIELDS / 2)?;
        Ok(self.written(found))
    }

    fn written(&self, found: &Found) -> Change {
        let ring = Ring::from_map(self.positions.iter().cloned());
        let written = ring
            .iter()
            .map(|(position, url)| (position, url.to_owned()));
        let fields = match self.lookup {
            Order::Lexicographic => written
                .map(|(position, url)| (position.to_string(), url))
                .collect(),
            _ => fields_for_readers(&written.collect::<Vec<_>>()),
        };
        let text = |text: String| Some(text);
        let mut meta = BTreeMap::from([
            ("digest", text(digest_text(&ring))),
            ("lookup", text(self.lookup.to_string())),
            ("vnodes", text(self.per_node.to_string())),
            ("writer", text(self.writer.clone())),
            // How these positions were chosen, nobody says.
            ("labels", None),
        ]);
        match self.hash_tags {
            Some(tags) => meta.insert("hash_tags", text(u8::from(tags).to_string())),
            None if found.has_odd_tags() => meta.insert("hash_tags", None),
            None => None,
        };
        let tags = self.hash_tags.or(found.tags());
        let is_other_rule = tags != found.tags() && found.epoch() != "0";
        let map = NewMap {
            fields,
            history: history::entry(&ring, tags, self.lookup),
            // Who reads earlier maps by another rule than theirs would believe what is out of date: they end here.
            step: found.step().max(if is_other_rule { 2 } else { 1 }),
        };
        Change {
            map: Some(map),
            meta,
            ..Change::default()
        }
    }
}

/// Publishes a map in the manager Redis: map, meta and history in one script. Answers the new epoch, which is one more
/// than the one before, or two more where somebody who does not know the meta has edited the map meanwhile, or deleted the meta.
///
/// The url is one that [`connect`](crate::DistributedRedis::connect) takes: of one server, of several or of sentinels.
///
/// Each position below 10^9 is written twice, plainly and padded to ten digits, so that readers of the Python SDK,
/// which sort positions as text, place every key where numeric readers do.
///
/// # Errors
///
/// [`ErrorKind::Config`] if the map is empty, too large, holds a url that does not parse, or has an unusable name, or if
/// what stands in its place in the manager is no map or has no epoch that can be counted on; nothing is written then.
/// [`ErrorKind::Rejected`] if the epoch is not the expected one, or the manager refuses;
/// [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`] if it does not answer within 5 seconds.
///
/// # Cancellation
///
/// Dropped, the map is published whole or not at all.
pub async fn publish(manager_url: &str, publication: &Publication) -> Result<u64> {
    publication.check()?;
    let settings = ConnectionSettings {
        client_name: Some("larder-publish".to_owned()),
        ..ConnectionSettings::default()
    };
    let target = Target::parse(manager_url)?;
    let name = publication.map_name.as_deref().unwrap_or(MAP_KEY);
    let registry = Registry::connect(target, settings, name).await?;
    publish_in(&registry, publication).await
}

impl DistributedRedis {
    /// Publishes a map in place of the one that this store follows, as [`publish`] does, by the connection that it follows it with: with its
    /// [login](crate::ring::DistributedRedisBuilder::manager_login) and its TLS. Where there is no map yet, connect with
    /// [`start_without_map`](crate::ring::DistributedRedisBuilder::start_without_map).
    ///
    /// # Errors
    ///
    /// Those of [`publish`]; [`ErrorKind::Config`] also where the publication is [for another map](Publication::in_map).
    ///
    /// # Cancellation
    ///
    /// Dropped, the map is published whole or not at all.
    ///
    /// ```no_run
    /// use larder::DistributedRedis;
    /// use larder::ring::Publication;
    /// # async fn example() -> larder::Result<()> {
    /// let ring = DistributedRedis::builder("rediss://manager.internal:6379/13").start_without_map(true).connect().await?;
    /// ring.publish(&Publication::of_nodes(&["redis://10.0.0.7:6379/0", "redis://10.0.0.8:6379/0"], 160)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(&self, publication: &Publication) -> Result<u64> {
        publication.check()?;
        let follower = &self.follower;
        let keys = &follower.settings.keys;
        if let Some(name) = &publication.map_name
            && MapKeys::named(name)? != *keys
        {
            let why = "the publication is for another map than this store follows";
            return Err(Error::new(ErrorKind::Config, why).during("publish"));
        }
        let registry = Registry::new(follower.manager.clone(), keys.clone());
        publish_in(&registry, publication).await
    }
}

async fn publish_in(registry: &Registry, publication: &Publication) -> Result<u64> {
    let mut tried = 1;
    loop {
        let mut found = registry.read().await?;
        if let Some(expected) = publication.expected_epoch {
            found.expect(expected);
        }
        let published = registry.commit(&found, &publication.change(&found)?).await;
        match published {
            // Somebody published in between.
            Err(error) if is_stale(&error) && publication.expected_epoch.is_none() => {
                tried += 1;
                if tried > TRIES {
                    return Err(error);
                }
            }
            published => return published,
        }
    }
}
