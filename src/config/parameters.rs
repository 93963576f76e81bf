//! What a description says by name. Values are never repeated in errors: a misplaced one may be a password.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::wrong;
use crate::core::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::ttl::Ttl;
#[cfg(feature = "redis")]
use crate::wire::Login;

/// What every store takes.
pub(super) const COMMON: [&str; 5] = ["ttl", "strict", "schema", "max_staleness_ms", "key_prefix"];

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a url, after its `?`.
    pub(super) fn parse(query: &str) -> Result<Self> {
        // Names are repeated in errors, and this may be the rest of a password.
        if query.contains('@') {
            return Err(wrong(
                "parameters hold an @: write it as %40, and a ? in a password as %3F",
            ));
        }
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(wrong("a parameter is a name, = and a value"));
            };
            parameters.add(name.to_owned(), decoded(value, name)?)?;
        }
        Ok(parameters)
    }

    pub(super) fn add(&mut self, name: String, value: String) -> Result<()> {
        if self.0.iter().any(|(other, _)| *other == name) {
            return Err(wrong("a parameter is given twice").with("parameter", name));
        }
        self.0.push((name, value));
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn into_pairs(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter()
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>> {
        let value = self.take(name).map(|value| value.parse()).transpose();
        value.map_err(|_| wrong_value(name, "a whole number"))
    }

    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>> {
        let value = self.take(name).map(|value| value.parse()).transpose();
        value.map_err(|_| wrong_value(name, "true or false"))
    }

    pub(super) fn millis(&mut self, name: &'static str) -> Result<Option<Duration>> {
        Ok(self.number(name)?.map(Duration::from_millis))
    }

    pub(super) fn settings(&mut self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(ttl) = self.take("ttl") {
            let secs = ttl
                .parse()
                .map_err(|_| wrong_value("ttl", "a whole number of seconds"))?;
            settings.default_ttl = Ttl::from_secs(secs);
        }
        settings.strict = self.switch("strict")?.unwrap_or(false);
        if let Some(bound) = self.millis("max_staleness_ms")? {
            settings.max_staleness = bound;
        }
        if let Some(prefix) = self.take("key_prefix") {
            settings.key_prefix = prefix.into();
        }
        if let Some(version) = self.number("schema")? {
            let version = u32::try_from(version)
                .map_err(|_| wrong_value("schema", "a number below 4294967296"))?;
            settings.format = settings.format.schema_version(version);
        }
        Ok(settings)
    }

    /// Where a password is: `password_env` or `password_file`, and the `user` whose it is, each behind a prefix.
    #[cfg(feature = "redis")]
    pub(super) fn login(&mut self, prefix: &str) -> Result<Option<Login>> {
        let mut named = |name: &str| self.take(&format!("{prefix}{name}"));
        let (env, file) = (named("password_env"), named("password_file"));
        let user = named("user");
        let login = match (env, file) {
            (Some(_), Some(_)) => {
                return Err(wrong("password_env and password_file exclude each other"));
            }
            (Some(variable), None) => Login::env(variable),
            (None, Some(path)) => Login::file(path),
            (None, None) if user.is_some() => {
                return Err(wrong("a user goes with password_env or password_file"));
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(match user {
            Some(user) => login.user(user),
            None => login,
        }))
    }

    /// Refuses what nobody took.
    pub(super) fn done(&self, kind: &'static str, known: &[&str]) -> Result<()> {
        let Some((name, _)) = self.0.first() else {
            return Ok(());
        };
        let common = if matches!(kind, "tiered" | "prefixed" | "node") {
            &[][..]
        } else {
            &COMMON[..]
        };
        let known: Vec<&str> = known.iter().chain(common).copied().collect();
        let why = format!("{kind} has no such parameter; it has {}", known.join(", "));
        Err(Error::new(ErrorKind::Config, why).with("parameter", name))
    }
}

pub(super) fn wrong_value(name: &'static str, expected: &'static str) -> Error {
    Error::new(ErrorKind::Config, format!("the parameter takes {expected}")).with("parameter", name)
}

pub(super) fn decoded(text: &str, name: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| wrong("not UTF-8 once decoded").with("parameter", name))
}
