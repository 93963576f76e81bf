//! A manager's settings in a file: its own, in TOML, or those of the Python server, in YAML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder::Login;
use larder::manager::{Config, Labels, Security, Webhook as Hook};
use serde::Deserialize;

use crate::Failure;
use crate::manager::seconds;
use crate::ops::secret;

/// The longest file.
const MAX_BYTES: u64 = 1 << 20;

/// Settings as TOML has them. What is not there is as usual.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) listen: Option<String>,
    pub(crate) redis: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    map: Option<String>,
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
#[derive(Debug, Default, Deserialize)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Password {
    user: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
}

/// Who is told by mail.
#[derive(Debug, Default, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Webhook {
    url: Option<Hidden>,
    url_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// A text that is not shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

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
    vnode_replicas: Option<usize>,
    smtp_account: Option<String>,
    smtp_password: Option<String>,
    smtp_host: Option<String>,
    smtp_port: Option<u16>,
    send_email: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Redis {
    host: Option<String>,
    port: Option<u16>,
    pass: Option<serde_json::Value>,
    db: Option<u32>,
}

impl File {
    /// Reads a file, whose ending says what it is.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let named = |why: &str| -> Failure { format!("the file {}: {why}", path.display()).into() };
        let length = std::fs::metadata(path)
            .map_err(|error| named(&error.to_string()))?
            .len();
        if length > MAX_BYTES {
            return Err(named("it is longer than 1 MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| named(&error.to_string()))?;
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
                let line = before.map_or(1, |before| before.lines().count().max(1));
                named(&format!("line {line}: {}", error.message()))
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
                port.unwrap_or(6379),
                db.unwrap_or(0)
            )
        });
        let core = python.core;
        let mail = core.smtp_host.zip(core.send_email).map(|(host, to)| Mail {
            host,
            // As its mailer does.
            port: Some(core.smtp_port.unwrap_or(465)),
            account: core.smtp_account.unwrap_or_default(),
            password: core.smtp_password.map(Hidden),
            to: vec![to],
            ..Mail::default()
        });
        Self {
            // As the Python server does, whose callers find it there.
            listen: Some("127.0.0.1:5000".to_owned()),
            vnodes: core.vnode_replicas,
            redis,
            mail,
            ..Self::default()
        }
    }

    /// What it says.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if let Some(file) = &self.password_file {
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
        if let Some(map) = &self.map {
            config.map_name.clone_from(map);
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
