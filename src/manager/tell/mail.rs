//! People who are told by mail.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as From, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error as Smtp, response::Code};
use tokio::time::timeout;

use super::letter::{Person, letter};
use super::message::Message;
use super::settings::Secret;
use super::stream::{Stream, bare, shown, without_tls};
use crate::error::{Error, ErrorKind, Result};

/// How long it may take: servers look for viruses before they answer.
const WITHIN: Duration = Duration::from_secs(60);

/// How long a server may take to say goodbye.
const QUIT: Duration = Duration::from_secs(2);

/// People to whom one mail goes, at most.
const MAX_RECIPIENTS: usize = 100;

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Security {
    /// By TLS from the start, as is usual at port 465. It takes the crate's feature `tls`.
    Tls,
    /// By TLS after a `STARTTLS`, without which nothing is said. It takes the crate's feature `tls`.
    StartTls,
    /// In the clear, password and all.
    None,
}

impl Security {
    /// What is usual at this port: TLS at 465, and STARTTLS elsewhere. At another port than 465 and 587 of this machine itself it is none.
    #[must_use]
    pub fn usual(host: &str, port: u16) -> Self {
        match port {
            465 => Self::Tls,
            587 => Self::StartTls,
            _ if is_loopback(host) => Self::None,
            _ => Self::StartTls,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let addr = bare(host).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || addr.is_ok_and(|addr| addr.is_loopback())
}

/// A mail server, and who gets the mails.
///
/// ```
/// use larder::manager::{Mail, Security};
///
/// let mut mail = Mail::new("smtp.example.org", 465, "larder@example.org", "hunter2");
/// mail.to = vec!["Admin <admin@example.org>".to_owned()];
/// assert_eq!(mail.security, Security::Tls);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mail {
    /// The server's name or address. By TLS it has to have a certificate for it that one of the system's roots vouches for, or one in the file that
    /// the environment variable `SSL_CERT_FILE` names.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who sends, for a server that asks; empty for one that does not.
    pub account: String,
    /// The account's password.
    pub password: Secret,
    /// From whom mails are, `name@host` or `Name <name@host>`; from the account unless set.
    pub from: Option<String>,
    /// To whom, from 1 to 100 of them. Where a server refuses some of them for good, the others are told.
    pub to: Vec<String>,
    /// How the server is spoken to: as is [usual](Security::usual), unless set.
    pub security: Security,
}

impl Mail {
    /// By this server, to nobody yet.
    #[must_use]
    pub fn new(
        host: impl Into<String>,
        port: u16,
        account: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        let host = host.into();
        Self {
            security: Security::usual(&host, port),
            host,
            port,
            account: account.into(),
            password: password.into(),
            from: None,
            to: Vec::new(),
        }
    }
}

/// Settings that were understood.
pub(super) struct Mailer {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<Credentials>,
    from: Person,
    to: Vec<Person>,
}

impl Mailer {
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what is no host or no address, or where nobody is told; [`ErrorKind::Unsupported`] for TLS in a build without it.
    pub(super) fn of(mail: &Mail) -> Result<Self> {
        let wrong = |why: &str| Error::new(ErrorKind::Config, format!("mail: {why}"));
        let host = bare(&mail.host);
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@');
        if host.is_empty() || host.contains(odd) || mail.port == 0 {
            return Err(wrong("the server is a host and a port"));
        }
        if mail.security != Security::None && !cfg!(feature = "tls") {
            return Err(without_tls());
        }
        let credentials = match (mail.account.as_str(), mail.password.expose()) {
            ("", "") => None,
            ("", _) | (_, "") => {
                return Err(wrong("an account and its password: both, or none"));
            }
            (account, password) => Some(Credentials::new(account.to_owned(), password.to_owned())),
        };
        let from = match &mail.from {
            Some(from) => Person::parse(from).ok_or_else(|| wrong("from: it is no address"))?,
            None => Person::parse(&mail.account)
                .ok_or_else(|| wrong("from: say it, since the account is no address"))?,
        };
        if mail.to.is_empty() || mail.to.len() > MAX_RECIPIENTS {
            return Err(wrong("to: from 1 to 100 addresses"));
        }
        let to = mail.to.iter().enumerate().map(|(nth, to)| {
            let why = || wrong(&format!("to: number {} is no address", nth + 1));
            Person::parse(to).ok_or_else(why)
        });
        Ok(Self {
            host: host.to_owned(),
            port: mail.port,
            security: mail.security,
            credentials,
            from,
            to: to.collect::<Result<_>>()?,
        })
    }

    /// Sends it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] where the server is not there, [`ErrorKind::Rejected`] where it does not take the mail, [`ErrorKind::Timeout`]
    /// after a minute. What a server says is not repeated: it may be the password.
    ///
    /// # Cancellation
    ///
    /// Dropped, it was sent or not.
    pub(super) async fn send(&self, message: &Message) -> Result<()> {
        let letter = self.letter(message);
        let sent = timeout(WITHIN, self.deliver(&letter)).await;
        let mut connection = sent.unwrap_or_else(|_| {
            let why = format!("{} was not done within {WITHIN:?}", self.shown());
            Err(Error::new(ErrorKind::Timeout, why))
        })?;
        // It is sent, however this ends.
        let _ = timeout(QUIT, connection.abort()).await;
        Ok(())
    }

    fn shown(&self) -> String {
        shown(&self.host, self.port)
    }

    fn letter(&self, message: &Message) -> Vec<u8> {
        let (subject, text) = (message.subject(), message.text());
        letter(&self.from, &self.to, &subject, &text, SystemTime::now())
    }

    async fn deliver(&self, letter: &[u8]) -> Result<AsyncSmtpConnection> {
        let failed = |error: Smtp| self.failed(&error);
        let mut connection = self.connect().await?;
        if let Some(credentials) = &self.credentials {
            let let_in = connection.auth(DEFAULT_MECHANISMS, credentials).await;
            let_in.map_err(failed)?;
        }
        let from = Some(self.from.address.clone());
        let begun = connection.command(From::new(from, Vec::new())).await;
        begun.map_err(failed)?;
        let mut refused = None;
        let mut taken = 0;
        for to in &self.to {
            let to = to.address.clone();
            match connection.command(Rcpt::new(to.clone(), Vec::new())).await {
                Ok(_) => taken += 1,
                // All the others would never be told.
                Err(error) if error.is_permanent() => {
                    self.left_out(&to, &error);
                    refused = Some(error);
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        if let Some(error) = refused.filter(|_| taken == 0) {
            return Err(self.failed(&error));
        }
        connection.command(Data).await.map_err(failed)?;
        connection.message(letter).await.map_err(failed)?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection> {
        let tls = self.security == Security::Tls;
        let stream = Stream::connect(&self.host, self.port, tls).await?;
        let hello = ClientId::default();
        let connected = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await;
        #[cfg_attr(
            not(feature = "tls"),
            allow(unused_mut, reason = "there is no STARTTLS")
        )]
        let mut connection = connected.map_err(|error| self.failed(&error))?;
        #[cfg(feature = "tls")]
        if self.security == Security::StartTls {
            use lettre::transport::smtp::client::TlsParameters;

            let host = self.host.clone();
            // It reads the system's roots.
            let made = tokio::task::spawn_blocking(|| TlsParameters::new(host)).await;
            let why = "the system's roots could not be read";
            let parameters = made.map_err(|_| Error::new(ErrorKind::Config, why))?;
            let parameters = parameters.map_err(|error| self.failed(&error))?;
            let secured = connection.starttls(parameters, &hello).await;
            secured.map_err(|error| self.failed(&error))?;
        }
        Ok(connection)
    }

    fn left_out(&self, to: &Address, error: &Smtp) {
        let error = self.failed(error).with("left_out", to);
        tracing::warn!(target: "larder::manager", event = "telling_failed", channel = "mail", error = %error);
    }

    fn failed(&self, error: &Smtp) -> Error {
        let at = self.shown();
        if let Some(code) = error.status() {
            let why = format!("{at} answered {code}{}", hint(code));
            return Error::new(ErrorKind::Rejected, why);
        }
        if error.is_response() {
            let why = format!("{at} answered what is no SMTP");
            return Error::new(ErrorKind::Rejected, why);
        }
        Error::new(ErrorKind::Unavailable, format!("{at}: {error}"))
    }
}

/// What a code is mostly about.
fn hint(code: Code) -> &'static str {
    match u16::from(code) {
        530 | 534 | 535 => ": the account or its password is not taken",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::event::{Event, Kind};

    fn mail() -> Mail {
        let mut mail = Mail::new("127.0.0.1", 25, "larder@example.org", "canary");
        mail.to = vec!["a@example.org".to_owned(), "B <b@example.org>".to_owned()];
        mail
    }

    #[test]
    fn security_is_what_is_usual() {
        for (host, port, security) in [
            ("smtp.example.org", 465, Security::Tls),
            ("localhost", 465, Security::Tls),
            ("smtp.example.org", 587, Security::StartTls),
            ("127.0.0.1", 587, Security::StartTls),
            ("smtp.example.org", 25, Security::StartTls),
            ("localhost.example.org", 25, Security::StartTls),
            ("10.0.0.1", 2525, Security::StartTls),
            ("localhost", 25, Security::None),
            ("127.0.0.1", 25, Security::None),
            ("[::1]", 25, Security::None),
        ] {
            assert_eq!(
                Mail::new(host, port, "", "").security,
                security,
                "{host}:{port}"
            );
        }
    }

    #[test]
    fn what_is_no_mail_is_refused_and_not_repeated() {
        assert!(Mailer::of(&mail()).is_ok());
        let wrong: [fn(&mut Mail); 12] = [
            |mail| mail.host = String::new(),
            |mail| mail.host = "canary @h".to_owned(),
            |mail| mail.port = 0,
            |mail| mail.to.clear(),
            |mail| mail.to = vec!["a@h".to_owned(); 101],
            |mail| mail.to.push("canary".to_owned()),
            |mail| mail.to.push("canary@h, x@h".to_owned()),
            |mail| mail.to.push("c@h\r\nBcc: canary@h".to_owned()),
            |mail| mail.from = Some("canary".to_owned()),
            |mail| mail.account = "canary".to_owned(),
            |mail| mail.account = String::new(),
            |mail| mail.to.push("canäry@h".to_owned()),
        ];
        for (nth, spoil) in wrong.into_iter().enumerate() {
            let mut mail = mail();
            spoil(&mut mail);
            let error = Mailer::of(&mail).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{nth}");
            assert!(!format!("{error} {error:?}").contains("can"), "{error}");
        }
        let mut open = mail();
        (open.account, open.password) = (String::new(), "".into());
        open.from = Some("Larder <larder@h>".to_owned());
        assert!(Mailer::of(&open).is_ok());
    }

    #[test]
    fn a_letter_is_plain_text_and_the_same_for_the_same_events() {
        let event = Event::new(
            Kind::Ejected,
            Some("10.0.0.1:6379/0".to_owned()),
            "fällt\r\nBcc: x@h",
        );
        let lines = [(7, event.line())];
        let message = Message::of("map\r\nBcc: y@h", 0, &lines).unwrap();
        let mailer = Mailer::of(&mail()).unwrap();
        let letter = String::from_utf8(mailer.letter(&message)).unwrap();
        assert!(letter.is_ascii(), "{letter}");
        let (head, _) = letter.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: larder@example.org",
            "To: a@example.org,\r\n \"B\" <b@example.org>",
            "Content-Type: text/plain; charset=utf-8",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(head.contains(line), "{head}");
        }
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        let id = |letter: &str| {
            letter
                .lines()
                .find(|line| line.starts_with("Message-ID: "))
                .map(str::to_owned)
        };
        let again = String::from_utf8(mailer.letter(&message)).unwrap();
        assert_eq!(id(&letter), id(&again));
        let lines = [(8, event.line()), (7, event.line())];
        let other = Message::of("map", 0, &lines).unwrap();
        let other = String::from_utf8(mailer.letter(&other)).unwrap();
        assert_ne!(id(&letter), id(&other));
        assert!(id(&letter).is_some_and(|id| id.ends_with("@example.org>")));
    }
}
