//! Producers that send records of one size and measure each until its acknowledgement.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use esker_client::{Client, Delivery, ProducerConfig, Record};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::stats::{self, Latency};
use crate::record;

#[derive(Clone, Debug)]
pub struct Plan {
    pub topic: String,
    /// Producer `i` writes to partition `i` modulo this.
    pub partitions: u32,
    pub producers: u32,
    pub record_bytes: usize,
    /// Records per second, all producers together; None = as fast as it goes.
    pub rate: Option<u64>,
    /// Time measured, after `warm_up` of the same load.
    pub duration: Duration,
    pub warm_up: Duration,
    pub producer: ProducerConfig,
}

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub records: u64,
    pub megabytes: f64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub megabytes_per_second: f64,
    pub latency: Latency,
}

/// What one producer saw in the measured time.
struct Seen {
    records: u64,
    latencies: Histogram<u64>,
}

/// Runs the plan; `measuring` is called when the warm-up is over.
pub async fn run(client: &Client, plan: &Plan, measuring: impl FnOnce()) -> Result<Outcome> {
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.duration;
    let mut producers = JoinSet::new();
    for number in 0..plan.producers {
        producers.spawn(produce(client.clone(), plan.clone(), number, begin, end));
    }
    sleep_until(begin).await;
    measuring();
    let mut total = Seen { records: 0, latencies: stats::histogram() };
    while let Some(seen) = producers.join_next().await {
        let seen = seen.context("a producer's task failed")??;
        total.records += seen.records;
        total.latencies.add(seen.latencies)?;
    }
    let (seconds, megabytes) = (plan.duration.as_secs_f64(), (total.records * plan.record_bytes as u64) as f64 / 1e6);
    Ok(Outcome {
        records: total.records,
        megabytes,
        seconds,
        records_per_second: total.records as f64 / seconds,
        megabytes_per_second: megabytes / seconds,
        latency: Latency::of(&total.latencies),
    })
}

/// Counts what is acknowledged between `begin` and `end`.
async fn produce(client: Client, plan: Plan, number: u32, begin: Instant, end: Instant) -> Result<Seen> {
    let producer = client.producer(plan.producer.clone())?;
    let partition = number % plan.partitions;
    let interval = plan.rate.map(|rate| Duration::from_secs_f64(f64::from(plan.producers) / rate as f64));
    let mut seen = Seen { records: 0, latencies: stats::histogram() };
    let mut open: VecDeque<(Instant, Delivery)> = VecDeque::new();
    let payloads = payloads(number, plan.record_bytes);
    let start = Instant::now();
    let mut sent = 0u32;
    let mut now = start;
    while now < end {
        // With a rate, latency counts from the moment a record was due: a stall is not hidden by sending less.
        let due = match interval {
            Some(interval) => {
                let due = start + interval * sent;
                drain(&mut open, &mut seen, begin, end, due).await?;
                sleep_until(due).await;
                due
            }
            None => now,
        };
        let payload = payloads[sent as usize % payloads.len()].clone();
        let delivery = producer.send(&plan.topic, Some(partition), Record::value(payload)).await?;
        open.push_back((due, delivery));
        sent = sent.wrapping_add(1);
        now = Instant::now();
        settle(&mut open, &mut seen, begin, end)?;
    }
    while let Some((due, delivery)) = open.pop_front() {
        delivery.await?;
        count(&mut seen, due, begin, end);
    }
    producer.close().await;
    Ok(seen)
}

/// Until `due`, waits for outcomes, so that each is noticed when it happens.
async fn drain(
    open: &mut VecDeque<(Instant, Delivery)>,
    seen: &mut Seen,
    begin: Instant,
    end: Instant,
    due: Instant,
) -> Result<()> {
    while let Some((since, delivery)) = open.front_mut() {
        match tokio::time::timeout_at(due, delivery).await {
            Ok(outcome) => {
                outcome?;
                count(seen, *since, begin, end);
                open.pop_front();
            }
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Takes the outcomes that are there.
fn settle(open: &mut VecDeque<(Instant, Delivery)>, seen: &mut Seen, begin: Instant, end: Instant) -> Result<()> {
    while let Some(outcome) = open.front().and_then(|(_, delivery)| delivery.peek()) {
        outcome?;
        if let Some((since, _)) = open.pop_front() {
            count(seen, since, begin, end);
        }
    }
    Ok(())
}

fn count(seen: &mut Seen, since: Instant, begin: Instant, end: Instant) {
    let now = Instant::now();
    if now >= begin && now <= end {
        seen.records += 1;
        stats::observe(&mut seen.latencies, now - since);
    }
}

/// Some different records, made before the clock starts.
fn payloads(producer: u32, bytes: usize) -> Vec<Bytes> {
    let mut buffer = Vec::with_capacity(bytes);
    let one = |sequence| {
        record::fill(&mut buffer, producer.into(), sequence, bytes.max(record::HEAD));
        Bytes::copy_from_slice(&buffer)
    };
    (0..256).map(one).collect()
}
