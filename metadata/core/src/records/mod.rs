//! The rows of the state machine. Each is replaced whole, never changed in place, so readers share them.

mod cluster;
mod group;
mod node;
mod object;
mod partition;
mod topic;

pub use cluster::{ClusterRecord, IntentRecord};
pub use group::{GroupRecord, GroupSettings};
pub use node::{BookieRecord, BookieState, GatewayAddresses, GatewayRecord, NodeRef, SessionRecord};
pub use object::{ObjectPlace, PINS_MAX, PinRecord, RootPlace};
pub use partition::{
    ClosedSegment, DROPPED_MAX, DeletedPartition, LastClosed, LostRange, OpenSegment, Owner, PartitionRecord,
};
pub use topic::{CompressionType, TimestampType, TopicRecord, TopicSettings};
