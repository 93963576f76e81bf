//! Requests to one server, on one connection after the other, by TLS or not.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::Failure;

type Sender = SendRequest<Full<Bytes>>;

/// A server, and the connection that is kept for the next request.
pub(crate) struct Http {
    host: String,
    port: u16,
    tls: bool,
    kept: Mutex<Option<Sender>>,
}

impl Http {
    /// The server of a url.
    pub(crate) fn of(url: &Uri) -> Result<Self, Failure> {
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") if cfg!(feature = "tls") => true,
            Some("https") => return Err("this build has no TLS: turn the feature tls on".into()),
            _ => return Err("a manager's url is http://host:port".into()),
        };
        let host = url.host().ok_or("a manager's url is http://host:port")?;
        Ok(Self {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            kept: Mutex::default(),
        })
    }

    /// What it is called in a request.
    pub(crate) fn called(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What is answered, whose body has to be read before anything else is asked. A connection that was kept may be closed just then: what was
    /// not sent is sent once more, and what changes nothing too.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let again = (request.method() == Method::GET).then(|| request.clone());
        let mut kept = self.kept.lock().await;
        let mut known = kept.take();
        let is_there = match &mut known {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        let (mut sender, is_kept) = match known.filter(|_| is_there) {
            Some(sender) => (sender, true),
            None => (self.connect().await?, false),
        };
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut error) => match error.take_message().or(again).filter(|_| is_kept) {
                Some(request) => {
                    sender = self.connect().await?;
                    sender.send_request(request).await?
                }
                None => return Err(error.into_error().into()),
            },
        };
        *kept = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let host = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&self.host);
        let stream = TcpStream::connect((host, self.port)).await?;
        match self.tls {
            true => begun(secured(host, stream).await?).await,
            false => begun(stream).await,
        }
    }
}

async fn begun(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Sender, Failure> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // What goes wrong there, a request fails with.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(feature = "tls")]
async fn secured(
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    use larder::rustls::{ClientConfig, RootCertStore, crypto, pki_types};

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = pki_types::ServerName::try_from(host.to_owned())?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    Ok(connector.connect(name, stream).await?)
}

#[cfg(not(feature = "tls"))]
async fn secured(_: &str, _: TcpStream) -> Result<TcpStream, Failure> {
    Err("this build has no TLS: turn the feature tls on".into())
}
