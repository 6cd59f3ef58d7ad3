//! The metadata state machine: records, commands, and the pure function that applies them.
//!
//! Everything here is deterministic: no clock, no randomness, no hash-map order, no IO. The quorum applies the same
//! commands on every voter; gateways and bookies replay the [`Delta`]s on a local copy.

#[macro_use]
pub mod wire;

mod apply;
mod change;
mod command;
pub mod gc;
pub mod group_settings;
pub mod plan;
mod query;
mod records;
mod reply;
mod restore;
pub mod settings;
mod snapshot;
mod state;

pub use apply::{Applied, PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_MAX, VERSION_MAX};
pub use change::*;
pub use command::*;
pub use query::*;
pub use records::*;
pub use reply::*;
pub use restore::{Bump, restore_commands};
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError, decode_snapshot, encode_snapshot};
pub use state::{GapInDeltas, State};
