//! `rediss://`: servers by TLS, with certificates made for the test.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use larder::ring::{Publication, publish};
use larder::{Cache, Config, DistributedRedis, ErrorKind, Moka, Redis, Tiered, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::fleet::eventually;
use crate::support::Server;
use crate::testserver::{TestServer, at_hand, free_port};

const MINUTE: Duration = Duration::from_secs(60);

/// A root and what it vouched for, in files of a directory that goes with it.
struct Authority {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("larder-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("root {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.join("root.pem"), issuer.pem()).unwrap();
        let authority = Self { dir, issuer };
        for name in ["localhost", "elsewhere.example"] {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let signed = params.signed_by(&key, &authority.issuer).unwrap();
            fs::write(authority.dir.join(format!("{name}.pem")), signed.pem()).unwrap();
            fs::write(
                authority.dir.join(format!("{name}.key")),
                key.serialize_pem(),
            )
            .unwrap();
        }
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn root(&self) -> Tls {
        Tls::new().root_file(self.file("root.pem"))
    }

    /// Speaks TLS in front of a server that does not: by the certificate of `name`, and, where `asks` is said, to those who have one too.
    async fn before(&self, server: &Server, name: &str, asks: bool) -> SocketAddr {
        let chain = CertificateDer::pem_file_iter(self.file(&format!("{name}.pem"))).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match asks {
            true => builder.with_client_cert_verifier(verifier.build().unwrap()),
            false => builder.with_no_client_auth(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, port) = (listener.local_addr().unwrap(), server.port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut within = acceptor.accept(stream).await?;
                    let mut behind = TcpStream::connect(("127.0.0.1", port)).await?;
                    copy_bidirectional(&mut within, &mut behind).await
                });
            }
        });
        addr
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn url(scheme: &str, port: u16, db: u8) -> String {
    let user =
        crate::support::password().map_or_else(String::new, |password| format!(":{password}@"));
    format!("{scheme}://{user}localhost:{port}/{db}")
}

#[tokio::test]
async fn a_server_that_proves_to_be_the_one_is_used() {
    let (authority, server) = (Authority::new("used"), Server::start().await);
    let port = authority.before(&server, "localhost", false).await.port();
    let redis = Redis::builder(&url("rediss", port, 0)).tls(authority.root());
    let cache = Tiered::new(Moka::new(100), redis.connect().await.unwrap());
    cache.set("k", 1_u64, MINUTE).await.unwrap();
    assert_eq!(cache.get::<u64>("k").await.unwrap(), Some(1));
    // Writes of others are heard by TLS too.
    server.raw(0, &["SET", "k", "2"]).await;
    let heard = async || cache.get::<u64>("k").await.unwrap() == Some(2);
    eventually(MINUTE / 10, "the write is heard", heard).await;
    // By a configuration.
    let root = authority.file("root.pem");
    let root = root.to_str().unwrap();
    let config = format!("{}?tls_root={root}", url("rediss", port, 0));
    let opened = Config::parse(&config).unwrap().open().await.unwrap();
    assert_eq!(opened.get::<u64>("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn any_other_is_not() {
    let authority = Authority::new("other");
    let server = Server::start().await;
    let right = authority.before(&server, "localhost", false).await.port();
    let misnamed = authority
        .before(&server, "elsewhere.example", false)
        .await
        .port();
    let asking = authority.before(&server, "localhost", true).await.port();
    let stranger = Authority::new("stranger");
    let named = || authority.root().server_name("elsewhere.example");
    let known = || {
        let (chain, key) = (
            authority.file("localhost.pem"),
            authority.file("localhost.key"),
        );
        authority.root().identity_files(chain, key)
    };
    let at = async |port: u16, tls: Tls| {
        let redis = Redis::builder(&url("rediss", port, 0))
            .tls(tls)
            .connect()
            .await;
        redis
            .map(|_| ())
            .map_err(|error| (error.kind(), error.to_string()))
    };
    for (port, tls, says) in [
        (right, stranger.root(), "UnknownIssuer"),
        (misnamed, authority.root(), "not valid for name"),
        (asking, authority.root(), ""),
        // It speaks no TLS at all.
        (server.port(), authority.root(), ""),
    ] {
        let (kind, error) = at(port, tls).await.unwrap_err();
        assert_eq!(kind, ErrorKind::Unavailable, "{error}");
        assert!(error.contains(says), "{says}: {error}");
    }
    at(misnamed, named()).await.unwrap();
    at(asking, known()).await.unwrap();
    let none = authority.file("none.pem");
    let (kind, error) = at(right, Tls::new().root_file(&none)).await.unwrap_err();
    assert!(error.contains("none.pem"), "{kind} {error}");
    let no_key = authority
        .root()
        .identity_files(authority.file("root.pem"), &none);
    assert!(at(right, no_key).await.unwrap_err().1.contains("key"));
    // A server that speaks TLS alone answers nobody else.
    let plain = Redis::connect(&url("redis", right, 0)).await;
    assert_eq!(plain.unwrap_err().kind(), ErrorKind::Unavailable);
    // One that hangs in the middle of it is given up in time.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (kind, _) = at(silent.local_addr().unwrap().port(), authority.root())
        .await
        .unwrap_err();
    assert_eq!(kind, ErrorKind::Unavailable);
}

/// A ring whose manager and nodes are behind TLS.
#[tokio::test]
async fn a_ring_is_followed_by_tls() {
    let authority = Authority::new("ring");
    let (manager, nodes) = (
        Server::start().await,
        [Server::start().await, Server::start().await],
    );
    let mut urls = Vec::new();
    for node in &nodes {
        let port = authority.before(node, "localhost", false).await.port();
        urls.push(url("rediss", port, 0));
    }
    publish(&manager.url(13), &Publication::of_nodes(&urls, 40))
        .await
        .unwrap();
    let port = authority.before(&manager, "localhost", false).await.port();
    let ring = DistributedRedis::builder(&url("rediss", port, 13)).tls(authority.root());
    let ring = ring.connect().await.unwrap();
    for i in 0..20_u64 {
        ring.set(&format!("key:{i}"), i, MINUTE).await.unwrap();
    }
    let keys: Vec<String> = (0..20).map(|i| format!("key:{i}")).collect();
    let values = ring.get_many::<u64>(&keys).await.unwrap();
    assert!((0..20).zip(values).all(|(i, value)| value == Some(i)));
    assert!(ring.map_status().pushes_heard);
}

/// Servers at hand that have TLS themselves; of the others it is known that they have not.
#[tokio::test]
async fn a_servers_own_tls_is_spoken() {
    let authority = Authority::new("own");
    let path = |name: &str| authority.file(name).display().to_string();
    let files = [
        path("localhost.pem"),
        path("localhost.key"),
        path("root.pem"),
    ];
    for binary in at_hand() {
        let mut bare = Command::new(binary);
        bare.args(["--port", "0", "--tls-port", "1", "--save", ""]);
        let told = bare.output().unwrap().stdout;
        let told = String::from_utf8_lossy(&told);
        if told.contains("Failed finding TLS support") {
            println!("{}: built without TLS", binary.display());
            continue;
        }
        assert!(
            told.contains("No tls-cert-file configured"),
            "{binary:?}: {told}"
        );
        let port = free_port();
        let tls_port = port.to_string();
        let names = ["--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"];
        let mut args = vec!["--tls-port", &tls_port, "--tls-auth-clients", "yes"];
        let files = names.into_iter().zip(&files);
        args.extend(files.flat_map(|(name, path)| [name, path.as_str()]));
        let _server = TestServer::of(binary, &args);
        let known = authority.root();
        let known = known.identity_files(path("localhost.pem"), path("localhost.key"));
        let url = format!("rediss://localhost:{port}/3");
        let redis = Redis::builder(&url).tls(known).connect().await.unwrap();
        redis.set("k", 7_u64, MINUTE).await.unwrap();
        assert_eq!(redis.get::<u64>("k").await.unwrap(), Some(7));
        let stranger = Redis::builder(&url).tls(authority.root()).connect().await;
        assert_eq!(stranger.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

/// Sentinels by TLS name a master by TLS: by its address, so the name that certificates are for is said apart.
#[tokio::test]
async fn sentinels_are_asked_by_tls() {
    let authority = Authority::new("sentinels");
    let master = Server::start().await;
    let port = authority.before(&master, "localhost", false).await.port();
    let sentinel = Server::sentinel_of_port(port, "the-master").await;
    let asked = authority.before(&sentinel, "localhost", false).await.port();
    let own = crate::support::password()
        .map_or_else(String::new, |own| format!("?sentinel_password={own}"));
    let at = url("rediss+sentinel", asked, 3).replace("/3", "/the-master/3");
    let builder = |tls: Tls| Redis::builder(&format!("{at}{own}")).tls(tls);
    let tls = authority.root().server_name("localhost");
    let redis = builder(tls).connect().await.unwrap();
    redis.set("k", 7_u64, MINUTE).await.unwrap();
    assert_eq!(redis.get::<u64>("k").await.unwrap(), Some(7));
    let stored = master.raw(3, &["GET", "k"]).await;
    assert_eq!(stored, larder::redis::Value::BulkString(b"7".to_vec()));
    // A sentinel that nobody vouches for, and a master for which the certificate is not.
    for (tls, why) in [
        (Authority::new("nobodys").root(), "UnknownIssuer"),
        (authority.root(), "not valid for name"),
    ] {
        let refused = builder(tls).connect().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

/// A certificate that was not there yet, or was renewed, is taken up by the next connection; and redis-rs is not given a password to send in clear.
#[tokio::test]
async fn files_that_come_later_are_read_then() {
    let (authority, server) = (Authority::new("later"), Server::start().await);
    let port = authority.before(&server, "localhost", false).await.port();
    let late = authority.file("late.pem");
    let redis = Redis::builder(&url("rediss", port, 0)).tls(Tls::new().root_file(&late));
    let redis = redis.build().unwrap();
    assert!(redis.get::<u64>("k").await.is_err());
    fs::copy(authority.file("root.pem"), late).unwrap();
    let connects = async || redis.get::<u64>("k").await.is_ok();
    eventually(MINUTE / 10, "the roots are read again", connects).await;
    let node = url("rediss", port, 0);
    publish(&server.url(13), &Publication::of_nodes(&[node], 8))
        .await
        .unwrap();
    let ring = DistributedRedis::builder(&server.url(13)).tls(authority.root());
    let ring = ring.connect().await.unwrap();
    assert_eq!(
        ring.client_for("k").await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

/// An identity that a server has something against is read again: by TLS 1.3 it says so after the handshake.
#[tokio::test]
async fn an_identity_that_is_renewed_is_taken_up() {
    let (authority, stranger) = (Authority::new("renewed"), Authority::new("expired"));
    let server = Server::start().await;
    let port = authority.before(&server, "localhost", true).await.port();
    let (chain, key) = (authority.file("own.pem"), authority.file("own.key"));
    let copy = |of: &Authority| {
        fs::copy(of.file("localhost.pem"), &chain).unwrap();
        fs::copy(of.file("localhost.key"), &key).unwrap();
    };
    copy(&stranger);
    let tls = authority.root().identity_files(&chain, &key);
    let redis = Redis::builder(&url("rediss", port, 0))
        .tls(tls)
        .build()
        .unwrap();
    assert!(redis.get::<u64>("k").await.is_err());
    copy(&authority);
    let connects = async || redis.get::<u64>("k").await.is_ok();
    eventually(MINUTE / 10, "the identity is read again", connects).await;
}
