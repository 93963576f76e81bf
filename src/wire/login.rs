//! Users and passwords that stand elsewhere than in a url.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, oneshot};

use super::url::NodeAddr;
use crate::error::{Error, ErrorKind, Result};

/// The longest secret, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Where a password is: a name for it, never the password itself. It is read whenever a connection is made, so that one that was changed is
/// taken up by the next.
///
/// ```
/// use larder::{Login, Redis};
///
/// let login = Login::file("/run/secrets/redis").user("cache");
/// let builder = Redis::builder("redis://10.0.0.7:6379/0").login(login);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: Option<String>,
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Env(String),
    File(PathBuf),
}

impl Login {
    /// The password is in this environment variable.
    #[must_use]
    pub fn env(variable: impl Into<String>) -> Self {
        let (user, place) = (None, Place::Env(variable.into()));
        Self { user, place }
    }

    /// The password is what this file holds, without line ends behind it: 64 KiB at most. A file that hangs takes one of eight readers for as long as it
    /// does, and connecting fails in time.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let (user, place) = (None, Place::File(path.into()));
        Self { user, place }
    }

    /// The user whose password it is, where the url names none. The server's default user unless set.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// The password.
    fn read(&self) -> Result<String> {
        let secret = match &self.place {
            Place::Env(variable) => {
                std::env::var(variable).map_err(|_| "it is not set, or no text")
            }
            Place::File(path) => read(path),
        };
        let secret = secret.and_then(|secret| match secret.is_empty() {
            true => Err("it is empty"),
            false => Ok(secret),
        });
        secret
            .map_err(|why| Error::new(ErrorKind::Config, format!("no password from {self}: {why}")))
    }
}

fn read(path: &PathBuf) -> Result<String, &'static str> {
    let unreadable = |_| "it cannot be read, or is no text";
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let length = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    if length.map_err(unreadable)? as u64 > MAX_BYTES {
        return Err("it is longer than 64 KiB");
    }
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({self})")
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            // What is no name of one may be the password itself.
            Place::Env(variable) if !is_name(variable) => f.write_str("an environment variable"),
            Place::Env(variable) => write!(f, "the environment variable {variable}"),
            Place::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

fn is_name(variable: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !variable.is_empty() && variable.bytes().all(name)
}

/// Reads files in a thread of its own, which may wait for them. One that hangs goes on after its caller has given up, so there are a few of them at
/// most; and no runtime waits for it at its end.
pub(super) async fn aside<R: Send + 'static>(
    read: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    static READERS: Semaphore = Semaphore::const_new(8);
    let failed = |why: &'static str| Error::new(ErrorKind::Unavailable, why);
    let permit = READERS.acquire().await;
    let permit = permit.map_err(|_| failed("nobody reads files any more"))?;
    let (tell, told) = oneshot::channel();
    let reading = thread::Builder::new().name("larder-reader".to_owned());
    let begun = reading.spawn(move || {
        let _permit = permit;
        // Whoever asked may be gone.
        let _ = tell.send(read());
    });
    begun.map_err(|_| failed("there is no thread to read files in"))?;
    told.await
        .map_err(|_| failed("the file's reader is gone"))?
}

/// Which login is for which server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logins {
    all: Option<Login>,
    at: Arc<HashMap<String, Login>>,
    fault: Option<Error>,
}

impl Logins {
    /// This one for all.
    #[cfg(feature = "ring")]
    pub(crate) fn of_all(login: Login) -> Self {
        let all = Some(login);
        Self {
            all,
            ..Self::default()
        }
    }

    /// This one for all of them that have none of their own.
    pub(crate) fn set(&mut self, login: Login) {
        self.all = Some(login);
    }

    /// This one for the server of this `host[:port][/db]`, or url.
    pub(crate) fn set_at(&mut self, server: &str, login: Login) {
        let url = match server.contains("://") {
            true => server.to_owned(),
            false => format!("redis://{server}"),
        };
        match NodeAddr::parse(&url) {
            Ok(addr) => {
                Arc::make_mut(&mut self.at).insert(addr.label(), login);
            }
            // It may hold a password, so it is not repeated.
            Err(error) => self.fault = self.fault.take().or(Some(error)),
        }
    }

    /// Whether each server was understood that one is for.
    pub(crate) fn check(&self) -> Result<()> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// The address with what it takes to be let in, if its url holds no password, without holding up the thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] where the password is not where it should be.
    pub(crate) async fn found(&self, addr: &NodeAddr) -> Result<NodeAddr> {
        // An environment is at hand.
        if self
            .of(addr)
            .is_none_or(|login| matches!(login.place, Place::Env(_)))
        {
            return self.known(addr);
        }
        let (own, addr) = (self.clone(), addr.clone());
        aside(move || own.known(&addr)).await
    }

    /// What an address is let in by, if its url holds no password.
    fn of(&self, addr: &NodeAddr) -> Option<&Login> {
        if addr.password().is_some() {
            return None;
        }
        self.at.get(&addr.label()).or(self.all.as_ref())
    }

    /// As [`found`](Self::found). Reads a small file, perhaps.
    fn known(&self, addr: &NodeAddr) -> Result<NodeAddr> {
        match self.of(addr) {
            Some(login) => Ok(addr.let_in(login.user.as_deref(), login.read()?)),
            None => Ok(addr.clone()),
        }
    }

    /// The same without what is for all.
    pub(crate) fn of_places(&self) -> Self {
        Self {
            all: None,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(url: &str) -> NodeAddr {
        NodeAddr::parse(url).unwrap()
    }

    fn shown(logins: &Logins, url: &str) -> (Option<String>, Option<String>) {
        let known = logins.known(&addr(url)).unwrap();
        let password = known.password().map(|secret| secret.expose().to_owned());
        (known.user().map(str::to_owned), password)
    }

    #[test]
    fn a_url_says_more_than_a_place_and_that_more_than_all() {
        let dir = std::env::temp_dir().join(format!("larder-login-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut logins = Logins::default();
        assert_eq!(shown(&logins, "redis://h:1/0"), (None, None));
        logins.set(Login::file(file("all", "for all\r\n")).user("someone"));
        logins.set_at("h:2/0", Login::file(file("two", " of two ")));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown(&logins, "redis://h:1/0"),
            (text("someone"), text("for all"))
        );
        assert_eq!(
            shown(&logins, "redis://me@h:1/0"),
            (text("me"), text("for all"))
        );
        assert_eq!(shown(&logins, "redis://h:2/0"), (None, text(" of two ")));
        assert_eq!(shown(&logins, "redis://:own@h:2/0"), (None, text("own")));
        assert_eq!(shown(&logins.of_places(), "redis://h:1/0"), (None, None));
        // One that was changed is read again.
        file("two", "another");
        assert_eq!(shown(&logins, "redis://h:2/0"), (None, text("another")));

        let path = file("two", "\n");
        let long = file("long", &"x".repeat(MAX_BYTES as usize + 1));
        let none = dir.join("none");
        for server in ["h:x/0", "redis://:canary@h:x", "canary@h:1"] {
            let mut misnamed = Logins::default();
            misnamed.set_at(server, Login::env("CANARY"));
            let said = misnamed
                .check()
                .map_or_else(|error| error.to_string(), |()| String::new());
            assert!(!format!("{said} {misnamed:?}").contains("canary"), "{said}");
        }
        for (server, label) in [
            ("h:2", "h:2/0"),
            ("redis://:x@h/3", "h:6379/3"),
            ("[::1]:5/1", "[::1]:5/1"),
        ] {
            let mut at = Logins::default();
            at.set_at(server, Login::env("A"));
            assert!(at.check().is_ok() && at.at.contains_key(label), "{at:?}");
        }
        assert!(!format!("{:?}", Login::env("canary")).contains("canary"));
        for (login, why) in [
            (Login::file(path), "empty"),
            (Login::file(long), "64 KiB"),
            (Login::file(none), "cannot be read"),
            (Login::env("LARDER_TEST_NO_SUCH_VARIABLE"), "not set"),
        ] {
            logins.set(login);
            let error = logins.known(&addr("redis://h:1/0")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
