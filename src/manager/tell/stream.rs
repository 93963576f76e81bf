//! Connections to those who are told.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result};

/// What one of them may say, in bytes: a line without an end would fill the memory otherwise.
const MAX_BYTES: usize = 256 << 10;

/// A connection, by TLS or not.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    /// What may still be read.
    left: usize,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects, to a server that proves to be the one where `tls` is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] where there is no such server; [`ErrorKind::Unsupported`] for TLS in a build without it.
    pub(super) async fn connect(host: &str, port: u16, tls: bool) -> Result<Self> {
        let connected = TcpStream::connect((host, port)).await;
        let stream = connected.map_err(|error| failed(host, port, &error))?;
        let inner = match tls {
            true => secured(host, port, stream).await?,
            false => Inner::Plain(stream),
        };
        let left = MAX_BYTES;
        Ok(Self { inner, left })
    }
}

fn failed(host: &str, port: u16, error: &io::Error) -> Error {
    let why = format!("no connection to {host}:{port}: {error}");
    Error::new(ErrorKind::Unavailable, why)
}

#[cfg(feature = "tls")]
async fn secured(host: &str, port: u16, stream: TcpStream) -> Result<Inner> {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::ServerName;

    let wrong = |why: &str| Error::new(ErrorKind::Config, why.to_owned());
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| wrong("the host is no name that a certificate could be for"))?;
    // Read anew each time: what was renewed is taken up. Messages are rare.
    let roots = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    let roots = roots
        .await
        .map_err(|_| wrong("the system's roots could not be read"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|_| wrong("there is no version of TLS to speak"))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connected = connector.connect(name, stream).await;
    let stream = connected.map_err(|error| failed(host, port, &error))?;
    Ok(Inner::Tls(Box::new(stream)))
}

#[cfg(not(feature = "tls"))]
async fn secured(_: &str, _: u16, _: TcpStream) -> Result<Inner> {
    Err(without_tls())
}

/// The error of a build that cannot do TLS.
pub(super) fn without_tls() -> Error {
    let why = "TLS is not built in: see the crate's feature `tls`";
    Error::new(ErrorKind::Unsupported, why)
}

/// The host as it is connected to: `[::1]` in a url is `::1`.
pub(super) fn bare(host: &str) -> &str {
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inside.unwrap_or(host)
}

/// Host and port as they are shown.
pub(super) fn shown(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl AsyncTokioStream for Stream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            Inner::Plain(stream) => stream.peer_addr(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let got = buf.filled().len().saturating_sub(before);
        match self.left.checked_sub(got) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other("it says too much"))),
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
