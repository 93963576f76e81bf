//! The program `larder`: `larder help` has its commands.

mod api;
mod args;
mod file;
mod http;
mod keys;
mod manager;
mod ops;
mod show;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command};

/// Something is wrong with the ring.
const WRONG: u8 = 3;

/// Why a command was not done.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let matches = quieted(Cli::command()).try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprint!("{}", redacted(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let done = runtime.block_on(run(cli));
    // A file that hangs, or a name that is looked up, is not waited for.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| failed(&error))
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Manager(settings) => manager::run(&cli.to, &settings).await,
        Command::Get { .. } | Command::Set { .. } | Command::Del { .. } => {
            keys::run(&cli.to, cli.command).await
        }
        command => ops::run(&cli.to, command).await,
    }
}

/// A variable that is set to nothing says nothing.
fn quieted(command: clap::Command) -> clap::Command {
    let quiet = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        match value.is_some_and(|value| value.is_empty()) {
            true => arg.env(None),
            false => arg,
        }
    };
    command.mut_args(quiet).mut_subcommands(quieted)
}

/// Without what stands before an `@` in what looks like a url: an argument may be misplaced, and hold a password.
fn redacted(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', '\'']);
    let word = |word: &str| match (word.find("://"), word.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &word[..scheme], &word[at..])
        }
        _ => word.to_owned(),
    };
    words.map(word).collect()
}

fn failed(error: &Failure) -> ExitCode {
    eprintln!("larder: {error}");
    ExitCode::FAILURE
}
