use super::coordinator::Coordinator;
use super::group::Kind;
use super::offsets::PIECE;
use super::out::Seq;
use super::record::KeyedRecord;

/// How far the present snapshot is.
#[derive(Debug)]
pub enum Snapshot {
    Idle,
    Walking {
        /// Its first append.
        first: Seq,
        /// Groups up to this one have been written.
        done: Option<String>,
        /// The next piece waits until this is committed: a snapshot goes between other records, not before them.
        after: Seq,
    },
    Closing {
        first: Seq,
        last: Seq,
    },
}

impl Coordinator {
    /// Begins a snapshot if it is time, writes the next piece, or ends it.
    pub(super) fn snapshot_step(&mut self) {
        if matches!(self.snapshot, Snapshot::Idle)
            && self.out.since_snapshot > self.config.snapshot_bytes.max(2 * self.bytes())
        {
            self.out.put_raw(KeyedRecord::barrier());
            self.out.flush();
            self.out.since_snapshot = 0;
            let first = self.out.appended;
            self.snapshot = Snapshot::Walking { first, done: None, after: 0 };
        }
        if let Snapshot::Walking { first, done, after } = &self.snapshot
            && self.out.committed >= *after
        {
            let (first, done) = (*first, done.clone());
            let done = self.write_groups(done);
            let after = self.out.appended;
            self.snapshot = match done {
                Some(done) => Snapshot::Walking { first, done: Some(done), after },
                None => Snapshot::Closing { first, last: after },
            };
        }
        if let Snapshot::Closing { first, last } = self.snapshot
            && self.out.committed >= last
        {
            self.snapshot = Snapshot::Idle;
            self.out.log_start(first);
        }
    }

    /// Writes about one piece of groups. None: that was the last.
    fn write_groups(&mut self, done: Option<String>) -> Option<String> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = done.as_ref().map_or(Unbounded, Excluded);
        let before = self.out.since_snapshot;
        let mut last = None;
        for (name, group) in self.groups.range_mut::<String, _>((from, Unbounded)) {
            if self.out.since_snapshot > before + PIECE {
                self.out.flush();
                self.out.since_snapshot = before;
                return last;
            }
            let size = group.bytes();
            match &mut group.kind {
                // One that was never stored has nothing that must outlive us.
                Kind::Classic(classic) if classic.stored => classic.store_all(&mut self.out),
                Kind::Classic(_) => {}
                Kind::Consumer(consumer) => consumer.store_all(&mut self.out),
            }
            // What was read may have had another size: a newer build wrote more, or less.
            self.bytes = self.bytes + group.bytes() - size;
            self.out.split(PIECE);
            group.offsets.store_all(name, &mut self.out);
            last = Some(name.clone());
        }
        self.out.flush();
        self.out.since_snapshot = before;
        None
    }
}
