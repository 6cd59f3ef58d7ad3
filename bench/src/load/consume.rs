//! Readers that take records as fast as they come.

use std::time::Duration;

use anyhow::{Context, Result};
use esker_client::{Client, Start};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

#[derive(Clone, Debug)]
pub struct Plan {
    pub topic: String,
    pub partitions: u32,
    pub start: Start,
    /// Ends earlier where a partition ends, unless it is to be read again and again.
    pub duration: Duration,
    pub again: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub records: u64,
    /// Of record batches, as stored.
    pub megabytes: f64,
    pub seconds: f64,
    pub megabytes_per_second: f64,
    pub records_per_second: f64,
}

/// One reader a partition; records are counted, not decoded.
pub async fn run(client: &Client, plan: &Plan) -> Result<Outcome> {
    let begin = Instant::now();
    let mut readers = JoinSet::new();
    for partition in 0..plan.partitions {
        readers.spawn(read(client.clone(), plan.clone(), partition, begin + plan.duration));
    }
    let (mut records, mut bytes) = (0, 0);
    while let Some(read) = readers.join_next().await {
        let (r, b) = read.context("a reader's task failed")??;
        records += r;
        bytes += b;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let megabytes = bytes as f64 / 1e6;
    let rates = (megabytes / seconds, records as f64 / seconds);
    Ok(Outcome { records, megabytes, seconds, megabytes_per_second: rates.0, records_per_second: rates.1 })
}

async fn read(client: Client, plan: Plan, partition: u32, until: Instant) -> Result<(u64, u64)> {
    let (mut records, mut bytes) = (0, 0);
    loop {
        let mut reader = client.reader(&plan.topic, partition, plan.start);
        reader.open().await?;
        if plan.start != Start::Latest {
            reader.set_end(Some(reader.high_watermark()));
        }
        let before = records;
        while let Ok(Some(fetched)) = timeout_at(until, reader.next()).await {
            let fetched = fetched?;
            records += fetched.count();
            bytes += fetched.batch().bytes().len() as u64;
        }
        // An empty partition is not asked for ever.
        if !plan.again || records == before || Instant::now() >= until {
            return Ok((records, bytes));
        }
    }
}
