//! Members of classic groups: find the coordinator, join, sync, live, leave.

use esker_gateway_core::groups::{self as core, Identity};
use esker_kafka::{code, find_coordinator, heartbeat, join_group, leave_group, sync_group};
use esker_types::ErrorCode;

use super::{duration, error_code, fresh, may_read, may_see};
use crate::kafka::brokers::{Broker, broker_id, brokers};
use crate::kafka::session::{Call, Session};

/// The only kind of coordinator that there is.
const GROUP: i8 = 0;

pub async fn coordinators(
    session: &Session,
    call: &Call,
    request: find_coordinator::Request,
) -> find_coordinator::Response {
    let keys = if call.version >= 4 { request.coordinator_keys } else { vec![request.key] };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let coordinator = match request.key_type {
            GROUP if may_see(session, &key) => coordinator(session, &key).await,
            GROUP => Err(code::GROUP_AUTHORIZATION_FAILED),
            _ => Err(code::INVALID_REQUEST),
        };
        found.push(match coordinator {
            Ok(broker) => find_coordinator::Coordinator {
                key,
                node_id: broker.id,
                host: broker.host,
                port: broker.port,
                error_code: code::NONE,
                error_message: None,
            },
            Err(error_code) => find_coordinator::Coordinator {
                key,
                node_id: -1,
                host: String::new(),
                port: -1,
                error_code,
                error_message: None,
            },
        });
    }
    if call.version >= 4 {
        return find_coordinator::Response { coordinators: found, ..Default::default() };
    }
    let only = found.pop().unwrap_or_default();
    find_coordinator::Response {
        error_code: only.error_code,
        error_message: None,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

async fn coordinator(session: &Session, group: &str) -> Result<Broker, i16> {
    let gateway = session.door.groups.coordinator_of(group).await.map_err(ErrorCode::kafka)?;
    let id = broker_id(gateway);
    let broker = session.gateway().view.read(|state| brokers(state).into_iter().find(|broker| broker.id == id));
    broker.ok_or(code::COORDINATOR_NOT_AVAILABLE)
}

pub async fn join(session: &Session, call: &Call, request: join_group::Request) -> join_group::Response {
    let refused = |error_code, member_id| join_group::Response { error_code, member_id, ..Default::default() };
    if !may_read(session, &request.group_id) {
        return refused(code::GROUP_AUTHORIZATION_FAILED, request.member_id);
    }
    let Some(fresh) = fresh() else { return refused(code::COORDINATOR_NOT_AVAILABLE, request.member_id) };
    let session_timeout = duration(request.session_timeout_ms);
    let join = core::Join {
        group: request.group_id,
        who: Identity { member: request.member_id, instance: request.group_instance_id },
        client_id: call.client_id.clone(),
        client_host: session.client_host(),
        session_timeout,
        // Version 0 has one time for both.
        rebalance_timeout: if call.version >= 1 { duration(request.rebalance_timeout_ms) } else { session_timeout },
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|protocol| (protocol.name, protocol.metadata)).collect(),
        knows_member_ids: call.version >= 4,
        knows_skip: call.version >= 9,
        fresh,
    };
    match session.door.groups.call(core::Request::Join(join)).await {
        core::Response::Join(Ok(joined)) => join_group::Response {
            generation_id: joined.generation,
            protocol_type: Some(joined.protocol_type),
            protocol_name: Some(joined.protocol),
            leader: joined.leader,
            skip_assignment: joined.skip_assignment,
            member_id: joined.member,
            members: joined
                .members
                .into_iter()
                .map(|member| join_group::Member {
                    member_id: member.who.member,
                    group_instance_id: member.who.instance,
                    metadata: member.metadata,
                })
                .collect(),
            ..Default::default()
        },
        core::Response::Join(Err(refusal)) => refused(refusal.code.kafka(), refusal.member),
        _ => refused(code::UNKNOWN_SERVER_ERROR, String::new()),
    }
}

pub async fn sync(session: &Session, request: sync_group::Request) -> sync_group::Response {
    let refused = |error_code| sync_group::Response { error_code, ..Default::default() };
    if !may_read(session, &request.group_id) {
        return refused(code::GROUP_AUTHORIZATION_FAILED);
    }
    let sync = core::SyncGroup {
        group: request.group_id,
        who: Identity { member: request.member_id, instance: request.group_instance_id },
        generation: request.generation_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect(),
    };
    match session.door.groups.call(core::Request::Sync(sync)).await {
        core::Response::Sync(Ok(synced)) => sync_group::Response {
            protocol_type: Some(synced.protocol_type),
            protocol_name: Some(synced.protocol),
            assignment: synced.assignment,
            ..Default::default()
        },
        core::Response::Sync(Err(error)) => refused(error.kafka()),
        _ => refused(code::UNKNOWN_SERVER_ERROR),
    }
}

pub async fn heartbeat(session: &Session, request: heartbeat::Request) -> heartbeat::Response {
    if !may_read(session, &request.group_id) {
        return heartbeat::Response { error_code: code::GROUP_AUTHORIZATION_FAILED, ..Default::default() };
    }
    let beat = core::Heartbeat {
        group: request.group_id,
        who: Identity { member: request.member_id, instance: request.group_instance_id },
        generation: request.generation_id,
    };
    let error_code = match session.door.groups.call(core::Request::Heartbeat(beat)).await {
        core::Response::Heartbeat(outcome) => error_code(&outcome),
        _ => code::UNKNOWN_SERVER_ERROR,
    };
    heartbeat::Response { throttle_time_ms: 0, error_code }
}

pub async fn leave(session: &Session, call: &Call, request: leave_group::Request) -> leave_group::Response {
    let refused = |error_code| leave_group::Response { error_code, ..Default::default() };
    if !may_read(session, &request.group_id) {
        return refused(code::GROUP_AUTHORIZATION_FAILED);
    }
    let members: Vec<Identity> = match call.version >= 3 {
        true => {
            let named = request.members.into_iter();
            named.map(|m| Identity { member: m.member_id, instance: m.group_instance_id }).collect()
        }
        false => vec![Identity { member: request.member_id, instance: None }],
    };
    let leave = core::Leave { group: request.group_id, members: members.clone() };
    match session.door.groups.call(core::Request::Leave(leave)).await {
        core::Response::Leave(Ok(outcomes)) if call.version < 3 => {
            refused(outcomes.first().map_or(code::NONE, error_code))
        }
        core::Response::Leave(Ok(outcomes)) => leave_group::Response {
            members: members
                .into_iter()
                .zip(&outcomes)
                .map(|(who, outcome)| leave_group::Member {
                    member_id: who.member,
                    group_instance_id: who.instance,
                    error_code: error_code(outcome),
                })
                .collect(),
            ..Default::default()
        },
        core::Response::Leave(Err(error)) => refused(error.kafka()),
        _ => refused(code::UNKNOWN_SERVER_ERROR),
    }
}
