//! The metadata quorum: 1, 3 or 5 voters that agree on one log of commands, apply it to the tables of
//! `esker-metadata-core`, and answer gateways, bookies and operators. The leader also keeps the sessions and runs the
//! controller.
//!
//! Architecture invariants: openraft is known to `raft` alone; no decision about the tables is made here, only in
//! `esker-metadata-core`; no safety of records hangs on sessions, leases or clocks of this crate.

mod admin;
mod backup;
mod config;
mod controller;
mod cookie;
mod error;
mod leadership;
mod metrics;
mod news;
mod proposer;
mod raft;
mod reads;
mod server;
mod service;
mod sessions;
mod watch;

pub use admin::Birth;
pub use config::{Config, ObjectsConfig};
pub use error::StartError;
pub use server::{Deps, Server, Status};
