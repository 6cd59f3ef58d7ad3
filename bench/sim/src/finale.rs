//! The end of a run: all that stands in the chains is read back from bookies and bucket and held against what was promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_metadata_core::{ClosedSegment, PartitionRecord};
use esker_types::entry::CHAIN_START;
use esker_types::{Entry, Offset, PartitionId, Rules, SegmentId};

use crate::client::records_of;
use crate::oracle::Value;
use crate::world::World;

impl<R: Rules> World<R> {
    pub fn read_all_back(&mut self) {
        for partition in self.partitions.clone() {
            let Some(record) = self.record(partition) else { continue };
            let mut log = BTreeMap::new();
            self.read_folded(&record, &mut log);
            for closed in self.metadata.state.chain(partition).cloned().collect::<Vec<_>>() {
                if closed.end_offset > record.log_start {
                    self.read_closed(&record, &closed, &mut log);
                }
            }
            self.check_chain(partition);
            self.oracle.check_log(partition, record.log_start, &log);
        }
    }

    /// What the manifest lists, from the bucket alone.
    fn read_folded(&mut self, record: &PartitionRecord, log: &mut BTreeMap<Offset, Value>) {
        let Some(root) = &record.root else { return };
        let entries = match self.folded(root, record.log_start) {
            Ok(entries) => entries,
            Err(why) => return self.oracle.fail("I10", format!("partition {}: {why}", record.id)),
        };
        for entry in entries {
            let segment = SegmentId { partition: record.id, n: entry.n };
            let kept = self.metadata.state.segment(segment).is_some() && entry.n >= record.copies_from;
            match self.read_object(segment, &entry.place, (entry.digest, entry.end_offset)) {
                Some(records) => log.extend(records),
                None if kept => {}
                None => {
                    let text = format!("{segment} is not whole in its object {}", entry.place.key);
                    self.oracle.fail("I10", text);
                }
            }
        }
    }

    /// From bookies where metadata counts on them, else from its object.
    fn read_closed(
        &mut self,
        record: &PartitionRecord,
        closed: &Arc<ClosedSegment>,
        log: &mut BTreeMap<Offset, Value>,
    ) {
        if closed.segment.n >= record.copies_from {
            return self.read_segment(closed, log);
        }
        let end = (closed.digest, closed.end_offset);
        match closed.object.as_ref().and_then(|place| self.read_object(closed.segment, place, end)) {
            Some(records) => log.extend(records),
            None => self.oracle.fail("I10", format!("{} is on no bookie and not in the bucket", closed.segment)),
        }
    }

    /// I1: no gap and no overlap between the segments of a chain. Below the log start some are forgotten before others.
    fn check_chain(&mut self, partition: PartitionId) {
        let log_start = self.record(partition).map_or(0, |record| record.log_start);
        let chain = self.metadata.state.chain(partition).filter(|closed| closed.end_offset > log_start);
        let chain: Vec<_> = chain.cloned().collect();
        for pair in chain.windows(2) {
            if pair[0].end_offset != pair[1].base_offset {
                let text = format!(
                    "{} ends at {}, {} begins at {}",
                    pair[0].segment, pair[0].end_offset, pair[1].segment, pair[1].base_offset
                );
                self.oracle.fail("I1", text);
            }
        }
    }

    /// Any holder will do for an entry, but some must have it, and all of them together the digest.
    fn read_segment(&mut self, closed: &ClosedSegment, log: &mut BTreeMap<Offset, Value>) {
        let mut chain = CHAIN_START;
        for number in 0..=closed.last {
            let Some(entry) = self.read_anywhere(closed, number) else {
                if !self.oracle.beyond_model {
                    let text =
                        format!("{} entry {number} can't be read from any holder {:?}", closed.segment, closed.holders);
                    self.oracle.fail("I10", text);
                }
                return;
            };
            if !entry.header.follows(chain) {
                self.oracle.fail("I13", format!("{} entry {number} does not follow the one before it", closed.segment));
                return;
            }
            chain = entry.header.chain;
            log.extend(records_of(&entry));
        }
        if chain != closed.digest {
            self.oracle.fail("I2", format!("{}: its entries do not have the digest of its record", closed.segment));
        }
    }

    fn read_anywhere(&self, closed: &ClosedSegment, number: u64) -> Option<Entry> {
        let holders = closed.holders.iter().chain(&closed.members);
        holders
            .filter_map(|holder| self.bookies.iter().position(|bookie| bookie.member() == *holder))
            .find_map(|b| self.read_own(b, closed.segment, number))
    }
}
