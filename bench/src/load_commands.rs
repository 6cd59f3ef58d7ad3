//! `esker-bench produce` and `consume`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use esker_bench::cluster::{self, Request};
use esker_bench::load::stats::CpuMeter;
use esker_bench::load::{consume as readers, produce as producers};
use esker_client::{Client, ClientConfig, Compression, Error, ProducerConfig, Start, Trust};
use esker_types::ErrorCode;
use serde_json::json;

use crate::args::{Codec, ConsumeArgs, ProduceArgs, Target};

/// A client, and the processes whose CPU time counts, by role.
async fn connect(target: &Target) -> Result<(Client, BTreeMap<String, Vec<u32>>)> {
    let (servers, ca, pids) = match &target.data {
        None => (target.server.clone(), target.ca.clone(), BTreeMap::new()),
        Some(data) => {
            let described = cluster::ask(data, &Request::Status).await?;
            let servers = described.roles.iter().filter_map(|role| role.addresses.get("quic").cloned()).collect();
            let mut pids: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for role in described.roles.iter().filter(|role| role.pid != 0) {
                pids.entry(role.role.clone()).or_default().push(role.pid);
            }
            (servers, described.ca, pids)
        }
    };
    let mut config = ClientConfig::new(servers, Trust::CaFile(ca));
    (config.mtu_max, config.connections_per_gateway) = (target.mtu_max, target.connections);
    Ok((Client::connect(config).await?, pids))
}

pub async fn produce(args: ProduceArgs) -> Result<()> {
    let (client, pids) = connect(&args.target).await?;
    let partitions = topic(&client, &args).await?;
    let compression = match args.compression {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    };
    let producer = ProducerConfig {
        compression,
        batch_bytes: args.batch_bytes,
        linger: args.linger.0,
        ..ProducerConfig::default()
    };
    let plan = producers::Plan {
        topic: args.topic.clone(),
        partitions,
        producers: args.producers,
        record_bytes: args.record_bytes,
        rate: args.rate,
        duration: Duration::from_secs(args.secs),
        warm_up: Duration::from_secs(args.warm_up),
        producer,
    };
    let mut meter = None;
    let outcome = producers::run(&client, &plan, || meter = Some(CpuMeter::start(&pids))).await?;
    let spent = meter.map(|meter| meter.spent()).unwrap_or_default();
    let per_gb: BTreeMap<&String, f64> =
        spent.iter().map(|(group, seconds)| (group, seconds / (outcome.megabytes / 1e3).max(1e-9))).collect();
    if args.target.json {
        println!("{}", json!({ "produce": outcome, "cpu_seconds_per_gb": per_gb }));
        return Ok(());
    }
    let (o, l) = (&outcome, &outcome.latency);
    println!("{:.0} records/s, {:.1} MB/s over {:.0} s", o.records_per_second, o.megabytes_per_second, o.seconds);
    println!(
        "latency p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        l.p50_ms, l.p99_ms, l.p999_ms, l.max_ms
    );
    let cpu: Vec<String> = per_gb.iter().map(|(group, seconds)| format!("{group} {seconds:.2}")).collect();
    println!("CPU seconds per GB: {}", cpu.join(", "));
    Ok(())
}

/// Partitions of the topic, which is made if it does not exist.
async fn topic(client: &Client, args: &ProduceArgs) -> Result<u32> {
    match client.admin().describe_topic(&args.topic).await {
        Ok(topic) => Ok(topic.partition_count),
        Err(Error::Refused(error)) if error.is(ErrorCode::UnknownTopic) => {
            let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            let settings: Option<Vec<_>> = args.settings.iter().map(pair).collect();
            let settings = settings.context("--config takes KEY=VALUE")?;
            let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            Ok(client.admin().create_topic(&args.topic, args.partitions, &settings).await?.partitions)
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn consume(args: ConsumeArgs) -> Result<()> {
    let (client, pids) = connect(&args.target).await?;
    let partitions = client.admin().describe_topic(&args.topic).await?.partition_count;
    let start = if args.tail { Start::Latest } else { Start::Earliest };
    let meter = CpuMeter::start(&pids);
    let plan = readers::Plan {
        topic: args.topic,
        partitions,
        start,
        duration: Duration::from_secs(args.secs),
        again: args.again,
    };
    let outcome = readers::run(&client, &plan).await?;
    let gb = (outcome.megabytes / 1e3).max(1e-9);
    let per_gb: BTreeMap<String, f64> = meter.spent().into_iter().map(|(group, s)| (group, s / gb)).collect();
    if args.target.json {
        println!("{}", json!({ "consume": outcome, "cpu_seconds_per_gb": per_gb }));
        return Ok(());
    }
    println!("{} records, {:.1} MB/s over {:.1} s", outcome.records, outcome.megabytes_per_second, outcome.seconds);
    let cpu: Vec<String> = per_gb.iter().map(|(group, seconds)| format!("{group} {seconds:.2}")).collect();
    println!("CPU seconds per GB: {}", cpu.join(", "));
    Ok(())
}
