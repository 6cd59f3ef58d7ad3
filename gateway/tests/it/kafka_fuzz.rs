//! Requests of every API in every version, changed at random, at a gateway with everything behind it: it answers with what can be
//! decoded or closes the connection, no task of it panics, and whoever behaves is served as before.
//!
//! An input depends on its number alone, what it meets on those before it. By environment: `ESKER_FUZZ_INPUTS=200000` for so many
//! inputs (10 minutes and more), `ESKER_FUZZ_SEED=77` for the number of the first one.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use esker_kafka::{
    Api, DecodeLimits, Reader, Request, RequestHeader, Response, Uuid, alter_configs, alter_partition_reassignments,
    alter_replica_log_dirs, api_versions, code, consumer_group_describe, consumer_group_heartbeat, create_partitions,
    create_topics, delete_groups, delete_records, delete_topics, describe_cluster, describe_configs, describe_groups,
    describe_log_dirs, describe_topic_partitions, elect_leaders, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources, list_groups,
    list_offsets, list_partition_reassignments, metadata, offset_commit, offset_delete, offset_fetch,
    offset_for_leader_epoch, sync_group,
};
use esker_types::{Interval, Quorum};
use esker_wire::batch::Compression;

use self::mutate::{Random, mutate};
use crate::kafka_client::{Kafka, batch, fetch_of, produce_of, values};
use crate::world::World;

#[path = "../../kafka/src/tests/mutate.rs"]
mod mutate;

/// Inputs between two looks at a client that behaves.
const ROUND: u64 = 100;
/// What nobody changes here on purpose.
const SOUND: &str = "sound";

/// Like one of a client that knows what is there: three topics, three groups.
fn valid(api: Api, version: i16, random: &mut Random) -> Request {
    let topic = random.pick(&["t0", "t1", "t2"]).to_owned();
    let group = random.pick(&["g0", "g1", "g2"]).to_owned();
    let member = random.pick(&["", "m0", "m1"]).to_owned();
    let config_name = random.pick(&["retention.ms", "compression.type", "max.message.bytes"]).to_owned();
    let value = Some(random.pick(&["1000", "lz4", "-1", ""]).to_owned());
    let (resource_type, resource_name) = (random.pick(&[2, 2, 4]), topic.clone());
    let offset = random.below(30) as i64 - 3;
    match api {
        Api::Produce => {
            let records = batch(random.pick(&Compression::ALL), 1, &["a", "b"], None).into_bytes();
            produce_of(&topic, 0, records, random.pick(&[-1, 0, 1]))
        }
        Api::Fetch => {
            let mut request = fetch_of(&topic, &[(0, offset), (1, offset)], 1000);
            // By id from version 13 on, and nobody has this one.
            request.topics[0].topic_id = Uuid([u8::from(version >= 13); 16]);
            Request::Fetch(request)
        }
        Api::ListOffsets => {
            let partition = list_offsets::RequestPartition { timestamp: offset, ..Default::default() };
            let topics = vec![list_offsets::RequestTopic { name: topic, partitions: vec![partition] }];
            Request::ListOffsets(list_offsets::Request { topics, ..Default::default() })
        }
        Api::Metadata => {
            let topics = Some(vec![metadata::RequestTopic { name: Some(topic), ..Default::default() }]);
            Request::Metadata(metadata::Request { topics, ..Default::default() })
        }
        Api::ApiVersions => Request::ApiVersions(api_versions::Request {
            client_software_name: "c".to_owned(),
            client_software_version: "1".to_owned(),
        }),
        Api::OffsetForLeaderEpoch => {
            let partitions = vec![offset_for_leader_epoch::RequestPartition { leader_epoch: 1, ..Default::default() }];
            let topics = vec![offset_for_leader_epoch::RequestTopic { topic, partitions }];
            Request::OffsetForLeaderEpoch(offset_for_leader_epoch::Request { topics, ..Default::default() })
        }
        Api::InitProducerId => Request::InitProducerId(init_producer_id::Request::default()),
        Api::CreateTopics => {
            let configs = vec![create_topics::RequestConfig { name: config_name, value }];
            let topic = create_topics::RequestTopic {
                name: topic,
                num_partitions: 2,
                replication_factor: -1,
                configs,
                ..Default::default()
            };
            let validate_only = random.below(2) == 0;
            Request::CreateTopics(create_topics::Request { topics: vec![topic], timeout_ms: 100, validate_only })
        }
        Api::CreatePartitions => {
            let topics = vec![create_partitions::RequestTopic { name: topic, count: 3, ..Default::default() }];
            let validate_only = random.below(2) == 0;
            Request::CreatePartitions(create_partitions::Request { topics, validate_only, ..Default::default() })
        }
        Api::DeleteTopics => {
            let topics = vec![delete_topics::RequestTopic { name: Some(topic.clone()), ..Default::default() }];
            Request::DeleteTopics(delete_topics::Request { topics, topic_names: vec![topic], timeout_ms: 100 })
        }
        Api::DeleteRecords => {
            let partitions = vec![delete_records::RequestPartition { partition_index: 0, offset }];
            let topics = vec![delete_records::RequestTopic { name: topic, partitions }];
            Request::DeleteRecords(delete_records::Request { topics, timeout_ms: 100 })
        }
        Api::DescribeConfigs => {
            let resource = describe_configs::Resource { resource_type, resource_name, configuration_keys: None };
            Request::DescribeConfigs(describe_configs::Request { resources: vec![resource], ..Default::default() })
        }
        Api::AlterConfigs => {
            let configs = vec![alter_configs::Config { name: config_name, value }];
            let resources = vec![alter_configs::Resource { resource_type, resource_name, configs }];
            Request::AlterConfigs(alter_configs::Request { resources, validate_only: false })
        }
        Api::IncrementalAlterConfigs => {
            let config_operation = random.pick(&[0, 0, 1, 2]);
            let configs = vec![incremental_alter_configs::Config { name: config_name, config_operation, value }];
            let resources = vec![incremental_alter_configs::Resource { resource_type, resource_name, configs }];
            Request::IncrementalAlterConfigs(incremental_alter_configs::Request { resources, validate_only: false })
        }
        Api::ListConfigResources => {
            Request::ListConfigResources(list_config_resources::Request { resource_types: vec![2, 4] })
        }
        Api::AlterReplicaLogDirs => {
            let topics = vec![alter_replica_log_dirs::RequestTopic { name: topic, partitions: vec![0] }];
            let dirs = vec![alter_replica_log_dirs::RequestDir { path: "bookies".to_owned(), topics }];
            Request::AlterReplicaLogDirs(alter_replica_log_dirs::Request { dirs })
        }
        Api::DescribeLogDirs => {
            let topics = Some(vec![describe_log_dirs::RequestTopic { topic, partitions: vec![0] }]);
            Request::DescribeLogDirs(describe_log_dirs::Request { topics })
        }
        Api::ElectLeaders => {
            let topic_partitions = Some(vec![elect_leaders::RequestTopic { topic, partitions: vec![0] }]);
            Request::ElectLeaders(elect_leaders::Request { topic_partitions, ..Default::default() })
        }
        Api::AlterPartitionReassignments => {
            let partition =
                alter_partition_reassignments::RequestPartition { partition_index: 0, replicas: Some(vec![1]) };
            let topics = vec![alter_partition_reassignments::RequestTopic { name: topic, partitions: vec![partition] }];
            let request = alter_partition_reassignments::Request { topics, ..Default::default() };
            Request::AlterPartitionReassignments(request)
        }
        Api::ListPartitionReassignments => {
            let topics = list_partition_reassignments::RequestTopic { name: topic, partition_indexes: vec![0] };
            let request = list_partition_reassignments::Request { topics: Some(vec![topics]), ..Default::default() };
            Request::ListPartitionReassignments(request)
        }
        Api::DescribeCluster => Request::DescribeCluster(describe_cluster::Request::default()),
        Api::DescribeTopicPartitions => {
            let topics = vec![describe_topic_partitions::RequestTopic { name: topic }];
            Request::DescribeTopicPartitions(describe_topic_partitions::Request { topics, ..Default::default() })
        }
        Api::FindCoordinator => Request::FindCoordinator(find_coordinator::Request {
            key: group.clone(),
            key_type: 0,
            coordinator_keys: vec![group],
        }),
        Api::JoinGroup => {
            let protocol = join_group::Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\0") };
            Request::JoinGroup(join_group::Request {
                group_id: group,
                session_timeout_ms: 6_000,
                rebalance_timeout_ms: 10,
                member_id: member,
                protocol_type: "consumer".to_owned(),
                protocols: vec![protocol],
                ..Default::default()
            })
        }
        Api::SyncGroup => Request::SyncGroup(sync_group::Request {
            group_id: group,
            generation_id: 1,
            member_id: member,
            ..Default::default()
        }),
        Api::Heartbeat => Request::Heartbeat(heartbeat::Request {
            group_id: group,
            generation_id: 1,
            member_id: member,
            ..Default::default()
        }),
        Api::LeaveGroup => {
            let members = vec![leave_group::RequestMember { member_id: member.clone(), ..Default::default() }];
            Request::LeaveGroup(leave_group::Request { group_id: group, member_id: member, members })
        }
        Api::DescribeGroups => {
            Request::DescribeGroups(describe_groups::Request { groups: vec![group], ..Default::default() })
        }
        Api::ListGroups => Request::ListGroups(list_groups::Request::default()),
        Api::DeleteGroups => Request::DeleteGroups(delete_groups::Request { groups_names: vec![group] }),
        Api::OffsetCommit => {
            let partition = offset_commit::RequestPartition { committed_offset: offset, ..Default::default() };
            let topics = vec![offset_commit::RequestTopic { name: topic, partitions: vec![partition] }];
            Request::OffsetCommit(offset_commit::Request { group_id: group, topics, ..Default::default() })
        }
        Api::OffsetFetch => {
            let topics = Some(vec![offset_fetch::RequestTopic { name: topic, partition_indexes: vec![0, 1] }]);
            let asked =
                offset_fetch::RequestGroup { group_id: group.clone(), topics: topics.clone(), ..Default::default() };
            let groups = vec![asked];
            Request::OffsetFetch(offset_fetch::Request { group_id: group, topics, groups, ..Default::default() })
        }
        Api::OffsetDelete => {
            let partitions = vec![offset_delete::RequestPartition { partition_index: 0 }];
            let topics = vec![offset_delete::RequestTopic { name: topic, partitions }];
            Request::OffsetDelete(offset_delete::Request { group_id: group, topics })
        }
        Api::ConsumerGroupHeartbeat => Request::ConsumerGroupHeartbeat(consumer_group_heartbeat::Request {
            group_id: format!("new-{group}"),
            member_id: member,
            member_epoch: random.pick(&[0, 0, 1, 2, -1]),
            rebalance_timeout_ms: 100,
            subscribed_topic_names: Some(vec![topic]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        }),
        Api::ConsumerGroupDescribe => {
            let group_ids = vec![format!("new-{group}")];
            Request::ConsumerGroupDescribe(consumer_group_describe::Request { group_ids, ..Default::default() })
        }
    }
}

/// What would make so many partitions that the rest takes an hour.
fn is_costly(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes), DecodeLimits::default());
    let Ok(header) = RequestHeader::decode(&mut reader) else { return false };
    match Request::decode(&header, &mut reader) {
        Ok(Request::CreateTopics(r)) => !r.validate_only && r.topics.iter().any(|topic| topic.num_partitions > 4),
        Ok(Request::CreatePartitions(r)) => !r.validate_only && r.topics.iter().any(|topic| topic.count > 4),
        _ => false,
    }
}

/// Sends it, and looks at what comes back. True: an answer, or none to a request that wants none.
async fn try_one(world: &World, random: &mut Random) -> bool {
    let api = random.pick(Api::ALL);
    let (min, max) = api.versions();
    let version = min + random.below((max - min + 1) as u64) as i16;
    let encoded = |request: Request| request.encode(version, 1, Some("c")).concat();
    let (mut bytes, other) = (encoded(valid(api, version, random)), encoded(valid(api, version, random)));
    // API and version stay.
    mutate(&mut bytes, 4, &other, random);
    if is_costly(&bytes) {
        return false;
    }
    let mut kafka = Kafka::connect(world, "gateway-1").await;
    kafka.raw(&bytes).await;
    if matches!(api, Api::JoinGroup | Api::SyncGroup) {
        // It may wait for others as long as it says; its client does not.
        return true;
    }
    // Answers come in order: this one's is the last.
    let marker = 0x7abc_def0;
    let request = Request::ApiVersions(api_versions::Request::default());
    kafka.raw(&request.encode(0, marker, None).concat()).await;
    let mut answered = false;
    while let Some(frame) = kafka.frame().await {
        if frame[..4] == marker.to_be_bytes() {
            return true;
        }
        assert!(!answered, "one answer for each request");
        answered = true;
        let decoded = Response::decode(api, version, frame);
        decoded.unwrap_or_else(|e| panic!("the answer to {} {version} does not decode: {e}", api.name()));
    }
    answered
}

/// Tasks that panicked anywhere in this process since it was asked first.
fn panics() -> &'static AtomicU64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            COUNT.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
    &COUNT
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_requests_hurt_nobody_else() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) = (number("ESKER_FUZZ_SEED").unwrap_or(0), number("ESKER_FUZZ_INPUTS").unwrap_or(3_000));
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    let change = |config: &mut esker_gateway::Config| {
        config.kafka.listen = "127.0.0.1:0".to_owned();
        config.kafka.fetch_wait_max = Interval(std::time::Duration::from_millis(1));
        // A request that is cut short is waited for no longer than this; the marker behind it makes most whole.
        config.kafka.request_timeout = Interval(std::time::Duration::from_millis(500));
    };
    world.start_gateway_with("gateway-1", change).await;
    let panics_before = panics().load(Ordering::SeqCst);
    let mut neighbour = Kafka::connect(&world, "gateway-1").await;
    neighbour.create(SOUND, 1, &[]).await;
    let (mut answered, mut stored) = (0u64, 0);
    for seed in first..first + count {
        if seed % ROUND == 0 {
            for topic in ["t0", "t1", "t2"] {
                neighbour.create(topic, 2, &[]).await;
            }
            let records = batch(Compression::None, 1, &["x"], None).into_bytes();
            let kept = neighbour.produce(9, SOUND, 0, records).await;
            assert_eq!((kept.error_code, kept.base_offset), (code::NONE, stored), "before input {seed}");
            assert_eq!(values(&neighbour.fetch_one(SOUND, 0, stored).await.records).len(), 1, "before input {seed}");
            stored += 1;
        }
        let mut random = Random::new(seed);
        answered += u64::from(try_one(&world, &mut random).await);
        let panicked = panics().load(Ordering::SeqCst) - panics_before;
        assert_eq!(panicked, 0, "something panicked at or before input {seed}");
    }
    println!("{count} inputs, {answered} of them answered");
    assert!(count < 100 || (answered > count / 10 && answered < count), "{answered} of {count} were answered");
}
