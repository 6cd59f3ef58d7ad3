//! One copy of the segment under recovery: what it held behind its fence, and what was written back to it.

use esker_types::{Entry, EntryId, Member, Time};

use super::chain_reader::ChainReader;

#[derive(Debug)]
pub(super) struct Copy {
    pub member: Member,
    /// Not a member: written whole, under an intent.
    pub substitute: bool,
    /// Position that the fence answer gave; the end is computed from this alone. None: no answer yet, or only
    /// such as came from limbo.
    pub fenced_at: Option<u64>,
    pub lac: u64,
    pub limbo: bool,
    /// Entries `0..durable` are fsynced there, write-back included.
    pub durable: u64,
    /// It refused to be written to.
    pub refused: bool,
    /// Wrong instance: of no use at all.
    pub gone: bool,
    /// Write-back to it makes no progress: others are tried beside it.
    pub stalled: bool,
    pub write: Option<WriteBack>,
}

/// Write-back under way to one copy.
#[derive(Debug)]
pub(super) struct WriteBack {
    pub reader: ChainReader,
    /// Sent and not yet durable, in order.
    pub window: Vec<Entry>,
    pub since: Time,
    pub resent_at: Time,
}

impl Copy {
    pub fn new(member: Member, substitute: bool) -> Self {
        Self {
            member,
            substitute,
            fenced_at: None,
            lac: 0,
            limbo: false,
            durable: 0,
            refused: false,
            gone: false,
            stalled: false,
            write: None,
        }
    }

    /// May be made complete and named as a holder.
    pub fn is_candidate(&self) -> bool {
        !self.limbo && !self.refused && !self.gone && (self.substitute || self.fenced_at.is_some())
    }

    pub fn progress(&mut self, now: Time, durable: u64) -> bool {
        if durable <= self.durable {
            return false;
        }
        self.durable = durable;
        self.stalled = false;
        if let Some(write) = &mut self.write {
            write.window.retain(|entry| entry.header.entry >= durable);
            (write.since, write.resent_at) = (now, now);
        }
        true
    }

    /// First entry that write-back still has to read.
    pub fn next(&self) -> EntryId {
        self.write.as_ref().map_or(self.durable, |w| w.reader.next())
    }
}
