use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use esker_client::{ProducerConfig, Record};
use esker_types::Quorum;

use crate::world::{World, numbered, producer, read_all, send, within};

const Q32: Quorum = Quorum { write: 3, ack: 2 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_wrong_gateway_is_sent_to_the_right_one() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    world.start_gateway("gateway-2").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("spread", 4, &[]).await.expect("created");
    let producer = producer(&client);
    for partition in 0..4 {
        within(send(&producer, "spread", partition, 0..20)).await;
        assert_eq!(within(read_all(&client, "spread", partition)).await, numbered(0..20));
    }
    let owners: std::collections::BTreeSet<_> = (0..4).map(|p| world.owner("spread", p)).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_to_and_fro_under_load_without_an_error() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    world.start_gateway("gateway-2").await;
    let client = world.client(&["gateway-1", "gateway-2"]).await;
    client.admin().create_topic("moving", 1, &[]).await.expect("created");
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(client.clone(), "moving", stop.clone()));
    let admin = client.admin();
    for round in 0..20 {
        let to = ["gateway-1", "gateway-2"][round % 2];
        let moved = within(admin.move_partition("moving", 0, to)).await.expect("moves");
        assert_eq!(world.owner("moving", 0).as_deref(), Some(to));
        assert!(moved.pause_us < 5_000_000, "{} us", moved.pause_us);
    }
    stop.store(true, Ordering::SeqCst);
    let sent = within(load).await.expect("no panic");
    assert_eq!(within(read_all(&client, "moving", 0)).await, numbered(0..sent));
}

/// Sends numbered records until told to stop; each must be stored. Returns how many there were.
async fn load(client: esker_client::Client, topic: &str, stop: Arc<AtomicBool>) -> u32 {
    let producer = client.producer(ProducerConfig::default()).expect("valid");
    let (mut number, mut deliveries) = (0, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..50 {
            let record = Record::value(format!("record {number}"));
            deliveries.push(producer.send(topic, Some(0), record).await.expect("room"));
            number += 1;
        }
        for delivery in deliveries.drain(..) {
            delivery.await.expect("stored in spite of moves");
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_loses_nothing() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    world.start_gateway("gateway-2").await;
    let client = world.client(&["gateway-1", "gateway-2"]).await;
    client.admin().create_topic("orphan", 2, &[]).await.expect("created");
    let producer = producer(&client);
    for partition in 0..2 {
        within(send(&producer, "orphan", partition, 0..100)).await;
    }
    world.kill_gateway("gateway-1").await;
    for partition in 0..2 {
        within(send(&producer, "orphan", partition, 100..200)).await;
        assert_eq!(world.owner("orphan", partition).as_deref(), Some("gateway-2"));
        assert_eq!(within(read_all(&client, "orphan", partition)).await, numbered(0..200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateway_hands_everything_over_first() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    world.start_gateway("gateway-2").await;
    let client = world.client(&["gateway-2"]).await;
    client.admin().create_topic("calm", 8, &[]).await.expect("created");
    let producer = producer(&client);
    for partition in 0..8 {
        within(send(&producer, "calm", partition, 0..10)).await;
    }
    let epochs = |world: &World| -> Vec<u32> {
        world.store.inspect(|state| (0..8).filter_map(|p| state.partition_of("calm", p)).map(|p| p.epoch.0).collect())
    };
    let before = epochs(&world);
    let moved: Vec<bool> = (0..8).map(|p| world.owner("calm", p).as_deref() == Some("gateway-1")).collect();
    assert!(moved.contains(&true));
    within(world.gateways.remove("gateway-1").expect("runs").server.stop()).await;
    for partition in 0..8u32 {
        assert_eq!(world.owner("calm", partition).as_deref(), Some("gateway-2"));
        within(send(&producer, "calm", partition, 10..20)).await;
        assert_eq!(within(read_all(&client, "calm", partition)).await, numbered(0..20));
    }
    let raised: Vec<u32> = before.iter().zip(&moved).map(|(epoch, moved)| epoch + u32::from(*moved)).collect();
    assert_eq!(epochs(&world), raised, "one handover each, nothing was assigned a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_loses_its_session_lets_go_and_comes_back() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("back", 1, &[]).await.expect("created");
    let producer = producer(&client);
    within(send(&producer, "back", 0, 0..10)).await;
    let first = world.session("gateway-1");
    world.expire(first);
    within(send(&producer, "back", 0, 10..20)).await;
    assert_ne!(world.session("gateway-1"), first);
    assert_eq!(within(read_all(&client, "back", 0)).await, numbered(0..20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_owner_knows_where_the_log_starts() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    world.start_gateway("gateway-2").await;
    let client = world.client(&["gateway-1", "gateway-2"]).await;
    let admin = client.admin();
    admin.create_topic("short", 1, &[]).await.expect("created");
    within(send(&producer(&client), "short", 0, 0..40)).await;
    assert_eq!(within(admin.delete_records("short", 0, Some(20))).await.expect("deleted"), 20);
    for to in ["gateway-1", "gateway-2", "gateway-1"] {
        within(admin.move_partition("short", 0, to)).await.expect("moves");
        let left = within(read_all(&client, "short", 0)).await;
        assert_eq!(left.last(), Some(&"record 39".to_owned()));
        let mut reader = client.reader("short", 0, esker_client::Start::Earliest);
        within(reader.open()).await.expect("opens");
        assert_eq!(reader.log_start(), 20);
    }
}
