//! Writing: records are collected into batches per partition and sent in order, each once.

mod accumulator;
mod config;
mod delivery;
mod driver;
mod link;
mod record;
mod shared;
mod topic;
mod window;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use esker_types::ErrorCode;
use esker_wire::batch::BatchBuilder;
use esker_wire::native::PartitionName;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use config::ProducerConfig;
pub use delivery::{Delivered, Delivery};
pub use record::Record;

use self::accumulator::Accumulator;
use self::driver::Driver;
use self::shared::Shared;
use self::topic::Topic;
use crate::client::{Client, random_u64};
use crate::error::{Error, SendError};

/// Largest record that any topic can take.
const RECORD_MAX: usize = 16 << 20;

/// Sends records; cheap to clone, all clones share buffer and order.
///
/// Records of one partition are stored in the order in which their `send` calls were made. When the last clone is
/// dropped without [`Producer::close`], what was not acknowledged yet fails.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    _stop: DropGuard,
}

impl Client {
    /// A producer. Nothing is asked of the cluster before the first record.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting that is out of range.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        config.validate()?;
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared::new(self.clone(), config, random_u64() >> 16));
        let inner = Inner { shared, cancel: cancel.clone(), tasks: TaskTracker::new(), _stop: cancel.drop_guard() };
        Ok(Producer { inner: Arc::new(inner) })
    }
}

impl Producer {
    /// Hands over a record. Comes back when it has its place in a batch, which takes as long as the buffer is full;
    /// the [`Delivery`] comes true when it is stored.
    ///
    /// `partition` None: by the hash of the key as Kafka has it, without a key whole batches to one partition after
    /// another.
    ///
    /// Cancel safe: a `send` that was dropped has sent nothing.
    pub async fn send(&self, topic: &str, partition: Option<u32>, record: Record) -> Result<Delivery, SendError> {
        let shared = &self.inner.shared;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(now_ms);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let alone = BatchBuilder::alone_len(key, value, &record.headers);
        let reserved = BatchBuilder::record_len_max(key, value, &record.headers);
        if reserved > shared.config.buffer_bytes.min(RECORD_MAX) {
            return Err(SendError::TooLarge { bytes: reserved, max: shared.config.buffer_bytes.min(RECORD_MAX) });
        }
        let mut found = self.topic(topic, partition).await?;
        if shared.config.compression.is_none() && alone > found.batch_bytes_max {
            return Err(SendError::TooLarge { bytes: alone, max: found.batch_bytes_max });
        }
        let room = self.reserve(reserved).await?;
        loop {
            let chosen = found.choose(topic, partition, &record, reserved, shared.config.batch_bytes)?;
            let accumulator = self.accumulator(topic, &found, chosen);
            match accumulator.push(&record, timestamp_ms, reserved) {
                Ok((outcome, index)) => {
                    room.forget();
                    return Ok(Delivery::new(outcome, chosen, index));
                }
                Err(closed) if self.inner.tasks.is_closed() => return Err(closed),
                // The topic was found to be gone or changed a moment ago.
                Err(_) => found = self.look_up(topic).await?,
            }
        }
    }

    /// The topic as far as known, asked for if it is not, or if partitions were added.
    async fn topic(&self, name: &str, partition: Option<u32>) -> Result<Arc<Topic>, SendError> {
        let known = self.inner.shared.topics.read().get(name).cloned();
        match known {
            Some(known) if partition.is_none_or(|wanted| (wanted as usize) < known.partitions.len()) => Ok(known),
            _ => self.look_up(name).await,
        }
    }

    /// Waits until everything sent so far is settled, without lingering. Failures show in the deliveries.
    pub async fn flush(&self) {
        let accumulators = self.inner.shared.accumulators();
        let newest: Vec<_> = accumulators.iter().filter_map(|accumulator| accumulator.hurry()).collect();
        for outcome in newest {
            // Batches of a partition are settled in order. How is the business of their own deliveries.
            let _ = Delivery::new(outcome, 0, 0).await;
        }
    }

    /// Sends what there is, then stops. Later calls of `send` fail, also those of clones.
    pub async fn close(&self) {
        self.inner.tasks.close();
        for accumulator in self.inner.shared.accumulators() {
            accumulator.close();
        }
        self.inner.tasks.wait().await;
        self.inner.cancel.cancel();
    }

    async fn look_up(&self, name: &str) -> Result<Arc<Topic>, SendError> {
        let shared = &self.inner.shared;
        if self.inner.tasks.is_closed() {
            return Err(SendError::Closed { may_be_stored: false });
        }
        let info = shared.client.cluster.topic(name, None).await.map_err(|error| match error {
            Error::Refused(remote) if remote.is(ErrorCode::UnknownTopic) => SendError::UnknownPartition(remote.message),
            error => SendError::Client(error),
        })?;
        let fresh = Arc::new(Topic::new(&info, shared.seed));
        shared.topics.write().insert(name.to_owned(), fresh.clone());
        Ok(fresh)
    }

    async fn reserve(&self, bytes: usize) -> Result<SemaphorePermit<'_>, SendError> {
        let closed = |_| SendError::Closed { may_be_stored: false };
        let bytes = u32::try_from(bytes).map_err(|_| SendError::TooLarge { bytes, max: RECORD_MAX })?;
        self.inner.shared.buffer.acquire_many(bytes).await.map_err(closed)
    }

    /// The partition's accumulator; its driver starts with it.
    fn accumulator(&self, name: &str, topic: &Topic, partition: u32) -> Arc<Accumulator> {
        let shared = &self.inner.shared;
        let find = || {
            let partition = PartitionName { topic: name.to_owned(), topic_id: topic.id.clone(), partition };
            shared.accumulator(&partition, || {
                let batch_bytes = shared.config.batch_bytes.min(topic.batch_bytes_max);
                let accumulator = Arc::new(Accumulator::new(shared.config.compression, batch_bytes));
                let driver = Driver::new(shared.clone(), accumulator.clone(), partition.clone());
                self.inner.tasks.spawn(driver.run(self.inner.cancel.child_token()));
                accumulator
            })
        };
        topic.partitions[partition as usize].get_or_init(find).clone()
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
