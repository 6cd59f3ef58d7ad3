use std::sync::{Arc, OnceLock};

use esker_wire::native::TopicInfo;
use parking_lot::Mutex;

use super::accumulator::Accumulator;
use super::record::Record;
use crate::cluster::no_partition;
use crate::error::SendError;
use crate::partitioner::{Sticky, partition_of_key};

/// Kafka's default of `max.message.bytes`, for a gateway that does not tell.
const BATCH_BYTES_MAX: usize = 1_048_588;

/// A topic as a producer sees it. Partitions come to life with their first record.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: Vec<u8>,
    pub(super) partitions: Box<[OnceLock<Arc<Accumulator>>]>,
    pub(super) batch_bytes_max: usize,
    sticky: Mutex<Sticky>,
}

impl Topic {
    pub(super) fn new(info: &TopicInfo, seed: u64) -> Self {
        let setting = info.settings.iter().find(|setting| setting.key == "max.message.bytes");
        let batch_bytes_max = setting.and_then(|s| s.value.parse().ok()).unwrap_or(BATCH_BYTES_MAX);
        let partitions = (0..info.partition_count).map(|_| OnceLock::new()).collect();
        let sticky = Mutex::new(Sticky::new(seed, info.partition_count.max(1)));
        Self { id: info.id.clone(), partitions, batch_bytes_max, sticky }
    }

    /// Where a record goes.
    pub(super) fn choose(
        &self,
        name: &str,
        wanted: Option<u32>,
        record: &Record,
        bytes: usize,
        batch_bytes: usize,
    ) -> Result<u32, SendError> {
        let count = self.partitions.len() as u32;
        match (wanted, &record.key) {
            (Some(wanted), _) if wanted < count => Ok(wanted),
            (Some(wanted), _) => Err(SendError::UnknownPartition(no_partition(name, wanted, count).message)),
            (None, _) if count == 0 => Err(SendError::UnknownPartition(format!("topic {name:?} has no partitions"))),
            (None, Some(key)) => Ok(partition_of_key(key, count)),
            (None, None) => Ok(self.sticky.lock().next(bytes, batch_bytes, count)),
        }
    }
}
