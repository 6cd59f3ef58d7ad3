use esker_types::{Epoch, Rules, SegmentId, checksum};

use super::read::Fetch;
use super::{Action, BookieState, ConnId, ReadPlan, Waiter};
use crate::journal::Record;
use crate::journal::space::SpaceLevel;
use crate::journal::storage::ReadAt;
use crate::wire::{Add, AddStatus, AddStatusKind, Read};

/// An entry that is held already came again, and its CRC is not in memory any more.
#[derive(Clone, Debug)]
pub struct Compare {
    conn: ConnId,
    segment: SegmentId,
    entry: u64,
    crc: u32,
    req_epoch: Epoch,
    fetch: Option<Fetch>,
}

/// What the files said.
#[derive(Clone, Debug)]
pub struct Compared {
    compare: Compare,
    stored: Option<u32>,
}

impl Compare {
    /// Reads the stored entry; outside any lock.
    pub fn run<S: ReadAt + ?Sized>(self, storage: &S) -> Compared {
        let fetched = self.fetch.as_ref().map(|fetch| fetch.run(storage));
        let stored = fetched.and_then(|fetched| fetched.response.entries.first().map(|bytes| checksum::crc32c(bytes)));
        Compared { compare: self, stored }
    }
}

impl<R: Rules> BookieState<R> {
    /// R5. `add` has passed [`Add::verify`].
    pub fn on_add(&mut self, conn: ConnId, add: Add) {
        // The disks were wiped or swapped under the address that the sender knows.
        if R::INSTANCE_IDENTITY && add.instance != self.ids.instance {
            return self.refuse(conn, &add, AddStatusKind::WrongInstance, add.entry);
        }
        // A newer owner has fenced the partition: the sender is a zombie. Queued fences count.
        if add.req_epoch < self.max_epoch(add.segment.partition) {
            return self.refuse(conn, &add, AddStatusKind::Fenced, add.entry);
        }
        // A failed journal takes nothing; a full disk or a draining node takes only what makes the cluster whole.
        let space_for = if add.recovery { SpaceLevel::NoAdds } else { SpaceLevel::All };
        if self.poisoned || !self.is_open() || self.space > space_for || (self.draining && !add.recovery) {
            return self.refuse(conn, &add, AddStatusKind::ReadOnly, add.entry);
        }
        let (accepted, limbo) = self.segments.get(&add.segment).map_or((0, false), |s| (s.accepted, s.limbo));
        // Damage took something of this copy: taking more would make it look whole.
        if limbo {
            return self.refuse(conn, &add, AddStatusKind::Limbo, add.entry);
        }
        if add.entry < accepted {
            return self.on_duplicate(conn, &add);
        }
        // Entries before this one are missing, lost on a broken connection perhaps.
        if add.entry > accepted {
            return self.refuse(conn, &add, AddStatusKind::Gap, accepted);
        }
        self.take(conn, add);
    }

    fn take(&mut self, conn: ConnId, add: Add) {
        let Add { segment, entry, req_epoch, lac, crc, bytes, .. } = add;
        let seq = self.enqueue(Record::Entry { segment, entry, crc, bytes });
        let keep = self.limits.recent_crcs;
        let state = self.segments.entry(segment).or_default();
        state.accept(crc, seq, keep);
        state.lac = state.lac.max(lac);
        let accepted = state.accepted;
        if !R::ACK_AFTER_FSYNC {
            let status = self.status(segment, AddStatusKind::Ok, accepted, req_epoch);
            return self.actions.push_back(Action::AddStatus { conn, status });
        }
        self.waiters.push_back(Waiter { seq, conn, segment, req_epoch });
    }

    /// Entry below `accepted`: the owner resends after a broken connection, or two recoveries write the same suffix back.
    fn on_duplicate(&mut self, conn: ConnId, add: &Add) {
        let Some(state) = self.segments.get_mut(&add.segment) else { return };
        state.lac = state.lac.max(add.lac);
        let (durable, last_seq) = (state.durable, state.last_seq);
        match state.crc_of(add.entry) {
            Some(crc) if crc != add.crc => self.refuse(conn, add, AddStatusKind::Conflict, add.entry),
            Some(_) => self.confirm(conn, add.segment, add.req_epoch, add.entry < durable, last_seq),
            None => {
                let (instance, segment) = (self.ids.instance, add.segment);
                let read = Read { instance, segment, from: add.entry, to: add.entry + 1, max_bytes: 1 };
                let fetch = match self.plan_read(&read) {
                    ReadPlan::Fetch(fetch) => Some(fetch),
                    ReadPlan::Answer(_) => None,
                };
                let (entry, crc, req_epoch) = (add.entry, add.crc, add.req_epoch);
                self.actions.push_back(Action::Compare(Compare { conn, segment, entry, crc, req_epoch, fetch }));
            }
        }
    }

    pub fn on_compared(&mut self, compared: Compared) {
        let Compared { compare, stored } = compared;
        let Some(state) = self.segments.get(&compare.segment) else { return };
        let (durable, last_seq, limbo) = (state.durable, state.last_seq, state.limbo);
        let kind = match stored {
            Some(crc) if crc != compare.crc => AddStatusKind::Conflict,
            Some(_) if !limbo => {
                let entry_durable = compare.entry < durable;
                return self.confirm(compare.conn, compare.segment, compare.req_epoch, entry_durable, last_seq);
            }
            // Not readable: whether it is held is not known.
            _ => AddStatusKind::Limbo,
        };
        let status = self.status(compare.segment, kind, compare.entry, compare.req_epoch);
        self.actions.push_back(Action::AddStatus { conn: compare.conn, status });
    }

    /// OK now if the entry is durable, else with the group that makes it so.
    fn confirm(&mut self, conn: ConnId, segment: SegmentId, req_epoch: Epoch, durable: bool, last_seq: u64) {
        if durable {
            let count = self.segments.get(&segment).map_or(0, |state| state.durable);
            let status = self.status(segment, AddStatusKind::Ok, count, req_epoch);
            return self.actions.push_back(Action::AddStatus { conn, status });
        }
        // Behind the segment's last record, so the queue of waiters is not in order of seq any more by itself.
        let at = self.waiters.partition_point(|waiter| waiter.seq <= last_seq);
        self.waiters.insert(at, Waiter { seq: last_seq, conn, segment, req_epoch });
    }

    /// One OK per connection and segment for all that `seq` made durable.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        let mut said: Vec<(ConnId, SegmentId, Epoch)> = Vec::new();
        while let Some(waiter) = self.waiters.pop_front_if(|waiter| waiter.seq <= seq) {
            said.push((waiter.conn, waiter.segment, waiter.req_epoch));
        }
        said.sort_unstable();
        said.dedup();
        for (conn, segment, req_epoch) in said {
            let Some(state) = self.segments.get(&segment).filter(|state| !state.limbo) else { continue };
            let status = self.status(segment, AddStatusKind::Ok, state.durable, req_epoch);
            self.actions.push_back(Action::AddStatus { conn, status });
        }
    }

    fn refuse(&mut self, conn: ConnId, add: &Add, kind: AddStatusKind, next: u64) {
        let status = self.status(add.segment, kind, next, add.req_epoch);
        self.actions.push_back(Action::AddStatus { conn, status });
    }

    fn status(&self, segment: SegmentId, kind: AddStatusKind, next: u64, req_epoch: Epoch) -> AddStatus {
        let max_epoch = self.max_epoch(segment.partition);
        AddStatus { segment, instance: self.ids.instance, kind, next, req_epoch, max_epoch }
    }
}
