use std::sync::Arc;

use esker_types::error::ErrorInfo;

use super::listener::KafkaDoor;
use crate::auth::{Action, Principal};
use crate::gateway::Gateway;

/// One client, as the handlers of its requests see it.
pub struct Session {
    pub door: Arc<KafkaDoor>,
    pub principal: Principal,
}

/// A request's own circumstances.
#[derive(Clone, Debug)]
pub struct Call {
    pub version: i16,
    /// What the client calls itself; empty if it does not. Shown to who describes a group.
    pub client_id: String,
}

impl Session {
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.door.gateway
    }

    /// Where the client is, as Kafka shows it.
    pub fn client_host(&self) -> String {
        format!("/{}", self.principal.from.ip())
    }

    pub fn allows(&self, action: Action<'_>) -> bool {
        self.gateway().allows(&self.principal, action)
    }
}

/// The first line of an error, for a person.
pub fn message(error: &ErrorInfo) -> Option<String> {
    Some(esker_kafka::bounded(error.message.as_str()))
}

/// Kafka's numbers of operations, as bits of what a principal may do.
mod operation {
    pub const READ: i32 = 1 << 3;
    pub const WRITE: i32 = 1 << 4;
    pub const CREATE: i32 = 1 << 5;
    pub const DELETE: i32 = 1 << 6;
    pub const ALTER: i32 = 1 << 7;
    pub const DESCRIBE: i32 = 1 << 8;
    pub const CLUSTER_ACTION: i32 = 1 << 9;
    pub const DESCRIBE_CONFIGS: i32 = 1 << 10;
    pub const ALTER_CONFIGS: i32 = 1 << 11;
    pub const IDEMPOTENT_WRITE: i32 = 1 << 12;
}

impl Session {
    pub fn topic_operations(&self, topic: &str) -> i32 {
        let partition = esker_types::PartitionId(0);
        let asked = [
            (Action::Read { topic, partition }, operation::READ),
            (Action::Produce { topic, partition }, operation::WRITE),
            (Action::CreateTopic { topic }, operation::CREATE),
            (Action::DeleteTopic { topic }, operation::DELETE),
            (Action::AlterTopic { topic }, operation::ALTER | operation::ALTER_CONFIGS),
            (Action::Describe { topic }, operation::DESCRIBE | operation::DESCRIBE_CONFIGS),
        ];
        self.bits(asked)
    }

    pub fn group_operations(&self, group: &str) -> i32 {
        self.bits([
            (Action::ReadGroup { group }, operation::READ),
            (Action::DescribeGroup { group }, operation::DESCRIBE | operation::DESCRIBE_CONFIGS),
            (Action::DeleteGroup { group }, operation::DELETE),
            (Action::AlterGroup { group }, operation::ALTER_CONFIGS),
        ])
    }

    pub fn cluster_operations(&self) -> i32 {
        self.bits([
            (Action::DescribeCluster, operation::DESCRIBE | operation::DESCRIBE_CONFIGS),
            (
                Action::AdministerCluster,
                operation::ALTER | operation::ALTER_CONFIGS | operation::CREATE | operation::CLUSTER_ACTION,
            ),
            (Action::InitProducer, operation::IDEMPOTENT_WRITE),
        ])
    }

    fn bits<const N: usize>(&self, asked: [(Action<'_>, i32); N]) -> i32 {
        asked.into_iter().filter(|(action, _)| self.allows(*action)).fold(0, |bits, (_, bit)| bits | bit)
    }
}
