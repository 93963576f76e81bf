//! What is done with a ring: in its manager Redis, or by asking a manager.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use larder::Login;
use larder::manager::{Admin, Config, Findings, Labels, Located, Plan};

use crate::api::Api;
use crate::args::{Command, Node, Ring, To};
use crate::show::Show;
use crate::{Failure, WRONG};

/// The longest secret, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Who does it.
enum Desk {
    Direct(Box<Admin>),
    Asked(Api),
}

/// What is known of a ring by its url.
pub(crate) fn config(to: &To) -> Result<Config, Failure> {
    let redis = to
        .redis()
        .ok_or("say where the ring is: --redis redis://host:port/db, or --api http://host:port")?;
    let mut config = Config::new(redis);
    if let Some(map) = &to.map {
        config.map_name.clone_from(map);
    }
    Ok(match &to.password_file {
        Some(file) => config.manager_login(Login::file(file)),
        None => config,
    })
}

/// What a file holds, of so many bytes at most.
pub(crate) fn text_of(file: &Path, most: u64) -> Result<String, Failure> {
    let named = |why: String| -> Failure { format!("the file {}: {why}", file.display()).into() };
    let opened = File::open(file).map_err(|error| named(error.to_string()))?;
    let mut text = String::new();
    let length = opened.take(most + 1).read_to_string(&mut text);
    match length.map_err(|error| named(error.to_string()))? as u64 <= most {
        true => Ok(text),
        false => Err(named(format!("it is longer than {most} bytes"))),
    }
}

/// What a small file holds, without its line end.
pub(crate) fn secret(file: &Path) -> Result<String, Failure> {
    match text_of(file, MAX_SECRET)?.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("the file {} is empty", file.display()).into()),
        text => Ok(text.to_owned()),
    }
}

pub(crate) async fn run(to: &To, command: Command) -> Result<ExitCode, Failure> {
    let mut form: Option<(Option<Labels>, Option<usize>)> = None;
    if let Command::Ring(Ring::Rebuild {
        labels,
        vnodes,
        yes,
    }) = &command
    {
        if !yes {
            return Err(
                "nearly all keys may move: see `larder ring preview --rebuild`, and say --yes"
                    .into(),
            );
        }
        form = Some((labels.map(Into::into), *vnodes));
    }
    let desk = match to.api() {
        Some(_) if form.is_some_and(|(labels, vnodes)| labels.is_some() || vnodes.is_some()) => {
            return Err("--labels and --vnodes are a manager's own settings: say --redis".into());
        }
        Some(url) => {
            let token = to.token_file.as_deref().map(secret).transpose()?;
            Desk::Asked(Api::new(&url, token)?)
        }
        None => {
            let mut config = config(to)?;
            if let Some((labels, vnodes)) = form {
                (config.labels, config.vnodes) = (labels, vnodes);
            }
            Desk::Direct(Box::new(Admin::connect(&config).await?))
        }
    };
    let show = Show::new(to.json);
    match command {
        Command::Node(command) => node(&desk, show, command).await,
        Command::Ring(command) => ring(&desk, show, command).await,
        Command::Events { after, count } => {
            show.events(&match &desk {
                Desk::Direct(admin) => admin.events(after, count).await?,
                Desk::Asked(api) => {
                    api.get(&format!("events?after={after}&count={count}"))
                        .await?
                }
            });
            Ok(ExitCode::SUCCESS)
        }
        // The others are elsewhere.
        _ => Ok(ExitCode::FAILURE),
    }
}

async fn node(desk: &Desk, show: Show, command: Node) -> Result<ExitCode, Failure> {
    match command {
        Node::Add {
            url,
            node_password_file,
        } => {
            let url = match node_password_file {
                Some(file) => with_password(&url, &secret(&file)?)?,
                None => url,
            };
            show.moved(&match desk {
                Desk::Direct(admin) => admin.add(&url).await?,
                Desk::Asked(api) => {
                    api.post("nodes", &serde_json::json!({ "url": url }))
                        .await?
                }
            });
        }
        Node::Remove { node, last } => show.moved(&match desk {
            Desk::Direct(admin) => admin.remove(&node, last).await?,
            Desk::Asked(api) => {
                api.delete(&format!("nodes?node={}&last={last}", Api::encoded(&node)))
                    .await?
            }
        }),
        Node::List => show.nodes(&match desk {
            Desk::Direct(admin) => admin.nodes().await?,
            Desk::Asked(api) => api.get("nodes").await?,
        }),
        Node::Check => return check(desk, show).await,
        Node::Drain { node, steps } => show.moved(&match desk {
            Desk::Direct(admin) => admin.drain(&node, steps).await?,
            Desk::Asked(api) => {
                let body = serde_json::json!({ "node": node, "steps": steps });
                api.post("nodes/drain", &body).await?
            }
        }),
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(desk: &Desk, show: Show) -> Result<ExitCode, Failure> {
    let view = match desk {
        Desk::Direct(admin) => {
            let mut view = admin.nodes().await?;
            for (name, error) in admin.probe().await? {
                let failed = view.nodes.iter_mut().filter(|node| node.node == name);
                failed.for_each(|node| node.why = Some(error.clone()));
            }
            view
        }
        Desk::Asked(api) => api.post("nodes/check", &serde_json::json!({})).await?,
    };
    show.nodes(&view);
    let fails = view.nodes.iter().any(|node| node.why.is_some());
    Ok(if fails {
        ExitCode::from(WRONG)
    } else {
        ExitCode::SUCCESS
    })
}

async fn ring(desk: &Desk, show: Show, command: Ring) -> Result<ExitCode, Failure> {
    match command {
        Ring::Show => show.ring(&match desk {
            Desk::Direct(admin) => admin.ring().await?,
            Desk::Asked(api) => api.get("ring").await?,
        }),
        Ring::Where { keys } => show.located(&located(desk, named(keys)?).await?),
        Ring::Preview { plan } => {
            let plan = match plan {
                crate::args::Plan { add: Some(url), .. } => Plan::Add { url },
                crate::args::Plan {
                    remove: Some(node), ..
                } => Plan::Remove { node },
                crate::args::Plan {
                    drain: Some(node), ..
                } => Plan::Drain { node, steps: 1 },
                _ => Plan::Rebuild {},
            };
            show.moved(&match desk {
                Desk::Direct(admin) => admin.preview(&plan).await?,
                Desk::Asked(api) => api.post("ring/preview", &plan).await?,
            });
        }
        Ring::Verify => {
            let findings: Findings = match desk {
                Desk::Direct(admin) => admin.verify().await?,
                Desk::Asked(api) => api.get("ring/verify").await?,
            };
            show.findings(&findings);
            if !findings.are_harmless() {
                return Ok(ExitCode::from(WRONG));
            }
        }
        Ring::Rebuild { .. } => show.moved(&match desk {
            Desk::Direct(admin) => admin.rebuild().await?,
            Desk::Asked(api) => api.post("ring/rebuild", &serde_json::json!({})).await?,
        }),
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys that were named; those of the standard input, a line each, for `-`.
fn named(keys: Vec<String>) -> Result<Vec<String>, Failure> {
    match keys.as_slice() {
        [one] if one == "-" => Ok(std::io::stdin().lines().collect::<Result<_, _>>()?),
        _ => Ok(keys),
    }
}

async fn located(desk: &Desk, keys: Vec<String>) -> Result<Vec<Located>, Failure> {
    match desk {
        Desk::Direct(admin) => Ok(admin.locate(&keys).await?),
        Desk::Asked(api) => {
            let mut located = Vec::new();
            for key in &keys {
                let path = format!("ring/where?key={}", Api::encoded(key));
                located.push(api.get(&path).await?);
            }
            Ok(located)
        }
    }
}

/// A url with a password that it did not have.
fn with_password(url: &str, password: &str) -> Result<String, Failure> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("a node's url is redis://host:port/db".into());
    };
    match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => Err("the url has a password already".into()),
        Some((user, place)) => Ok(format!(
            "{scheme}://{user}:{}@{place}",
            Api::encoded(password)
        )),
        None => Ok(format!("{scheme}://:{}@{rest}", Api::encoded(password))),
    }
}
