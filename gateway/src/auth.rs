//! Who asks, and whether they may. Every request carries a principal from its connection's first frame on, so that
//! a real authorizer can be put in without touching the doors.

use std::net::SocketAddr;
use std::sync::Arc;

use esker_types::PartitionId;

/// The identity behind a connection. Bound to the connection, not to its address, which QUIC lets change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// `anonymous` until there is authentication.
    pub name: Arc<str>,
    /// Where the connection came from; for logs only.
    pub from: SocketAddr,
}

/// What a request would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    Produce {
        topic: &'a str,
        partition: PartitionId,
    },
    Read {
        topic: &'a str,
        partition: PartitionId,
    },
    /// See that the topic is there, its partitions and settings.
    Describe {
        topic: &'a str,
    },
    CreateTopic {
        topic: &'a str,
    },
    AlterTopic {
        topic: &'a str,
    },
    DeleteTopic {
        topic: &'a str,
    },
    DeleteRecords {
        topic: &'a str,
    },
    /// Be a member of the group, commit its offsets.
    ReadGroup {
        group: &'a str,
    },
    DescribeGroup {
        group: &'a str,
    },
    DeleteGroup {
        group: &'a str,
    },
    /// Change the group's settings.
    AlterGroup {
        group: &'a str,
    },
    InitProducer,
    DescribeCluster,
    /// Move, drain, force-close: what an operator does.
    AdministerCluster,
}

impl Action<'_> {
    /// What the cluster keeps in internal topics, whose names begin with `__`, it writes and deletes itself.
    pub fn is_internal(&self) -> bool {
        matches!(self, Action::Produce { topic, .. } | Action::DeleteRecords { topic } if topic.starts_with("__"))
    }
}

/// Decides on every action of a client. Called on the path of stream opens and calls, not per batch, and never
/// under a lock: it must answer from memory.
pub trait Authorizer: Send + Sync + 'static {
    fn allows(&self, principal: &Principal, action: Action<'_>) -> bool;
}

/// Everybody may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn allows(&self, _: &Principal, _: Action<'_>) -> bool {
        true
    }
}
