//! Groups that choose their times (KIP-848).

use esker_kafka::{Request, Response, code, consumer_group_heartbeat, describe_configs, incremental_alter_configs};
use esker_types::Quorum;

use crate::kafka_client::Kafka;
use crate::world::{World, within};

const GROUP: i8 = 32;

/// Values and where they come from, in the order of names.
async fn shown(kafka: &mut Kafka, group: &str) -> Vec<(String, String, i8)> {
    let resource =
        describe_configs::Resource { resource_type: GROUP, resource_name: group.to_owned(), configuration_keys: None };
    let request = describe_configs::Request { resources: vec![resource], ..Default::default() };
    let Response::DescribeConfigs(mut answer) = kafka.ask(4, Request::DescribeConfigs(request)).await else {
        panic!("another answer");
    };
    let result = answer.results.remove(0);
    assert_eq!((result.error_code, result.resource_name.as_str()), (code::NONE, group));
    let configs = result.configs.into_iter();
    configs.map(|config| (config.name, config.value.expect("a value"), config.config_source)).collect()
}

async fn alter(kafka: &mut Kafka, group: &str, name: &str, value: Option<&str>) -> i16 {
    let config = incremental_alter_configs::Config {
        name: name.to_owned(),
        config_operation: i8::from(value.is_none()),
        value: value.map(str::to_owned),
    };
    let resource = incremental_alter_configs::Resource {
        resource_type: GROUP,
        resource_name: group.to_owned(),
        configs: vec![config],
    };
    let request = incremental_alter_configs::Request { resources: vec![resource], validate_only: false };
    let Response::IncrementalAlterConfigs(answer) = kafka.ask(1, Request::IncrementalAlterConfigs(request)).await
    else {
        panic!("another answer");
    };
    answer.responses[0].error_code
}

/// A member's heartbeat interval as it is told; asks until the coordinator serves.
async fn heartbeat_interval(kafka: &mut Kafka, group: &str, member_epoch: i32) -> i32 {
    within(async {
        loop {
            let request = consumer_group_heartbeat::Request {
                group_id: group.to_owned(),
                member_id: "m".to_owned(),
                member_epoch,
                rebalance_timeout_ms: 10_000,
                subscribed_topic_names: Some(vec!["t".to_owned()]),
                topic_partitions: Some(Vec::new()),
                ..Default::default()
            };
            let asked = kafka.ask(1, Request::ConsumerGroupHeartbeat(request)).await;
            let Response::ConsumerGroupHeartbeat(answer) = asked else { panic!("another answer") };
            if answer.error_code == code::NONE {
                return answer.heartbeat_interval_ms;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_times_are_shown_changed_and_told_to_members() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    world.start_gateway_with("gateway-1", |config| config.kafka.listen = "127.0.0.1:0".to_owned()).await;
    let mut kafka = Kafka::connect(&world, "gateway-1").await;
    kafka.create("t", 1, &[]).await;
    let (heartbeat, session) = ("consumer.heartbeat.interval.ms", "consumer.session.timeout.ms");
    let setting = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    // Of a group that is not there.
    let defaults = [setting(heartbeat, "5000", 5), setting(session, "45000", 5)];
    assert_eq!(shown(&mut kafka, "g").await, defaults);
    assert_eq!(alter(&mut kafka, "g", session, Some("50000")).await, code::NONE);
    assert_eq!(alter(&mut kafka, "g", heartbeat, Some("2000")).await, code::NONE);
    assert_eq!(shown(&mut kafka, "g").await, [setting(heartbeat, "2000", 8), setting(session, "50000", 8)]);
    assert_eq!(shown(&mut kafka, "h").await, defaults);
    for (name, value) in [(session, "10"), (heartbeat, "often"), (heartbeat, "50000"), ("max.poll.records", "1")] {
        assert_eq!(alter(&mut kafka, "g", name, Some(value)).await, code::INVALID_CONFIG, "{name}={value}");
    }
    // Makes the internal topic, if it is the first to ask.
    let request =
        esker_kafka::find_coordinator::Request { coordinator_keys: vec!["g".to_owned()], ..Default::default() };
    kafka.ask(4, Request::FindCoordinator(request)).await;
    assert_eq!(heartbeat_interval(&mut kafka, "g", 0).await, 2_000);
    assert_eq!(heartbeat_interval(&mut kafka, "h", 0).await, 5_000);
    assert_eq!(alter(&mut kafka, "g", heartbeat, None).await, code::NONE);
    assert_eq!(heartbeat_interval(&mut kafka, "g", 1).await, 5_000, "at the next heartbeat");
    assert_eq!(shown(&mut kafka, "g").await, [setting(heartbeat, "5000", 5), setting(session, "50000", 8)]);
}
