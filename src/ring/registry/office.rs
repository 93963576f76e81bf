//! What a manager alone has to do with its Redis: the lease, and what happened.

use std::time::Duration;

use redis::cmd;

use super::{Registry, eval, has_code};
use crate::error::{Error, Result};
use crate::ring::{HISTORY_KEY, MAP_KEY, META_KEY};

/// Who may judge the nodes and tell of them: whoever holds the lease. `ARGV`: a token, and a life in milliseconds.
const LEASE: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// A meta that holds nothing else would be none.
const NOTE: &str = r"
if redis.call('HLEN', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
";

const NOTED: &str = r"
return {redis.call('HLEN', KEYS[1]), redis.call('HGET', KEYS[1], ARGV[1])}
";

/// Something that happened, and its number.
pub(crate) type Event = (u64, String);

impl Registry {
    /// Takes the lease for so long, or keeps it; whether it was to be had.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn lease(&self, token: &str, life: Duration) -> Result<bool> {
        let mut eval = eval(LEASE, &[&self.keys.lease]);
        eval.arg(token).arg(life.as_millis().max(1) as u64);
        Ok(self.run::<i64>("take the lease", &eval).await? == 1)
    }

    /// Gives the lease up, if it is held.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn release(&self, token: &str) -> Result<()> {
        let mut eval = eval(RELEASE, &[&self.keys.lease]);
        self.run::<i64>("give up the lease", eval.arg(token))
            .await?;
        Ok(())
    }

    /// What happened last, the latest first.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`].
    pub(crate) async fn events(&self, count: usize) -> Result<Vec<Event>> {
        let mut range = cmd("LRANGE");
        range.arg(&self.keys.events).arg(0).arg(count.max(1) - 1);
        let lines: Vec<String> = self.run("read what happened", &range).await?;
        let event = |line: String| {
            let (id, text) = line.split_once(' ')?;
            Some((id.parse().ok()?, text.to_owned()))
        };
        Ok(lines.into_iter().filter_map(event).collect())
    }

    /// Writes a field of the meta by itself, where there is one; whether there is.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`](crate::wire::Connection::run).
    pub(crate) async fn note(&self, field: &str, value: &str) -> Result<bool> {
        let mut eval = eval(NOTE, &[&self.keys.meta]);
        eval.arg(field).arg(value);
        Ok(self.run::<i64>("note", &eval).await? == 1)
    }

    /// A field of the meta; nothing where it is not there, and whether there is a meta at all.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::run`](crate::wire::Connection::run).
    pub(crate) async fn noted(&self, field: &str) -> Result<(bool, Option<String>)> {
        let mut eval = eval(NOTED, &[&self.keys.meta]);
        eval.arg(field);
        let (fields, value): (usize, Option<String>) =
            self.run("read what was told", &eval).await?;
        Ok((fields > 0, value))
    }

    /// The keys of this map, and those of a map of the usual name.
    pub(crate) fn spared(&self) -> Vec<&str> {
        let usual = [MAP_KEY, META_KEY, HISTORY_KEY];
        self.keys.kept().into_iter().chain(usual).collect()
    }

    /// Whether the manager Redis is there.
    pub(crate) fn is_up(&self) -> bool {
        self.manager.is_up()
    }
}

/// Whether another manager holds the lease.
pub(crate) fn is_lost(error: &Error) -> bool {
    has_code(error, "LARDERLEASE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Publication;
    use crate::ring::registry::Change;
    use crate::wire::testserver::TestServer;
    use crate::wire::{ConnectionSettings, Target};

    /// Whoever lost the lease, or never had it, changes nothing; whoever needs none does.
    #[tokio::test]
    async fn what_is_done_in_the_name_of_the_lease_takes_it() {
        let server = TestServer::start(&[]);
        let target = Target::parse(&server.url()).unwrap();
        let settings = ConnectionSettings::default();
        let registry = Registry::connect(target, settings, MAP_KEY).await.unwrap();
        let minute = Duration::from_secs(60);
        assert!(registry.lease("one", minute).await.unwrap());
        assert!(!registry.lease("two", minute).await.unwrap());
        let map = Publication::of_nodes(&["redis://127.0.0.1:1/0"], 8);
        let commit = async |lease: Option<&str>| {
            let found = registry.read().await.unwrap();
            let change = Change {
                events: vec!["{}".to_owned()],
                lease: lease.map(str::to_owned),
                ..map.change(&found).unwrap()
            };
            registry.commit(&found, &change).await
        };
        let refused = commit(Some("two")).await.unwrap_err();
        assert!(is_lost(&refused), "{refused}");
        assert_eq!(registry.events(10).await.unwrap(), []);
        assert_eq!(registry.read().await.unwrap().size, 0);
        assert_eq!(commit(Some("one")).await.unwrap(), 1);
        assert_eq!(commit(None).await.unwrap(), 2);
        // Nobody gives up what is another's.
        registry.release("two").await.unwrap();
        assert!(!registry.lease("two", minute).await.unwrap());
        registry.release("one").await.unwrap();
        assert!(registry.lease("two", minute).await.unwrap());
        let refused = commit(Some("one")).await.unwrap_err();
        assert!(is_lost(&refused), "{refused}");
        let events: Vec<u64> = registry
            .events(10)
            .await
            .unwrap()
            .iter()
            .map(|event| event.0)
            .collect();
        assert_eq!(events, [2, 1]);
    }
}
