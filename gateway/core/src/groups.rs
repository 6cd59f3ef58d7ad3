//! Consumer groups: the coordinator of all groups that hash to one partition of the internal topic, as a pure state
//! machine.
//!
//! ```text
//!  requests ──> Coordinator ── Append(seq) ──> partition ── committed(seq) ──> Coordinator ── Answer ──> clients
//!                   ▲                              │
//!                   └────────── replay ────────────┘   by the next owner, or after a failed append
//! ```
//! **What is durable.** State is a map from keys to values ([`Key`]): a classic group, a consumer group, its members,
//! committed offsets. Every change appends the new value; a replay keeps the last value of each key. An answer is held
//! back until everything that was appended before it was made is committed, so that no client ever saw what a crash
//! can take back. When an append fails the coordinator is thrown away and read again from the log.
//!
//! **Snapshots** are fuzzy: from time to time every live key is appended once more, a little at a time between other
//! records. When all are committed, nothing before the first of them is needed: a key that died meanwhile has its
//! tombstone behind it, one that was born has its first value there. The log start may move up to that point.
//!
//! **A reload costs members nothing**: member ids, generation, assignments and epochs are in the log, and everybody
//! gets a full session from the moment the coordinator serves.

mod admin;
mod api;
mod classic;
mod config;
mod consumer;
mod coordinator;
mod expiry;
mod group;
mod offsets;
mod out;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;
mod topics;

pub use self::api::{
    Commit, CommitOffset, ConsumerDescribed, ConsumerDescribedMember, ConsumerHeartbeat, ConsumerHeartbeated,
    Described, DescribedMember, Fetch, Fetched, Heartbeat, Identity, JOIN_EPOCH, Join, JoinRefused, Joined,
    JoinedMember, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Leave, List, Listed, Partitions, Refused, Request, Response,
    SyncGroup, Synced,
};
pub use self::config::Config;
pub use self::coordinator::Coordinator;
pub use self::out::{Append, Effect, Seq, Ticket};
pub use self::record::{Key, KeyedRecord, ReplayError};
pub use self::topics::{Times, Topics};
