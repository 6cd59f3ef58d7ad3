//! The commands that talk to a cluster, one file per word.

pub mod bucket;
pub mod config;
mod connect;
pub mod consume;
pub mod group;
mod lines;
pub mod nodes;
pub mod object;
mod parse;
pub mod partition;
pub mod produce;
pub mod quorum;
pub mod recover;
pub mod segment;
mod table;
pub mod tls;
pub mod topic;

pub use parse::{From, starting_point};
pub use recover::quorum_of_topics;
