//! Reads a run of entries of one segment from whichever copies can serve them, and trusts nothing: payload CRC,
//! identity, chain and offsets of each entry are checked, and the last one must carry the expected digest.

use bytes::Bytes;
use esker_types::entry::{CHAIN_START, NO_SNAPSHOT};
use esker_types::{Entry, EntryHeader, EntryId, Epoch, Member, SegmentId};

/// One READ to one copy: entries `from..to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    pub member: Member,
    pub from: EntryId,
    pub to: EntryId,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Entries from the first asked for on, in order; at least one.
    Data(Vec<Bytes>),
    /// Damaged, limbo, not there, no answer: this copy is of no use for it now.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The last entry first: it names the snapshot to begin with and carries the digest.
    Tail,
    Forward,
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct ChainReader {
    segment: SegmentId,
    seg_epoch: Epoch,
    /// One behind the last entry; at least 1.
    end: u64,
    /// Chain of entry `end - 1`, once known.
    digest: Option<u64>,
    step: Step,
    next: EntryId,
    previous: Option<EntryHeader>,
    tail: Option<EntryHeader>,
    sources: Vec<Member>,
    failed: Vec<Member>,
    asked: Option<ReadRequest>,
}

impl ChainReader {
    /// Reads from the last complete snapshot to the end. `digest`: that of the record, if the segment is closed.
    pub fn from_snapshot(segment: SegmentId, seg_epoch: Epoch, end: u64, digest: Option<u64>) -> Self {
        assert!(end > 0, "nothing to read in an empty segment");
        Self {
            segment,
            seg_epoch,
            end,
            digest,
            step: Step::Tail,
            next: end - 1,
            previous: None,
            tail: None,
            sources: Vec::new(),
            failed: Vec::new(),
            asked: None,
        }
    }

    /// Reads `from..end`, whose last entry has the chain `digest`.
    pub fn range(segment: SegmentId, seg_epoch: Epoch, from: EntryId, end: u64, digest: u64) -> Self {
        let reader = Self::from_snapshot(segment, seg_epoch, end, Some(digest));
        Self { step: if from < end { Step::Forward } else { Step::Done }, next: from, ..reader }
    }

    /// Copies that may hold the entries, best first.
    pub fn set_sources(&mut self, sources: Vec<Member>) {
        self.sources = sources;
    }

    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Header of the last entry, once read and verified.
    pub fn tail(&self) -> Option<&EntryHeader> {
        self.tail.as_ref()
    }

    /// First entry not read yet.
    pub fn next(&self) -> EntryId {
        self.next
    }

    /// The next READ, if none is under way and a copy is left to ask.
    pub fn request(&mut self) -> Option<ReadRequest> {
        if self.asked.is_some() || self.step == Step::Done {
            return None;
        }
        let member = *self.sources.iter().find(|m| !self.failed.contains(m))?;
        self.asked = Some(ReadRequest { member, from: self.next, to: self.end });
        self.asked
    }

    /// The entry that no copy could serve in this round of asking.
    pub fn stuck(&self) -> Option<EntryId> {
        let out = self.asked.is_none() && self.sources.iter().all(|m| self.failed.contains(m));
        (out && self.step != Step::Done).then_some(self.next)
    }

    /// Asks all copies anew.
    pub fn retry(&mut self) {
        self.failed.clear();
    }

    /// Takes the answer to `request`. Returns the entries that are good and next in order.
    pub fn on_read(&mut self, outcome: ReadOutcome) -> Vec<Entry> {
        let Some(asked) = self.asked.take() else { return Vec::new() };
        let ReadOutcome::Data(blobs) = outcome else {
            self.failed.push(asked.member);
            return Vec::new();
        };
        let mut good = Vec::new();
        for blob in blobs {
            if self.step == Step::Done {
                break;
            }
            let entry = Entry::parse(blob).ok().filter(|entry| self.fits(&entry.header));
            let Some(entry) = entry else {
                self.failed.push(asked.member);
                return good;
            };
            match self.step {
                Step::Tail => {
                    self.on_tail(entry.header);
                    // Of the tail entry only the header is wanted; the way forward reads it again, in order.
                    return good;
                }
                _ => {
                    self.previous = Some(entry.header);
                    self.next += 1;
                    good.push(entry);
                    if self.next == self.end {
                        (self.step, self.tail) = (Step::Done, self.previous);
                    }
                }
            }
        }
        if good.is_empty() {
            self.failed.push(asked.member);
        } else {
            // A copy that failed for one entry may well serve the next.
            self.failed.clear();
        }
        good
    }

    fn on_tail(&mut self, header: EntryHeader) {
        self.tail = Some(header);
        self.digest = Some(header.chain);
        self.next = if header.snap == NO_SNAPSHOT { 0 } else { header.snap };
        self.step = Step::Forward;
        self.failed.clear();
    }

    fn fits(&self, header: &EntryHeader) -> bool {
        let last = header.entry + 1 == self.end;
        let chained = match &self.previous {
            Some(previous) => header.follows(previous.chain) && header.base_offset == previous.end_offset(),
            None => header.entry != 0 || header.follows(CHAIN_START),
        };
        header.segment == self.segment
            && header.seg_epoch == self.seg_epoch
            && header.entry == self.next
            && (header.snap == NO_SNAPSHOT || header.snap <= header.entry)
            && chained
            && (!last || self.digest.is_none_or(|digest| digest == header.chain))
    }
}
