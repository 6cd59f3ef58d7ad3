//! Consumer groups, as their coordinator knows them. What tools ask here is what they ask over the Kafka door.

use esker_gateway_core::groups::{self as core, Identity};
use esker_kafka::member_assignment;
use esker_types::ErrorCode;
use esker_types::error::ErrorInfo;
use esker_wire::native::{
    ASSIGNED_MAX, AssignedTopic, CommittedOffset, DescribeGroup, DescribedGroup, Done, GroupInfo, GroupMember,
    ListGroups, ListedGroups, ResetOffsets,
};

use super::allow;
use crate::auth::Action;
use crate::door::Client;

/// What one answer holds, about: far below what a client takes in one frame.
const ANSWER_BYTES: usize = 512 << 10;
/// Bytes of an item beside its texts.
const ITEM_BYTES: usize = 32;

pub async fn list(client: &Client, request: ListGroups) -> Result<ListedGroups, ErrorInfo> {
    // The index of a partition of the internal topic stands for its coordinator.
    let listed = client.groups.list_one(request.partition).await.map_err(|code| match code {
        ErrorCode::NotCoordinator => client.groups.not_here(request.partition),
        code => refused(code, &format!("coordinator {}", request.partition)),
    })?;
    let seen = listed.into_iter().filter(|group| {
        group.group > request.after
            && client.gateway.allows(&client.principal, Action::DescribeGroup { group: &group.group })
    });
    let mut room = ANSWER_BYTES;
    let mut answer = ListedGroups::default();
    for group in seen {
        if !take(&mut room, group.group.len() + group.protocol_type.len()) {
            answer.more = true;
            break;
        }
        answer.groups.push(GroupInfo {
            name: group.group,
            state: group.state.to_owned(),
            kind: group.kind.to_owned(),
            protocol_type: group.protocol_type,
        });
    }
    Ok(answer)
}

pub async fn describe(client: &Client, request: DescribeGroup) -> Result<DescribedGroup, ErrorInfo> {
    let name = &request.group;
    allow(client, Action::DescribeGroup { group: name })?;
    let (group, assignor, mut members) = match call(client, consumer_describe(name)).await? {
        core::Response::ConsumerDescribe(Ok(described)) => of_consumer(name, described),
        // Not of that kind, if it is there at all.
        core::Response::ConsumerDescribe(Err(ErrorCode::UnknownGroup)) => {
            match call(client, core::Request::Describe { group: name.clone() }).await? {
                core::Response::Describe(described) => of_classic(described)?,
                _ => return Err(unexpected()),
            }
        }
        core::Response::ConsumerDescribe(Err(code)) => return Err(refused(code, &format!("group {name:?}"))),
        _ => return Err(unexpected()),
    };
    let fetch = core::Fetch { group: name.clone(), member: None, partitions: None };
    let offsets = match call(client, core::Request::Fetch(fetch)).await? {
        core::Response::Fetch(Ok(offsets)) => offsets,
        core::Response::Fetch(Err(code)) => return Err(refused(code, &format!("group {name:?}"))),
        _ => return Err(unexpected()),
    };
    if group.state == DEAD && offsets.is_empty() {
        return Err(unknown(name));
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(page(&request, DescribedGroup { group: Some(group), assignor, members, ..Default::default() }, offsets))
}

/// What a group that is not there is in, for Kafka.
const DEAD: &str = "Dead";

fn consumer_describe(group: &str) -> core::Request {
    core::Request::ConsumerDescribe { group: group.to_owned() }
}

fn of_consumer(name: &str, described: core::ConsumerDescribed) -> (GroupInfo, String, Vec<GroupMember>) {
    let members = described.members.into_iter().map(|member| {
        let assigned = member.assigned.into_iter().map(|(_, topic, held)| (topic, held));
        shown(member.who, member.client_id, member.client_host, assigned.collect())
    });
    let group = GroupInfo {
        name: name.to_owned(),
        state: described.state.to_owned(),
        kind: "consumer".to_owned(),
        protocol_type: "consumer".to_owned(),
    };
    (group, described.assignor, members.collect())
}

fn of_classic(described: core::Described) -> Result<(GroupInfo, String, Vec<GroupMember>), ErrorInfo> {
    if let Some(code) = described.error.filter(|code| *code != ErrorCode::UnknownGroup) {
        return Err(refused(code, &format!("group {:?}", described.group)));
    }
    // Members of other kinds assign in forms that only they know.
    let consumers = described.protocol_type == "consumer";
    let members = described.members.into_iter().map(|member| {
        let assigned = match consumers {
            true => member_assignment(member.assignment).unwrap_or_default(),
            false => Vec::new(),
        };
        shown(member.who, member.client_id, member.client_host, assigned)
    });
    let members = members.collect();
    let group = GroupInfo {
        name: described.group,
        state: described.state.to_owned(),
        kind: "classic".to_owned(),
        protocol_type: described.protocol_type,
    };
    Ok((group, described.protocol, members))
}

fn shown(who: Identity, client_id: String, host: String, assigned: Vec<(String, Vec<i32>)>) -> GroupMember {
    let count = assigned.iter().map(|(_, held)| held.len()).sum::<usize>();
    let mut room = ASSIGNED_MAX;
    let listed = assigned.into_iter().map_while(|(topic, mut partitions)| {
        partitions.truncate(room);
        room -= partitions.len();
        (!partitions.is_empty()).then_some(AssignedTopic { topic, partitions })
    });
    GroupMember {
        id: who.member,
        instance: who.instance,
        client_id,
        host,
        assigned: listed.collect(),
        assigned_count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// As much as one answer holds of what lies behind the places that the request names.
fn page(request: &DescribeGroup, mut whole: DescribedGroup, offsets: Vec<core::Fetched>) -> DescribedGroup {
    let mut room = ANSWER_BYTES;
    let members = std::mem::take(&mut whole.members);
    for member in members.into_iter().filter(|member| member.id > request.after_member) {
        let assigned = member.assigned.iter().map(|held| held.topic.len() + 5 * held.partitions.len()).sum::<usize>();
        if !take(&mut room, member.id.len() + member.client_id.len() + member.host.len() + assigned) {
            whole.more = true;
            return whole;
        }
        whole.members.push(member);
    }
    let after = request.after_offset.as_ref().map(|at| (at.topic.as_str(), at.partition));
    for found in offsets.into_iter().filter(|at| after.is_none_or(|after| (at.topic.as_str(), at.partition) > after)) {
        if !take(&mut room, found.topic.len() + found.metadata.len()) {
            whole.more = true;
            return whole;
        }
        whole.offsets.push(CommittedOffset {
            topic: found.topic,
            partition: found.partition,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
            metadata: found.metadata,
        });
    }
    whole
}

/// Takes an item's room. One always fits into an answer that has nothing yet.
fn take(room: &mut usize, texts: usize) -> bool {
    let fits = *room == ANSWER_BYTES || *room >= texts + ITEM_BYTES;
    *room = room.saturating_sub(texts + ITEM_BYTES);
    fits
}

pub async fn reset_offsets(client: &Client, request: ResetOffsets) -> Result<Done, ErrorInfo> {
    allow(client, Action::ReadGroup { group: &request.group })?;
    let subject = format!("group {:?}", request.group);
    if let Some(bad) = request.offsets.iter().find(|at| at.offset < 0) {
        let message = format!("offset {} of {}/{}: offsets begin at 0", bad.offset, bad.topic, bad.partition);
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, message));
    }
    // Before anything is stored: a commit stores the good ones of its partitions.
    let known = |at: &&CommittedOffset| {
        client.gateway.view.read(|state| {
            let topic = state.topic_by_name(&at.topic);
            usize::try_from(at.partition).ok().zip(topic).is_some_and(|(index, topic)| index < topic.partitions.len())
        })
    };
    if let Some(bad) = request.offsets.iter().find(|at| !known(at)) {
        let message = format!("there is no partition {}/{}", bad.topic, bad.partition);
        return Err(ErrorInfo::new(ErrorCode::UnknownPartition, message));
    }
    let offsets = request.offsets.into_iter().map(|at| core::CommitOffset {
        topic: at.topic,
        partition: at.partition,
        offset: at.offset,
        leader_epoch: at.leader_epoch,
        metadata: at.metadata,
    });
    let commit = core::Commit {
        group: request.group.clone(),
        who: Identity::default(),
        generation: -1,
        knows_epochs: true,
        retention: None,
        offsets: offsets.collect(),
    };
    if commit.offsets.is_empty() {
        return Err(ErrorInfo::new(ErrorCode::InvalidRequest, "the request names no offsets"));
    }
    // Makes the internal topic if there is none yet.
    let coordinator = client.groups.coordinator_of(&request.group).await;
    coordinator.map_err(|code| refused(code, &subject))?;
    let outcomes = match call(client, core::Request::Commit(commit)).await? {
        core::Response::Commit(outcomes) => outcomes,
        _ => return Err(unexpected()),
    };
    match outcomes.into_iter().find_map(Result::err) {
        None => Ok(Done { revision: client.gateway.view.revision() }),
        // A commit of somebody who is no member: there are members.
        Some(ErrorCode::UnknownMember) => {
            let message = format!("{subject} has members: stop them, or wait for their sessions to end, and try again");
            Err(ErrorInfo::new(ErrorCode::GroupNotEmpty, message))
        }
        Some(code) => Err(refused(code, &subject)),
    }
}

/// Asks the coordinator, which must be here.
async fn call(client: &Client, request: core::Request) -> Result<core::Response, ErrorInfo> {
    let group = request.group().unwrap_or_default().to_owned();
    let response = client.groups.call(request).await;
    match response.refusal() {
        Some(ErrorCode::NotCoordinator) => Err(client.groups.not_here(client.groups.index_of(&group).unwrap_or(0))),
        Some(ErrorCode::CoordinatorUnavailable) if client.groups.index_of(&group).is_none() => Err(unknown(&group)),
        Some(code @ (ErrorCode::CoordinatorLoading | ErrorCode::CoordinatorUnavailable)) => {
            Err(refused(code, &format!("group {group:?}")))
        }
        _ => Ok(response),
    }
}

fn refused(code: ErrorCode, subject: &str) -> ErrorInfo {
    let why = match code {
        ErrorCode::CoordinatorLoading => "its coordinator is reading its state: try again",
        ErrorCode::CoordinatorUnavailable => "its coordinator can't serve it now: try again",
        ErrorCode::UnknownPartition => "the cluster has no such coordinator",
        ErrorCode::InvalidGroupId => "a group's name can't be empty",
        ErrorCode::OffsetMetadataTooLarge => "the metadata of an offset is too large",
        _ => "refused",
    };
    ErrorInfo::new(code, format!("{subject}: {why}"))
}

fn unknown(group: &str) -> ErrorInfo {
    let message = format!("there is no group {group:?}; `esker group list` shows those that there are");
    ErrorInfo::new(ErrorCode::UnknownGroup, message)
}

fn unexpected() -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Internal, "the coordinator answered with something else")
}
