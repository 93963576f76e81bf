//! The right to compute a value, for one process of all.

use std::time::Duration;

use redis::Value;

use super::Connection;
use super::command::{integer, millis};
use super::node::{Node, checked, strange};
use super::opened::{Opener, Raw};
use super::owing::batches;
use super::scatter::scatter;
use super::script::{HOLD, LEASE};
use crate::clock::Moment;
use crate::core::Core;
use crate::entry::{Answer, Claim, Lease, Noted, Right, Ticket, Want};
use crate::error::Result;
use crate::generation::random;
use crate::options::MAX_COMPUTE;

/// What the server said of one key.
struct Said {
    raw: Raw,
    right: Right,
}

impl Node {
    pub(crate) async fn claim(
        &self,
        core: &Core,
        keys: &[&str],
        want: Want,
        lease: Lease,
    ) -> Vec<Result<Claim>> {
        let want = want.or_stale();
        let items = keys.iter().map(|key| (self.place(key), *key));
        let said = scatter(
            items,
            self.connections.len(),
            |place, keys: Vec<&str>| async move {
                let mut said = Vec::with_capacity(keys.len());
                for range in batches(keys.len()) {
                    let connection = &self.connections[place];
                    said.extend(ask(connection, core, &keys[range], want, lease).await);
                }
                said
            },
        );
        let opener = Opener::new(core, want);
        let mut claims = Vec::with_capacity(keys.len());
        for (key, said) in keys.iter().zip(said.answers().await) {
            claims.push(match said {
                Ok(said) => self.claimed(&opener, key, said, lease).await,
                Err(error) => Err(error),
            });
        }
        claims
    }

    async fn claimed(
        &self,
        opener: &Opener<'_>,
        key: &str,
        said: Said,
        lease: Lease,
    ) -> Result<Claim> {
        let Said { raw, right } = said;
        let (core, want) = (opener.core(), opener.want());
        let answer = self.read(opener, key, raw).await?;
        if answer.entry.is_none() && matches!(right, Right::NotNeeded) {
            // A value stands there, and is none for this reader. By now it may be another.
            let again = ask(self.connection(key), core, &[key], want, lease.anew()).await;
            if let Some(said) = again.into_iter().next() {
                let Said { raw, right } = said?;
                return Ok(Claim::new(self.read(opener, key, raw).await?, right));
            }
        }
        Ok(Claim::new(answer, right))
    }

    async fn read(&self, opener: &Opener<'_>, key: &str, raw: Raw) -> Result<Answer> {
        match opener.open(key, raw)? {
            Ok(answer) => Ok(answer),
            Err(opened) => self.judge(opener.core(), key, opener.want(), opened).await,
        }
    }

    /// Renews a lease, or gives it back.
    pub(crate) async fn hold(
        &self,
        key: &str,
        ticket: &Ticket,
        life: Option<Duration>,
    ) -> Result<bool> {
        let Noted::Node {
            lease: Some(token), ..
        } = &ticket.noted
        else {
            return Ok(true);
        };
        let connection = self.connection(key);
        let (life, gives_back) = (life.unwrap_or(MAX_COMPUTE), life.is_none());
        let keys = [key];
        let held = HOLD.run(connection, "lease", &keys, |command| {
            command.arg(&**token).arg(millis(life));
            command.arg(i32::from(gives_back));
        });
        let held = integer(&held.await?).ok_or_else(|| strange(connection, "lease"))?;
        Ok(held > 0)
    }
}

async fn ask(
    connection: &Connection,
    core: &Core,
    keys: &[&str],
    want: Want,
    lease: Lease,
) -> Vec<Result<Said>> {
    let now = core.now();
    let token = [random().to_le_bytes(), random().to_le_bytes()].concat();
    let owed = connection.owed(keys);
    let asked = LEASE.run(connection, "lease", keys, |command| {
        command.arg(want.namespace).arg(&random().to_le_bytes());
        command.arg(&token).arg(millis(lease.life));
        command.arg(i32::from(lease.anew));
    });
    match asked.await {
        Ok(Value::Array(said)) if said.len() == keys.len() => {
            let mut owed = owed.into_iter();
            let said = said.into_iter().map(|said| {
                let owed = owed.next().unwrap_or(false);
                read(connection, said, owed, want, now)
            });
            said.collect()
        }
        Ok(_) => keys
            .iter()
            .map(|_| Err(strange(connection, "lease")))
            .collect(),
        Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn read(connection: &Connection, said: Value, owed: bool, want: Want, now: Moment) -> Result<Said> {
    let Value::Array(parts) = said else {
        return Err(strange(connection, "lease"));
    };
    let mut parts = parts.into_iter();
    let (value, left) = (parts.next(), parts.next());
    let reply = match checked(connection, "lease", value.unwrap_or(Value::Nil)) {
        _ if owed => Ok(None),
        Ok(Value::BulkString(bytes)) => Ok(Some(bytes)),
        Ok(Value::Nil) => Ok(None),
        Ok(_) => Err(strange(connection, "lease")),
        Err(error) => Err(error),
    };
    let right = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Right::NotNeeded,
        (Some(Value::Int(left)), ..) => {
            Right::Held(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
        }
        (
            Some(Value::BulkString(fingerprint)),
            Some(Value::Int(count)),
            Some(Value::BulkString(token)),
        ) => Right::Granted(Ticket::from(Noted::Node {
            fingerprint: fingerprint.into(),
            count,
            lease: Some(token.into()),
        })),
        _ => return Err(strange(connection, "lease")),
    };
    let pttl = left.as_ref().and_then(integer);
    Ok(Said {
        raw: Raw::new(reply, pttl, want, now),
        right,
    })
}
