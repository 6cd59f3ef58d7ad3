//! What the partitions of one producer share.

use std::collections::HashMap;
use std::sync::Arc;

use esker_types::opcode;
use esker_wire::native::{InitProducer, InitializedProducer, PartitionName};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::accumulator::Accumulator;
use super::config::ProducerConfig;
use super::topic::Topic;
use super::window::{Freed, Identity};
use crate::call::{self, Call};
use crate::client::Client;
use crate::error::Error;

/// Topic id and partition.
type PartitionKey = (Vec<u8>, u32);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) config: ProducerConfig,
    /// Bytes of buffer that are free.
    pub(super) buffer: Semaphore,
    pub(super) topics: RwLock<HashMap<String, Arc<Topic>>>,
    /// By topic id and partition, so that a partition never has two drivers: both would number from 0.
    accumulators: Mutex<HashMap<PartitionKey, Arc<Accumulator>>>,
    /// Asked for once; every partition counts its own sequences and epochs under it.
    identity: AsyncMutex<Option<Identity>>,
    /// Spreads partitions of different producers over connections.
    pub(super) seed: u64,
}

impl Shared {
    pub(super) fn new(client: Client, config: ProducerConfig, seed: u64) -> Self {
        let buffer = Semaphore::new(config.buffer_bytes);
        Self {
            client,
            config,
            buffer,
            topics: RwLock::default(),
            accumulators: Mutex::default(),
            identity: AsyncMutex::default(),
            seed,
        }
    }

    pub(super) fn free(&self, freed: Freed) {
        self.buffer.add_permits(freed.0);
    }

    /// A producer id under which this partition was never numbered with a higher epoch.
    ///
    /// A partition comes back here only when its 32,768 epochs are used up: then all get a new id.
    pub(super) async fn identity(&self, used_up: Option<Identity>) -> Result<Identity, Error> {
        let mut identity = self.identity.lock().await;
        if let Some(identity) = identity.filter(|identity| Some(identity.id) != used_up.map(|used| used.id)) {
            return Ok(identity);
        }
        let call = Call::new("init producer", opcode::client::CALL_INIT_PRODUCER, &InitProducer::default());
        let answer: InitializedProducer = call::any(&self.client.cluster, call, None).await?;
        let bad = |what: &str| Error::Protocol { server: "a gateway".to_owned(), reason: what.to_owned() };
        let fresh = Identity {
            id: i64::try_from(answer.producer_id).map_err(|_| bad("it gave out a producer id above 2^63"))?,
            epoch: i16::try_from(answer.epoch).map_err(|_| bad("it gave out a producer epoch above 32767"))?,
        };
        *identity = Some(fresh);
        Ok(fresh)
    }

    /// Partitions that start from now on get another identity.
    pub(super) async fn retire(&self, retired: Option<Identity>) {
        let mut identity = self.identity.lock().await;
        if identity.map(|identity| identity.id) == retired.map(|retired| retired.id) {
            *identity = None;
        }
    }

    /// The partition's accumulator, made by `start` if there is none.
    pub(super) fn accumulator(
        &self,
        partition: &PartitionName,
        start: impl FnOnce() -> Arc<Accumulator>,
    ) -> Arc<Accumulator> {
        let key = (partition.topic_id.clone(), partition.partition);
        self.accumulators.lock().entry(key).or_insert_with(start).clone()
    }

    /// Of all partitions that were ever written to.
    pub(super) fn accumulators(&self) -> Vec<Arc<Accumulator>> {
        self.accumulators.lock().values().cloned().collect()
    }

    /// The topic changed under us: the next record looks it up anew.
    pub(super) fn forget(&self, partition: &PartitionName) {
        self.topics.write().remove(&partition.topic);
        self.accumulators.lock().remove(&(partition.topic_id.clone(), partition.partition));
    }
}
