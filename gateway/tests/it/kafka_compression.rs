//! Topics that choose how their records are compressed.

use esker_kafka::{Records, Request, Response, code, describe_configs, incremental_alter_configs};
use esker_types::Quorum;
use esker_wire::batch::{Batch, BatchBuilder, BatchLimits, Compression};

use crate::kafka_client::{Kafka, batch, values};
use crate::world::{World, numbered, producer, read_all, send, within};

const VALUE: &str =
    concat!("the same again and again and again and again, ", "and again and again and again and again, and once more");

async fn world() -> World {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway_with("gateway-1", |config| config.kafka.listen = "127.0.0.1:0".to_owned()).await;
    world
}

fn compression(records: &Records) -> Compression {
    let batch = Batch::check(records.0.concat().into(), BatchLimits::default()).expect("one whole batch");
    batch.header().compression().expect("known")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_any_producer_are_kept_as_the_topic_says() {
    let world = world().await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    for (number, (name, wanted)) in [
        ("producer", None),
        ("uncompressed", Some(Compression::None)),
        ("gzip", Some(Compression::Gzip)),
        ("snappy", Some(Compression::Snappy)),
        ("lz4", Some(Compression::Lz4)),
        ("zstd", Some(Compression::Zstd)),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("kept-{number}");
        assert_eq!(kafka.create(&topic, 1, &[("compression.type", name)]).await.error_code, code::NONE);
        for (offset, sent) in Compression::ALL.into_iter().enumerate() {
            let sent_batch = batch(sent, 7, &[VALUE], None);
            let stored = kafka.produce(9, &topic, 0, sent_batch.bytes().clone()).await;
            assert_eq!((stored.error_code, stored.base_offset), (code::NONE, offset as i64), "{sent:?} for {name}");
            let found = kafka.fetch_one(&topic, 0, offset as i64).await.records;
            assert_eq!(values(&found), [(offset as i64, VALUE.to_owned())]);
            assert_eq!(compression(&found), wanted.unwrap_or(sent), "{sent:?} for {name}");
            if wanted.is_none() {
                assert_eq!(found.0.concat()[16..], sent_batch.bytes()[16..], "byte for byte");
            }
        }
    }
    // The native door is the same way.
    let native = world.client(&["gateway-1"]).await;
    native.admin().create_topic("native", 1, &[("compression.type", "zstd")]).await.expect("created");
    within(send(&producer(&native), "native", 0, 0..50)).await;
    assert_eq!(read_all(&native, "native", 0).await, numbered(0..50));
    assert_eq!(compression(&Records(kafka.fetch_one("native", 0, 49).await.records.0)), Compression::Zstd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_would_not_fit_is_refused_alone() {
    let world = world().await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    let configs = [("compression.type", "uncompressed"), ("max.message.bytes", "20000")];
    kafka.create("small", 1, &configs).await;
    let zeros = |bytes: usize| {
        let mut builder = BatchBuilder::new(Compression::Zstd, 0);
        builder.push(1, None, Some(&vec![0; bytes]), &[]);
        builder.build(None).into_bytes()
    };
    // It grows over the topic's bound, or is a bomb.
    for bytes in [20_000, 50 << 20] {
        assert!(zeros(bytes).len() < 20_000);
        assert_eq!(kafka.produce(9, "small", 0, zeros(bytes)).await.error_code, code::MESSAGE_TOO_LARGE);
    }
    let mut broken = zeros(1_000).to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 0xff;
    broken[61] ^= 0xff;
    let crc = esker_types::checksum::crc32c(&broken[21..]);
    broken[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(kafka.produce(9, "small", 0, broken.into()).await.error_code, code::CORRUPT_MESSAGE);
    let stored = kafka.produce(9, "small", 0, zeros(10_000)).await;
    assert_eq!((stored.error_code, stored.base_offset), (code::NONE, 0), "nothing of all that was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_chosen_is_shown_and_can_be_given_up() {
    let world = world().await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    assert_eq!(kafka.create("no", 1, &[("compression.type", "brotli")]).await.error_code, code::INVALID_CONFIG);
    kafka.create("shown", 1, &[("compression.type", "lz4"), ("delete.retention.ms", "900")]).await;
    let shown = async |kafka: &mut Kafka| {
        let resource = describe_configs::Resource {
            resource_type: 2,
            resource_name: "shown".to_owned(),
            configuration_keys: Some(
                ["compression.type", "delete.retention.ms", "flush.ms"].map(str::to_owned).to_vec(),
            ),
        };
        let request = describe_configs::Request { resources: vec![resource], ..Default::default() };
        let Response::DescribeConfigs(mut answer) = kafka.ask(4, Request::DescribeConfigs(request)).await else {
            panic!("another answer");
        };
        let configs = answer.results.remove(0).configs.into_iter();
        configs.map(|config| (config.value.expect("a value"), config.config_source)).collect::<Vec<_>>()
    };
    let default = (i64::MAX.to_string(), 5);
    assert_eq!(shown(&mut kafka).await, [("lz4".to_owned(), 1), ("900".to_owned(), 1), default.clone()]);
    let change = |name: &str, operation, value: Option<&str>| incremental_alter_configs::Config {
        name: name.to_owned(),
        config_operation: operation,
        value: value.map(str::to_owned),
    };
    let resource = incremental_alter_configs::Resource {
        resource_type: 2,
        resource_name: "shown".to_owned(),
        configs: vec![change("compression.type", 1, None), change("flush.ms", 0, Some("12345678"))],
    };
    let request = incremental_alter_configs::Request { resources: vec![resource], validate_only: false };
    let Response::IncrementalAlterConfigs(answer) = kafka.ask(1, Request::IncrementalAlterConfigs(request)).await
    else {
        panic!("another answer");
    };
    assert_eq!(answer.responses[0].error_code, code::NONE);
    let now = shown(&mut kafka).await;
    assert_eq!(now, [("producer".to_owned(), 5), ("900".to_owned(), 1), ("12345678".to_owned(), 1)]);
}
