//! Group APIs through the Kafka door. What coordinators decide is tested with them; here is what goes over the wire.

use bytes::Bytes;
use esker_kafka::{
    Request, Response, code, delete_groups, describe_groups, find_coordinator, heartbeat, join_group, leave_group,
    list_groups, offset_commit, offset_fetch, sync_group,
};
use esker_types::Quorum;

use crate::kafka_client::{Kafka, address};
use crate::world::World;

async fn world() -> World {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    let change = |config: &mut esker_gateway::Config| {
        config.kafka.listen = "127.0.0.1:0".to_owned();
        // Each group here has one member: there is nobody to wait for.
        config.groups.initial_rebalance_delay = "0s".parse().expect("an interval");
    };
    world.start_gateway_with("gateway-1", change).await;
    world
}

macro_rules! ask {
    ($kafka:expr, $version:expr, $api:ident, $request:expr) => {
        match $kafka.ask($version, Request::$api($request)).await {
            Response::$api(answer) => answer,
            _ => panic!("another answer"),
        }
    };
}

/// Asks until the group's coordinator has read its log.
pub async fn coordinator(kafka: &mut Kafka, version: i16, group: &str) -> i32 {
    loop {
        let request =
            find_coordinator::Request { key: group.to_owned(), coordinator_keys: vec![group.to_owned()], key_type: 0 };
        let answer = ask!(kafka, version, FindCoordinator, request);
        let (error_code, port) = match version >= 4 {
            true => (answer.coordinators[0].error_code, answer.coordinators[0].port),
            false => (answer.error_code, answer.port),
        };
        match error_code {
            code::NONE => return port,
            code::COORDINATOR_NOT_AVAILABLE | code::COORDINATOR_LOAD_IN_PROGRESS => tokio::task::yield_now().await,
            other => panic!("error {other}"),
        }
    }
}

/// A group with one member; its member id and generation.
pub async fn joined(kafka: &mut Kafka, version: i16, group: &str) -> (String, i32) {
    let mut member_id = String::new();
    loop {
        let request = join_group::Request {
            group_id: group.to_owned(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            member_id: member_id.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![join_group::Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"me") }],
            ..Default::default()
        };
        let answer = ask!(kafka, version, JoinGroup, request);
        match answer.error_code {
            code::NONE => {
                assert_eq!((answer.leader.as_str(), answer.members.len()), (answer.member_id.as_str(), 1));
                assert_eq!(answer.members[0].metadata, "me");
                return (answer.member_id, answer.generation_id);
            }
            code::MEMBER_ID_REQUIRED => {
                assert!(version >= 4, "older clients do not know that word");
                member_id = answer.member_id;
            }
            // The owner is named before it has taken the partition up.
            code::COORDINATOR_LOAD_IN_PROGRESS | code::NOT_COORDINATOR => tokio::task::yield_now().await,
            other => panic!("error {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_lives_in_every_version() {
    let world = world().await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("topic", 2, &[]).await;
    let port = i32::from(address(&world, "gateway-1").port());
    for version in 0..=9i16 {
        let group = format!("group-{version}");
        assert_eq!(coordinator(&mut kafka, version.min(4), &group).await, port);
        let (member_id, generation_id) = joined(&mut kafka, version, &group).await;
        let assignment =
            sync_group::Assignment { member_id: member_id.clone(), assignment: Bytes::from_static(b"yours") };
        let request = sync_group::Request {
            group_id: group.clone(),
            generation_id,
            member_id: member_id.clone(),
            assignments: vec![assignment],
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            ..Default::default()
        };
        let synced = ask!(kafka, version.min(5), SyncGroup, request);
        assert_eq!((synced.error_code, &synced.assignment[..]), (code::NONE, &b"yours"[..]));
        let request = heartbeat::Request {
            group_id: group.clone(),
            generation_id,
            member_id: member_id.clone(),
            group_instance_id: None,
        };
        assert_eq!(ask!(kafka, version.min(4), Heartbeat, request).error_code, code::NONE);

        let partition = |partition_index| offset_commit::RequestPartition {
            partition_index,
            committed_offset: 40 + i64::from(partition_index),
            committed_metadata: Some("bytes ünchanged".to_owned()),
            ..Default::default()
        };
        let topic =
            offset_commit::RequestTopic { name: "topic".to_owned(), partitions: vec![partition(1), partition(7)] };
        let request = offset_commit::Request {
            group_id: group.clone(),
            generation_id_or_member_epoch: generation_id,
            member_id: member_id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        let committed = ask!(kafka, version.clamp(2, 9), OffsetCommit, request);
        let codes: Vec<i16> = committed.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [code::NONE, code::UNKNOWN_TOPIC_OR_PARTITION]);

        let fetch_version = version.clamp(1, 9);
        let topic = offset_fetch::RequestTopic { name: "topic".to_owned(), partition_indexes: vec![1, 0] };
        let topics = Some(vec![topic]);
        let one = offset_fetch::RequestGroup { group_id: group.clone(), topics: topics.clone(), ..Default::default() };
        let request =
            offset_fetch::Request { group_id: group.clone(), topics, groups: vec![one], require_stable: false };
        let mut fetched = ask!(kafka, fetch_version, OffsetFetch, request);
        let mut topics = match fetch_version >= 8 {
            true => fetched.groups.remove(0).topics,
            false => fetched.topics,
        };
        let found = topics.remove(0).partitions.into_iter().map(|p| {
            assert_eq!(p.error_code, code::NONE);
            (p.partition_index, p.committed_offset, p.metadata.unwrap_or_default())
        });
        assert_eq!(found.collect::<Vec<_>>(), [(1, 41, "bytes ünchanged".to_owned()), (0, -1, String::new())]);

        let request = describe_groups::Request { groups: vec![group.clone()], include_authorized_operations: true };
        let described = ask!(kafka, version.min(5), DescribeGroups, request);
        let shown = &described.groups[0];
        assert_eq!((shown.group_state.as_str(), shown.protocol_data.as_str()), ("Stable", "range"));
        assert_eq!(
            (shown.members[0].client_id.as_str(), shown.members[0].client_host.as_str()),
            ("test", "/127.0.0.1")
        );

        let leaving = leave_group::RequestMember { member_id: member_id.clone(), ..Default::default() };
        let request = leave_group::Request { group_id: group.clone(), member_id, members: vec![leaving] };
        let left = ask!(kafka, version.min(5), LeaveGroup, request);
        assert_eq!(left.error_code, code::NONE);
        assert!(left.members.iter().all(|member| member.error_code == code::NONE));
    }
    let listed = loop {
        let listed = ask!(kafka, 5, ListGroups, list_groups::Request::default());
        match listed.error_code {
            // Coordinators without groups may still read their logs: a list with holes is not given.
            code::COORDINATOR_LOAD_IN_PROGRESS => tokio::task::yield_now().await,
            _ => break listed,
        }
    };
    assert_eq!(listed.error_code, code::NONE);
    assert_eq!(listed.groups.len(), 10);
    assert!(listed.groups.iter().all(|group| group.group_state == "Empty"), "{listed:?}");
    let request = delete_groups::Request { groups_names: vec!["group-1".to_owned(), "nobody".to_owned()] };
    let deleted = ask!(kafka, 2, DeleteGroups, request);
    let codes: Vec<i16> = deleted.results.iter().map(|group| group.error_code).collect();
    assert_eq!(codes, [code::NONE, code::GROUP_ID_NOT_FOUND]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_group_has_no_offsets_and_no_error() {
    let world = world().await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("topic", 1, &[]).await;
    coordinator(&mut kafka, 2, "never-seen").await;
    let found = loop {
        let topic = offset_fetch::RequestTopic { name: "topic".to_owned(), partition_indexes: vec![0] };
        let request = offset_fetch::Request {
            group_id: "never-seen".to_owned(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let answer = ask!(kafka, 5, OffsetFetch, request);
        match answer.error_code {
            // Not loaded: that is said, and never taken for "nothing was committed".
            code::COORDINATOR_LOAD_IN_PROGRESS | code::NOT_COORDINATOR => tokio::task::yield_now().await,
            _ => break answer,
        }
    };
    assert_eq!(found.error_code, code::NONE);
    let partition = &found.topics[0].partitions[0];
    assert_eq!((partition.committed_offset, partition.error_code), (-1, code::NONE));
}
