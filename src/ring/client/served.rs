//! The table of commands beside the lists of the servers at hand: each command and each of its own is routed as the server itself says where the
//! keys are, or refused by name.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd, from_redis_value};

use crate::commands::table::CHANNELS;
use crate::commands::{Rule, Why, keys, rule};
use crate::wire::testserver::{TestServer, at_hand};

/// How often each command is made up.
const VARIANTS: u64 = 60;

/// An argument, as `COMMAND DOCS` has it.
#[derive(Debug, Default)]
struct Argument {
    name: String,
    kind: String,
    token: Option<String>,
    flags: Vec<String>,
    arguments: Vec<Argument>,
}

/// A command or one of its own: its name in parts, and its arguments where the server tells them.
#[derive(Debug)]
struct Command {
    name: Vec<String>,
    arity: i64,
    arguments: Option<Vec<Argument>>,
}

#[tokio::test]
async fn every_command_of_the_servers_at_hand_is_routed_or_refused() {
    for binary in at_hand() {
        let server = TestServer::of(binary, &[]);
        let client = redis::Client::open(server.url()).unwrap();
        let mut server = client.get_multiplexed_async_connection().await.unwrap();
        let commands = listed(&mut server).await;
        assert!(commands.len() > 200, "{binary:?}: {}", commands.len());
        let (mut keyed, mut compared) = (0, 0);
        for command in &commands {
            let answers = compare(&mut server, command).await;
            compared += answers;
            keyed += usize::from(answers > 0);
        }
        println!(
            "{}: {} commands, of which {keyed} have keys; {compared} calls of those compared",
            binary.display(),
            commands.len()
        );
        assert!(
            keyed > 140 && compared > 5000,
            "{binary:?}: {keyed} {compared}"
        );
    }
}

/// How many calls of a command were compared that have keys.
async fn compare(server: &mut MultiplexedConnection, command: &Command) -> usize {
    let mut compared = 0;
    // A channel is no key to them.
    let mut channels = CHANNELS.split(' ');
    if channels.any(|name| name.eq_ignore_ascii_case(&command.name[0])) {
        return 0;
    }
    for seed in 0..VARIANTS {
        let call = command.call(seed);
        let args: Vec<&[u8]> = call.iter().map(String::as_bytes).collect();
        let ours = match rule(&args) {
            Rule::Keyed(places) => keys(places, &args),
            Rule::Split(_, step) => Ok((1..args.len()).step_by(step).collect()),
            Rule::EachNode | Rule::ScriptLoad | Rule::Flush => Err(Why::NoKey),
            Rule::Refused(why) => Err(why),
        };
        let theirs = cmd("COMMAND")
            .arg("GETKEYS")
            .arg(&call)
            .query_async(server)
            .await;
        let theirs: Vec<String> = match theirs {
            Ok(keys) => keys,
            Err(error) => {
                let error: redis::RedisError = error;
                let has_none = error.to_string().contains("no key arguments");
                let none = ours.is_err() || !has_none;
                assert!(none, "{call:?}: no keys, says the server; ours {ours:?}");
                assert_ne!(ours, Err(Why::Unknown), "{call:?}");
                continue;
            }
        };
        match ours {
            // There are as many as it was told, or MIGRATE has the one that stands for none.
            Err(_) if theirs.iter().all(String::is_empty) => continue,
            Ok(places) => {
                let mut ours: Vec<&String> = places.iter().map(|at| &call[*at]).collect();
                let stores_twice =
                    ["STORE", "STOREDIST"].map(|word| call.iter().any(|arg| arg == word));
                if stores_twice == [true; 2] {
                    // One of the two, or both.
                    ours.retain(|key| theirs.contains(key));
                }
                assert_eq!(ours, theirs.iter().collect::<Vec<_>>(), "{call:?}");
            }
            Err(Why::Unknown | Why::Malformed | Why::HasKeys) => {
                panic!("{call:?}: keys are {theirs:?}, says the server; ours {ours:?}")
            }
            // By its name, or for what it would do.
            Err(_) => continue,
        }
        compared += 1;
    }
    compared
}

impl Command {
    /// A call of it: some of the arguments that may be, each of those that repeat as often as all of them.
    fn call(&self, seed: u64) -> Vec<String> {
        let mut call = Call {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D,
            times: 1 + seed as usize % 3,
            keys: 0,
            args: self.name.clone(),
        };
        match &self.arguments {
            Some(arguments) => arguments.iter().for_each(|argument| call.add(argument)),
            None => {
                let least = self.arity.unsigned_abs() as usize;
                while call.args.len() < least {
                    call.args.push("1".to_owned());
                }
            }
        }
        call.args
    }
}

struct Call {
    random: u64,
    times: usize,
    keys: usize,
    args: Vec<String>,
}

impl Call {
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound.max(1) as u64) as usize
    }

    fn add(&mut self, argument: &Argument) {
        let has = |flag: &str| argument.flags.iter().any(|own| own == flag);
        if has("optional") && self.below(2) == 0 {
            return;
        }
        let times = if has("multiple") { self.times } else { 1 };
        for time in 0..times {
            if let Some(token) = &argument.token
                && (time == 0 || has("multiple_token"))
            {
                self.args.push(token.clone());
            }
            self.value(argument);
        }
    }

    fn value(&mut self, argument: &Argument) {
        let value = match (argument.kind.as_str(), argument.name.as_str()) {
            ("pure-token", _) => return,
            ("oneof", _) => {
                let chosen = self.below(argument.arguments.len());
                return self.add(&argument.arguments[chosen]);
            }
            ("block", _) => return argument.arguments.iter().for_each(|own| self.add(own)),
            ("key", _) => {
                self.keys += 1;
                format!("key{}", self.keys)
            }
            (_, "numkeys") => self.times.to_string(),
            ("integer" | "double" | "unix-time", _) => "1".to_owned(),
            ("pattern", _) => "nosort".to_owned(),
            (_, name) => name.to_owned(),
        };
        self.args.push(value);
    }
}

/// Every command and each of its own, by the server's lists.
async fn listed(server: &mut MultiplexedConnection) -> Vec<Command> {
    let docs = cmd("COMMAND").arg("DOCS").query_async(server).await;
    let docs: BTreeMap<String, Value> = docs.unwrap_or_default();
    let all: Vec<Value> = cmd("COMMAND").query_async(server).await.unwrap();
    let mut commands = Vec::new();
    for entry in all {
        let entry: Vec<Value> = from_redis_value(entry).unwrap();
        let own: Vec<Vec<Value>> = match entry.get(9) {
            Some(own) => from_redis_value(own.clone()).unwrap(),
            None => Vec::new(),
        };
        let is_alone = own.is_empty();
        for entry in own.into_iter().chain(is_alone.then_some(entry)) {
            let name: String = from_redis_value(entry[0].clone()).unwrap();
            let arity = from_redis_value(entry[1].clone()).unwrap();
            let arguments = documented(&docs, &name);
            let name = name.split('|').map(str::to_owned).collect();
            commands.push(Command {
                name,
                arity,
                arguments,
            });
        }
    }
    commands
}

fn documented(docs: &BTreeMap<String, Value>, name: &str) -> Option<Vec<Argument>> {
    let (whole, own) = match name.split_once('|') {
        Some((whole, _)) => (whole, Some(name)),
        None => (name, None),
    };
    let mut doc = fields(docs.get(whole)?);
    if let Some(own) = own {
        doc = fields(fields(doc.get("subcommands")?).get(own)?);
    }
    Some(doc.get("arguments").map(arguments).unwrap_or_default())
}

fn fields(value: &Value) -> BTreeMap<String, Value> {
    from_redis_value(value.clone()).unwrap()
}

fn arguments(value: &Value) -> Vec<Argument> {
    let all: Vec<Value> = from_redis_value(value.clone()).unwrap();
    let text = |value: &Value| from_redis_value::<String>(value.clone()).unwrap();
    let one = |value: &Value| {
        let fields = fields(value);
        Argument {
            name: fields.get("name").map(text).unwrap_or_default(),
            kind: fields.get("type").map(text).unwrap_or_default(),
            token: fields.get("token").map(text),
            flags: match fields.get("flags") {
                Some(flags) => from_redis_value(flags.clone()).unwrap(),
                None => Vec::new(),
            },
            arguments: fields.get("arguments").map(arguments).unwrap_or_default(),
        }
    };
    all.iter().map(one).collect()
}
