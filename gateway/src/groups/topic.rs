//! The internal topic that holds the state of groups.

use std::time::Duration;

use esker_gateway_core::groups::{Times, Topics};
use esker_metadata_client::View;
use esker_metadata_core::{Command, CreateTopic, Setting};
use esker_types::{ErrorCode, PartitionId, TopicId};
use esker_wire::native::GROUP_TOPIC;

use crate::call::propose_one;
use crate::call::random;
use crate::gateway::Gateway;

/// Fixed for the life of a cluster, as in Kafka: groups hash to partitions.
const PARTITIONS: u32 = 50;
/// A group of the classic protocol is one record; see `group-bytes-max`.
const BATCH_BYTES_MAX: u32 = (8 << 20) - 4096;

/// Its partitions in order; none if there is no such topic yet.
pub fn partitions(gateway: &Gateway) -> Vec<PartitionId> {
    let ids = gateway.view.read(|state| state.topic_by_name(GROUP_TOPIC).map(|topic| topic.partitions.clone()));
    ids.unwrap_or_default()
}

/// Makes the topic. That another gateway was faster is fine.
pub async fn create(gateway: &Gateway) -> Result<(), ErrorCode> {
    let command = CreateTopic {
        id: TopicId::from_random(random().map_err(|_| ErrorCode::CoordinatorUnavailable)?),
        name: GROUP_TOPIC.to_owned(),
        partitions: PARTITIONS,
        replication: None,
        settings: vec![Setting { name: "max.message.bytes".to_owned(), value: Some(BATCH_BYTES_MAX.to_string()) }],
        internal: true,
        validate_only: false,
    };
    match propose_one(gateway, Command::CreateTopic(command)).await {
        Ok(_) => Ok(()),
        Err(error) if error.error_code() == Some(ErrorCode::TopicExists) => Ok(()),
        Err(error) => {
            tracing::warn!(reason = error.message, "the topic of consumer groups could not be made");
            Err(ErrorCode::CoordinatorUnavailable)
        }
    }
}

/// Topics as our copy of the metadata has them.
pub struct ViewTopics<'a>(pub &'a View);

impl Topics for ViewTopics<'_> {
    fn topic(&self, name: &str) -> Option<(TopicId, u32)> {
        let count = |topic: &[PartitionId]| u32::try_from(topic.len()).unwrap_or(u32::MAX);
        self.0.read(|state| state.topic_by_name(name).map(|topic| (topic.id, count(&topic.partitions))))
    }

    fn name(&self, id: TopicId) -> Option<String> {
        self.0.read(|state| state.topic(id).map(|topic| topic.name.clone()))
    }

    fn each(&self, f: &mut dyn FnMut(&str, TopicId, u32)) {
        let all: Vec<(String, TopicId, usize)> = self.0.read(|state| {
            let shown = state.topics().filter(|topic| !topic.internal);
            shown.map(|topic| (topic.name.clone(), topic.id, topic.partitions.len())).collect()
        });
        all.iter().for_each(|(name, id, count)| f(name, *id, u32::try_from(*count).unwrap_or(u32::MAX)));
    }

    fn revision(&self) -> u64 {
        self.0.revision()
    }

    fn times(&self, group: &str) -> Times {
        let duration = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
        self.0.read(|state| {
            let Some(group) = state.group(group) else { return Times::default() };
            Times {
                session_timeout: duration(group.settings.consumer_session_timeout_ms),
                heartbeat_interval: duration(group.settings.consumer_heartbeat_interval_ms),
            }
        })
    }
}
