//! Everything that touches openraft. Nothing of it leaves this crate: its types, its encodings and its habits are
//! this folder's business, so that another version of it can be put in here.
// openraft's storage traits fix the error type, and it is large.
#![allow(clippy::result_large_err)]

pub mod codec;
pub mod contact;
pub mod disk;
pub mod elections;
pub mod log_store;
pub mod machine;
pub mod rpc;
pub mod snapshot;
#[cfg(test)]
mod suite;
pub mod transport;

use std::fmt;

use bytes::Bytes;
use esker_metadata_core::CommandResult;

/// A voter or learner: its random id, born with its data directory. A lost directory is a lost id.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// The types that openraft is put together with.
    pub TypeConfig:
        D = Payload,
        R = Outcome,
        NodeId = NodeId,
        Node = Voter,
        SnapshotData = snapshot::SnapshotFile,
);

pub type Raft = openraft::Raft<TypeConfig>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type LogId = openraft::LogId<NodeId>;
pub type Vote = openraft::Vote<NodeId>;
pub type Membership = openraft::Membership<NodeId, Voter>;
pub type StoredMembership = openraft::StoredMembership<NodeId, Voter>;
pub type SnapshotMeta = openraft::SnapshotMeta<NodeId, Voter>;
pub type StorageError = openraft::StorageError<NodeId>;
pub type StorageIOError = openraft::StorageIOError<NodeId>;

/// What the membership says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voter {
    pub name: String,
    /// Where its internal port is reached.
    pub address: String,
}

/// An encoded `CommandBatch`: decoded where it is applied, and never encoded twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// What applying an entry gave: nothing, for entries of raft itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The state's revision after the entry.
    pub revision: u64,
    pub results: Vec<CommandResult>,
}
