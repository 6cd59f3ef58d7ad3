//! A topic whose records went through the cluster into the bucket, and what must come back of it.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use esker_cache::testing::payload;
use esker_client::{Client, Delivery, ProducerConfig, Reader, Record, Start};
use esker_types::Offset;
use esker_types::units::ByteCount;
use esker_wire::native::SegmentState;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::Xxh3;

use super::world::World;
use crate::cluster::metrics;

pub(super) const TOPIC: &str = "history";
const RECORD_BYTES: usize = 1 << 10;
/// Records under way of each producer.
const PIPELINE: usize = 8_192;
/// Different records of each producer.
const VARIANTS: u64 = 1_024;
const BATCH_BYTES: usize = 512 << 10;
/// Time for the bucket to take everything.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(250);

/// How much, and in which pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub bytes: ByteCount,
    pub partitions: u32,
    pub segment_bytes: ByteCount,
    pub compressible: bool,
    pub bookies: usize,
}

/// Settings of a topic for which there are enough bookies.
pub(super) fn copies(bookies: usize) -> [(&'static str, &'static str); 2] {
    let (write, ack) = if bookies < 3 { ("1", "1") } else { ("3", "2") };
    [("esker.write.quorum", write), ("esker.ack.quorum", ack)]
}

/// What one partition holds, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub records: u64,
    /// Of record batches.
    pub bytes: u64,
    batches: u64,
}

/// One partition's part in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// First offset that is on bookies only, or is there too.
    pub end: Offset,
    pub objects: Vec<String>,
}

/// Makes the topic and fills it. At return all is read back once, and is what was sent.
pub(super) async fn fill(client: &Client, shape: Shape) -> Result<Vec<Digest>> {
    let segment = shape.segment_bytes.0.to_string();
    let settings = [("segment.bytes", segment.as_str()), ("local.retention.ms", "0")];
    let settings = [&settings[..], &copies(shape.bookies)].concat();
    client.admin().create_topic(TOPIC, shape.partitions, &settings).await?;
    let mut producers = JoinSet::new();
    for partition in 0..shape.partitions {
        let client = client.clone();
        producers.spawn(async move { Ok::<_, anyhow::Error>((partition, produce(client, partition, shape).await?)) });
    }
    let mut sent = vec![0; shape.partitions as usize];
    while let Some(done) = producers.join_next().await {
        let (partition, values) = done??;
        sent[partition as usize] = values;
    }
    let (mut readers, mut digests) = (JoinSet::new(), vec![Digest::default(); sent.len()]);
    for (partition, sent) in (0u32..).zip(sent) {
        let client = client.clone();
        readers.spawn(async move {
            let mut hashes = Hashes::default();
            let reader = client.reader(TOPIC, partition, Start::Earliest);
            hashes.take(reader, None, true).await?;
            ensure!(hashes.values.digest() == sent, "partition {partition} does not hold what was sent");
            Ok::<_, anyhow::Error>((partition, hashes.digest()))
        });
    }
    while let Some(done) = readers.join_next().await {
        let (partition, digest) = done??;
        digests[partition as usize] = digest;
    }
    Ok(digests)
}

/// Gives the hash of all values in order.
async fn produce(client: Client, partition: u32, shape: Shape) -> Result<u64> {
    let config = ProducerConfig { batch_bytes: BATCH_BYTES, linger: Duration::from_millis(2), ..Default::default() };
    let producer = client.producer(config)?;
    let count = shape.bytes.0 / u64::from(shape.partitions) / RECORD_BYTES as u64;
    let value = |variant| payload(RECORD_BYTES - 8, u64::from(partition) << 32 | variant, shape.compressible);
    let variants: Vec<Vec<u8>> = (0..VARIANTS).map(value).collect();
    let (mut hash, mut open) = (Xxh3::new(), VecDeque::<Delivery>::new());
    for sequence in 0..count {
        let mut value = sequence.to_be_bytes().to_vec();
        value.extend_from_slice(&variants[(sequence % VARIANTS) as usize]);
        hash.update(&value);
        open.push_back(producer.send(TOPIC, Some(partition), Record::value(Bytes::from(value))).await?);
        if open.len() >= PIPELINE
            && let Some(oldest) = open.pop_front()
        {
            oldest.await?;
        }
    }
    for delivery in open {
        delivery.await?;
    }
    producer.close().await;
    Ok(hash.digest())
}

#[derive(Default)]
struct Hashes {
    records: u64,
    bytes: u64,
    batches: Xxh3,
    values: Xxh3,
}

impl Hashes {
    /// Reads to `end`, or to the high watermark as it is now.
    async fn take(&mut self, mut reader: Reader, end: Option<Offset>, values: bool) -> Result<()> {
        reader.open().await?;
        reader.set_end(Some(end.unwrap_or(reader.high_watermark())));
        while let Some(fetched) = reader.next().await {
            let fetched = fetched?;
            self.records += fetched.count();
            self.bytes += fetched.batch().bytes().len() as u64;
            self.batches.update(fetched.batch().bytes());
            if values {
                for record in fetched.records()? {
                    self.values.update(record?.value.as_deref().unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest { records: self.records, bytes: self.bytes, batches: self.batches.digest() }
    }
}

/// Reads all partitions at once, those parts that are in the bucket against the clock.
pub(super) async fn replay(client: &Client, stored: &[Stored], expected: &[Digest]) -> Result<Duration> {
    let began = Instant::now();
    let mut readers = JoinSet::new();
    for (partition, stored) in (0u32..).zip(stored) {
        let (client, end) = (client.clone(), stored.end);
        readers.spawn(async move {
            let mut hashes = Hashes::default();
            hashes.take(client.reader(TOPIC, partition, Start::Earliest), Some(end), false).await?;
            Ok::<_, anyhow::Error>((partition, hashes))
        });
    }
    let mut taken = Vec::new();
    while let Some(done) = readers.join_next().await {
        taken.push(done??);
    }
    let took = began.elapsed();
    for (partition, mut hashes) in taken {
        let (at, expected) = (stored[partition as usize].end, expected[partition as usize]);
        hashes.take(client.reader(TOPIC, partition, Start::Offset(at)), None, false).await?;
        ensure!(
            hashes.digest() == expected,
            "partition {partition} came back as {:?}, not {expected:?}",
            hashes.digest()
        );
    }
    Ok(took)
}

/// Whether somebody wrote since the gateway was started: what is open then stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Written,
    /// What was open is closed by its new owner.
    Started,
}

/// Waits until every closed segment is in the bucket, and on no bookie but for the newest of each partition.
pub(super) async fn settled(world: &World, client: &Client, since: Since) -> Result<Vec<Stored>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let backlog = metrics::sum(&world.gateway().await?, "esker_gateway_offload_backlog_segments");
        if backlog == Some(0.0)
            && let Some(stored) = stored(client, since).await?
        {
            return Ok(stored);
        }
        if Instant::now() > deadline {
            bail!("after {} s not everything is in the bucket", PATIENCE.as_secs());
        }
        sleep(PAUSE).await;
    }
}

async fn stored(client: &Client, since: Since) -> Result<Option<Vec<Stored>>> {
    let partitions = client.admin().describe_topic(TOPIC).await?.partition_count;
    let mut all = Vec::new();
    for partition in 0..partitions {
        let segments = client.admin().list_segments(TOPIC, Some(partition)).await?;
        let closed: Vec<_> = segments.iter().filter(|segment| segment.state() == SegmentState::Closed).collect();
        let Some((newest, old)) = closed.split_last() else { return Ok(None) };
        if since == Since::Started && closed.len() < segments.len() {
            return Ok(None);
        }
        if !newest.in_objects || old.iter().any(|segment| !segment.in_objects || !segment.bookies.is_empty()) {
            return Ok(None);
        }
        let in_bucket = match newest.bookies.is_empty() {
            true => &closed[..],
            false => old,
        };
        let Some(last) = in_bucket.last() else { return Ok(None) };
        let objects = in_bucket.iter().map(|segment| segment.object.clone()).collect();
        all.push(Stored { end: last.end_offset, objects });
    }
    Ok(Some(all))
}
