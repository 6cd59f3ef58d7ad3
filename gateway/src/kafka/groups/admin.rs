//! Groups as tools see them.

use std::collections::BTreeSet;

use esker_gateway_core::groups as core;
use esker_kafka::{code, delete_groups, describe_groups, list_groups};

use super::{error_code, may_see};
use crate::auth::Action;
use crate::kafka::session::Session;

pub async fn describe(session: &Session, request: describe_groups::Request) -> describe_groups::Response {
    let mut groups = Vec::new();
    // Each once, however often it was named.
    for group in request.groups.into_iter().collect::<BTreeSet<_>>() {
        let described = match may_see(session, &group) {
            true => session.door.groups.call(core::Request::Describe { group: group.clone() }).await,
            false => {
                let error_code = code::GROUP_AUTHORIZATION_FAILED;
                groups.push(describe_groups::Group { error_code, group_id: group, ..Default::default() });
                continue;
            }
        };
        let operations =
            if request.include_authorized_operations { session.group_operations(&group) } else { i32::MIN };
        groups.push(match described {
            core::Response::Describe(described) => shown(described, operations),
            _ => {
                let error_code = code::UNKNOWN_SERVER_ERROR;
                describe_groups::Group { error_code, group_id: group, ..Default::default() }
            }
        });
    }
    describe_groups::Response { throttle_time_ms: 0, groups }
}

fn shown(described: core::Described, authorized_operations: i32) -> describe_groups::Group {
    let members = described.members.into_iter().map(|member| describe_groups::Member {
        member_id: member.who.member,
        group_instance_id: member.who.instance,
        client_id: member.client_id,
        client_host: member.client_host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    describe_groups::Group {
        error_code: described.error.map_or(code::NONE, |error| error.kafka()),
        group_id: described.group,
        group_state: described.state.to_owned(),
        protocol_type: described.protocol_type,
        protocol_data: described.protocol,
        members: members.collect(),
        authorized_operations,
    }
}

/// The groups that this gateway coordinates: tools ask every broker.
pub async fn list(session: &Session, request: list_groups::Request) -> list_groups::Response {
    let filter = core::List { states: request.states_filter, types: request.types_filter };
    match session.door.groups.list(&filter).await {
        Ok(listed) => {
            let seen = listed.into_iter().filter(|group| may_see(session, &group.group));
            let groups = seen.map(|group| list_groups::Group {
                group_id: group.group,
                protocol_type: group.protocol_type,
                group_state: group.state.to_owned(),
                group_type: group.kind.to_owned(),
            });
            list_groups::Response { groups: groups.collect(), ..Default::default() }
        }
        Err(error) => list_groups::Response { error_code: error.kafka(), ..Default::default() },
    }
}

pub async fn delete(session: &Session, request: delete_groups::Request) -> delete_groups::Response {
    let mut results = Vec::new();
    for group in request.groups_names.into_iter().collect::<BTreeSet<_>>() {
        let error_code = match session.allows(Action::DeleteGroup { group: &group }) {
            false => code::GROUP_AUTHORIZATION_FAILED,
            true => match session.door.groups.call(core::Request::Delete { group: group.clone() }).await {
                core::Response::Delete(outcome) => error_code(&outcome),
                _ => code::UNKNOWN_SERVER_ERROR,
            },
        };
        results.push(delete_groups::Group { group_id: group, error_code });
    }
    delete_groups::Response { throttle_time_ms: 0, results }
}
