//! A steady load whose every record is remembered: run faults beside it, then ask what became of the promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use esker_client::{Client, Delivery, ProducerConfig, Record};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::check::{Checker, Outcome, Promises, Verdict};
use crate::read;
use crate::record;

#[derive(Clone, Debug)]
pub struct Load {
    pub topic: String,
    /// One producer per partition.
    pub partitions: u32,
    pub record_bytes: usize,
    /// Records per second of each producer.
    pub rate: u64,
    pub producer: ProducerConfig,
}

/// A load that runs until [`Running::stop`].
pub struct Running {
    load: Load,
    stop: watch::Sender<bool>,
    producers: JoinSet<Result<(u64, Promises)>>,
    acks: Arc<Mutex<Vec<Timeline>>>,
}

/// When one partition's acknowledgements came; at most one moment per millisecond.
#[derive(Default)]
struct Timeline {
    moments: Vec<Instant>,
}

impl Running {
    pub fn start(client: &Client, load: Load) -> Self {
        let (stop, stopped) = watch::channel(false);
        let acks = Arc::new(Mutex::new((0..load.partitions).map(|_| Timeline::default()).collect::<Vec<_>>()));
        let mut producers = JoinSet::new();
        for partition in 0..load.partitions {
            producers.spawn(produce(client.clone(), load.clone(), partition, stopped.clone(), acks.clone()));
        }
        Self { load, stop, producers, acks }
    }

    /// The longest time without an acknowledgement on any partition, from `since` until now.
    pub fn longest_stall(&self, since: Instant) -> Duration {
        let now = Instant::now();
        self.acks.lock().iter().map(|timeline| timeline.longest_gap(since, now)).max().unwrap_or_default()
    }

    /// Waits until every partition has had an acknowledgement after `moment`. A producer that failed is an error.
    pub async fn acked_after(&mut self, moment: Instant) -> Result<()> {
        let mut tick = interval(Duration::from_millis(5));
        loop {
            if self.acks.lock().iter().all(|timeline| timeline.moments.last().is_some_and(|last| *last > moment)) {
                return Ok(());
            }
            if let Some(ended) = self.producers.try_join_next() {
                ended??;
                anyhow::bail!("a producer ended early");
            }
            tick.tick().await;
        }
    }

    /// Stops sending, waits for what is under way, and gives every promise made.
    pub async fn stop(mut self) -> Result<BTreeMap<u64, Promises>> {
        let _ = self.stop.send(true);
        let mut promises = BTreeMap::new();
        while let Some(ended) = self.producers.join_next().await {
            let (producer, kept) = ended.context("a producer's task failed")??;
            promises.insert(producer, kept);
        }
        Ok(promises)
    }

    pub fn topic(&self) -> &str {
        &self.load.topic
    }
}

/// Reads every partition from the start to its end and judges.
pub async fn judge(
    client: &Client,
    topic: &str,
    partitions: u32,
    promises: BTreeMap<u64, Promises>,
) -> Result<Verdict> {
    let mut checker = Checker::new(promises);
    for partition in 0..partitions {
        read::all(client, topic, partition, |offset, value| checker.record(partition, offset, value)).await?;
    }
    Ok(checker.finish())
}

impl Timeline {
    fn add(&mut self, now: Instant) {
        if self.moments.last().is_none_or(|last| now - *last >= Duration::from_millis(1)) {
            self.moments.push(now);
        }
    }

    fn longest_gap(&self, since: Instant, until: Instant) -> Duration {
        let from = self.moments.partition_point(|moment| *moment < since);
        let inside = self.moments[from..].iter().copied();
        let mut previous = if from > 0 { since.max(self.moments[from - 1]) } else { since };
        let mut longest = Duration::ZERO;
        for moment in inside.chain([until]) {
            longest = longest.max(moment.saturating_duration_since(previous));
            previous = moment;
        }
        longest
    }
}

async fn produce(
    client: Client,
    load: Load,
    partition: u32,
    mut stopped: watch::Receiver<bool>,
    acks: Arc<Mutex<Vec<Timeline>>>,
) -> Result<(u64, Promises)> {
    let id = u64::from(partition) + 1;
    let producer = client.producer(load.producer.clone())?;
    // Groups of records, so that one timer serves any rate.
    let mut tick = interval(Duration::from_millis(2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let start = Instant::now();
    let (mut deliveries, mut value, mut sequence) = (Vec::<Delivery>::new(), Vec::new(), 0u64);
    let mut settled = 0;
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopped.changed() => break,
        }
        let due = (start.elapsed().as_secs_f64() * load.rate as f64) as u64;
        while sequence < due {
            record::fill(&mut value, id, sequence, load.record_bytes);
            let record = Record::value(Bytes::copy_from_slice(&value));
            deliveries.push(producer.send(&load.topic, Some(partition), record).await?);
            sequence += 1;
        }
        let before = settled;
        while deliveries.get(settled).is_some_and(|delivery| delivery.peek().is_some()) {
            settled += 1;
        }
        if settled > before {
            acks.lock()[partition as usize].add(Instant::now());
        }
    }
    let mut promises = Promises { partition, outcomes: Vec::with_capacity(deliveries.len()) };
    for delivery in deliveries {
        promises.outcomes.push(delivery.await.map_or(Outcome::Unknown, |delivered| Outcome::Acked(delivered.offset)));
    }
    producer.close().await;
    Ok((id, promises))
}
