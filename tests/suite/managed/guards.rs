//! Who is let in, and how much is borne of whom.

use std::time::Instant;

use larder::ErrorKind;
use larder::manager::{Config, run};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Managed, SECOND, ask, label, quick, raw};
use crate::fleet::Fleet;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn whoever_has_no_token_is_refused_everything() {
    let fleet = Fleet::bare(1).await;
    let mut config = quick(&fleet);
    let token = "a-token-of-thirty-two-characters".to_owned();
    config.token = Some(token.clone());
    let managed = Managed::start(config).await;
    let url = json!({ "url": fleet.nodes[0].url(0) }).to_string();
    for (method, path) in [
        ("POST", "/node/add"),
        ("POST", "/node/info"),
        ("GET", "/node/info"),
        ("GET", "/api/v1/nodes"),
        ("POST", "/api/v1/nodes"),
        ("DELETE", "/api/v1/nodes?node=x"),
        ("GET", "/api/v1/events"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/live"),
        ("POST", "/nowhere"),
        ("GET", "/nowhere"),
    ] {
        let refused = ask(managed.at, method, path, &[JSON], &url).await;
        assert_eq!(refused.status, 401, "{method} {path} {refused:?}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        let wrong = [
            JSON,
            ("authorization", "Bearer b-token-of-thirty-two-characters"),
        ];
        assert_eq!(
            ask(managed.at, method, path, &wrong, &url).await.status,
            401
        );
    }
    assert_eq!(
        ask(managed.at, "GET", "/healthz", &[], "").await.status,
        200
    );
    assert_eq!(managed.nodes().await.len(), 0);
    let right = format!("Bearer {token}");
    let added = ask(
        managed.at,
        "POST",
        "/api/v1/nodes",
        &[JSON, ("authorization", &right)],
        &url,
    )
    .await;
    assert_eq!(added.status, 200, "{added:?}");
}

/// Off loopback there is no manager without a token.
#[tokio::test]
async fn without_a_token_nobody_else_is_served() {
    let fleet = Fleet::bare(0).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = run(listener, quick(&fleet), std::future::ready(())).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = quick(&fleet);
    config.token = Some("short".to_owned());
    let refused = run(listener, config, std::future::ready(())).await;
    assert!(refused.unwrap_err().to_string().contains("32"));
    // Nor one without its Redis.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config::new("redis://:canary@127.0.0.1:1/0");
    let refused = run(listener, config, std::future::ready(()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(!format!("{refused} {refused:?}").contains("canary"));
}

/// Pages of others, names that lead here, and bodies that are too long or too slow.
#[tokio::test]
async fn other_peoples_pages_and_bodies_are_refused() {
    let fleet = Fleet::bare(1).await;
    let managed = Managed::start(quick(&fleet)).await;
    let url = json!({ "url": fleet.nodes[0].url(0) }).to_string();
    let post = async |headers: &[(&str, &str)], body: &str| {
        ask(managed.at, "POST", "/api/v1/nodes", headers, body)
            .await
            .status
    };
    assert_eq!(
        post(&[JSON, ("origin", "https://evil.example")], &url).await,
        403
    );
    assert_eq!(
        post(&[JSON, ("sec-fetch-site", "cross-site")], &url).await,
        403
    );
    assert_eq!(post(&[JSON, ("host", "evil.example")], &url).await, 403);
    assert_eq!(
        ask(
            managed.at,
            "GET",
            "/api/v1/nodes",
            &[("host", "evil.example")],
            ""
        )
        .await
        .status,
        403
    );
    assert_eq!(post(&[("content-type", "text/plain")], &url).await, 415);
    assert_eq!(
        post(
            &[("content-type", "application/x-www-form-urlencoded")],
            &url
        )
        .await,
        415
    );
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", "https://evil.example"),
    ];
    let port = fleet.nodes[0].port();
    let node = format!("host=127.0.0.1&port={port}&db=0");
    assert_eq!(
        ask(managed.at, "POST", "/node/add", &form, &node)
            .await
            .status,
        403
    );
    assert_eq!(post(&[JSON], &" ".repeat(1 << 20)).await, 413);
    assert_eq!(post(&[JSON], &" ".repeat(20_000)).await, 413);
    assert_eq!(post(&[JSON], "{").await, 400);
    assert_eq!(
        ask(managed.at, "PUT", "/api/v1/nodes", &[JSON], &url)
            .await
            .status,
        405
    );
    assert_eq!(raw(managed.at, b"nonsense\r\n\r\n").await.status, 400);
    assert_eq!(managed.nodes().await.len(), 0, "nothing of it was done");

    // A body that never comes is given up, and so is a head.
    let began = Instant::now();
    let (body, head) = tokio::join!(
        raw(
            managed.at,
            b"POST /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{"
        ),
        raw(
            managed.at,
            b"GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nx-slow: "
        ),
    );
    assert_eq!(body.status, 408, "{body:?}");
    assert!([0, 408].contains(&head.status), "{head:?}");
    assert!(began.elapsed() < 12 * SECOND, "{:?}", began.elapsed());
}

/// Whoever opens connections and says nothing shuts nobody out for long.
#[tokio::test]
async fn idle_connections_are_closed() {
    let fleet = Fleet::bare(0).await;
    let managed = Managed::start(quick(&fleet)).await;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(managed.at).await.unwrap());
    }
    let began = Instant::now();
    assert_eq!(managed.get("/api/v1/nodes").await.status, 200);
    assert!(began.elapsed() < 12 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test]
async fn more_than_so_many_requests_are_too_many() {
    let fleet = Fleet::bare(0).await;
    let mut config = quick(&fleet);
    config.rate = 5;
    let managed = Managed::start(config).await;
    let asked = (0..40).map(|_| managed.get("/api/v1/health"));
    let answers = futures_util::future::join_all(asked).await;
    let count = |status: u16| {
        answers
            .iter()
            .filter(|answer| answer.status == status)
            .count()
    };
    assert!(
        count(200) >= 5 && count(429) >= 20,
        "{} {}",
        count(200),
        count(429)
    );
    assert_eq!(count(200) + count(429), 40);
}

/// Nodes are where they may be, by whatever name they are called; and what answers there is not repeated.
#[tokio::test]
async fn nodes_are_looked_for_where_they_may_be() {
    let fleet = Fleet::bare(1).await;
    let managed = Managed::start(quick(&fleet)).await;
    let add = async |managed: &Managed, url: &str| {
        managed.post("/api/v1/nodes", &json!({ "url": url })).await
    };
    for url in [
        "redis://169.254.169.254:80/0",
        "redis://[fe80::1]:6379/0",
        "redis://0.0.0.0:6379/0",
        "redis://224.0.0.1:6379/0",
        "redis://[::ffff:169.254.169.254]:80/0",
        "redis://2852039166:80/0",
    ] {
        let began = Instant::now();
        let added = add(&managed, url).await;
        let refused = added.text.contains("not allowed") || added.text.contains("wrong host");
        assert!(
            refused && [400, 502].contains(&added.status),
            "{url} {added:?}"
        );
        assert!(
            began.elapsed() < 2 * SECOND,
            "{url}: nothing is connected to"
        );
    }
    for call in [
        "host=169.254.169.254&port=80&db=0",
        "host=0.0.0.0&port=6379&db=0",
    ] {
        let added = managed
            .ask("POST", &format!("/node/add?{call}"), &[], "")
            .await;
        assert_eq!(added.json()["respCode"], 500, "{added:?}");
    }
    // A server that is no Redis and holds a secret.
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = web.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let mut some = [0; 64];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(b"HTTP/1.1 400 canary\r\n\r\ncanary").await;
        }
    });
    let added = add(&managed, &format!("redis://{at}/0")).await;
    assert_eq!(added.status, 502, "{added:?}");
    assert!(!added.text.contains("canary"), "{added:?}");
    managed.end().await;

    let mut config = quick(&fleet);
    config.allow = vec!["10.0.0.0/8".to_owned()];
    let managed = Managed::start(config).await;
    for url in [
        fleet.nodes[0].url(0),
        format!("redis://localhost:{}/0", fleet.nodes[0].port()),
    ] {
        let added = add(&managed, &url).await;
        assert!(
            added.status == 502 && added.text.contains("not allowed"),
            "{added:?}"
        );
    }
    assert_eq!(managed.state(&label(&fleet, 0)).await, "none");
}
