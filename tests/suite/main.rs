//! One test binary for everything that uses the crate from outside.

mod acl;
mod behind;
mod callers;
mod client;
mod coherence;
mod conformance;
mod conformance_servers;
mod corners;
mod explain;
mod fleet;
mod format;
mod generations;
mod hash_tags;
mod laws;
mod leases;
mod limits;
mod managed;
mod manager;
mod memory;
mod placement;
mod processes;
mod python;
mod races;
mod redis_store;
mod ring;
mod schedules;
mod support;
#[path = "../../src/wire/testserver.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod testserver;
mod tls;
mod topology;
mod values;
