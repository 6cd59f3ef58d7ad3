//! What groups have committed. Partitions are asked for by topic, and answered in the order of the request.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_gateway_core::groups::{self as core, Identity};
use esker_kafka::{code, offset_commit, offset_delete, offset_fetch};
use esker_types::ErrorCode;

use super::{error_code, may_read, may_see};
use crate::kafka::partitions;
use crate::kafka::session::{Call, Session};

pub async fn commit(session: &Session, call: &Call, request: offset_commit::Request) -> offset_commit::Response {
    let allowed = may_read(session, &request.group_id);
    // What is not there can't be committed; the rest of the request goes on without it.
    let known = |topic: &str, index| match partitions::record(session, topic, index) {
        _ if !allowed => code::GROUP_AUTHORIZATION_FAILED,
        Ok(_) => code::NONE,
        Err(_) => code::UNKNOWN_TOPIC_OR_PARTITION,
    };
    let (mut offsets, mut topics) = (Vec::new(), Vec::with_capacity(request.topics.len()));
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let error_code = known(&topic.name, asked.partition_index);
            if error_code == code::NONE {
                offsets.push(core::CommitOffset {
                    topic: topic.name.clone(),
                    partition: asked.partition_index,
                    offset: asked.committed_offset,
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: asked.committed_metadata.unwrap_or_default(),
                });
            }
            partitions.push(offset_commit::Partition { partition_index: asked.partition_index, error_code });
        }
        topics.push(offset_commit::Topic { name: topic.name, partitions });
    }
    if offsets.is_empty() {
        return offset_commit::Response { throttle_time_ms: 0, topics };
    }
    let commit = core::Commit {
        group: request.group_id,
        who: Identity { member: request.member_id, instance: request.group_instance_id },
        generation: request.generation_id_or_member_epoch,
        knows_epochs: call.version >= 9,
        retention: u64::try_from(request.retention_time_ms).ok().map(Duration::from_millis),
        offsets,
    };
    let outcomes = match session.door.groups.call(core::Request::Commit(commit)).await {
        core::Response::Commit(outcomes) => outcomes,
        _ => Vec::new(),
    };
    let mut outcomes = outcomes.iter().map(error_code);
    let waiting = topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|p| p.error_code == code::NONE);
    waiting.for_each(|partition| partition.error_code = outcomes.next().unwrap_or(code::UNKNOWN_SERVER_ERROR));
    offset_commit::Response { throttle_time_ms: 0, topics }
}

pub async fn fetch(session: &Session, call: &Call, request: offset_fetch::Request) -> offset_fetch::Response {
    if call.version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let member = group.member_id.filter(|_| group.member_epoch >= 0).map(|id| (id, group.member_epoch));
            let fetched = fetch_one(session, &group.group_id, member, group.topics).await;
            let (topics, error_code) = match fetched {
                Ok(topics) => (topics, code::NONE),
                Err(error_code) => (Vec::new(), error_code),
            };
            groups.push(offset_fetch::Group { group_id: group.group_id, topics, error_code });
        }
        return offset_fetch::Response { groups, ..Default::default() };
    }
    let asked = request.topics.clone();
    match fetch_one(session, &request.group_id, None, request.topics).await {
        Ok(topics) => offset_fetch::Response { topics, ..Default::default() },
        // Version 1 has no place for an error but at the partitions.
        Err(error_code) => offset_fetch::Response {
            topics: asked.unwrap_or_default().into_iter().map(|topic| failed(topic, error_code)).collect(),
            error_code,
            ..Default::default()
        },
    }
}

fn failed(topic: offset_fetch::RequestTopic, error_code: i16) -> offset_fetch::Topic {
    let partition = |partition_index| offset_fetch::Partition {
        partition_index,
        committed_offset: -1,
        error_code,
        ..Default::default()
    };
    offset_fetch::Topic { partitions: topic.partition_indexes.into_iter().map(partition).collect(), name: topic.name }
}

async fn fetch_one(
    session: &Session,
    group: &str,
    member: Option<(String, i32)>,
    topics: Option<Vec<offset_fetch::RequestTopic>>,
) -> Result<Vec<offset_fetch::Topic>, i16> {
    if !may_see(session, group) {
        return Err(code::GROUP_AUTHORIZATION_FAILED);
    }
    let partitions = topics.map(|topics| {
        let each = |topic: offset_fetch::RequestTopic| {
            topic.partition_indexes.into_iter().map(move |index| (topic.name.clone(), index))
        };
        topics.into_iter().flat_map(each).collect::<Vec<_>>()
    });
    let fetch = core::Fetch { group: group.to_owned(), member, partitions };
    match session.door.groups.call(core::Request::Fetch(fetch)).await {
        core::Response::Fetch(Ok(fetched)) => Ok(by_topic(fetched)),
        core::Response::Fetch(Err(error)) => Err(error.kafka()),
        _ => Err(code::UNKNOWN_SERVER_ERROR),
    }
}

/// Neighbours of one topic together, in the order in which they came.
fn by_topic(fetched: Vec<core::Fetched>) -> Vec<offset_fetch::Topic> {
    let mut topics: Vec<offset_fetch::Topic> = Vec::new();
    for found in fetched {
        let partition = offset_fetch::Partition {
            partition_index: found.partition,
            committed_offset: found.offset,
            committed_leader_epoch: found.leader_epoch,
            metadata: Some(found.metadata),
            error_code: code::NONE,
        };
        match topics.last_mut().filter(|topic| topic.name == found.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(offset_fetch::Topic { name: found.topic, partitions: vec![partition] }),
        }
    }
    topics
}

pub async fn delete(session: &Session, request: offset_delete::Request) -> offset_delete::Response {
    if !session.allows(crate::auth::Action::DeleteGroup { group: &request.group_id }) {
        return offset_delete::Response { error_code: code::GROUP_AUTHORIZATION_FAILED, ..Default::default() };
    }
    let each = |topic: &offset_delete::RequestTopic| {
        let name = topic.name.clone();
        topic.partitions.iter().map(move |p| (name.clone(), p.partition_index)).collect::<Vec<_>>()
    };
    let partitions: Vec<(String, i32)> = request.topics.iter().flat_map(each).collect();
    let ask = core::Request::DeleteOffsets { group: request.group_id, partitions: partitions.clone() };
    let outcomes = match session.door.groups.call(ask).await {
        core::Response::DeleteOffsets(Ok(outcomes)) => outcomes,
        core::Response::DeleteOffsets(Err(error)) => {
            return offset_delete::Response { error_code: error.kafka(), ..Default::default() };
        }
        _ => return offset_delete::Response { error_code: code::UNKNOWN_SERVER_ERROR, ..Default::default() },
    };
    let mut topics: BTreeMap<String, Vec<offset_delete::Partition>> = BTreeMap::new();
    for ((name, partition_index), outcome) in partitions.into_iter().zip(&outcomes) {
        let outcome: &Result<(), ErrorCode> = outcome;
        let partition = offset_delete::Partition { partition_index, error_code: error_code(outcome) };
        topics.entry(name).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| offset_delete::Topic { name, partitions });
    offset_delete::Response { topics: topics.collect(), ..Default::default() }
}
