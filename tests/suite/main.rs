//! One test binary for everything that uses the crate from outside.

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
mod laws;
mod leases;
mod limits;
mod manager;
mod memory;
mod placement;
mod processes;
mod races;
mod redis_store;
mod ring;
mod schedules;
mod support;
mod topology;
mod values;
