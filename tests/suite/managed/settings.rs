//! Each setting of `larder manager`, by file, environment and arguments: what `--check` says they come to.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use super::program::larder;

const ALL: &str = r#"
listen = "127.0.0.1:8181"
redis = "redis://:canary@127.0.0.1:6400/7"
password_file = "PASSWORD"
token_file = "TOKEN"
nodes_password_file = "PASSWORD"
map = "cart_MAP"
labels = "xxh3"
vnodes = 40
hosts = ["cache.internal"]
allow = ["10.0.0.0/8", "fd00::/8"]
rate = 7
drain_pause = 1.5
alert_pause = 90.0
alert_max_pause = 7200.0
command = ["/usr/local/bin/page", "--urgent"]

[health]
interval = 5.0
retry = 1.0
timeout = 0.5
failures = 4
remove_after = 20.0
successes = 6
hold = 40.0
max_hold = 400.0
forgive_after = 1800.0
min_nodes = 2
pause = 15.0
lease = 9.0
empty = false

[mail]
host = "mail.internal"
port = 2525
account = "larder"
password_file = "PASSWORD"
from = "larder@example.org"
to = ["admin@example.org"]
security = "none"

[webhook]
url_file = "URL"
token_file = "TOKEN"

[nodes."10.0.0.7:6379/0"]
user = "prober"
password_file = "PASSWORD"
"#;

fn expected() -> Value {
    json!({
        "listen": "127.0.0.1:8181", "redis": "127.0.0.1:6400/7", "map": "cart_MAP",
        "labels": "xxh3", "vnodes": 40, "hosts": ["cache.internal"],
        "allow": ["10.0.0.0/8", "fd00::/8"], "rate": 7, "token": "set", "drain_pause": 1.5,
        "alert_pause": 90.0, "alert_max_pause": 7200.0,
        "command": "/usr/local/bin/page and 1 arguments", "password": "set", "nodes_password": "set",
        "nodes": {"10.0.0.7:6379/0": {"user": "prober", "password": "set"}},
        "mail": {
            "host": "mail.internal", "port": 2525, "account": "larder", "password": "set",
            "from": "larder@example.org", "to": ["admin@example.org"], "security": "none",
        },
        "webhook": {"url": "set", "token": "set"},
        "health": {
            "interval": 5.0, "retry": 1.0, "timeout": 0.5, "failures": 4, "remove_after": 20.0,
            "successes": 6, "hold": 40.0, "max_hold": 400.0, "forgive_after": 1800.0,
            "min_nodes": 2, "pause": 15.0, "lease": 9.0, "empty": false,
        },
    })
}

/// Files of a test, whose names stand in settings as words in capitals.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("larder-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Self(dir);
        files.write("TOKEN", "a-canary-of-thirty-two-characters\n");
        files.write("PASSWORD", "canary\n");
        files.write("URL", "http://hooks.internal/canary\n");
        files
    }

    fn write(&self, name: &str, text: &str) -> String {
        let dir = self.0.display();
        let text = ["TOKEN", "PASSWORD", "URL"]
            .iter()
            .fold(text.to_owned(), |text, name| {
                text.replace(&format!("\"{name}\""), &format!("\"{dir}/{name}\""))
            });
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn checked(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = larder(&[&["manager", "--check", "--json"], args].concat());
    command.envs(variables.iter().copied());
    let output = command.output().await.unwrap();
    let printed = [output.stdout.clone(), output.stderr.clone()].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(!printed.contains("canary"), "{printed}");
    output
}

async fn settings(args: &[&str], variables: &[(&str, &str)]) -> Value {
    let output = checked(args, variables).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} {variables:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Where two settings are alike.
fn same(one: &Value, other: &Value, name: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (field, value) in one {
                same(
                    value,
                    other.get(field).unwrap_or(&Value::Null),
                    &format!("{name}.{field}"),
                    found,
                );
            }
        }
        (one, other) if one == other => found.push(name.to_owned()),
        _ => {}
    }
}

#[tokio::test]
async fn each_setting_of_the_file_is_taken() {
    let files = Files::new("settings");
    let path = files.write("manager.toml", ALL);
    let taken = settings(&["--config", &path], &[]).await;
    assert_eq!(taken, expected());
    // None of them is what it is anyway.
    let usual = settings(&["--redis", "redis://127.0.0.1:6379/13"], &[]).await;
    let mut alike = Vec::new();
    same(&taken, &usual, "", &mut alike);
    assert_eq!(alike, Vec::<String>::new());
    // For people it is a line each.
    let mut check = larder(&["manager", "--check", "--config", &path]);
    let lines = check.output().await.unwrap().stdout;
    let lines = String::from_utf8(lines).unwrap();
    assert!(lines.contains("health.interval = 5.0\n"), "{lines}");
}

#[tokio::test]
async fn the_environment_counts_more_than_the_file_and_arguments_more_than_both() {
    let files = Files::new("variables");
    let path = files.write("manager.toml", ALL);
    let token = files.write("TOKEN", "another-canary-of-thirty-two-chars\n");
    for (variable, said, argument, given, name, comes_to) in [
        (
            "LARDER_MANAGER_LISTEN",
            "127.0.0.1:1",
            "--listen",
            "127.0.0.1:2",
            "/listen",
            [json!("127.0.0.1:1"), json!("127.0.0.1:2")],
        ),
        (
            "LARDER_REDIS",
            "redis://h:1/0",
            "--redis",
            "redis://h:2/0",
            "/redis",
            [json!("h:1/0"), json!("h:2/0")],
        ),
        (
            "LARDER_MAP",
            "a_MAP",
            "--map",
            "b_MAP",
            "/map",
            [json!("a_MAP"), json!("b_MAP")],
        ),
        (
            "LARDER_MANAGER_LABELS",
            "crc32",
            "--labels",
            "balanced",
            "/labels",
            [json!("crc32"), json!("balanced")],
        ),
        (
            "LARDER_MANAGER_VNODES",
            "5",
            "--vnodes",
            "6",
            "/vnodes",
            [json!(5), json!(6)],
        ),
        (
            "LARDER_MANAGER_HOSTS",
            "a,b",
            "--host",
            "c",
            "/hosts",
            [json!(["a", "b"]), json!(["c"])],
        ),
        (
            "LARDER_MANAGER_ALLOW",
            "10.1.0.0/16,10.2.0.0/16",
            "--allow",
            "10.3.0.0/16",
            "/allow",
            [
                json!(["10.1.0.0/16", "10.2.0.0/16"]),
                json!(["10.3.0.0/16"]),
            ],
        ),
        (
            "LARDER_MANAGER_INTERVAL",
            "3",
            "--interval",
            "4",
            "/health/interval",
            [json!(3.0), json!(4.0)],
        ),
        (
            "LARDER_MANAGER_REMOVE_AFTER",
            "11",
            "--remove-after",
            "12",
            "/health/remove_after",
            [json!(11.0), json!(12.0)],
        ),
        (
            "LARDER_MANAGER_MIN_NODES",
            "3",
            "--min-nodes",
            "4",
            "/health/min_nodes",
            [json!(3), json!(4)],
        ),
    ] {
        let file = ["--config", path.as_str()];
        let by_variable = settings(&file, &[(variable, said)]).await;
        let arguments = [&file[..], &[argument, given]].concat();
        let by_argument = settings(&arguments, &[(variable, said)]).await;
        let empty = settings(&file, &[(variable, "")]).await;
        assert_eq!(empty, expected(), "{variable}");
        let found = [&by_variable, &by_argument].map(|all| all.pointer(name).unwrap().clone());
        assert_eq!(found, comes_to, "{variable}");
    }
    let redis = ["--redis", "redis://127.0.0.1:6379/13"];
    let variables = [("LARDER_TOKEN_FILE", token.as_str())];
    assert_eq!(settings(&redis, &variables).await["token"], "set");
    let variables = [("LARDER_MANAGER_CONFIG", path.as_str())];
    assert_eq!(settings(&[], &variables).await, expected());
}

#[tokio::test]
async fn what_is_wrong_with_a_setting_is_said() {
    let files = Files::new("refused");
    let redis = "redis = \"redis://127.0.0.1:6379/13\"\n";
    for (text, says) in [
        ("interval = 5", "line 2: unknown field `interval`"),
        ("vnodes = \"canary\"", "line 2"),
        ("vnodes = 5000", "vnodes"),
        ("allow = [\"10.0.0.0/40\"]", "allow"),
        ("listen = \"0.0.0.0:8080\"", "without a token"),
        ("listen = \"8080\"", "cannot listen"),
        ("map = \"x_NODES\"", "name"),
        ("password_file = \"/nowhere/password\"", "/nowhere/password"),
        ("nodes_password_file = \"PASSWORD\"", "allow"),
        ("token_file = \"/nowhere/token\"", "/nowhere/token"),
        ("drain_pause = -1.0", "drain_pause"),
        ("alert_pause = 0.0", "10 ms"),
        ("command = []", "command"),
        ("[health]\ninterval = 0.0", "interval"),
        ("[health]\nlease = 2.0", "lease"),
        ("[health]\nfailures = 0", "failures"),
        ("[health]\nhold = 1e12", "thirty days"),
        ("[mail]\nhost = \"h\"\naccount = \"a\"", "mail"),
        (
            "[mail]\nhost = \"h\"\npassword_file = \"PASSWORD\"\npassword_env = \"P\"",
            "either password_file or password_env",
        ),
        (
            "[mail]\nhost = \"h\"\nsecurity = \"canary\"",
            "mail.security",
        ),
        (
            "[webhook]\ntoken_file = \"TOKEN\"",
            "either url or url_file",
        ),
        ("[webhook]\nurl = \"ftp://canary\"", "webhook"),
        (
            "[nodes.\"10.0.0.7:6379/0\"]\nuser = \"prober\"",
            "either password_file or password_env",
        ),
    ] {
        let path = files.write("manager.toml", &format!("{redis}{text}\n"));
        let output = checked(&["--config", &path], &[]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
    }
}
