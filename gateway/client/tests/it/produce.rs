use std::sync::Arc;
use std::time::Duration;

use esker_client::{Compression, ErrorClass, ErrorCode, Producer, ProducerConfig, Record, SendError};

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::fake::{Fake, Fault, TOPIC};

/// Small batches, so that several are under way.
fn small() -> ProducerConfig {
    ProducerConfig { batch_bytes: 1 << 10, linger: Duration::ZERO, ..ProducerConfig::default() }
}

fn text(i: usize) -> String {
    format!("record {i:06} {}", "x".repeat(180))
}

/// Sends so many records and expects every one to be acknowledged at its place.
async fn send_all(fake: &Fake, producer: &Producer, count: usize) {
    let mut deliveries = Vec::new();
    for i in 0..count {
        deliveries.push(producer.send(TOPIC, None, Record::value(text(i))).await.unwrap());
    }
    for (i, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, i as i64);
    }
    assert_eq!(fake.values(), (0..count).map(text).collect::<Vec<_>>());
    fake.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_stored_in_order_in_every_compression() {
    for compression in Compression::ALL {
        let fake = Fake::start(1);
        let client = fake.client().await;
        let config = ProducerConfig { compression, batch_bytes: 100_000, ..ProducerConfig::default() };
        send_all(&fake, &client.producer(config).unwrap(), 2_000).await;
        let log = fake.state.lock().log.clone();
        assert!(log.len() < 1_000, "batched");
        assert!(log.iter().any(|batch| batch.header().compression() == Ok(compression)));
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcomes_are_settled_by_the_same_batches_at_the_new_owner() {
    let fake = Fake::start(3);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    let rounds = [
        Fault::StoreAndCut,
        Fault::None,
        Fault::StoreAndMove(1),
        Fault::None,
        Fault::Cut,
        Fault::Move(2),
        Fault::Notice(1),
        Fault::None,
        Fault::None,
        Fault::StoreAndMove(0),
        Fault::StoreAndCut,
        Fault::Cut,
        Fault::Refuse(ErrorCode::NotEnoughBookies),
        Fault::Refuse(ErrorCode::Recovering),
        Fault::None,
        Fault::StoreAndMove(2),
    ];
    fake.faults(rounds.into_iter().cycle().take(60));
    send_all(&fake, &producer, 1_500).await;
    let state = fake.state.lock();
    assert!(state.faults.is_empty(), "all faults were met: {:?}", state.faults);
    assert!(state.duplicates > 0, "some batches were sent twice and stored once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_owner_is_left_when_another_gateway_knows_better() {
    let fake = Fake::start(2);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    fake.faults([Fault::None, Fault::Silence(1)]);
    let begun = std::time::Instant::now();
    send_all(&fake, &producer, 50).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "not as long as a dead connection takes to notice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateway_is_left_at_once() {
    let fake = Fake::start(2);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    for i in 0..20 {
        assert_eq!(producer.send(TOPIC, None, Record::value(text(i))).await.unwrap().await.unwrap().offset, i as i64);
    }
    {
        let mut state = fake.state.lock();
        (state.owner, state.epoch) = (1, 2);
    }
    fake.stop(0);
    for i in 20..40 {
        assert_eq!(producer.send(TOPIC, None, Record::value(text(i))).await.unwrap().await.unwrap().offset, i as i64);
    }
    fake.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_takes_along_only_what_may_be_stored() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    let go_on = Arc::new(Notify::new());
    fake.faults([Fault::Hold(go_on.clone()), Fault::Refuse(ErrorCode::InvalidTimestamp)]);
    let mut deliveries = Vec::new();
    for i in 0..60 {
        deliveries.push(producer.send(TOPIC, None, Record::value(text(i))).await.unwrap());
    }
    go_on.notify_one();
    let mut refused = Vec::new();
    for (i, delivery) in deliveries.into_iter().enumerate() {
        match delivery.await {
            Ok(_) => {}
            Err(SendError::Refused(remote)) => {
                assert_eq!((remote.code, remote.class), (Some(ErrorCode::InvalidTimestamp), ErrorClass::Fatal));
                refused.push(i);
            }
            Err(other) => panic!("record {i}: {other}"),
        }
    }
    assert!(!refused.is_empty() && refused.len() < 10, "one batch: {refused:?}");
    let stored: Vec<String> = (0..60).filter(|i| !refused.contains(i)).map(text).collect();
    assert_eq!(fake.values(), stored, "the others are stored once, in order");
    fake.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbering_begins_anew_where_the_log_has_forgotten_the_producer() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    fake.faults([Fault::None, Fault::Refuse(ErrorCode::UnknownProducer)]);
    send_all(&fake, &producer, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_time_out_tells_whether_a_record_may_be_stored() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(400), ..small() };
    let producer = client.producer(config).unwrap();
    producer.send(TOPIC, None, Record::value("first")).await.unwrap().await.unwrap();
    fake.faults([Fault::Hold(Arc::default())]);
    let waiting = producer.send(TOPIC, None, Record::value("second")).await.unwrap();
    let error = waiting.await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { may_be_stored: true, .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::UnknownOutcome);
    fake.state.lock().faults.extend((0..200).map(|_| Fault::Refuse(ErrorCode::Overloaded)));
    let error = producer.send(TOPIC, None, Record::value("third")).await.unwrap().await.unwrap_err();
    assert!(matches!(error, SendError::TimedOut { may_be_stored: false, .. }), "{error}");
    assert!(error.to_string().contains("fake Overloaded"), "{error}");
    fake.state.lock().faults.clear();
    let last = producer.send(TOPIC, None, Record::value("fourth")).await.unwrap().await.unwrap();
    assert_eq!(last.offset, 1);
    assert_eq!(fake.values(), ["first", "fourth"]);
    fake.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_makes_send_wait() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(ProducerConfig { buffer_bytes: 4 << 10, ..small() }).unwrap();
    let go_on = Arc::new(Notify::new());
    fake.faults([Fault::Hold(go_on.clone())]);
    drop(producer.send(TOPIC, None, Record::value(text(0))).await.unwrap());
    // The topic is known now: a send waits for nothing but room.
    let mut sent = 1;
    while let Some(delivery) = producer.send(TOPIC, None, Record::value(text(sent))).now_or_never() {
        drop(delivery.unwrap());
        sent += 1;
    }
    assert!((5..20).contains(&sent), "{sent} records of 200 bytes got into 4 KiB");
    go_on.notify_one();
    producer.flush().await;
    assert_eq!(fake.values().len(), sent, "the send that was dropped sent nothing");
    producer.close().await;
    let closed = producer.send(TOPIC, None, Record::value("late")).await.unwrap_err();
    assert!(matches!(closed, SendError::Closed { may_be_stored: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_does_not_linger_and_dropping_the_producer_settles_everything() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(ProducerConfig { linger: Duration::from_secs(10), ..Default::default() }).unwrap();
    let go_on = Arc::new(Notify::new());
    fake.faults([Fault::Hold(go_on.clone())]);
    let deliveries: Vec<_> =
        futures_util::future::join_all((0..50).map(|i| producer.send(TOPIC, None, Record::value(text(i))))).await;
    go_on.notify_one();
    producer.flush().await;
    assert!(deliveries.iter().all(|delivery| delivery.as_ref().unwrap().peek().unwrap().is_ok()));
    fake.faults([Fault::Hold(Arc::default())]);
    let lost = producer.send(TOPIC, None, Record::value("lost")).await.unwrap();
    drop(producer);
    assert!(matches!(lost.await, Err(SendError::Closed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_at_once() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(ProducerConfig::default()).unwrap();
    let error = producer.send("nosuch", None, Record::value("x")).await.unwrap_err();
    assert!(matches!(&error, SendError::UnknownPartition(text) if text.contains("topic create")), "{error}");
    let error = producer.send(TOPIC, Some(1), Record::value("x")).await.unwrap_err();
    assert!(error.to_string().contains("has no partition 1: its only one is 0"), "{error}");
    let error = producer.send(TOPIC, None, Record::value(vec![0; 2 << 20])).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { max: 1_048_588, .. }), "{error}");
    let exact = producer.send(TOPIC, None, Record::value(vec![0; 1_048_588 - 61 - 13])).await.unwrap().await;
    assert!(exact.is_ok(), "{exact:?}");
    assert!(client.producer(ProducerConfig { in_flight: 6, ..Default::default() }).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acknowledgements_records_still_arrive_on_a_good_day() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let config = ProducerConfig { idempotent: false, acks: false, ..small() };
    let producer = client.producer(config).unwrap();
    for i in 0..200 {
        drop(producer.send(TOPIC, None, Record::value(text(i))).await.unwrap());
    }
    producer.close().await;
    client.close().await;
    while fake.values().len() < 200 {
        fake.grew.notified().await;
    }
    assert_eq!(fake.values(), (0..200).map(text).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_chosen_by_key_as_kafka_does() {
    let fake = Fake::start(1);
    fake.state.lock().partitions = 7;
    let client = fake.client().await;
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for key in ["21", "foobar", "a-little-bit-long-string"] {
        let placed = producer.send(TOPIC, None, Record::key_value(key, "v")).await.unwrap().await.unwrap();
        assert_eq!(placed.partition, esker_client::partition_of_key(key.as_bytes(), 7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_is_another_topic() {
    let fake = Fake::start(1);
    let client = fake.client().await;
    let producer = client.producer(small()).unwrap();
    producer.send(TOPIC, None, Record::value("old")).await.unwrap().await.unwrap();
    {
        let mut state = fake.state.lock();
        state.remade = 1;
        state.log.clear();
        state.faults.push_back(Fault::Cut);
    }
    let error = producer.send(TOPIC, None, Record::value("lost")).await.unwrap().await.unwrap_err();
    assert!(matches!(&error, SendError::EarlierFailed { reason, .. } if reason.contains("was deleted")), "{error}");
    // Until the producer has looked for the topic again, it knows only that its topic is gone.
    let again = async {
        loop {
            match producer.send(TOPIC, None, Record::value("new")).await.unwrap().await {
                Err(SendError::UnknownPartition(_)) => {}
                sent => break sent.unwrap(),
            }
        }
    };
    let new = tokio::time::timeout(Duration::from_secs(60), again).await.expect("it finds the topic");
    assert_eq!((new.offset, fake.values()), (0, vec!["new".to_owned()]));
    fake.assert_sound();
}
