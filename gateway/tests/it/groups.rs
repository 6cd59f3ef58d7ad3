//! Consumer groups as tools see them through the native door: found at whichever gateway coordinates them.

use bytes::Bytes;
use esker_client::native::CommittedOffset;
use esker_client::{Admin, ErrorCode};
use esker_kafka::{Request, Response, code, leave_group, sync_group};
use esker_types::Quorum;

use crate::kafka_client::Kafka;
use crate::kafka_group_wire::{coordinator, joined};
use crate::world::{World, within};

async fn world() -> (World, Admin) {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    for name in ["gateway-1", "gateway-2"] {
        let change = |config: &mut esker_gateway::Config| {
            config.kafka.listen = "127.0.0.1:0".to_owned();
            config.groups.initial_rebalance_delay = "0s".parse().expect("an interval");
        };
        world.start_gateway_with(name, change).await;
    }
    let admin = world.client(&["gateway-1"]).await.admin();
    (world, admin)
}

fn at(topic: &str, partition: i32, offset: i64) -> CommittedOffset {
    CommittedOffset { topic: topic.to_owned(), partition, offset, leader_epoch: -1, metadata: String::new() }
}

async fn offsets(admin: &Admin, group: &str) -> Vec<(String, i32, i64)> {
    let described = within(admin.describe_group(group)).await.expect("it is there");
    described.offsets.into_iter().map(|at| (at.topic, at.partition, at.offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_reset_and_found_wherever_they_are_coordinated() {
    let (_world, admin) = world().await;
    admin.create_topic("topic", 3, &[]).await.expect("made");
    assert!(within(admin.list_groups()).await.expect("listed").is_empty(), "before there is any coordinator");
    let unknown = within(admin.describe_group("g0")).await.expect_err("nobody has heard of it");
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownGroup), "{unknown}");

    // So many that both gateways coordinate some.
    let names: Vec<String> = (0..20).map(|n| format!("g{n:02}")).collect();
    for (name, offset) in names.iter().zip(0..) {
        let wanted = vec![at("topic", 2, offset), at("topic", 0, 7)];
        within(admin.reset_offsets(name, wanted)).await.expect("set");
    }
    let listed = within(admin.list_groups()).await.expect("listed");
    assert_eq!(listed.iter().map(|group| group.name.clone()).collect::<Vec<_>>(), names);
    assert!(listed.iter().all(|group| group.state == "Empty"), "{listed:?}");
    for (name, offset) in names.iter().zip(0..) {
        let expected = [("topic".to_owned(), 0, 7), ("topic".to_owned(), 2, offset)];
        assert_eq!(offsets(&admin, name).await, expected);
    }
    let unknown = within(admin.describe_group("nobody")).await.expect_err("not there");
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownGroup), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_all_or_nothing() {
    let (_world, admin) = world().await;
    admin.create_topic("topic", 1, &[]).await.expect("made");
    within(admin.reset_offsets("g", vec![at("topic", 0, 5)])).await.expect("set");
    for bad in [at("topic", 1, 5), at("elsewhere", 0, 5), at("topic", -1, 5), at("topic", 0, -2)] {
        let refusal = within(admin.reset_offsets("g", vec![at("topic", 0, 9), bad])).await.expect_err("refused");
        let code = refusal.code();
        assert!(matches!(code, Some(ErrorCode::UnknownPartition | ErrorCode::InvalidRequest)), "{refusal}");
    }
    assert!(within(admin.reset_offsets("g", Vec::new())).await.is_err(), "nothing to do is a mistake");
    assert_eq!(offsets(&admin, "g").await, [("topic".to_owned(), 0, 5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_members_shows_them_and_is_not_reset() {
    let (world, admin) = world().await;
    admin.create_topic("topic", 2, &[]).await.expect("made");
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    let port = coordinator(&mut kafka, 2, "busy").await;
    let mut kafka = Kafka::to(([127, 0, 0, 1], u16::try_from(port).expect("a port")).into()).await;
    let (member_id, generation_id) = joined(&mut kafka, 5, "busy").await;
    // Version 0: topic "topic" with partitions 1 and 0.
    let assignment = Bytes::from_static(b"\0\0\0\0\0\x01\0\x05topic\0\0\0\x02\0\0\0\x01\0\0\0\0\xff\xff\xff\xff");
    let assigned = sync_group::Assignment { member_id: member_id.clone(), assignment };
    let request = sync_group::Request {
        group_id: "busy".to_owned(),
        generation_id,
        member_id: member_id.clone(),
        assignments: vec![assigned],
        ..Default::default()
    };
    let Response::SyncGroup(synced) = kafka.ask(3, Request::SyncGroup(request)).await else { panic!("another answer") };
    assert_eq!(synced.error_code, code::NONE);

    let described = within(admin.describe_group("busy")).await.expect("it is there");
    let group = described.group.expect("always");
    assert_eq!((group.state.as_str(), group.kind.as_str()), ("Stable", "classic"));
    assert_eq!(described.assignor, "range");
    let [member] = &described.members[..] else { panic!("{:?}", described.members) };
    assert_eq!((member.id.as_str(), member.client_id.as_str()), (member_id.as_str(), "test"));
    let held: Vec<(&str, &[i32])> =
        member.assigned.iter().map(|held| (held.topic.as_str(), &held.partitions[..])).collect();
    assert_eq!(held, [("topic", &[1, 0][..])]);
    assert_eq!(member.assigned_count, 2);

    let refusal = within(admin.reset_offsets("busy", vec![at("topic", 0, 1)])).await.expect_err("it has a member");
    assert_eq!(refusal.code(), Some(ErrorCode::GroupNotEmpty), "{refusal}");
    assert!(refusal.to_string().contains("stop them"), "{refusal}");

    let leave = leave_group::Request {
        group_id: "busy".to_owned(),
        members: vec![leave_group::RequestMember { member_id, ..Default::default() }],
        ..Default::default()
    };
    let Response::LeaveGroup(left) = kafka.ask(4, Request::LeaveGroup(leave)).await else { panic!("another answer") };
    assert_eq!(left.error_code, code::NONE);
    within(admin.reset_offsets("busy", vec![at("topic", 0, 1)])).await.expect("nobody is there now");
    assert_eq!(offsets(&admin, "busy").await, [("topic".to_owned(), 0, 1)]);
}
