use esker_client::{ErrorClass, ProducerConfig, ReadError, Reader, ReaderConfig, Record, Start};

use crate::fake::{Fake, ReadFault, TOPIC};

/// A log of ten batches of ten records dated 1000, 1001, ...
async fn filled(gateways: usize) -> Fake {
    let fake = Fake::start(gateways);
    let client = fake.client().await;
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for batch in 0..10 {
        for i in 0..10 {
            let n = batch * 10 + i;
            let record = Record { timestamp_ms: Some(1000 + n), ..Record::value(format!("{n}")) };
            drop(producer.send(TOPIC, None, record).await.unwrap());
        }
        producer.flush().await;
    }
    producer.close().await;
    fake
}

async fn take(reader: &mut Reader, count: usize) -> Vec<(i64, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        for record in reader.next().await.expect("more to come").unwrap().records().unwrap() {
            let record = record.unwrap();
            taken.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    taken
}

fn expected(from: i64, to: i64) -> Vec<(i64, String)> {
    (from..to).map(|n| (n, n.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_where_it_was_told_to_and_ends_there() {
    let fake = filled(1).await;
    let client = fake.client().await;
    assert_eq!(take(&mut client.reader(TOPIC, 0, Start::Earliest), 100).await, expected(0, 100));
    assert_eq!(take(&mut client.reader(TOPIC, 0, Start::Offset(37)), 63).await, expected(37, 100));

    let mut timed = client.reader(TOPIC, 0, Start::TimeMs(1095));
    let first = take(&mut timed, 1).await;
    assert!(first[0].0 <= 95 && timed.next_offset().is_some());

    let config = ReaderConfig { end: Some(42), ..ReaderConfig::new(Start::Offset(15)) };
    let mut bounded = client.reader_with(TOPIC, 0, config);
    assert_eq!(take(&mut bounded, 27).await, expected(15, 42));
    assert!(bounded.next().await.is_none());

    let mut to_end = client.reader(TOPIC, 0, Start::Earliest);
    to_end.open().await.unwrap();
    assert_eq!((to_end.high_watermark(), to_end.next_offset()), (100, Some(0)));
    to_end.set_end(Some(to_end.high_watermark()));
    assert_eq!(take(&mut to_end, 100).await.len(), 100);
    assert!(to_end.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_sees_what_comes() {
    let fake = filled(1).await;
    let client = fake.client().await;
    let mut tail = client.reader(TOPIC, 0, Start::Latest);
    tail.open().await.unwrap();
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for n in 100..120 {
        let _ = producer.send(TOPIC, None, Record::value(n.to_string())).await.unwrap().await;
    }
    assert_eq!(take(&mut tail, 20).await, expected(100, 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_repetitions_and_moves_are_not_seen_by_the_user() {
    let fake = filled(2).await;
    let client = fake.client().await;
    {
        let mut state = fake.state.lock();
        state.read_faults.extend([ReadFault::CutAfter(0), ReadFault::CutAfter(3), ReadFault::Repeat]);
    }
    assert_eq!(take(&mut client.reader(TOPIC, 0, Start::Earliest), 100).await, expected(0, 100));

    let mut moving = client.reader(TOPIC, 0, Start::Earliest);
    let mut seen = take(&mut moving, 10).await;
    {
        let mut state = fake.state.lock();
        (state.owner, state.epoch) = (1, 2);
    }
    seen.extend(take(&mut moving, 90).await);
    assert_eq!(seen, expected(0, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_next_takes_nothing() {
    let fake = filled(1).await;
    let client = fake.client().await;
    let mut reader = client.reader(TOPIC, 0, Start::Earliest);
    reader.open().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let next = tokio::time::timeout(std::time::Duration::from_micros(200), reader.next()).await;
        let Ok(fetched) = next else { continue };
        seen.extend(fetched.unwrap().unwrap().records().unwrap().map(|r| r.unwrap().offset));
    }
    assert_eq!(seen, (0..100).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_and_holes_are_never_handed_out() {
    let fake = filled(1).await;
    let client = fake.client().await;
    for fault in [ReadFault::FlipBit, ReadFault::Hole] {
        fake.state.lock().read_faults.push_back(fault);
        let mut reader = client.reader(TOPIC, 0, Start::Offset(20));
        let error = reader.next().await.unwrap().unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { offset: 20, .. }), "{error}");
        assert!(error.retryable());
        assert_eq!(take(&mut reader, 80).await, expected(20, 100), "the next try reads it well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outside_of_the_log_and_unknown_topics_are_told() {
    let fake = filled(1).await;
    let client = fake.client().await;
    let error = client.reader(TOPIC, 0, Start::Offset(500)).next().await.unwrap().unwrap_err();
    assert_eq!(error, ReadError::OutOfRange { offset: 500, log_start: 0, high_watermark: 100 });
    assert_eq!(error.class(), ErrorClass::Fatal);
    let error = client.reader("nosuch", 0, Start::Earliest).next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    let error = client.reader(TOPIC, 3, Start::Earliest).next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("has no partition 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_ranges_are_skipped_only_if_asked() {
    let fake = filled(1).await;
    let client = fake.client().await;
    fake.state.lock().lost = Some((0, 50));
    let config = ReaderConfig { skip_lost: true, ..ReaderConfig::new(Start::Earliest) };
    let mut reader = client.reader_with(TOPIC, 0, config);
    assert_eq!(take(&mut reader, 50).await, expected(50, 100));
    let lost: Vec<_> = reader.take_lost().iter().map(|range| (range.from, range.to)).collect();
    assert_eq!(lost, [(0, 50)]);
}
