//! Consumers that read in their own zone (KIP-392).

use esker_kafka::{Request, Response, code, fetch, metadata};
use esker_types::{ByteCount, Quorum};
use esker_wire::batch::Compression;

use crate::kafka_client::{Kafka, address, batch, fetch_of, values};
use crate::world::{World, within};

/// Each gateway is in a zone of its own name.
async fn world() -> World {
    let mut world = World::new(3, Quorum { write: 3, ack: 2 }).await;
    for name in ["gateway-1", "gateway-2"] {
        let change = |config: &mut esker_gateway::Config| {
            config.kafka.listen = "127.0.0.1:0".to_owned();
            config.zone = name.to_owned();
            config.tail_cache = ByteCount::mib(4);
        };
        world.start_gateway_with(name, change).await;
    }
    world
}

/// Names of the owner of partition 0 and of the other gateway.
fn owner_and_other(world: &World, topic: &str) -> (String, String) {
    let owner = world.owner(topic, 0).expect("owned");
    let other = ["gateway-1", "gateway-2"].into_iter().find(|name| *name != owner).expect("two");
    (owner, other.to_owned())
}

/// Writes records that are numbered by their offset, many of them into closed segments.
async fn write(kafka: &mut Kafka, topic: &str, count: i64) {
    let filler = "x".repeat(5_000);
    for number in 0..count {
        let value = format!("{number} {filler}");
        let stored = kafka.produce(9, topic, 0, batch(Compression::None, 1, &[&value], None).into_bytes()).await;
        assert_eq!((stored.error_code, stored.base_offset), (code::NONE, number));
    }
}

async fn fetch(kafka: &mut Kafka, version: i16, topic: &str, offset: i64, rack: &str) -> fetch::Partition {
    let request = fetch::Request { rack_id: rack.to_owned(), ..fetch_of(topic, &[(0, offset)], 20_000) };
    kafka.fetch(version, request).await.responses.remove(0).partitions.remove(0)
}

/// Asks until the other gateway has heard that something is closed.
async fn until_known(near: &mut Kafka, topic: &str, rack: &str) {
    within(async { while fetch(near, 12, topic, 0, rack).await.error_code != code::NONE {} }).await;
}

/// The broker id of a gateway, as clients are told it.
async fn id_of(kafka: &mut Kafka, world: &World, name: &str) -> i32 {
    let Response::Metadata(answer) = kafka.ask(12, Request::Metadata(metadata::Request::default())).await else {
        panic!("another answer");
    };
    let port = i32::from(address(world, name).port());
    let broker = answer.brokers.iter().find(|broker| broker.port == port).expect("it lives");
    assert_eq!(broker.rack.as_deref(), Some(name));
    broker.node_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_reads_what_is_closed_in_its_zone_and_the_rest_at_the_owner() {
    let world = world().await;
    let mut any = Kafka::connect(&world, "gateway-1").await;
    any.create("near", 1, &[("segment.bytes", "65536")]).await;
    let (owner, other) = owner_and_other(&world, "near");
    let (mut far, mut near) = (Kafka::connect(&world, &owner).await, Kafka::connect(&world, &other).await);
    write(&mut far, "near", 100).await;
    let other_id = id_of(&mut far, &world, &other).await;

    until_known(&mut near, "near", &other).await;

    let sent = fetch(&mut far, 12, "near", 0, &other).await;
    assert_eq!((sent.error_code, sent.preferred_read_replica), (code::NONE, other_id));
    assert!(sent.records.is_empty() && sent.high_watermark == 100);

    let (mut offset, mut at_other, mut at_owner) = (0, 0, 0);
    let mut goes_to_owner = false;
    while offset < 100 {
        let answer = match goes_to_owner {
            false => fetch(&mut near, 12, "near", offset, &other).await,
            true => fetch(&mut far, 12, "near", offset, &other).await,
        };
        assert_eq!(answer.preferred_read_replica, -1, "nobody is sent to and fro");
        let end = if goes_to_owner { 100 } else { -1 };
        assert_eq!((answer.high_watermark, answer.last_stable_offset), (end, end), "only the owner knows the end");
        if answer.error_code == code::OFFSET_NOT_AVAILABLE {
            assert!(answer.records.is_empty() && !goes_to_owner);
            goes_to_owner = true;
            continue;
        }
        assert_eq!(answer.error_code, code::NONE);
        for (found, value) in values(&answer.records) {
            assert_eq!((found, value.split(' ').next()), (offset, Some(offset.to_string().as_str())));
            offset += 1;
            *(if goes_to_owner { &mut at_owner } else { &mut at_other }) += 1;
        }
    }
    assert!(at_other >= 10 && at_owner >= 1, "{at_other} records were read near, {at_owner} at the owner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_consumers_of_another_zone_with_a_gateway_are_sent_away_and_only_once() {
    let world = world().await;
    let mut any = Kafka::connect(&world, "gateway-1").await;
    any.create("once", 1, &[("segment.bytes", "65536")]).await;
    let (owner, other) = owner_and_other(&world, "once");
    let mut far = Kafka::connect(&world, &owner).await;
    write(&mut far, "once", 40).await;
    for rack in ["", "nowhere", owner.as_str()] {
        let here = fetch(&mut far, 12, "once", 0, rack).await;
        assert_eq!(here.preferred_read_replica, -1, "rack {rack:?}");
        assert_eq!(values(&here.records)[0].0, 0);
    }
    // What no version below 11 can say is not acted on, and clients of version 11 might not come back.
    assert_eq!(values(&fetch(&mut far, 10, "once", 0, "").await.records)[0].0, 0);
    let stays = fetch(&mut far, 11, "once", 0, &other).await;
    assert_eq!((stays.preferred_read_replica, values(&stays.records)[0].0), (-1, 0));
    // The end is written here: nobody need go away for it.
    assert_eq!(fetch(&mut far, 12, "once", 40, &other).await.preferred_read_replica, -1);
    let other_id = id_of(&mut far, &world, &other).await;
    assert_eq!(fetch(&mut far, 12, "once", 0, &other).await.preferred_read_replica, other_id);
    // Back so soon: it could not read there.
    let here = fetch(&mut far, 12, "once", 0, &other).await;
    assert_eq!((here.preferred_read_replica, values(&here.records)[0].0), (-1, 0));
    let mut again = Kafka::connect(&world, &owner).await;
    assert_eq!(fetch(&mut again, 12, "once", 0, &other).await.preferred_read_replica, other_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_gateway_never_says_that_an_offset_is_out_of_range() {
    let mut world = world().await;
    let mut any = Kafka::connect(&world, "gateway-1").await;
    any.create("range", 1, &[("segment.bytes", "65536")]).await;
    let (owner, other) = owner_and_other(&world, "range");
    let (mut far, mut near) = (Kafka::connect(&world, &owner).await, Kafka::connect(&world, &other).await);
    write(&mut far, "range", 40).await;
    until_known(&mut near, "range", &other).await;
    for offset in [-5, 40, 41, i64::MAX] {
        let answer = fetch(&mut near, 12, "range", offset, &other).await;
        assert_eq!((answer.error_code, answer.records.len()), (code::OFFSET_NOT_AVAILABLE, 0), "offset {offset}");
    }
    // A consumer that is not of this zone has no business here.
    for rack in ["", owner.as_str()] {
        assert_eq!(fetch(&mut near, 12, "range", 0, rack).await.error_code, code::NOT_LEADER_OR_FOLLOWER);
    }
    // The owner does say it.
    assert_eq!(fetch(&mut far, 12, "range", 41, &other).await.error_code, code::OFFSET_OUT_OF_RANGE);
    // With the owner dead in the eyes of nobody but its clients, what is closed can still be read.
    let dead = world.gateways.remove(&owner).expect("it runs");
    dead.cancel.cancel();
    drop(dead);
    let answer = within(fetch(&mut near, 12, "range", 0, &other)).await;
    assert_eq!((answer.error_code, values(&answer.records)[0].0), (code::NONE, 0));
}
