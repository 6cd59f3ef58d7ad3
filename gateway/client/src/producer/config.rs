use std::time::Duration;

use esker_wire::batch::Compression;

use crate::error::Error;

/// How records are collected and sent.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub compression: Compression,
    /// A batch is sent when it holds so many bytes before compression, 1 KiB..=16 MiB. The topic's
    /// `max.message.bytes` bounds it further.
    pub batch_bytes: usize,
    /// A batch that is not full waits so long for more while others are under way, 0..=10 s. With nothing under way
    /// it is sent at once.
    pub linger: Duration,
    /// Bytes of records that wait for acknowledgement, over all partitions. When it is full, `send` waits.
    pub buffer_bytes: usize,
    /// From `send` until the record is acknowledged or fails, over all tries.
    pub delivery_timeout: Duration,
    /// Number batches so that a gateway recognises a repeated one: each record is stored once and in order, whatever
    /// happens to connections and owners. Without it, retries may store a record twice.
    pub idempotent: bool,
    /// Batches under way per partition, 1..=5 if idempotent: gateways remember the last five.
    pub in_flight: usize,
    /// Ask for no acknowledgement: `send` succeeds when the batch was handed to the network. Records are lost
    /// without notice whenever anything goes wrong. Not together with `idempotent`.
    pub acks: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            // The default `max.message.bytes` is a little over 1 MiB: a full batch stays below it.
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(5),
            buffer_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
            in_flight: 5,
            acks: true,
        }
    }
}

impl ProducerConfig {
    pub(super) fn validate(&self) -> Result<(), Error> {
        let in_flight_max = if self.idempotent { 5 } else { 64 };
        let checks = [
            ((1 << 10..=16 << 20).contains(&self.batch_bytes), "batch_bytes must be 1 KiB to 16 MiB"),
            (self.linger <= Duration::from_secs(10), "linger must be at most 10 s"),
            (self.buffer_bytes >= self.batch_bytes, "buffer_bytes must be at least batch_bytes"),
            (self.buffer_bytes <= 16 << 30, "buffer_bytes must be at most 16 GiB"),
            (self.delivery_timeout >= Duration::from_millis(100), "delivery_timeout must be at least 100 ms"),
            ((1..=in_flight_max).contains(&self.in_flight), "in_flight must be 1 to 5 (64 if not idempotent)"),
            (self.acks || !self.idempotent, "an idempotent producer needs acknowledgements"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(Error::Config((*broken).to_owned())),
            None => Ok(()),
        }
    }
}
