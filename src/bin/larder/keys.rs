//! Single keys, at the node that has them.

use std::io::Write;
use std::process::ExitCode;

use larder::{Cache, DistributedRedis, Login};
use redis::AsyncCommands;

use crate::Failure;
use crate::args::{Command, To};
use crate::show::Show;

/// What a value begins with that a cache of Larder stored.
const ENVELOPE: u8 = 0xC1;

pub(crate) async fn run(to: &To, command: Command) -> Result<ExitCode, Failure> {
    if to.api.is_some() {
        return Err("a manager has no keys: say --redis, where the ring's map is".into());
    }
    let redis = to
        .redis()
        .ok_or("say where the ring is: --redis redis://host:port/db")?;
    let mut builder = DistributedRedis::builder(&redis);
    if let Some(map) = &to.map {
        builder = builder.map_name(map);
    }
    if let Some(file) = &to.password_file {
        builder = builder.manager_login(Login::file(file));
    }
    let ring = builder.connect().await?;
    let show = Show::new(to.json);
    match command {
        Command::Get { key } => get(&ring, show, &key).await,
        Command::Set { key, value, ttl } => {
            let mut connection = ring.connection();
            match ttl {
                Some(seconds) => connection.set_ex::<_, _, ()>(&key, value, seconds).await?,
                None => connection.set::<_, _, ()>(&key, value).await?,
            }
            show.print(&true, String::new);
            Ok(ExitCode::SUCCESS)
        }
        Command::Del { keys } => {
            let removed = ring.delete_many(&keys).await?;
            show.print(&removed, || format!("{removed}\n"));
            Ok(ExitCode::SUCCESS)
        }
        // The others are elsewhere.
        _ => Ok(ExitCode::FAILURE),
    }
}

/// A value as it is; of one that a cache stored, what can be said without its type.
async fn get(ring: &DistributedRedis, show: Show, key: &str) -> Result<ExitCode, Failure> {
    let value: Option<Vec<u8>> = ring.connection().get(key).await?;
    let Some(value) = value else {
        eprintln!("larder: there is no such key");
        return Ok(ExitCode::FAILURE);
    };
    if value.first() == Some(&ENVELOPE) {
        let explanation = ring.explain(key).await?;
        let text = explanation.to_string();
        show.print(&text, || {
            format!(
                "a value of {} bytes that a cache stored, of a type of its own\n{text}\n",
                value.len()
            )
        });
        return Ok(ExitCode::SUCCESS);
    }
    match String::from_utf8(value) {
        Ok(text) => show.print(&text, || format!("{text}\n")),
        // As it is: to be read by another program.
        Err(bytes) => std::io::stdout().write_all(bytes.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
