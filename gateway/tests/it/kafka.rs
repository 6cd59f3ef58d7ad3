//! The Kafka door end to end: real sockets, every piece behind them.

use std::collections::BTreeSet;

use esker_kafka::{
    Api, Request, Response, Uuid, api_versions, code, delete_records, delete_topics, describe_configs, fetch,
    incremental_alter_configs, metadata, offset_for_leader_epoch,
};
use esker_metadata_core::Assign;
use esker_types::{ByteCount, Quorum};
use esker_wire::batch::{Compression, ProducerStamp};

use crate::kafka_client::{Kafka, address, batch, fetch_of, produce_of, values};
use crate::world::{World, numbered, producer, read_all, send, within};

const ONE: Quorum = Quorum { write: 1, ack: 1 };

async fn world(bookies: u64, quorum: Quorum, gateways: &[&str]) -> World {
    let mut world = World::new(bookies, quorum).await;
    for name in gateways {
        world.start_gateway_with(name, |config| config.kafka.listen = "127.0.0.1:0".to_owned()).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_see_the_same_records_at_the_same_offsets() {
    let world = world(3, Quorum { write: 3, ack: 2 }, &["gateway-1"]).await;
    let native = world.client(&["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    let created = kafka.create("shared", 2, &[]).await;
    assert_eq!((created.error_code, created.num_partitions), (code::NONE, 2));
    within(send(&producer(&native), "shared", 1, 0..10)).await;
    for (offset, compression) in (10..).zip(Compression::ALL) {
        let value = format!("record {offset}");
        let sent = batch(compression, 1_000, &[&value], None);
        let stored = kafka.produce(9, "shared", 1, sent.bytes().clone()).await;
        assert_eq!((stored.error_code, stored.base_offset), (code::NONE, offset));
        // Byte for byte, but for what the broker sets.
        let fetched = kafka.fetch_one("shared", 1, offset).await;
        let got = fetched.records.0.concat();
        assert_eq!((&got[8..12], &got[16..]), (&sent.bytes()[8..12], &sent.bytes()[16..]));
    }
    assert_eq!(read_all(&native, "shared", 1).await, numbered(0..15));
    let all = values(&kafka.fetch_one("shared", 1, 0).await.records);
    assert_eq!(all.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), numbered(0..15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_replaced_unawares_does_not_send_readers_back() {
    let mut world = world(3, Quorum { write: 3, ack: 2 }, &["gateway-1"]).await;
    let mut old = Kafka::connect(&world, "gateway-1").await;
    old.create("torn", 1, &[]).await;
    let first = world.client(&["gateway-1"]).await;
    within(send(&producer(&first), "torn", 0, 0..3)).await;
    let code_at = async |kafka: &mut Kafka, offset| kafka.fetch_one("torn", 0, offset).await.error_code;
    assert_eq!(code_at(&mut old, 5).await, code::OFFSET_OUT_OF_RANGE, "it is the owner, and there is no more");

    world.start_gateway_with("gateway-2", |config| config.kafka.listen = "127.0.0.1:0".to_owned()).await;
    world.gateways["gateway-1"].news.cancel();
    let session = world.session("gateway-2");
    let (partition, expect_epoch) = world.store.inspect(|state| {
        let record = state.partition_of("torn", 0).expect("it exists");
        (record.id, record.epoch)
    });
    let assigned = world.store.apply(vec![Assign { partition, expect_epoch, session }.into()]).single();
    assigned.expect("assigned");
    let second = world.client(&["gateway-2"]).await;
    within(send(&producer(&second), "torn", 0, 3..8)).await;

    assert_eq!(code_at(&mut old, 5).await, code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(old.offset("torn", 0, 0).await.error_code, code::NONE, "what it had it may still tell");
    let mut new = Kafka::connect(&world, "gateway-2").await;
    // The batch that holds the offset may begin before it.
    assert!(values(&new.fetch_one("torn", 0, 5).await.records).contains(&(5, "record 5".to_owned())));
    assert_eq!(code_at(&mut new, 9).await, code::OFFSET_OUT_OF_RANGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_produce_and_fetch_works() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    let topic_id = kafka.create("versions", 1, &[]).await.topic_id;
    let mut next = 0;
    for version in 3..=11 {
        let stored =
            kafka.produce(version, "versions", 0, batch(Compression::None, 1, &["v"], None).into_bytes()).await;
        assert_eq!((stored.error_code, stored.base_offset), (code::NONE, next), "produce v{version}");
        next += 1;
    }
    for version in 4..=13 {
        let mut request = fetch_of("versions", &[(0, 2)], 1 << 20);
        if version >= 13 {
            request.topics[0].topic_id = topic_id;
        }
        let answer = kafka.fetch(version, request).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (code::NONE, next), "fetch v{version}");
        assert_eq!(values(&partition.records).len(), 7, "fetch v{version}");
    }
    let mut unknown = fetch_of("", &[(0, 0)], 100);
    unknown.topics[0].topic_id = Uuid([9; 16]);
    assert_eq!(kafka.fetch(13, unknown).await.responses[0].partitions[0].error_code, code::UNKNOWN_TOPIC_ID);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fetch_wakes_when_data_comes() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let (mut reader, mut writer) =
        (Kafka::connect(&world, "gateway-1").await, Kafka::connect(&world, "gateway-1").await);
    reader.create("wake", 2, &[]).await;
    // A topic is there a moment before its partitions have an owner that is ready.
    for index in 0..2 {
        within(async { while reader.fetch_one("wake", index, 0).await.error_code == code::NOT_LEADER_OR_FOLLOWER {} })
            .await;
    }
    // With nothing to wait for it is answered at once, empty: length 0, not null.
    let empty = reader.fetch_one("wake", 0, 0).await;
    assert_eq!((empty.error_code, empty.records.len()), (code::NONE, 0));
    // Longer than the test may take: only data can end it.
    let patient = fetch::Request { max_wait_ms: i32::MAX, ..fetch_of("wake", &[(0, 0), (1, 0)], 1 << 20) };
    let id = reader.send(11, &Request::Fetch(patient)).await;
    writer.produce(9, "wake", 1, batch(Compression::None, 1, &["now"], None).into_bytes()).await;
    let (answered, Response::Fetch(answer)) = within(reader.receive(Api::Fetch, 11)).await else {
        panic!("another answer");
    };
    assert_eq!(answered, id);
    let partitions = &answer.responses[0].partitions;
    assert_eq!(partitions.len(), 2, "every partition that was asked for is answered");
    assert_eq!(values(&partitions[1].records), [(0, "now".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_fetch_hold_but_one_batch_always_comes() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("limits", 2, &[]).await;
    let one = batch(Compression::None, 1, &["a", "b", "c"], None).into_bytes();
    for index in 0..2 {
        for _ in 0..4 {
            kafka.produce(9, "limits", index, one.clone()).await;
        }
    }
    let size = one.len() as i32;
    let count = |partition: &fetch::Partition| partition.records.len() as i32 / size;
    // Inside a batch: the batch comes whole.
    let middle = kafka.fetch_one("limits", 0, 4).await;
    assert_eq!((values(&middle.records)[0].0, count(&middle)), (3, 3));
    let counts = async |kafka: &mut Kafka, max_bytes: i32, partition_max: i32| {
        let request = fetch::Request { max_bytes, ..fetch_of("limits", &[(0, 0), (1, 0)], partition_max) };
        let answer = kafka.fetch(11, request).await;
        answer.responses[0].partitions.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut kafka, 1, 1).await, [1, 0]);
    assert_eq!(counts(&mut kafka, 1 << 20, 2 * size).await, [2, 2]);
    assert_eq!(counts(&mut kafka, 5 * size, 1 << 20).await, [4, 1]);
    assert_eq!(counts(&mut kafka, 4 * size, 1 << 20).await, [4, 0], "the second is listed all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_come_from_bookies_across_segments() {
    let mut world = World::new(3, Quorum { write: 3, ack: 2 }).await;
    world
        .start_gateway_with("gateway-1", |config| {
            config.kafka.listen = "127.0.0.1:0".to_owned();
            config.tail_cache = ByteCount(1);
        })
        .await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("old", 1, &[("segment.bytes", "65536")]).await;
    let filler = "x".repeat(5_000);
    for number in 0..100 {
        let value = format!("{number} {filler}");
        let stored =
            kafka.produce(9, "old", 0, batch(Compression::None, number * 10, &[&value], None).into_bytes()).await;
        assert_eq!(stored.base_offset, number);
    }
    let (mut offset, mut seen) = (0, Vec::new());
    while offset < 100 {
        let mut answer = kafka.fetch(11, fetch_of("old", &[(0, offset)], 20_000)).await;
        let found = values(&answer.responses.remove(0).partitions.remove(0).records);
        offset = found.last().expect("there is more").0 + 1;
        seen.extend(found.into_iter().map(|(offset, _)| offset));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    // A jump back is served too, and any time finds its record.
    assert_eq!(values(&kafka.fetch_one("old", 0, 17).await.records)[0].0, 17);
    for (time, offset) in [(0, 0), (1, 1), (500, 50), (990, 99)] {
        assert_eq!(kafka.offset("old", 0, time).await.offset, offset, "time {time}");
    }
    assert_eq!(kafka.offset("old", 0, 991).await.offset, -1);
    assert_eq!((kafka.offset("old", 0, -3).await.offset, kafka.offset("old", 0, -1).await.offset), (99, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_found_inside_batches() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("times", 1, &[]).await;
    assert_eq!(kafka.offset("times", 0, -3).await.offset, -1, "no record, no largest timestamp");
    for compression in [Compression::None, Compression::Zstd] {
        kafka.produce(9, "times", 0, batch(compression, 1_000, &["a", "b", "c"], None).into_bytes()).await;
    }
    kafka.produce(9, "times", 0, batch(Compression::None, 5, &["late"], None).into_bytes()).await;
    for (time, expected) in [(0, (0, 1_000)), (1_001, (1, 1_001)), (1_002, (2, 1_002)), (-3, (2, 1_002))] {
        let found = kafka.offset("times", 0, time).await;
        assert_eq!((found.offset, found.timestamp), expected, "time {time}");
    }
    assert_eq!(kafka.offset("times", 0, 1_003).await.offset, -1);
    assert_eq!(kafka.offset("times", 0, -2).await.offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotence_answers_as_kafka_does() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("once", 1, &[]).await;
    let id = kafka.producer_id().await.producer_id;
    assert!(id > 0);
    let mut send = async |epoch, sequence| {
        let stamp = ProducerStamp { id, epoch, base_sequence: sequence };
        let stored =
            kafka.produce(9, "once", 0, batch(Compression::None, 1, &["a", "b"], Some(stamp)).into_bytes()).await;
        (stored.error_code, stored.base_offset)
    };
    assert_eq!(send(0, 2).await, (code::UNKNOWN_PRODUCER_ID, -1));
    assert_eq!(send(0, 0).await, (code::NONE, 0));
    assert_eq!(send(0, 2).await, (code::NONE, 2));
    assert_eq!(send(0, 0).await, (code::NONE, 0), "a duplicate gets the first offset");
    assert_eq!(send(0, 6).await, (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    assert_eq!(send(1, 0).await, (code::NONE, 4));
    assert_eq!(send(0, 4).await, (code::INVALID_PRODUCER_EPOCH, -1));
    assert_eq!(kafka.offset("once", 0, -1).await.offset, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order_and_acks_0_not_at_all() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("pipe", 1, &[]).await;
    let mut owed = Vec::new();
    for number in 0..50 {
        let value = number.to_string();
        let records = batch(Compression::None, 1, &[&value], None).into_bytes();
        let acks = if number % 5 == 0 { 0 } else { -1 };
        let id = kafka.send(8, &produce_of("pipe", 0, records, acks)).await;
        owed.extend((acks != 0).then_some((id, number)));
    }
    for (id, number) in owed {
        let (answered, Response::Produce(answer)) = kafka.receive(Api::Produce, 8).await else {
            panic!("another answer");
        };
        let stored = &answer.responses[0].partition_responses[0];
        assert_eq!((answered, stored.error_code, stored.base_offset), (id, code::NONE, number));
    }
    assert_eq!(values(&kafka.fetch_one("pipe", 0, 0).await.records).len(), 50);
    // An error has no answer either; the connection's end tells it.
    kafka.send(8, &produce_of("no-such-topic", 0, batch(Compression::None, 1, &["x"], None).into_bytes(), 0)).await;
    assert!(kafka.frame().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_are_two_brokers_and_point_at_each_other() {
    let mut world = world(3, Quorum { write: 3, ack: 2 }, &["gateway-1", "gateway-2"]).await;
    let mut one = Kafka::connect(&world, "gateway-1").await;
    one.create("spread", 6, &[]).await;
    let mut seen = BTreeSet::new();
    for version in 0..=12 {
        let topics = Some(vec![metadata::RequestTopic { name: Some("spread".to_owned()), ..Default::default() }]);
        let request = metadata::Request { topics, ..Default::default() };
        let Response::Metadata(answer) = one.ask(version, Request::Metadata(request)).await else {
            panic!("another answer");
        };
        let ports: BTreeSet<i32> = answer.brokers.iter().map(|broker| broker.port).collect();
        let doors = ["gateway-1", "gateway-2"].map(|name| i32::from(address(&world, name).port()));
        assert_eq!(ports, BTreeSet::from(doors), "v{version}");
        assert_eq!(answer.topics[0].partitions.len(), 6);
        for partition in &answer.topics[0].partitions {
            let leader = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id).expect("a broker");
            assert!(partition.replica_nodes.contains(&leader.node_id) && leader.node_id > 0);
            seen.insert((partition.partition_index, leader.port));
        }
    }
    // Only the owner takes records and answers fetches.
    let other = address(&world, "gateway-2").port();
    for (index, port) in &seen {
        let stored = one.produce(11, "spread", *index, batch(Compression::None, 1, &["x"], None).into_bytes()).await;
        let fetched = one.fetch_one("spread", *index, 0).await;
        match *port == i32::from(other) {
            true => {
                assert_eq!(stored.error_code, code::NOT_LEADER_OR_FOLLOWER);
                assert!(stored.current_leader.leader_id > 0, "the answer names the leader");
                assert_eq!(fetched.error_code, code::NOT_LEADER_OR_FOLLOWER);
            }
            false => assert_eq!((stored.error_code, fetched.error_code), (code::NONE, code::NONE)),
        }
    }
    // The other one dies: its partitions go on here, with all that was acknowledged.
    world.kill_gateway("gateway-2").await;
    for (index, _) in &seen {
        let stored = within(async {
            loop {
                let records = batch(Compression::None, 1, &["after"], None).into_bytes();
                let stored = one.produce(9, "spread", *index, records).await;
                if stored.error_code != code::NOT_LEADER_OR_FOLLOWER {
                    break stored;
                }
            }
        })
        .await;
        assert_eq!(stored.error_code, code::NONE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_are_checked_and_told() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("epochs", 1, &[]).await;
    kafka.produce(9, "epochs", 0, batch(Compression::None, 1, &["x"], None).into_bytes()).await;
    let epoch = kafka.offset("epochs", 0, -1).await.leader_epoch;
    for (claimed, expected) in [
        (-1, code::NONE),
        (epoch, code::NONE),
        (epoch + 1, code::UNKNOWN_LEADER_EPOCH),
        (epoch - 1, code::FENCED_LEADER_EPOCH),
    ] {
        let mut request = fetch_of("epochs", &[(0, 0)], 1 << 20);
        request.topics[0].partitions[0].current_leader_epoch = claimed;
        let expected = if claimed < 0 { code::NONE } else { expected };
        assert_eq!(kafka.fetch(11, request).await.responses[0].partitions[0].error_code, expected, "{claimed}");
    }
    let partition =
        offset_for_leader_epoch::RequestPartition { partition: 0, leader_epoch: epoch, ..Default::default() };
    let topic = offset_for_leader_epoch::RequestTopic { topic: "epochs".to_owned(), partitions: vec![partition] };
    let request = offset_for_leader_epoch::Request { topics: vec![topic], ..Default::default() };
    let Response::OffsetForLeaderEpoch(answer) = kafka.ask(4, Request::OffsetForLeaderEpoch(request)).await else {
        panic!("another answer");
    };
    let told = &answer.topics[0].partitions[0];
    assert_eq!((told.error_code, told.leader_epoch, told.end_offset), (code::NONE, epoch, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_settings_change_item_by_item() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    let created = kafka.create("admin", 2, &[("retention.ms", "1000")]).await;
    assert_eq!(created.error_code, code::NONE);
    assert_eq!(kafka.create("admin", 2, &[]).await.error_code, code::TOPIC_ALREADY_EXISTS);
    assert_eq!(kafka.create("a b", 2, &[]).await.error_code, code::INVALID_TOPIC);
    assert_eq!(kafka.create("b", 0, &[]).await.error_code, code::INVALID_PARTITIONS);
    assert_eq!(kafka.create("c", 1, &[("cleanup.policy", "compact")]).await.error_code, code::INVALID_CONFIG);
    let change = |name: &str, operation, value: Option<&str>| incremental_alter_configs::Config {
        name: name.to_owned(),
        config_operation: operation,
        value: value.map(str::to_owned),
    };
    let resource = |name: &str, configs| incremental_alter_configs::Resource {
        resource_type: 2,
        resource_name: name.to_owned(),
        configs,
    };
    let request = incremental_alter_configs::Request {
        resources: vec![
            resource("admin", vec![change("max.message.bytes", 0, Some("300")), change("retention.ms", 1, None)]),
            resource("nowhere", vec![change("retention.ms", 1, None)]),
        ],
        validate_only: false,
    };
    let Response::IncrementalAlterConfigs(answer) = kafka.ask(1, Request::IncrementalAlterConfigs(request)).await
    else {
        panic!("another answer");
    };
    let codes: Vec<i16> = answer.responses.iter().map(|response| response.error_code).collect();
    assert_eq!(codes, [code::NONE, code::UNKNOWN_TOPIC_OR_PARTITION]);
    let resource = describe_configs::Resource {
        resource_type: 2,
        resource_name: "admin".to_owned(),
        configuration_keys: Some(vec!["max.message.bytes".to_owned(), "retention.ms".to_owned()]),
    };
    let request = describe_configs::Request { resources: vec![resource], ..Default::default() };
    let Response::DescribeConfigs(answer) = kafka.ask(4, Request::DescribeConfigs(request)).await else {
        panic!("another answer");
    };
    let shown = answer.results[0].configs.iter().map(|c| (c.name.as_str(), c.value.as_deref(), c.config_source));
    assert_eq!(shown.collect::<Vec<_>>(), [("max.message.bytes", Some("300"), 1), ("retention.ms", Some("-1"), 5)]);
    // Too large for this topic, and only that: the connection goes on.
    let large = "x".repeat(400);
    // The partition hears of its new limit a moment after metadata.
    let mut before = 0;
    let refused = within(async {
        loop {
            let answer = kafka.produce(9, "admin", 0, batch(Compression::None, 1, &[&large], None).into_bytes()).await;
            match answer.error_code {
                code::NONE => before += 1,
                error => break error,
            }
        }
    })
    .await;
    assert_eq!(refused, code::MESSAGE_TOO_LARGE);
    let stored = kafka.produce(9, "admin", 0, batch(Compression::None, 1, &["a", "b"], None).into_bytes()).await;
    assert_eq!(stored.error_code, code::NONE);
    let partition = delete_records::RequestPartition { partition_index: 0, offset: before + 1 };
    let topic = delete_records::RequestTopic { name: "admin".to_owned(), partitions: vec![partition] };
    let request = delete_records::Request { topics: vec![topic], timeout_ms: 1_000 };
    let Response::DeleteRecords(answer) = kafka.ask(2, Request::DeleteRecords(request)).await else {
        panic!("another answer");
    };
    assert_eq!(answer.topics[0].partitions[0].low_watermark, before + 1);
    assert_eq!(kafka.offset("admin", 0, -2).await.offset, before + 1);
    assert_eq!(kafka.fetch_one("admin", 0, 0).await.error_code, code::OFFSET_OUT_OF_RANGE);
    let named = |name: &str| delete_topics::RequestTopic { name: Some(name.to_owned()), ..Default::default() };
    let request = delete_topics::Request { topics: vec![named("admin"), named("nowhere")], ..Default::default() };
    let Response::DeleteTopics(answer) = kafka.ask(6, Request::DeleteTopics(request)).await else {
        panic!("another answer");
    };
    let codes: Vec<i16> = answer.responses.iter().map(|response| response.error_code).collect();
    assert_eq!(codes, [code::NONE, code::UNKNOWN_TOPIC_OR_PARTITION]);
    let again = kafka.create("admin", 1, &[]).await;
    assert!(again.error_code == code::NONE && again.topic_id != created.topic_id, "a new topic has a new id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_api_versions_is_answered_and_the_connection_stays() {
    let world = world(1, ONE, &["gateway-1"]).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.raw(b"\x00\x12\x00\x63\x00\x00\x00\x07\x00\x04somefuturebytes").await;
    let (id, Response::ApiVersions(answer)) = kafka.receive(Api::ApiVersions, 0).await else {
        panic!("another answer");
    };
    assert_eq!((id, answer.error_code), (7, code::UNSUPPORTED_VERSION));
    let produce = answer.api_keys.iter().find(|api| api.api_key == 0).expect("advertised");
    assert_eq!(produce.min_version, 0, "older librdkafka switches compression off otherwise");
    let request =
        api_versions::Request { client_software_name: "esker".to_owned(), client_software_version: "1".to_owned() };
    let Response::ApiVersions(answer) = kafka.ask(3, Request::ApiVersions(request)).await else {
        panic!("another answer");
    };
    assert_eq!(answer.error_code, code::NONE);
}
