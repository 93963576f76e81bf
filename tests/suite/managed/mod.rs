//! Managers at work: over real servers, asked by HTTP.

mod at_work;
mod changes;
mod compat;
mod guards;
mod health;
mod live;
mod page;
mod program;
mod settings;
mod told;

use std::time::Duration;

pub(crate) use at_work::{Answer, Managed, ask, label, quick, quick_at, raw};

const SECOND: Duration = Duration::from_secs(1);
