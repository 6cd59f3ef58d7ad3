//! Groups of the new consumer protocol (KIP-848).

use std::collections::BTreeSet;

use esker_gateway_core::groups::{self as core, Identity};
use esker_kafka::{Uuid, bounded, code, consumer_group_describe as describe_api, consumer_group_heartbeat as api};
use esker_types::TopicId;

use super::{duration, fresh, may_read, may_see};
use crate::kafka::session::{Call, Session};

pub async fn heartbeat(session: &Session, call: &Call, request: api::Request) -> api::Response {
    let refused = |error_code, message: &str| api::Response {
        error_code,
        error_message: Some(bounded(message)),
        ..Default::default()
    };
    if !may_read(session, &request.group_id) {
        return refused(code::GROUP_AUTHORIZATION_FAILED, "not allowed on this group");
    }
    // Clients of later versions choose their ids, so that a heartbeat whose answer was lost can be sent again.
    if call.version >= 1 && request.member_id.is_empty() {
        return refused(code::INVALID_REQUEST, "the member id may not be empty");
    }
    let Some(fresh) = fresh() else { return refused(code::COORDINATOR_NOT_AVAILABLE, "no random numbers") };
    let owned = request.topic_partitions.map(|owned| {
        let mut by_topic = core::Partitions::new();
        for topic in owned {
            by_topic.entry(TopicId(topic.topic_id.0)).or_default().extend(topic.partitions);
        }
        by_topic
    });
    let beat = core::ConsumerHeartbeat {
        group: request.group_id,
        who: Identity { member: request.member_id, instance: request.instance_id },
        epoch: request.member_epoch,
        rack: request.rack_id,
        client_id: call.client_id.clone(),
        client_host: session.client_host(),
        rebalance_timeout: (request.rebalance_timeout_ms >= 0).then(|| duration(request.rebalance_timeout_ms)),
        topics: request.subscribed_topic_names,
        regex: request.subscribed_topic_regex,
        assignor: request.server_assignor,
        owned,
        fresh,
    };
    match session.door.groups.call(core::Request::ConsumerHeartbeat(beat)).await {
        core::Response::ConsumerHeartbeat(Ok(answer)) => api::Response {
            member_id: Some(answer.member),
            member_epoch: answer.epoch,
            heartbeat_interval_ms: i32::try_from(answer.heartbeat_interval.as_millis()).unwrap_or(i32::MAX),
            assignment: answer.assignment.map(|assigned| api::Assignment {
                topic_partitions: assigned
                    .into_iter()
                    .map(|(topic, partitions)| api::TopicPartitions { topic_id: Uuid(topic.0), partitions })
                    .collect(),
            }),
            ..Default::default()
        },
        core::Response::ConsumerHeartbeat(Err(refusal)) => refused(refusal.code.kafka(), &refusal.message),
        _ => refused(code::UNKNOWN_SERVER_ERROR, "the coordinator answered with something else"),
    }
}

pub async fn describe(session: &Session, request: describe_api::Request) -> describe_api::Response {
    let mut groups = Vec::new();
    for group in request.group_ids.into_iter().collect::<BTreeSet<_>>() {
        let error_code = match may_see(session, &group) {
            false => code::GROUP_AUTHORIZATION_FAILED,
            true => match session.door.groups.call(core::Request::ConsumerDescribe { group: group.clone() }).await {
                core::Response::ConsumerDescribe(Ok(described)) => {
                    let operations =
                        if request.include_authorized_operations { session.group_operations(&group) } else { i32::MIN };
                    groups.push(shown(group, described, operations));
                    continue;
                }
                core::Response::ConsumerDescribe(Err(error)) => error.kafka(),
                _ => code::UNKNOWN_SERVER_ERROR,
            },
        };
        groups.push(describe_api::Group { error_code, group_id: group, ..Default::default() });
    }
    describe_api::Response { throttle_time_ms: 0, groups }
}

fn shown(group: String, described: core::ConsumerDescribed, authorized_operations: i32) -> describe_api::Group {
    let members = described.members.into_iter().map(|member| describe_api::Member {
        member_id: member.who.member,
        instance_id: member.who.instance,
        rack_id: member.rack,
        member_epoch: member.epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.topics,
        subscribed_topic_regex: member.regex,
        assignment: assignment(member.assigned),
        target_assignment: assignment(member.target),
        // Of the consumer protocol; classic members don't come into such groups.
        member_type: 1,
    });
    describe_api::Group {
        error_code: code::NONE,
        error_message: None,
        group_id: group,
        group_state: described.state.to_owned(),
        group_epoch: described.epoch,
        assignment_epoch: described.assignment_epoch,
        assignor_name: described.assignor,
        members: members.collect(),
        authorized_operations,
    }
}

fn assignment(topics: Vec<(TopicId, String, Vec<i32>)>) -> describe_api::Assignment {
    let each = topics.into_iter().map(|(topic, topic_name, partitions)| describe_api::TopicPartitions {
        topic_id: Uuid(topic.0),
        topic_name,
        partitions,
    });
    describe_api::Assignment { topic_partitions: each.collect() }
}
