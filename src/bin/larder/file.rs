//! A manager's settings in a file: its own, in TOML, or those of the Python server, in YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use larder::Login;
use larder::manager::{Config, Labels, Security, Webhook as Hook};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::Failure;
use crate::manager::{seconds, set};
use crate::ops::secret;

/// The longest file.
const MAX_BYTES: u64 = 1 << 20;

/// Settings as TOML has them. What is not there is as usual.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) listen: Option<String>,
    pub(crate) redis: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) password_file: Option<PathBuf>,
    /// Of all nodes whose url names none.
    nodes_password_file: Option<PathBuf>,
    pub(crate) map: Option<String>,
    labels: Option<Labels>,
    vnodes: Option<usize>,
    hosts: Vec<String>,
    allow: Vec<String>,
    rate: Option<u32>,
    drain_pause: Option<f64>,
    health: Health,
    mail: Option<Mail>,
    webhook: Option<Webhook>,
    command: Option<Vec<String>>,
    /// Seconds between two messages.
    alert_pause: Option<f64>,
    alert_max_pause: Option<f64>,
    /// Where the passwords of single nodes are, by `host:port/db`.
    nodes: BTreeMap<String, Password>,
}

/// Times are in seconds.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Health {
    interval: Option<f64>,
    retry: Option<f64>,
    timeout: Option<f64>,
    failures: Option<u32>,
    remove_after: Option<f64>,
    successes: Option<u32>,
    hold: Option<f64>,
    max_hold: Option<f64>,
    forgive_after: Option<f64>,
    min_nodes: Option<usize>,
    pause: Option<f64>,
    lease: Option<f64>,
    empty: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Password {
    user: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
}

/// Who is told by mail.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mail {
    host: String,
    port: Option<u16>,
    account: String,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    from: Option<String>,
    to: Vec<String>,
    /// `tls`, `starttls` or `none`.
    security: Option<String>,
    /// The password itself, of the Python server's file.
    #[serde(skip)]
    password: Option<Hidden>,
}

/// A webhook, whose url and token may be secrets.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Webhook {
    url: Option<Hidden>,
    url_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Hidden(String);

/// The Python server's file, as far as it is about what is the same here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Python {
    core: Core,
    redis: Redis,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Core {
    vnode_replicas: Option<Number<usize>>,
    smtp_account: Option<String>,
    smtp_password: Option<String>,
    smtp_host: Option<String>,
    smtp_port: Option<Number<u16>>,
    send_email: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Redis {
    host: Option<String>,
    port: Option<Number<u16>>,
    pass: Option<Value>,
    db: Option<Number<u32>>,
}

/// A number, or a text that is one.
struct Number<N>(N);

impl<'de, N: FromStr> Deserialize<'de> for Number<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let number = text.trim().parse().map(Self);
        number.map_err(|_| D::Error::custom("no number"))
    }
}

impl File {
    /// Reads a file, whose ending says what it is.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let named = |why: &str| -> Failure { format!("the file {}: {why}", path.display()).into() };
        let text = crate::ops::text_of(path, MAX_BYTES)?;
        let is_yaml = path
            .extension()
            .is_some_and(|end| end == "yml" || end == "yaml");
        match is_yaml {
            // Neither parser's words are repeated as they are: they may show a line, and a password in it.
            true => serde_yaml_ng::from_str::<Python>(&text)
                .map_err(|error| {
                    let line = error.location().map_or(0, |at| at.line());
                    named(&format!("line {line} is not what the Python server reads"))
                })
                .map(Self::of_python),
            false => toml::from_str(&text).map_err(|error| {
                let before = error.span().and_then(|span| text.get(..span.start));
                let line = before.map_or(1, |before| before.matches('\n').count() + 1);
                let words = error.message();
                let is_name =
                    words.starts_with("unknown field") || words.starts_with("missing field");
                let words = if is_name {
                    words
                } else {
                    "this is not what should stand here"
                };
                named(&format!("line {line}: {words}"))
            }),
        }
    }

    fn of_python(python: Python) -> Self {
        let Redis {
            host,
            port,
            pass,
            db,
        } = python.redis;
        let pass = pass.map(|pass| {
            pass.as_str()
                .map_or_else(|| pass.to_string(), str::to_owned)
        });
        let user = pass.filter(|pass| !pass.is_empty() && pass != "null");
        let user = user.map_or_else(String::new, |pass| {
            format!(":{}@", crate::api::Api::encoded(&pass))
        });
        let redis = host.map(|host| {
            format!(
                "redis://{user}{host}:{}/{}",
                port.map_or(6379, |port| port.0),
                db.map_or(0, |db| db.0)
            )
        });
        let core = python.core;
        let there = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mail = there(core.smtp_host).zip(there(core.send_email));
        let mail = mail.zip(there(core.smtp_account));
        let mail = mail.map(|((host, to), account)| Mail {
            host,
            // As its mailer does.
            port: Some(core.smtp_port.map_or(465, |port| port.0)),
            account,
            password: core.smtp_password.map(Hidden),
            to: vec![to],
            ..Mail::default()
        });
        Self {
            // Where the Python server's callers on this machine find it; for others a token is needed, and so another address.
            listen: Some("127.0.0.1:5000".to_owned()),
            // As many as that server takes.
            vnodes: Some(core.vnode_replicas.map_or(5, |count| count.0)),
            redis,
            mail,
            ..Self::default()
        }
    }

    /// What it says.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if let Some(file) = &self.nodes_password_file {
            *config = config.clone().login(Login::file(file));
        }
        for (node, password) in &self.nodes {
            let login = match (&password.password_file, &password.password_env) {
                (Some(file), None) => Login::file(file),
                (None, Some(variable)) => Login::env(variable),
                _ => {
                    return Err(
                        format!("nodes.\"{node}\": either password_file or password_env").into(),
                    );
                }
            };
            let login = match &password.user {
                Some(user) => login.user(user),
                None => login,
            };
            *config = config.clone().login_at(node, login);
        }
        config.labels = self.labels.or(config.labels);
        config.vnodes = self.vnodes.or(config.vnodes);
        config.hosts.clone_from(&self.hosts);
        config.allow.clone_from(&self.allow);
        config.rate = self.rate.unwrap_or(config.rate);
        if let Some(pause) = self.drain_pause {
            config.drain_pause = seconds("drain_pause", pause)?;
        }
        self.alerts(config)?;
        self.health.apply(config)
    }

    /// Shows which nodes have a password, each of which is read.
    pub(crate) fn show_logins(&self, shown: &mut Value) -> Result<(), Failure> {
        self.nodes_password_file
            .as_deref()
            .map(secret)
            .transpose()?;
        shown["nodes_password"] = set(self.nodes_password_file.is_some());
        shown["nodes"] = json!({});
        for (node, password) in &self.nodes {
            password.password_file.as_deref().map(secret).transpose()?;
            shown["nodes"][node] = json!({"user": password.user, "password": "set"});
        }
        Ok(())
    }

    /// Who is told.
    fn alerts(&self, config: &mut Config) -> Result<(), Failure> {
        let alerts = &mut config.alerts;
        alerts.mail = self.mail.as_ref().map(Mail::made).transpose()?;
        alerts.webhook = self.webhook.as_ref().map(Webhook::made).transpose()?;
        alerts.command.clone_from(&self.command);
        if let Some(pause) = self.alert_pause {
            alerts.pause = seconds("alert_pause", pause)?;
            alerts.max_pause = alerts.max_pause.max(alerts.pause);
        }
        if let Some(pause) = self.alert_max_pause {
            alerts.max_pause = seconds("alert_max_pause", pause)?;
        }
        Ok(())
    }
}

impl Mail {
    fn made(&self) -> Result<larder::manager::Mail, Failure> {
        let password = match (&self.password, &self.password_file, &self.password_env) {
            (Some(password), None, None) => password.0.clone(),
            (None, Some(file), None) => secret(file)?,
            (None, None, Some(variable)) => std::env::var(variable)
                .map_err(|_| "mail.password_env: the variable is not set, or no text")?,
            (None, None, None) => String::new(),
            _ => return Err("mail: either password_file or password_env".into()),
        };
        let port = self.port.unwrap_or(465);
        let mut mail = larder::manager::Mail::new(&self.host, port, &self.account, password);
        mail.from.clone_from(&self.from);
        mail.to.clone_from(&self.to);
        mail.security = match self.security.as_deref() {
            None => mail.security,
            Some("tls") => Security::Tls,
            Some("starttls") => Security::StartTls,
            Some("none") => Security::None,
            Some(_) => return Err("mail.security: tls, starttls or none".into()),
        };
        Ok(mail)
    }
}

impl Webhook {
    fn made(&self) -> Result<Hook, Failure> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), None) => url.0.clone(),
            (None, Some(file)) => secret(file)?,
            _ => return Err("webhook: either url or url_file".into()),
        };
        let mut webhook = Hook::new(url);
        let token = self.token_file.as_deref().map(secret).transpose()?;
        webhook.token = token.map(Into::into);
        Ok(webhook)
    }
}

impl Health {
    fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        let health = &mut config.health;
        for (name, given, time) in [
            ("interval", self.interval, &mut health.interval),
            ("retry", self.retry, &mut health.retry),
            ("timeout", self.timeout, &mut health.timeout),
            ("remove_after", self.remove_after, &mut health.remove_after),
            ("hold", self.hold, &mut health.hold),
            ("max_hold", self.max_hold, &mut health.max_hold),
            (
                "forgive_after",
                self.forgive_after,
                &mut health.forgive_after,
            ),
            ("pause", self.pause, &mut health.pause),
            ("lease", self.lease, &mut health.lease),
        ] {
            if let Some(given) = given {
                *time = seconds(&format!("health.{name}"), given)?;
            }
        }
        health.failures = self.failures.unwrap_or(health.failures);
        health.successes = self.successes.unwrap_or(health.successes);
        health.min_nodes = self.min_nodes.unwrap_or(health.min_nodes);
        health.empty = self.empty.unwrap_or(health.empty);
        Ok(())
    }
}
