//! Metadata and DescribeTopicPartitions, from our copy of the cluster's metadata.

use std::collections::BTreeSet;

use esker_kafka::{Uuid, code, describe_topic_partitions, metadata};
use esker_metadata_core::{COMMANDS_MAX, Command, CreateTopic, State, TopicRecord};
use esker_types::TopicId;

use super::brokers::{self, Broker, Placement, brokers, placement};
use super::session::{Call, Session};
use crate::auth::Action;
use crate::call::{propose, random};

/// Topics that one request may bring into being.
const AUTO_CREATED_MAX: usize = 100;
/// Partitions in one page of DescribeTopicPartitions, as in Kafka.
const PAGE_MAX: usize = 2_000;

pub async fn answer(session: &Session, call: &Call, request: metadata::Request) -> metadata::Response {
    let include_operations = request.include_topic_authorized_operations;
    let everything = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && call.version == 0,
    };
    // Each once, however often it was named: an answer is never larger than the cluster.
    let asked = request.topics.unwrap_or_default();
    let names: BTreeSet<String> = asked.iter().filter_map(|t| t.name.clone().filter(|name| !name.is_empty())).collect();
    let ids: BTreeSet<Uuid> =
        asked.iter().filter(|t| t.name.is_none() && !t.topic_id.is_nil()).map(|t| t.topic_id).collect();
    if request.allow_auto_topic_creation && !names.is_empty() {
        auto_create(session, &names).await;
    }
    let cluster_authorized_operations = match request.include_cluster_authorized_operations {
        true => session.cluster_operations(),
        false => i32::MIN,
    };
    session.gateway().view.read(|state| {
        let brokers = brokers(state);
        let show = |topic: &TopicRecord| {
            let allowed = session.allows(Action::Describe { topic: &topic.name });
            allowed.then(|| describe(session, state, &brokers, topic, include_operations))
        };
        let topics = match everything {
            true => state.topics().filter_map(|topic| show(topic)).collect(),
            false => {
                let by_name = names.iter().map(|name| match state.topic_by_name(name) {
                    Some(topic) => show(topic).unwrap_or_else(|| refused(name, code::TOPIC_AUTHORIZATION_FAILED)),
                    None if !session.allows(Action::Describe { topic: name }) => {
                        refused(name, code::TOPIC_AUTHORIZATION_FAILED)
                    }
                    None if !is_legal(name) => refused(name, code::INVALID_TOPIC),
                    None => refused(name, code::UNKNOWN_TOPIC_OR_PARTITION),
                });
                let by_id = ids.iter().map(|id| {
                    let unknown = metadata::Topic {
                        error_code: code::UNKNOWN_TOPIC_ID,
                        // Null is for versions that may have it; ids come in those alone.
                        name: None.or_else(|| (call.version < 12).then(String::new)),
                        topic_id: *id,
                        ..Default::default()
                    };
                    state.topic(TopicId(id.0)).and_then(|topic| show(topic)).unwrap_or(unknown)
                });
                by_name.chain(by_id).collect()
            }
        };
        metadata::Response {
            throttle_time_ms: 0,
            cluster_id: state.cluster().map(|cluster| cluster.id.to_string()),
            controller_id: brokers::controller(&brokers),
            brokers: brokers
                .into_iter()
                .map(|b| metadata::Broker { node_id: b.id, host: b.host, port: b.port, rack: b.rack })
                .collect(),
            topics,
            cluster_authorized_operations,
            error_code: code::NONE,
        }
    })
}

fn refused(name: &str, error_code: i16) -> metadata::Topic {
    metadata::Topic { error_code, name: Some(name.to_owned()), ..Default::default() }
}

fn is_legal(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}

fn describe(
    session: &Session,
    state: &State,
    brokers: &[Broker],
    topic: &TopicRecord,
    include_operations: bool,
) -> metadata::Topic {
    let copies = topic.settings.effective().quorum.write;
    let placed = topic.partitions.iter().zip(0i32..).filter_map(|(id, index)| {
        let Placement { leader, epoch, replicas, in_sync } = placement(state, brokers, state.partition(*id)?, copies);
        Some(metadata::Partition {
            error_code: if leader < 0 { code::LEADER_NOT_AVAILABLE } else { code::NONE },
            partition_index: index,
            leader_id: leader,
            leader_epoch: epoch,
            replica_nodes: replicas,
            isr_nodes: in_sync,
            offline_replicas: Vec::new(),
        })
    });
    metadata::Topic {
        error_code: code::NONE,
        name: Some(topic.name.clone()),
        topic_id: Uuid(topic.id.0),
        is_internal: topic.internal,
        partitions: placed.collect(),
        topic_authorized_operations: match include_operations {
            true => session.topic_operations(&topic.name),
            false => i32::MIN,
        },
    }
}

/// If the cluster says so (`auto.create.topics.enable`). What fails shows as an unknown topic, and the client asks again.
async fn auto_create(session: &Session, names: &BTreeSet<String>) {
    let gateway = session.gateway();
    let missing: Vec<String> = gateway.view.read(|state| {
        let on = state.cluster().is_some_and(|cluster| cluster.auto_create_topics);
        let new = names.iter().filter(|name| on && state.topic_by_name(name).is_none() && is_legal(name));
        new.filter(|name| !name.starts_with("__")).take(AUTO_CREATED_MAX.min(COMMANDS_MAX)).cloned().collect()
    });
    let allowed = missing.into_iter().filter(|name| session.allows(Action::CreateTopic { topic: name }));
    let commands = allowed.filter_map(|name| {
        Some(Command::CreateTopic(CreateTopic {
            id: TopicId::from_random(random().ok()?),
            name,
            partitions: 0,
            replication: None,
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        }))
    });
    let commands: Vec<Command> = commands.collect();
    if commands.is_empty() {
        return;
    }
    if let Err(error) = propose(gateway, commands).await {
        tracing::debug!(reason = error.message, "topics were not created on first use");
    }
}

/// A page of partitions, topics in the order of names.
pub fn partitions(
    session: &Session,
    request: describe_topic_partitions::Request,
) -> describe_topic_partitions::Response {
    use describe_topic_partitions::{Cursor, Partition, Response, Topic};
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_MAX);
    let from = request.cursor.unwrap_or_default();
    let names: BTreeSet<String> = request.topics.into_iter().map(|topic| topic.name).collect();
    session.gateway().view.read(|state| {
        let brokers = brokers(state);
        let names: Vec<&str> = match names.is_empty() {
            true => state.topics().map(|topic| topic.name.as_str()).collect(),
            false => names.iter().map(String::as_str).collect(),
        };
        let (mut topics, mut room, mut next_cursor) = (Vec::new(), limit, None);
        for name in names.into_iter().filter(|name| *name >= from.topic_name.as_str()) {
            if room == 0 {
                next_cursor = Some(Cursor { topic_name: name.to_owned(), partition_index: 0 });
                break;
            }
            let refused = |error_code| Topic { error_code, name: Some(name.to_owned()), ..Default::default() };
            if !session.allows(Action::Describe { topic: name }) {
                topics.push(refused(code::TOPIC_AUTHORIZATION_FAILED));
                continue;
            }
            let Some(record) = state.topic_by_name(name) else {
                topics.push(refused(code::UNKNOWN_TOPIC_OR_PARTITION));
                continue;
            };
            let mut topic = describe(session, state, &brokers, record, true);
            let first = if name == from.topic_name { from.partition_index } else { 0 };
            topic.partitions.retain(|partition| partition.partition_index >= first);
            if topic.partitions.len() > room {
                let partition_index = topic.partitions[room].partition_index;
                next_cursor = Some(Cursor { topic_name: name.to_owned(), partition_index });
                topic.partitions.truncate(room);
            }
            room -= topic.partitions.len();
            let partitions = topic.partitions.into_iter().map(|p| Partition {
                error_code: p.error_code,
                partition_index: p.partition_index,
                leader_id: p.leader_id,
                leader_epoch: p.leader_epoch,
                replica_nodes: p.replica_nodes,
                isr_nodes: p.isr_nodes,
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                offline_replicas: Vec::new(),
            });
            topics.push(Topic {
                error_code: code::NONE,
                name: topic.name,
                topic_id: topic.topic_id,
                is_internal: topic.is_internal,
                partitions: partitions.collect(),
                topic_authorized_operations: topic.topic_authorized_operations,
            });
            if next_cursor.is_some() {
                break;
            }
        }
        Response { throttle_time_ms: 0, topics, next_cursor }
    })
}
