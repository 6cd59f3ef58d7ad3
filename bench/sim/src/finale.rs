//! The end of a run: all that stands in the chains is read back from the bookies and held against what was promised.

use std::collections::BTreeMap;

use esker_metadata_core::ClosedSegment;
use esker_types::entry::CHAIN_START;
use esker_types::{Entry, Offset, PartitionId, Rules};

use crate::client::records_of;
use crate::oracle::Value;
use crate::world::World;

impl<R: Rules> World<R> {
    pub fn read_all_back(&mut self) {
        for partition in self.partitions.clone() {
            let Some(record) = self.record(partition) else { continue };
            let mut log = BTreeMap::new();
            for closed in self.metadata.state.chain(partition).cloned().collect::<Vec<_>>() {
                if closed.end_offset > record.log_start {
                    self.read_segment(&closed, &mut log);
                }
            }
            self.check_chain(partition);
            self.oracle.check_log(partition, record.log_start, &log);
        }
    }

    /// I1: no gap and no overlap between the segments of a chain.
    fn check_chain(&mut self, partition: PartitionId) {
        let chain: Vec<_> = self.metadata.state.chain(partition).cloned().collect();
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
