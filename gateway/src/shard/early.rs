use std::collections::VecDeque;

use bytes::Bytes;
use esker_gateway_core::partition::Transfer;
use esker_types::PartitionId;

/// Producer state that came before the news that the partition is ours. A hint, so the oldest may be dropped.
#[derive(Default)]
pub struct EarlyTransfers {
    waiting: VecDeque<(PartitionId, Transfer)>,
    bytes: usize,
}

/// Bytes kept per shard.
const BYTES_MAX: usize = 32 << 20;
const ITEMS_MAX: usize = 4096;

fn weight(transfer: &Transfer) -> usize {
    transfer.snapshot.iter().map(Bytes::len).sum()
}

impl EarlyTransfers {
    pub fn put(&mut self, partition: PartitionId, transfer: Transfer) {
        // A later one replaces an earlier one.
        self.take(partition);
        self.bytes += weight(&transfer);
        self.waiting.push_back((partition, transfer));
        while self.bytes > BYTES_MAX || self.waiting.len() > ITEMS_MAX {
            let Some((_, dropped)) = self.waiting.pop_front() else { break };
            self.bytes -= weight(&dropped);
        }
    }

    pub fn take(&mut self, partition: PartitionId) -> Option<Transfer> {
        let at = self.waiting.iter().position(|(id, _)| *id == partition)?;
        let (_, transfer) = self.waiting.remove(at)?;
        self.bytes -= weight(&transfer);
        Some(transfer)
    }
}
