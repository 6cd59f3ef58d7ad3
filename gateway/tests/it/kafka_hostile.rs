//! Kafka clients that break the rules: only they notice.

use std::time::Duration;

use esker_kafka::{Request, code, fetch};
use esker_types::{Interval, Quorum};
use esker_wire::batch::{BatchBuilder, Compression};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kafka_client::{Kafka, batch, fetch_of, produce_of};
use crate::world::{World, within};

const ONE: Quorum = Quorum { write: 1, ack: 1 };

async fn world(change: impl FnOnce(&mut esker_gateway::KafkaConfig)) -> World {
    let mut world = World::new(1, ONE).await;
    world
        .start_gateway_with("gateway-1", |config| {
            config.kafka.listen = "127.0.0.1:0".to_owned();
            change(&mut config.kafka);
        })
        .await;
    world
}

/// Whoever behaves is served as before.
async fn assert_unhurt(kafka: &mut Kafka) {
    let stored = kafka.produce(9, "sound", 0, batch(Compression::None, 1, &["x"], None).into_bytes()).await;
    assert_eq!(stored.error_code, code::NONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_not_kafka_end_their_connection_alone() {
    let world = world(|_| {}).await;
    let mut neighbour = Kafka::connect(&world, "gateway-1").await;
    neighbour.create("sound", 1, &[]).await;
    let size = |n: u32| n.to_be_bytes().to_vec();
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], body].concat();
    let cases: [(&str, Vec<u8>); 10] = [
        ("size 0", size(0)),
        ("size -1", size(u32::MAX)),
        ("2 GiB", size(i32::MAX as u32)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("metadata of 2^31-1 topics", frame(b"\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff")),
        ("null where none may be", frame(b"\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff")),
        ("an unknown API", frame(b"\x7f\x00\x00\x00\x00\x00\x00\x01\xff\xff")),
        ("an unknown version", frame(b"\x00\x01\x00\x63\x00\x00\x00\x01\xff\xff")),
        ("an API of transactions, which are not served", frame(b"\x00\x18\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00")),
    ];
    for (what, bytes) in cases {
        let mut kafka = Kafka::connect(&world, "gateway-1").await;
        kafka.stream.write_all(&bytes).await.expect("taken");
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = within(kafka.stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{what} was answered");
        assert_unhurt(&mut neighbour).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_before_and_inside_a_request_is_cut_off() {
    let short = Interval(Duration::from_millis(200));
    let world = world(|kafka| (kafka.first_request_timeout, kafka.request_timeout) = (short, short)).await;
    for begin in [&b""[..], &[0, 0], &[0, 0, 16, 0, 1, 2, 3]] {
        let mut kafka = Kafka::connect(&world, "gateway-1").await;
        kafka.stream.write_all(begin).await.expect("taken");
        let mut rest = Vec::new();
        let _ = within(kafka.stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_are_counted() {
    let world = world(|kafka| kafka.connections_per_address = 2).await;
    let mut first = Kafka::connect(&world, "gateway-1").await;
    let mut second = Kafka::connect(&world, "gateway-1").await;
    first.create("sound", 1, &[]).await;
    assert_unhurt(&mut second).await;
    let mut third = Kafka::connect(&world, "gateway-1").await;
    let mut rest = Vec::new();
    let _ = within(third.stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    assert_unhurt(&mut first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_batches_are_refused_one_by_one() {
    let world = world(|_| {}).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("sound", 1, &[]).await;
    let good = batch(Compression::None, 1, &["a", "b"], None).into_bytes().to_vec();
    let resealed = |at: usize, bytes: &[u8]| {
        let mut broken = good.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = esker_types::checksum::crc32c(&broken[21..]);
        broken[17..21].copy_from_slice(&crc.to_be_bytes());
        broken
    };
    let mut flipped = good.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let cases: [(&str, Vec<u8>, i16); 12] = [
        ("nothing", Vec::new(), code::INVALID_RECORD),
        ("a crc that does not fit", flipped, code::CORRUPT_MESSAGE),
        ("cut off", good[..good.len() - 1].to_vec(), code::CORRUPT_MESSAGE),
        ("two batches", [&good[..], &good].concat(), code::CORRUPT_MESSAGE),
        ("magic 0", resealed(16, &[0]), code::INVALID_RECORD),
        ("magic 1", resealed(16, &[1]), code::INVALID_RECORD),
        ("a count of 0", resealed(57, &0i32.to_be_bytes()), code::INVALID_RECORD),
        ("a negative count", resealed(57, &(-1i32).to_be_bytes()), code::INVALID_RECORD),
        ("a last delta that is not count - 1", resealed(23, &7i32.to_be_bytes()), code::INVALID_RECORD),
        ("the control bit", resealed(21, &0x20i16.to_be_bytes()), code::INVALID_RECORD),
        ("an unknown codec", resealed(21, &7i16.to_be_bytes()), 76),
        ("a negative timestamp", resealed(27, &(-9i64).to_be_bytes()), 32),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(kafka.produce(9, "sound", 0, bytes.into()).await.error_code, expected, "{what}");
    }
    assert_unhurt(&mut kafka).await;
    assert_eq!(kafka.offset("sound", 0, -1).await.offset, 1, "nothing of all that was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_holds_up_nobody_else() {
    let world = world(|kafka| kafka.fetch_total = kafka.fetch_bytes_max).await;
    let mut neighbour = Kafka::connect(&world, "gateway-1").await;
    neighbour.create("sound", 1, &[]).await;
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.push(1, None, Some(&vec![7; 900_000]), &[]);
    let large = builder.build(None).into_bytes();
    for _ in 0..8 {
        assert_eq!(neighbour.produce(9, "sound", 0, large.clone()).await.error_code, code::NONE);
    }
    // Each asks for far more than sockets hold, again and again, and takes none of it.
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let mut kafka = Kafka::connect(&world, "gateway-1").await;
        for _ in 0..16 {
            kafka.send(11, &Request::Fetch(fetch_of("sound", &[(0, 0)], i32::MAX))).await;
        }
        greedy.push(kafka);
    }
    for _ in 0..20 {
        assert_unhurt(&mut neighbour).await;
        let fetched = neighbour.fetch_one("sound", 0, 0).await;
        assert!(fetched.records.len() >= large.len(), "one batch at least");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_that_no_session_or_number_fits_are_answered() {
    let world = world(|_| {}).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("sound", 1, &[]).await;
    let stranger = fetch::Request { session_id: 77, session_epoch: 3, ..fetch_of("sound", &[(0, 0)], 1) };
    assert_eq!(kafka.fetch(11, stranger).await.error_code, code::FETCH_SESSION_ID_NOT_FOUND);
    for (offset, index, expected) in [
        (-5, 0, code::OFFSET_OUT_OF_RANGE),
        (i64::MAX, 0, code::OFFSET_OUT_OF_RANGE),
        (0, -1, code::UNKNOWN_TOPIC_OR_PARTITION),
        (0, i32::MAX, code::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let request = fetch::Request {
            max_bytes: -1,
            min_bytes: i32::MIN,
            max_wait_ms: -1,
            ..fetch_of("sound", &[(index, offset)], -1)
        };
        assert_eq!(kafka.fetch(11, request).await.responses[0].partitions[0].error_code, expected);
    }
    // Far more than may be in flight at once: it is read as answers go out.
    for _ in 0..2_000 {
        kafka.send(11, &Request::Fetch(fetch_of("sound", &[(0, 0)], 1))).await;
    }
    for _ in 0..2_000 {
        assert!(kafka.frame().await.is_some());
    }
    let lost = produce_of("sound", 0, batch(Compression::None, 1, &["x"], None).into_bytes(), 7);
    kafka.send(9, &lost).await;
    assert!(kafka.frame().await.is_some(), "wrong acks are an answer, not an end");
}
