use super::*;

fn table(json: &str) -> Result<Config, String> {
    let config: Config = serde_json::from_str(json).expect("what is wrong is not told by serde");
    let checked = config.check().map_err(|error| error.to_string());
    checked.map(|()| config)
}

/// A file's line is shown by what reads it, so nothing that is wrong with a description may be its error.
#[test]
fn reading_a_file_fails_for_nothing_that_is_wrong_with_a_cache() {
    #[derive(Debug, serde::Deserialize)]
    struct File {
        cache: Config,
    }
    for text in [
        "cache = \"redis://:canary@h:x/0\"",
        "cache = { kind = \"ring\", manager = \"redis://:canary@h/13\", timeout_ms = \"x\" }",
        "cache = { kind = \"ring\", manager = \"redis://:canary@h/13\", nodes = 1234.5 }",
        "cache = { kind = \"redis\", url = [\"redis://:canary@h/13\"] }",
    ] {
        let file: File = toml::from_str(text).unwrap();
        let error = file.cache.check().unwrap_err();
        let shown = format!("{file:?}");
        assert!(!format!("{error} {shown}").contains("canary"), "{error}");
        assert!(shown.contains(error.message()), "{shown}");
    }
}

/// The file that the README shows.
#[test]
fn the_readmes_file_is_a_configuration() {
    #[derive(serde::Deserialize)]
    struct File {
        cache: Config,
    }
    let readme = include_str!("../../README.md");
    let (_, file) = readme.split_once("```toml\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let file: File = toml::from_str(file).unwrap();
    assert_eq!(
        file.cache.check().map_err(|error| error.to_string()),
        Ok(())
    );
    assert_eq!(file.cache.kind, Kind::Tiered);
}

/// What a table says, a url says too.
#[test]
fn tables_and_urls_are_one_thing() {
    for (json, url) in [
        (
            r#"{"kind": "null", "ttl": 5, "strict": true}"#,
            "null:?ttl=5&strict=true",
        ),
        (
            r#"{"kind": "moka", "max": 10, "eviction": "lru", "ttl": -1, "key_prefix": "a:"}"#,
            "moka://?max=10&eviction=lru&ttl=-1&key_prefix=a%3A",
        ),
        (
            r#"{"kind": "redis", "url": "redis://:p%40@h:1/2", "timeout_ms": 5}"#,
            "redis://:p%40@h:1/2?timeout_ms=5",
        ),
        (
            r#"{"kind": "redis", "url": "redis://:p%40@h:1/2?timeout_ms=5"}"#,
            "redis://:p%40@h:1/2?timeout_ms=5",
        ),
        (
            r#"{"kind": "ring", "manager": "redis://h:1/13", "snapshot": "/a%b", "password_env": "P"}"#,
            "ring://h:1/13?snapshot=/a%25b&password_env=P",
        ),
        (
            r#"{"kind": "ring", "manager": "redis+sentinel://a,b/m/13", "sentinel_password": "s&=?"}"#,
            "ring+sentinel://a,b/m/13?sentinel_password=s%26%3D%3F",
        ),
        (
            r#"{"kind": "tiered", "l1_ttl": 3, "l1": "moka://?max=3", "l2": {"kind": "null"}}"#,
            "tiered?l1_ttl=3:moka://?max=3,null:",
        ),
        (
            r#"{"kind": "prefixed", "prefix": "a,", "cache": {"kind": "tiered", "l1": "null:", "l2": "null:"}}"#,
            "prefixed:a%2C,tiered:null:,null:",
        ),
    ] {
        assert_eq!(table(json), Ok(Config::parse(url).unwrap()), "{json}");
        let text = serde_json::to_string(url).unwrap();
        assert_eq!(table(&text), Ok(url.parse().unwrap()), "{url}");
    }
}

#[test]
fn what_is_wrong_is_told_when_it_is_read() {
    for (json, part) in [
        (r#"{}"#, "the kind"),
        (r#"{"kind": "memcached"}"#, "the kind"),
        (r#"{"kind": "moka", "maxx": 1}"#, "parameter: maxx"),
        (r#"{"kind": "moka", "max": "many"}"#, "parameter: max"),
        (r#"{"kind": "moka", "max": 1.5}"#, "a whole number"),
        (r#"{"kind": "moka", "max": 1, "max": 2}"#, "given twice"),
        (r#"{"kind": "moka", "max": [1]}"#, "a text, a number"),
        (
            r#"{"kind": "moka", "l1": "null:"}"#,
            "only tiered and prefixed",
        ),
        (r#"{"kind": "redis"}"#, "a redis has a url"),
        (r#"{"kind": "redis", "url": "redis://h:port/0"}"#, "port"),
        (
            r#"{"kind": "redis", "url": "redis://h/0", "nodes": {}}"#,
            "",
        ),
        (
            r#"{"kind": "redis", "url": "redis://h/0", "nodes": {"a:1/0": {}}}"#,
            "only a ring",
        ),
        (
            r#"{"kind": "redis", "url": "redis://h/0", "user": "u"}"#,
            "a user goes with",
        ),
        (
            r#"{"kind": "redis", "url": "redis://h/0", "password_env": "A", "password_file": "B"}"#,
            "exclude each other",
        ),
        (
            r#"{"kind": "ring", "manager": "redis://h/0", "order": "random"}"#,
            "parameter: order",
        ),
        (
            r#"{"kind": "ring", "manager": "redis://h/0", "map": ""}"#,
            "must not be empty",
        ),
        (
            r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"a:1/0": {}}}"#,
            "a password_env or a password_file",
        ),
        (
            r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"a:1/0": {"pass": "x"}}}"#,
            "parameter: pass",
        ),
        (r#"{"kind": "tiered", "l1": "null:"}"#, "part: l2"),
        (
            r#"{"kind": "tiered", "l1": "null:", "l2": "null:", "l2": "null:"}"#,
            "given twice",
        ),
        (
            r#"{"kind": "tiered", "l1": "null:", "l2": "null:", "cache": "null:"}"#,
            "nothing else",
        ),
        (
            r#"{"kind": "tiered", "l1": "null:", "l2": {"kind": "moka", "x": 1}}"#,
            "parameter: x",
        ),
        (r#"{"kind": "prefixed", "cache": "null:"}"#, "has a prefix"),
        (r#"5"#, "scheme"),
        (r#"null"#, "its url, or a table"),
        (r#"{"kind": "tiered", "l1": null, "l2": "null:"}"#, "in: l1"),
        (
            r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"h:x/0": {"password_env": "A"}}}"#,
            "port",
        ),
    ] {
        match table(json) {
            Ok(_) => assert_eq!(part, "", "{json} was taken"),
            Err(error) => assert!(!part.is_empty() && error.contains(part), "{json}: {error}"),
        }
    }
    let deep = (0..20).fold("\"null:\"".to_owned(), |inner, _| {
        format!(r#"{{"kind": "prefixed", "prefix": "a", "cache": {inner}}}"#)
    });
    assert!(table(&deep).unwrap_err().contains("too deeply"));
}

#[test]
fn nothing_that_may_be_a_password_is_shown() {
    for json in [
        r#"{"kind": "redis", "url": "redis://:canary@h:x/0"}"#,
        r#"{"kind": "canary"}"#,
        r#"{"kind": "moka", "max": "canary"}"#,
        r#"{"kind": "ring", "manager": "canary@h/0"}"#,
        r#"{"kind": "ring", "manager": "redis://h/0", "nodes": "canary"}"#,
        r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"a:1/0": "canary"}}"#,
        r#""redis://:canary@h:x/0""#,
        r#""canary""#,
        r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"redis://:canary@h:x/0": {"password_env": "A"}}}"#,
        r#"{"kind": "ring", "manager": "redis://h/0", "nodes": {"a:1/0": {"password_env": "canary", "x": 2}}}"#,
        r#"{"kind": "redis", "url": "redis://h/0", "password_env": "canary", "password_file": "canary"}"#,
    ] {
        let error = table(json).unwrap_err();
        assert!(!error.contains("canary"), "{json}: {error}");
    }
    let json = r#"{"kind": "redis", "url": "redis://me:canary@h/0", "key_prefix": "canary"}"#;
    let shown = format!("{:?}", table(json).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}
