//! What is kept, for whom, and for how long.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use larder::http::{CacheLayer, Caching};
use larder::testing::Faulty;
use larder::{Cache, Clock, Moka, Options, Ttl};

use crate::{App, views};

#[tokio::test]
async fn a_view_is_made_once() {
    let app = App::with(views(), &[("content-type", "text/plain")]);
    let first = app.get("/works").await;
    assert_eq!(first.told(), ("miss", "run 1"));
    assert_eq!(first.header("age"), "0");
    let second = app.get("/works").await;
    assert_eq!(second.told(), ("hit", "run 1"));
    assert_eq!(second.header("content-type"), "text/plain");
    assert_eq!(second.header("content-length"), "5");
    assert_eq!(second.header("etag"), first.header("etag"));
    assert_eq!(app.get("/others").await.told(), ("miss", "run 2"));
}

#[tokio::test]
async fn other_methods_pass_by() {
    let app = App::with(views(), &[]);
    for run in 1..=2 {
        let answer = app.send(Method::POST, "/works", &[]).await;
        assert_eq!(answer.told(), ("pass", format!("run {run}").as_str()));
    }
    // A HEAD is answered from what a GET kept, and keeps nothing.
    let head = app.send(Method::HEAD, "/works", &[]).await;
    assert_eq!((head.told(), app.runs()), (("pass", ""), 3));
    app.get("/works").await;
    let head = app.send(Method::HEAD, "/works", &[]).await;
    assert_eq!((head.told(), app.runs()), (("hit", ""), 4));
    assert_eq!(head.header("content-length"), "5");
    let part = app.get_with("/works", &[("range", "bytes=0-1")]).await;
    assert_eq!(part.told(), ("pass", "run 5"));
}

#[tokio::test]
async fn what_is_asked_is_the_key() {
    let app = App::with(views(), &[]);
    assert_eq!(app.get("/works?limit=10&offset=20").await.body, "run 1");
    assert_eq!(app.get("/works?offset=20&limit=10").await.body, "run 1");
    assert_eq!(app.get("/works?limit=10").await.body, "run 2");
    assert_eq!(app.get("/works").await.body, "run 3");
    let hosted = app.get_with("/works", &[("host", "evil.example")]).await;
    assert_eq!(hosted.body, "run 4");
    let app = App::with(views().ignore_query().ignore_host(), &[]);
    assert_eq!(app.get("/works?a=1").await.body, "run 1");
    let hosted = app.get_with("/works?a=2", &[("host", "b")]).await;
    assert_eq!(hosted.body, "run 1");
}

/// What a router takes off the path is in the key still.
#[cfg(feature = "axum")]
#[tokio::test]
async fn nested_routers_are_apart() {
    use axum::Router;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    let layer = views();
    let version = |name: &'static str| {
        Router::new()
            .route("/users", get(move || async move { name }))
            .layer(layer.clone())
    };
    let app = Router::new()
        .nest("/v1", version("one"))
        .nest("/v2", version("two"));
    for _ in 0..2 {
        for (path, name) in [("/v1/users", "one"), ("/v2/users", "two")] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), 100)
                .await
                .unwrap();
            assert_eq!(body, name);
        }
    }
}

/// A host that holds a part of a path makes no key, so it is answered by the handler alone.
#[tokio::test]
async fn what_is_no_host_passes_by() {
    let app = App::with(views(), &[]);
    app.get_with("/admin/users", &[("host", "example.org")])
        .await;
    let spoofed = app
        .get_with("/users", &[("host", "example.org/admin")])
        .await;
    assert_eq!(spoofed.told(), ("pass", "run 2"));
}

#[tokio::test]
async fn a_key_may_be_given_or_made() {
    let cache = Moka::builder().key_prefix("BEI:").build();
    let app = App::with(CacheLayer::new(cache.clone()).key("binary"), &[]);
    assert_eq!(app.get("/a").await.body, "run 1");
    assert_eq!(app.get("/b").await.body, "run 1");
    assert!(cache.delete("BEI:binary").await.unwrap());
    assert_eq!(app.get("/b").await.body, "run 2");
    let by_length = views().key_by(|request| request.uri.path().len().to_string());
    let app = App::with(by_length, &[]);
    assert_eq!(app.get("/a").await.body, "run 1");
    assert_eq!(app.get("/b").await.body, "run 1");
    assert_eq!(app.get("/cc").await.body, "run 2");
    // What does not do as a key is not cached.
    let app = App::with(views().key_by(|_| "lk:reserved".to_owned()), &[]);
    assert_eq!(app.get("/a").await.body, "run 1");
    assert_eq!(app.get("/a").await.body, "run 2");
}

#[tokio::test]
async fn chosen_headers_tell_requests_apart() {
    let vary = || views().vary([header::ACCEPT_LANGUAGE]);
    let app = App::with(vary(), &[("vary", "Accept-Language")]);
    let of = async |language| {
        app.get_with("/", &[("accept-language", language)])
            .await
            .body
    };
    assert_eq!(of("en").await, "run 1");
    assert_eq!(of("de").await, "run 2");
    assert_eq!(of("en").await, "run 1");
    // By headers that the layer does not know of, nothing is kept.
    for headers in [&[("vary", "accept-language, cookie")], &[("vary", "*")]] {
        let app = App::with(vary(), headers);
        assert_eq!(app.get("/").await.told(), ("pass", "run 1"));
        assert_eq!(app.get("/").await.told(), ("pass", "run 2"));
    }
}

#[tokio::test]
async fn a_client_that_has_it_is_told_so() {
    let app = App::with(
        views(),
        &[("cache-control", "max-age=60"), ("x-other", "1")],
    );
    let first = app.get("/").await;
    let etag = first.header("etag");
    let again = app.get_with("/", &[("if-none-match", etag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_eq!((again.told(), again.header("etag")), (("hit", ""), etag));
    assert_eq!(again.header("cache-control"), "max-age=60");
    assert_eq!(again.header("x-other"), "");
    let other = app.get_with("/", &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status, StatusCode::OK);
    // That of the handler stands over the body's.
    let app = App::with(views(), &[("etag", "W/\"7\"")]);
    let first = app.get_with("/", &[("if-none-match", "\"7\"")]).await;
    assert_eq!(first.status, StatusCode::NOT_MODIFIED);
    assert_eq!(app.get("/").await.told(), ("hit", "run 1"));
}

#[tokio::test]
async fn what_is_for_one_client_is_not_kept() {
    for headers in [
        &[("cache-control", "private")],
        &[("cache-control", "no-store")],
        &[("cache-control", "max-age=60, no-cache")],
        &[("cache-control", "max-age=0")],
        &[("set-cookie", "session=1")],
    ] {
        let app = App::with(views(), headers);
        for run in 1..=3 {
            let answer = app.get("/").await;
            assert_eq!(
                answer.told(),
                ("pass", format!("run {run}").as_str()),
                "{headers:?}"
            );
        }
    }
    let authorized = [("authorization", "Basic YTpi")];
    let app = App::with(views(), &[]);
    assert_eq!(app.get("/").await.body, "run 1");
    assert_eq!(
        app.get_with("/", &authorized).await.told(),
        ("pass", "run 2")
    );
    assert_eq!(
        app.get_with("/", &authorized).await.told(),
        ("pass", "run 3")
    );
}

#[tokio::test]
async fn it_is_kept_where_that_is_said() {
    let app = App::with(views().keep_private(true), &[("cache-control", "private")]);
    assert_eq!(
        (app.get("/").await.body, app.get("/").await.body),
        ("run 1".into(), "run 1".into())
    );
    let app = App::with(views().keep_cookies(true), &[("set-cookie", "a=1")]);
    app.get("/").await;
    assert_eq!(app.get("/").await.header("set-cookie"), "a=1");
    let authorized = |user| [("authorization", user)];
    let app = App::with(views().share_authorized(true), &[]);
    assert_eq!(app.get_with("/", &authorized("a")).await.body, "run 1");
    assert_eq!(app.get_with("/", &authorized("b")).await.body, "run 1");
    let app = App::with(views().vary([header::AUTHORIZATION]), &[]);
    assert_eq!(app.get_with("/", &authorized("a")).await.body, "run 1");
    assert_eq!(app.get_with("/", &authorized("b")).await.body, "run 2");
    assert_eq!(app.get_with("/", &authorized("a")).await.body, "run 1");
}

#[tokio::test]
async fn only_successes_are_kept_unless_more_is_said() {
    let of = |status: StatusCode| move |run, _| async move { (status, format!("run {run}")) };
    for status in [
        StatusCode::NOT_FOUND,
        StatusCode::FOUND,
        StatusCode::PARTIAL_CONTENT,
        StatusCode::BAD_GATEWAY,
    ] {
        let app = App::new(views(), of(status));
        for run in 1..=2 {
            let answer = app.get("/").await;
            assert_eq!((answer.status, answer.body), (status, format!("run {run}")));
        }
    }
    let found = views().store_if(|response| response.status == StatusCode::NOT_FOUND);
    let app = App::new(found, of(StatusCode::NOT_FOUND));
    app.get("/").await;
    let again = app.get("/").await;
    assert_eq!(
        (again.status, again.told()),
        (StatusCode::NOT_FOUND, ("hit", "run 1"))
    );
}

#[tokio::test]
async fn a_long_body_passes_whole() {
    let long = "x".repeat(100_000);
    let text = long.clone();
    let app = App::new(views().max_body(1000), move |_, _| {
        let text = text.clone();
        async move {
            // Its length is not said before.
            let chunks = text
                .as_bytes()
                .chunks(700)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
            Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()))
        }
    });
    for _ in 0..2 {
        assert_eq!(app.get("/").await.told(), ("pass", long.as_str()));
    }
    let app = App::new(views().max_body(1000), |_, _| async { "x".repeat(1000) });
    app.get("/").await;
    assert_eq!(app.get("/").await.header("x-cache"), "hit");
}

#[tokio::test]
async fn it_lives_as_long_as_is_said_and_tells_its_age() {
    let clock = Clock::manual();
    let cache = || Moka::builder().clock(clock.clone()).build();
    let layer = || CacheLayer::new(cache()).ttl(Duration::from_secs(100));
    let app = App::with(layer(), &[]);
    app.get("/").await;
    clock.advance(Duration::from_secs(30));
    let hit = app.get("/").await;
    assert_eq!((hit.told(), hit.header("age")), (("hit", "run 1"), "30"));
    clock.advance(Duration::from_secs(71));
    assert_eq!(app.get("/").await.told(), ("miss", "run 2"));
    // The response's own word stands over the layer's.
    let app = App::with(layer(), &[("cache-control", "max-age=1000, s-maxage=10")]);
    app.get("/").await;
    clock.advance(Duration::from_secs(9));
    assert_eq!(app.get("/").await.header("age"), "9");
    clock.advance(Duration::from_secs(2));
    assert_eq!(app.get("/").await.told(), ("miss", "run 2"));
}

#[tokio::test]
async fn a_handler_says_how_its_response_is_kept() {
    let cache = Moka::new(100);
    let layer =
        CacheLayer::new(cache.clone()).tags(|request| vec![format!("path {}", request.uri.path())]);
    let app = App::new(layer, |run, request| async move {
        let mut response = Response::new(Body::from(format!("run {run}")));
        let caching = match request.uri().path() {
            "/never" => Caching::new().not_kept(),
            "/ever" => Caching::new().ttl(Ttl::Forever),
            _ => Caching::new().tag("works"),
        };
        response.extensions_mut().insert(caching);
        response
    });
    app.get("/a").await;
    assert_eq!(app.get("/a").await.told(), ("hit", "run 1"));
    for tag in ["works", "path /a"] {
        cache.invalidate_tag(tag).await.unwrap();
        assert_eq!(app.get("/a").await.header("x-cache"), "miss", "{tag}");
        assert_eq!(app.get("/a").await.header("x-cache"), "hit", "{tag}");
    }
    app.get("/never").await;
    assert_eq!(app.get("/never").await.header("x-cache"), "pass");
    app.get("/ever").await;
    let left = cache.ttl("view//ever").await.unwrap();
    assert_eq!(left, Some(larder::Remaining::Forever));
    assert_eq!(app.get("/ever").await.header("age"), "");
}

#[tokio::test]
async fn requests_may_pass_by_or_ask_anew() {
    let app = App::with(views().unless(|request| request.uri.path() == "/live"), &[]);
    assert_eq!(app.get("/live").await.told(), ("pass", "run 1"));
    assert_eq!(app.get("/live").await.told(), ("pass", "run 2"));
    let forced = views().force_if(|request| request.headers.contains_key("x-force"));
    let app = App::with(forced, &[]);
    app.get("/").await;
    let anew = app.get_with("/", &[("x-force", "1")]).await;
    assert_eq!(anew.told(), ("miss", "run 2"));
    assert_eq!(app.get("/").await.told(), ("hit", "run 2"));
}

#[tokio::test]
async fn clients_are_obeyed_where_that_is_said() {
    let control = |value| [("cache-control", value)];
    let app = App::with(views(), &[]);
    app.get("/").await;
    for value in ["no-cache", "no-store", "max-age=0"] {
        let answer = app.get_with("/", &control(value)).await;
        assert_eq!(answer.told(), ("hit", "run 1"), "{value}");
    }
    let app = App::with(views().obey_clients(true), &[]);
    let none = app.get_with("/", &control("only-if-cached")).await;
    assert_eq!(none.status, StatusCode::GATEWAY_TIMEOUT);
    app.get("/").await;
    let kept = app.get_with("/", &control("only-if-cached")).await;
    assert_eq!(kept.told(), ("hit", "run 1"));
    assert_eq!(
        app.get_with("/", &control("no-cache")).await.told(),
        ("miss", "run 2")
    );
    assert_eq!(
        app.get_with("/", &control("max-age=0")).await.told(),
        ("miss", "run 3")
    );
    assert_eq!(
        app.get_with("/", &control("no-store")).await.told(),
        ("pass", "run 4")
    );
    assert_eq!(app.get("/").await.told(), ("hit", "run 3"));
    let head = app.send(Method::HEAD, "/", &control("no-cache")).await;
    assert_eq!((head.told(), app.runs()), (("pass", ""), 5));
}

/// What is looked up and not made tells its age too, wherever it is kept.
#[tokio::test]
async fn the_age_of_what_a_store_has_is_told() {
    let clock = Clock::manual();
    let store = Faulty::remote(Moka::builder().clock(clock.clone()).build());
    let views = CacheLayer::new(store).ttl(Duration::from_secs(60));
    let app = App::new(views.obey_clients(true), |run, _| async move {
        format!("run {run}")
    });
    app.get("/").await;
    clock.advance(Duration::from_secs(7));
    let get = app.get("/").await;
    let head = app.send(Method::HEAD, "/", &[]).await;
    let only = [("cache-control", "only-if-cached")];
    let only = app.get_with("/", &only).await;
    for answer in [get, head, only] {
        assert_eq!(
            (answer.header("x-cache"), answer.header("age")),
            ("hit", "7")
        );
    }
    assert_eq!(app.runs(), 1);
}

/// With a grace, a page that is gone is not answered any more.
#[tokio::test]
async fn a_page_that_is_gone_is_gone() {
    let clock = Clock::manual();
    let cache = Moka::builder().clock(clock.clone()).build();
    let graced = Options::ttl(Duration::from_secs(10)).grace(Duration::from_secs(1000));
    let app = App::new(
        CacheLayer::new(cache).options(graced),
        |run, _| async move {
            let status = if run == 1 {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            };
            (status, format!("run {run}"))
        },
    );
    app.get("/").await;
    clock.advance(Duration::from_secs(11));
    for run in 2..=4 {
        let gone = app.get("/").await;
        assert_eq!(
            (gone.status, gone.body),
            (StatusCode::NOT_FOUND, format!("run {run}"))
        );
    }
}
