//! The storage node: one journal per bookie, fsynced before every acknowledgement, read back through an index.
//!
//! Decisions live in `esker-bookie-core`; this crate does the IO around them. `FORMAT.md` describes the files.

pub mod config;
pub mod cookie;
pub mod disk;
pub mod journal;
pub mod metrics;
mod random;
pub mod server;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use server::{Deps, Server, StartError};
