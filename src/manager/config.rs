//! What a manager is told before it begins.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::cluster::Labels;
use super::health::HealthSettings;
use super::tell::Alerts;
use crate::error::{Error, ErrorKind, Result};
use crate::ring::MAP_KEY;
use crate::ring::registry::Registry;
use crate::wire::{ConnectionSettings, Login, Target};

/// The shortest token that keeps anybody out.
const MIN_TOKEN: usize = 32;

/// The longest time of all settings.
const LONGEST: Duration = Duration::from_secs(30 * 86400);

/// Settings of a manager.
///
/// ```
/// use larder::manager::Config;
///
/// let config = Config::new("redis://127.0.0.1:6379/13");
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the map is: a url that [`connect`](crate::DistributedRedis::connect) takes.
    pub redis: String,
    /// The key of the map.
    pub map_name: String,
    /// How positions are chosen; as the map has it unless set, and balanced for a new one.
    pub labels: Option<Labels>,
    /// Positions of each node; as the map has it unless set, and 160 for a new one.
    pub vnodes: Option<usize>,
    /// When nodes are taken off the ring, and put back.
    pub health: HealthSettings,
    /// Between two steps of a drain.
    pub drain_pause: Duration,
    /// What whoever calls has to show: 32 characters at least. Without one only a loopback address is served.
    pub token: Option<String>,
    /// The names by which the manager is called, in a `Host` header. Unless set, those of a loopback address where it listens at one, else any.
    pub hosts: Vec<String>,
    /// Networks in which nodes may be, as `10.0.0.0/8`. Unless set, all but link-local, multicast and unspecified addresses.
    pub allow: Vec<String>,
    /// Requests in a second.
    pub rate: u32,
    /// Whom it tells what happens; nobody unless set.
    pub alerts: Alerts,
    /// How the manager Redis is reached.
    pub(super) manager: ConnectionSettings,
    /// How nodes are.
    pub(super) nodes: ConnectionSettings,
    login_of_all: bool,
}

impl Config {
    /// The usual ones, for the map in this Redis.
    #[must_use]
    pub fn new(redis: impl Into<String>) -> Self {
        Self {
            redis: redis.into(),
            map_name: MAP_KEY.to_owned(),
            labels: None,
            vnodes: None,
            health: HealthSettings::default(),
            drain_pause: Duration::from_secs(60),
            token: None,
            hosts: Vec::new(),
            allow: Vec::new(),
            rate: 50,
            alerts: Alerts::default(),
            manager: ConnectionSettings::default(),
            nodes: ConnectionSettings::default(),
            login_of_all: false,
        }
    }

    /// Says where the password of the manager Redis is, if its url names none.
    #[must_use]
    pub fn manager_login(mut self, login: Login) -> Self {
        self.manager.logins.set(login);
        self
    }

    /// Says where the password is of all nodes whose url names none. Whoever may add a node is given it by that, so it is refused unless
    /// [`allow`](Self::allow) says where nodes may be.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.nodes.logins.set(login);
        self.login_of_all = true;
        self
    }

    /// The same for one node, by its `host:port/db`.
    #[must_use]
    pub fn login_at(mut self, node: impl AsRef<str>, login: Login) -> Self {
        self.nodes.logins.set_at(node.as_ref(), login);
        self
    }

    /// Sets how servers with `rediss://` urls are known.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::wire::Tls) -> Self {
        self.manager.tls = tls.clone();
        self.nodes.tls = tls;
        self
    }

    /// Where the map is, as it may be shown: `host:port/db`, or the name that sentinels know; `?` for what is no url.
    #[must_use]
    pub fn place(&self) -> String {
        Target::parse(&self.redis).map_or_else(|_| "?".to_owned(), |redis| redis.label())
    }

    /// Looks at all of it, and opens nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with what is wrong, by name.
    pub fn check(&self) -> Result<()> {
        Target::parse(&self.redis)?;
        Registry::check_name(&self.map_name)?;
        self.manager.logins.check()?;
        self.nodes.logins.check()?;
        let wrong = |why: &str| Err(Error::new(ErrorKind::Config, why));
        let short = |token: &String| token.chars().count() < MIN_TOKEN;
        if self.token.as_ref().is_some_and(short) {
            return wrong("the token has less than 32 characters");
        }
        let shown = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        if self.token.as_ref().is_some_and(|token| !shown(token)) {
            return wrong("the token holds a space, or what is no ASCII: it could not be sent");
        }
        if self.login_of_all && self.allow.is_empty() {
            return wrong(
                "a password for all nodes needs `allow`, or whoever adds a node is given it",
            );
        }
        if self
            .vnodes
            .is_some_and(|vnodes| !(1..=4096).contains(&vnodes))
        {
            return wrong("vnodes: from 1 to 4096");
        }
        let health = &self.health;
        let times = [health.interval, health.retry, health.timeout, health.lease];
        let longer = [
            health.remove_after,
            health.hold,
            health.max_hold,
            health.forgive_after,
            health.pause,
            self.drain_pause,
        ];
        if times.iter().chain(&longer).any(|time| *time > LONGEST) {
            return wrong("no time is longer than thirty days");
        }
        if times.iter().any(|time| *time < Duration::from_millis(10)) {
            return wrong("interval, retry, timeout and lease: from 10 ms on");
        }
        if health.timeout > health.lease / 3 {
            return wrong("the lease is three times a probe's timeout at least");
        }
        if health.failures == 0 || health.successes == 0 {
            return wrong("failures and successes: from 1 on");
        }
        Allow::of(&self.allow)?;
        self.alerts.check()
    }
}

// A token, and a url with its password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("redis", &self.place())
            .field("map_name", &self.map_name)
            .field("labels", &self.labels)
            .field("vnodes", &self.vnodes)
            .field("health", &self.health)
            .field("token", &self.token.as_ref().map(|_| ".."))
            .field("alerts", &self.alerts)
            .finish_non_exhaustive()
    }
}

/// Where nodes may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Allow {
    networks: Vec<(IpAddr, u8)>,
}

impl Allow {
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no network.
    pub(super) fn of(networks: &[String]) -> Result<Self> {
        let network = |text: &String| {
            let (addr, bits) = text.split_once('/').unwrap_or((text, ""));
            let addr: IpAddr = addr.parse().ok()?;
            let all = if addr.is_ipv4() { 32 } else { 128 };
            let bits = match bits {
                "" => all,
                bits => bits.parse().ok().filter(|bits| *bits <= all)?,
            };
            Some((addr, bits))
        };
        let networks = networks.iter().map(|text| {
            let why = "allow: a network is 10.0.0.0/8, 127.0.0.1 or fd00::/8";
            network(text).ok_or_else(|| Error::new(ErrorKind::Config, why))
        });
        Ok(Self {
            networks: networks.collect::<Result<_>>()?,
        })
    }

    /// Whether a node may be at this address.
    pub(super) fn admits(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        let networks = &self.networks;
        let is_in = |(network, bits): &(IpAddr, u8)| is_in(addr, *network, *bits);
        !is_odd(addr) && (networks.is_empty() || networks.iter().any(is_in))
    }
}

const METADATA: [[u8; 4]; 2] = [[100, 100, 100, 200], [168, 63, 129, 16]];

/// Addresses at which no Redis is, but what tells a machine about itself, or everybody.
fn is_odd(addr: IpAddr) -> bool {
    match addr {
        // At which machines of Alibaba's and Microsoft's clouds are told about themselves.
        IpAddr::V4(addr) if METADATA.contains(&addr.octets()) => true,
        IpAddr::V4(addr) => {
            addr.is_link_local()
                || addr.is_multicast()
                || addr.is_broadcast()
                || addr.octets()[0] == 0
        }
        IpAddr::V6(addr) => {
            let link_local = addr.segments()[0] & 0xffc0 == 0xfe80;
            // At which Amazon's machines tell about themselves.
            let metadata = addr.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            // By a translator of addresses: the last four bytes are one of the others.
            let [.., a, b] = addr.segments();
            let within = (u32::from(a) << 16 | u32::from(b)).to_be_bytes();
            let translated = addr.segments()[..2] == [0x64, 0xff9b];
            let translated = translated && is_odd(IpAddr::V4(within.into()));
            link_local || metadata || translated || addr.is_multicast() || addr.is_unspecified()
        }
    }
}

fn is_in(addr: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, all: u32| {
        let shift = all - u32::from(bits);
        shift >= 128 || a >> shift == b >> shift
    };
    match (addr, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_where_they_may_be() {
        let admits = |networks: &[&str], addr: &str| {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            Allow::of(&networks).unwrap().admits(addr.parse().unwrap())
        };
        for addr in ["127.0.0.1", "10.1.2.3", "8.8.8.8", "::1", "fd00::1"] {
            assert!(admits(&[], addr), "{addr}");
        }
        for addr in [
            "169.254.169.254",
            "224.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "100.100.100.200",
        ] {
            assert!(!admits(&[], addr), "{addr}");
        }
        assert!(admits(&["10.0.0.0/8"], "10.255.0.1") && !admits(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(
            admits(&["10.0.0.0/8", "127.0.0.1"], "127.0.0.1")
                && !admits(&["127.0.0.1"], "127.0.0.2")
        );
        assert!(admits(&["0.0.0.0/0"], "9.9.9.9") && !admits(&["0.0.0.0/0"], "::1"));
        assert!(admits(&["fd00::/8"], "fd12::1") && !admits(&["fd00::/8"], "fe00::1"));
        assert!(admits(&["10.0.0.0/8"], "::ffff:10.0.0.1"));
        for wrong in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "host",
            "10.0.0.0/x",
            "10.0.0/8",
        ] {
            assert!(Allow::of(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let config = || Config::new("redis://:canary@127.0.0.1:1/0");
        assert!(config().check().is_ok());
        let mut wrong: Vec<Config> = (0..9).map(|_| config()).collect();
        wrong[0].token = Some("x".repeat(31));
        wrong[1].vnodes = Some(0);
        wrong[2].health.interval = Duration::ZERO;
        wrong[3].health.failures = 0;
        wrong[4].allow = vec!["everywhere".to_owned()];
        wrong[5].redis = "http://h".to_owned();
        wrong[6].token = Some(format!("{} ", "x".repeat(32)));
        wrong[7].health.pause = Duration::MAX;
        wrong[8] = config().login(Login::env("NODES"));
        for config in wrong {
            assert_eq!(
                config.check().unwrap_err().kind(),
                ErrorKind::Config,
                "{config:?}"
            );
        }
        let mut shown = config();
        shown.token = Some("canary".repeat(6));
        assert!(!format!("{shown:?}").contains("canary"));
    }
}
