use esker_client::{Compression, ErrorCode, ProducerConfig, Record, Start};
use esker_types::Quorum;

use crate::world::{World, numbered, producer, read_all, send, within};

const Q32: Quorum = Quorum { write: 3, ack: 2 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_read_in_order() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("events", 2, &[]).await.expect("created");
    let producer = producer(&client);
    within(send(&producer, "events", 0, 0..1_000)).await;
    within(send(&producer, "events", 1, 0..10)).await;
    assert_eq!(read_all(&client, "events", 0).await, numbered(0..1_000));
    assert_eq!(read_all(&client, "events", 1).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_comes_back() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let topic = compression.name();
        client.admin().create_topic(topic, 1, &[]).await.expect("created");
        let producer = client.producer(ProducerConfig { compression, ..ProducerConfig::default() }).expect("valid");
        within(send(&producer, topic, 0, 0..200)).await;
        assert_eq!(read_all(&client, topic, 0).await, numbered(0..200), "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_at_the_end_is_woken_by_the_next_record() {
    let mut world = World::new(3, Q32).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("tail", 1, &[]).await.expect("created");
    let producer = producer(&client);
    within(send(&producer, "tail", 0, 0..5)).await;
    let mut reader = client.reader("tail", 0, Start::Latest);
    within(reader.open()).await.expect("opens");
    for number in 5..20 {
        within(send(&producer, "tail", 0, number..number + 1)).await;
        let fetched = within(reader.next()).await.expect("endless").expect("readable");
        assert_eq!(fetched.first_offset(), i64::from(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_come_from_bookies_and_any_offset_or_time_is_found() {
    let mut world = World::new(3, Q32).await;
    // No tail cache to speak of, and small segments: most is read back from several closed ones.
    world.start_gateway_with("gateway-1", |config| config.tail_cache = esker_types::ByteCount(1)).await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("old", 1, &[("segment.bytes", "1048576")]).await.expect("created");
    let producer =
        client.producer(ProducerConfig { batch_bytes: 16 << 10, ..ProducerConfig::default() }).expect("valid");
    // In rounds: what is under way when a segment is full goes into the next one, however much it is.
    for round in 0..5i64 {
        let mut deliveries = Vec::new();
        for number in round * 1_000..round * 1_000 + 1_000 {
            let record = Record { timestamp_ms: Some(1_000_000 + number), ..Record::value(format!("{number:01000}")) };
            deliveries.push(producer.send("old", Some(0), record).await.expect("room"));
        }
        for delivery in deliveries {
            within(delivery).await.expect("stored");
        }
    }
    let values = within(read_all(&client, "old", 0)).await;
    assert_eq!(values.len(), 5_000);
    assert!(values.iter().zip(0..).all(|(value, number)| *value == format!("{number:01000}")));
    let segments = client.admin().list_segments("old", None).await.expect("listed");
    assert!(segments.len() >= 2, "{} segments", segments.len());
    for number in [0, 1, 777, 2_500, 4_999] {
        let mut reader = client.reader("old", 0, Start::Offset(number));
        let fetched = within(reader.next()).await.expect("endless").expect("readable");
        let first = fetched.records().expect("decodes").next().expect("some").expect("decodes");
        assert_eq!(first.offset, number);
        let found = client.admin().list_offsets("old", 0, Start::TimeMs(1_000_000 + number)).await.expect("found");
        assert_eq!((found.offset, found.timestamp_ms), (number, 1_000_000 + number));
    }
    let after = client.admin().list_offsets("old", 0, Start::TimeMs(2_000_000)).await.expect("answered");
    assert_eq!(after.offset, 5_000, "nothing is so late: the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_time_is_the_gateways() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("dated", 1, &[("message.timestamp.type", "LogAppendTime")]).await.expect("created");
    let producer = producer(&client);
    let record = Record { timestamp_ms: Some(5), ..Record::value("x") };
    let delivery = producer.send("dated", None, record).await.expect("room");
    within(delivery).await.expect("stored");
    let mut reader = client.reader("dated", 0, Start::Earliest);
    let fetched = within(reader.next()).await.expect("endless").expect("readable");
    let stored = fetched.records().expect("decodes").next().expect("some").expect("decodes");
    assert!(stored.timestamp_ms > 1_600_000_000_000, "{}", stored.timestamp_ms);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_clear_and_typed() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    let admin = client.admin();
    admin.create_topic("small", 1, &[("max.message.bytes", "1000")]).await.expect("created");
    let again = admin.create_topic("small", 1, &[]).await.expect_err("exists");
    assert_eq!(again.code(), Some(ErrorCode::TopicExists));
    let bad = admin.create_topic("bad name!", 1, &[]).await.expect_err("invalid");
    assert_eq!(bad.code(), Some(ErrorCode::InvalidTopicName));
    let missing = admin.delete_topic("nowhere").await.expect_err("unknown");
    assert_eq!(missing.code(), Some(ErrorCode::UnknownTopic));
    let producer = producer(&client);
    let delivery = producer.send("small", Some(0), Record::value("x".repeat(5_000))).await;
    let refused = match delivery {
        Ok(delivery) => within(delivery).await.expect_err("too large").to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("1000"), "{refused}");
    within(send(&producer, "small", 0, 0..3)).await;
    let beyond = within(client.reader("small", 0, Start::Offset(99)).next()).await.expect("an answer");
    assert!(beyond.expect_err("out of range").to_string().contains("99"));
    let elsewhere = within(client.reader("small", 7, Start::Earliest).next()).await.expect("an answer");
    assert!(elsewhere.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bookie_may_die_and_come_back_under_load() {
    let mut world = World::new(4, Q32).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("events", 1, &[]).await.expect("created");
    let producer = producer(&client);
    for round in 0..4u32 {
        let id = u64::from(round) + 1;
        within(send(&producer, "events", 0, round * 300..round * 300 + 100)).await;
        world.bookies.remove(&id).expect("runs").stop().await;
        within(send(&producer, "events", 0, round * 300 + 100..round * 300 + 200)).await;
        world.start_bookie(id).await;
        within(send(&producer, "events", 0, round * 300 + 200..round * 300 + 300)).await;
    }
    assert_eq!(within(read_all(&client, "events", 0)).await, numbered(0..1_200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_below_the_log_start_are_gone() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway("gateway-1").await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("short", 1, &[]).await.expect("created");
    let producer = producer(&client);
    within(send(&producer, "short", 0, 0..50)).await;
    assert_eq!(within(client.admin().delete_records("short", 0, Some(20))).await.expect("deleted"), 20);
    assert_eq!(within(read_all(&client, "short", 0)).await, numbered(20..50));
}
