use super::*;

fn args(line: &str) -> Vec<&[u8]> {
    let args = line.split(' ');
    args.map(|arg| match arg {
        "\"\"" => &b""[..],
        arg => arg.as_bytes(),
    })
    .collect()
}

/// The keys of a command that goes to one node, or why it does not.
fn found(line: &str) -> Result<Vec<String>, Why> {
    let args = args(line);
    let text = |at: usize| String::from_utf8_lossy(args[at]).into_owned();
    match rule(&args) {
        Rule::Keyed(places) => Ok(keys(places, &args)?.into_iter().map(text).collect()),
        Rule::Split(_, step) => Ok((1..args.len()).step_by(step).map(text).collect()),
        Rule::Refused(why) => Err(why),
        Rule::EachNode | Rule::ScriptLoad | Rule::Flush => Err(Why::NoKey),
    }
}

#[test]
fn keys_are_where_the_command_has_them() {
    for (line, keys) in [
        ("GET a", "a"),
        ("get a", "a"),
        ("SET a b EX 5", "a"),
        ("MGET a b c", "a b c"),
        ("MSET a 1 b 2", "a b"),
        ("MSETEX 2 a 1 b 2 EX 5", "a b"),
        ("RENAME a b", "a b"),
        ("BITOP AND a b c", "a b c"),
        ("OBJECT ENCODING a", "a"),
        ("object encoding a", "a"),
        ("XGROUP CREATE a g $", "a"),
        ("EVAL script 2 a b c", "a b"),
        ("ZUNIONSTORE a 2 b c WEIGHTS 1 2", "a b c"),
        ("ZINTER 2 a b WITHSCORES", "a b"),
        (
            "SORT a BY nosort GET # LIMIT 0 5 ALPHA STORE b STORE c",
            "a c",
        ),
        ("SORT a LIMIT STORE BY", "a"),
        ("GEORADIUS a 1 2 3 km STORE b STOREDIST c", "a b c"),
        ("GEORADIUSBYMEMBER a m 3 km STORE b", "a b"),
        ("MIGRATE h 1 a 0 5", "a"),
        ("MIGRATE h 1 \"\" 0 5 COPY AUTH KEYS KEYS a b", "a b"),
        ("MIGRATE h 1 \"\" 0 5 AUTH2 KEYS KEYS KEYS a", "a"),
        ("XREAD COUNT 2 STREAMS a b 0 0", "a b"),
        ("XREADGROUP GROUP STREAMS BLOCK COUNT 1 STREAMS a >", "a"),
    ] {
        let keys: Vec<String> = keys.split(' ').map(str::to_owned).collect();
        assert_eq!(found(line), Ok(keys), "{line}");
    }
}

#[test]
fn what_is_not_sent_is_refused_for_a_reason() {
    for (line, why) in [
        ("NOSUCH a", Why::Unknown),
        ("XGROUP NOSUCH a", Why::Unknown),
        ("AN.ABSURDLY.LONG.NAME.THAT.NO.TABLE.HOLDS a", Why::Unknown),
        ("GET", Why::Malformed),
        ("RENAME a", Why::Malformed),
        ("EVAL script 0", Why::NoKey),
        ("EVAL script 3 a b", Why::Malformed),
        ("EVAL script -1 a b", Why::Malformed),
        ("EVAL script 18446744073709551615 a b", Why::Malformed),
        ("ZINTER many a b", Why::Malformed),
        ("SORT a BY weight_*", Why::ManyNodes),
        ("SORT a GET object_*->name", Why::ManyNodes),
        ("XREAD BLOCK 5 STREAMS a 0", Why::Blocks),
        ("XREAD COUNT 5", Why::Malformed),
        ("XREAD STREAMS", Why::Malformed),
        ("MIGRATE h 1 \"\" 0 5", Why::Malformed),
        ("BLPOP a 0", Why::Blocks),
        ("SUBSCRIBE a", Why::OwnConnection),
        ("client Reply off", Why::OwnConnection),
        ("CLUSTER NODES", Why::Cluster),
        ("SWAPDB 0 1", Why::Unseen),
        ("FLUSHALL", Why::OtherDatabases),
        ("SCAN 0", Why::OneServer),
        ("PING", Why::NoKey),
    ] {
        assert_eq!(found(line), Err(why), "{line}");
        assert!(why.advice().len() > 10);
    }
    assert_eq!(rule(&[]), Rule::Refused(Why::Malformed));
}

#[test]
fn a_name_stands_once_and_fits() {
    let names = table::TABLE
        .iter()
        .flat_map(|(_, names)| names.split_whitespace());
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        assert!(
            name.len() <= LONGEST && *name == name.to_ascii_uppercase(),
            "{name}"
        );
        assert!(seen.insert(name), "{name} stands twice");
    }
}
