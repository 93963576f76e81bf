//! Connections that nobody else reads: `rediss://`, by rustls.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::login::aside;
use super::url::NodeAddr;
use crate::error::{Error, ErrorKind, Result};

/// How servers with `rediss://` urls are known, and how they know this process. TLS 1.2 and 1.3 by rustls, with the cryptography of
/// `ring`.
///
/// ```
/// use larder::{Redis, Tls};
///
/// let tls = Tls::new().root_file("/etc/redis/ca.pem").identity_files("/etc/redis/client.pem", "/etc/redis/client.key");
/// let builder = Redis::builder("rediss://cache.example.org:6380/0").tls(tls);
/// ```
///
/// Files are PEM, read when the first connection is made, and again after a connection that failed: what was renewed is taken up.
#[derive(Clone, Default)]
pub struct Tls {
    roots: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    name: Option<String>,
    given: Option<Arc<ClientConfig>>,
    /// What was made of the files, as long as it works.
    made: Arc<Mutex<Option<Arc<ClientConfig>>>>,
}

impl Tls {
    /// Servers are those whose certificate one of the system's roots vouches for, by the host in the url.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The roots in this file vouch instead of the system's; several files add up.
    #[must_use]
    pub fn root_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(path.into());
        self.anew()
    }

    /// What servers know this process by: its certificate with those between it and a root, and its key.
    #[must_use]
    pub fn identity_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((chain.into(), key.into()));
        self.anew()
    }

    /// The name that certificates are for, rather than the host in the url: where nodes are named by address, say.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// All of it as [rustls](crate::rustls) has it: another provider of cryptography, another verifier. Roots and identity set here are nothing then.
    #[must_use]
    pub fn config(mut self, config: Arc<ClientConfig>) -> Self {
        self.given = Some(config);
        self
    }

    fn anew(mut self) -> Self {
        self.made = Arc::default();
        self
    }

    /// A stream to a server that proved to be the one.
    pub(super) async fn connect(
        &self,
        addr: &NodeAddr,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>> {
        let config = match &self.given {
            Some(given) => Arc::clone(given),
            None => self.at_hand().await?,
        };
        let name = self.name.as_deref().unwrap_or(addr.host());
        let name = ServerName::try_from(name.to_owned());
        let name =
            name.map_err(|_| wrong("the host is no name that a certificate could be for"))?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| {
            self.forget();
            let why = format!("TLS with the server failed: {error}");
            Error::new(ErrorKind::Unavailable, why).caused_by(error)
        })
    }

    /// Has the files read again for the next connection.
    pub(super) fn forget(&self) {
        self.known().take();
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<ClientConfig>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn at_hand(&self) -> Result<Arc<ClientConfig>> {
        if let Some(known) = self.known().clone() {
            return Ok(known);
        }
        let own = self.clone();
        let made = aside(move || own.made()).await.map(Arc::new)?;
        *self.known() = Some(Arc::clone(&made));
        Ok(made)
    }

    fn made(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| wrong("there is no version of TLS"))?;
        let builder = builder.with_root_certificates(self.root_store()?);
        let Some((chain, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let unreadable = |_| wrong("the key's file cannot be read, or holds no key");
        let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
        let config = builder.with_client_auth_cert(certificates(chain)?, key);
        config.map_err(|error| {
            let why = format!("certificate and key do not fit: {error}");
            Error::new(ErrorKind::Config, why)
        })
    }

    fn root_store(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        if self.roots.is_empty() {
            let system = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(system.certs);
            if store.is_empty() {
                return Err(wrong(
                    "the system has no roots: name a file of them, root_file",
                ));
            }
        }
        for path in &self.roots {
            for root in certificates(path)? {
                let added = store.add(root);
                added.map_err(|_| named(path, "holds a certificate that can be no root"))?;
            }
        }
        Ok(store)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |_| named(path, "cannot be read, or is no PEM");
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(unreadable)?;
    match found.is_empty() {
        true => Err(named(path, "holds no certificate")),
        false => Ok(found),
    }
}

fn named(path: &std::path::Path, why: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("the file {} {why}", path.display()),
    )
}

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::Config, why)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots)
            .field("identity", &self.identity.as_ref().map(|(chain, _)| chain))
            .field("server_name", &self.name)
            .finish_non_exhaustive()
    }
}
