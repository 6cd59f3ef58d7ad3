use bytes::Bytes;
use esker_types::{EntryId, Rules, SegmentId};

use super::index::Place;
use super::{BookieState, Damage};
use crate::journal::block::BlockHead;
use crate::journal::files::{FooterAt, Run};
use crate::journal::storage::ReadAt;
use crate::journal::{FileId, JournalIds};
use crate::wire::{READ_BYTES_MAX, Read, ReadResponse, ReadStatus};

/// A READ is answered from memory, or needs the files.
#[derive(Clone, Debug)]
pub enum ReadPlan {
    Answer(ReadResponse),
    Fetch(Fetch),
}

/// Where the entries of a READ are; [`Fetch::run`] gets them, outside any lock.
#[derive(Clone, Debug)]
pub struct Fetch {
    ids: JournalIds,
    segment: SegmentId,
    from: EntryId,
    max_bytes: u64,
    /// Answer for an entry that the plan does not find.
    missing: ReadStatus,
    durable: u64,
    lac: u64,
    steps: Vec<Step>,
}

/// Entries up to `to` (exclusive), from where the step before ended.
#[derive(Clone, Copy, Debug)]
struct Step {
    file: FileId,
    to: EntryId,
    place: StepPlace,
}

#[derive(Clone, Copy, Debug)]
enum StepPlace {
    Run(Run),
    Footer(FooterAt),
}

/// A READ's answer, and what went wrong on the way.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub response: ReadResponse,
    /// An entry that should be there and does not verify. Pass it to [`BookieState::on_damage`]: a file that was freed
    /// in the meantime is told from real damage there.
    pub damage: Option<Damage>,
}

/// Blocks that one plan may name: bounds its memory whatever `max_bytes` says.
const STEPS_MAX: usize = 1024;

impl<R: Rules> BookieState<R> {
    /// R10: "no such entry" is said only of a copy that is known whole; reads end at what is durable.
    pub fn plan_read(&self, read: &Read) -> ReadPlan {
        let state = self.segments.get(&read.segment);
        let (durable, lac, limbo) = state.map_or((0, 0, false), |state| (state.durable, state.lac, state.limbo));
        let answer = |status| {
            let (instance, segment) = (self.ids.instance, read.segment);
            let response =
                ReadResponse { instance, segment, status, next: read.from, durable, lac, entries: Vec::new() };
            ReadPlan::Answer(response)
        };
        if R::INSTANCE_IDENTITY && read.instance != self.ids.instance {
            return answer(ReadStatus::WrongInstance);
        }
        let missing = if limbo && R::LIMBO_IS_UNKNOWN { ReadStatus::Limbo } else { ReadStatus::NoSuchEntry };
        let Some(state) = state else { return answer(ReadStatus::NoSuchEntry) };
        // In limbo single entries behind a hole may be held: each that verifies is true.
        let end = if limbo { state.index.end() } else { durable };
        let to = read.to.min(end);
        if read.from >= to {
            let damaged = state.damaged.contains(&read.from);
            return answer(if damaged { ReadStatus::Damaged } else { missing });
        }
        let max_bytes = u64::from(read.max_bytes.min(READ_BYTES_MAX));
        let mut steps = Vec::new();
        let (mut at, mut bytes) = (read.from, 0u64);
        while at < to && steps.len() < STEPS_MAX && (steps.is_empty() || bytes < max_bytes) {
            let Some(step) = state.index.find(at).and_then(|(place, end)| self.step(place, to.min(end))) else { break };
            bytes += match step.place {
                StepPlace::Run(run) => u64::from(run.bytes),
                StepPlace::Footer(_) => 0, // how much it holds is seen when it is read
            };
            at = step.to;
            steps.push(step);
        }
        if steps.is_empty() {
            let damaged = state.damaged.contains(&read.from);
            // Below `durable` and not found: a bug or damage; never "it is not there" (I7).
            let unknown = if read.from < durable { ReadStatus::Limbo } else { missing };
            return answer(if damaged { ReadStatus::Damaged } else { unknown });
        }
        let (ids, segment, from) = (self.ids, read.segment, read.from);
        ReadPlan::Fetch(Fetch { ids, segment, from, max_bytes, missing, durable, lac, steps })
    }

    fn step(&self, place: Place, to: EntryId) -> Option<Step> {
        match place {
            Place::Run(run) => {
                let file = self.file_id(run.file)?;
                Some(Step { file, to, place: StepPlace::Run(run) })
            }
            Place::Footer(file) => {
                let file = self.files.get(&file)?;
                Some(Step { file: file.id, to, place: StepPlace::Footer(file.footer?) })
            }
        }
    }

    pub(super) fn file_id(&self, seq: u64) -> Option<FileId> {
        if self.writer.file().seq == seq {
            return Some(self.writer.file());
        }
        self.files.get(&seq).map(|file| file.id)
    }
}

impl Fetch {
    /// Reads and verifies. Every entry that is returned matches the CRC in its block's head.
    pub fn run<S: ReadAt + ?Sized>(&self, storage: &S) -> Fetched {
        let mut out = Collect { next: self.from, bytes: 0, entries: Vec::new(), damage: None };
        for step in &self.steps {
            let whole = match step.place {
                StepPlace::Run(run) => self.block(storage, step, run, &mut out),
                StepPlace::Footer(at) => self.footer(storage, step, at, &mut out),
            };
            if !whole || out.bytes >= self.max_bytes {
                break;
            }
        }
        let status = match (out.entries.is_empty(), &out.damage) {
            (false, _) => ReadStatus::Data,
            (true, Some(_)) => ReadStatus::Damaged,
            (true, None) => self.missing,
        };
        let response = ReadResponse {
            instance: self.ids.instance,
            segment: self.segment,
            status,
            next: out.next,
            durable: self.durable,
            lac: self.lac,
            entries: out.entries,
        };
        Fetched { response, damage: out.damage }
    }

    fn footer<S: ReadAt + ?Sized>(&self, storage: &S, step: &Step, at: FooterAt, out: &mut Collect) -> bool {
        let footer = storage.footer(self.ids, step.file, at);
        let runs = footer.as_ref().and_then(|footer| footer.segments.get(&self.segment));
        while out.next < step.to && (out.entries.is_empty() || out.bytes < self.max_bytes) {
            // The last one wins, as in the scan: it was written later.
            let run = runs.and_then(|runs| runs.iter().rev().find(|run| run.contains(out.next)));
            let Some(run) = run else {
                out.damage = Some(Damage { segment: self.segment, entry: out.next, file: step.file });
                return false;
            };
            let to = step.to.min(run.end());
            let part = Step { file: step.file, to, place: StepPlace::Run(*run) };
            if !self.block(storage, &part, *run, out) {
                return false;
            }
        }
        out.next >= step.to
    }

    /// Takes entries [out.next, step.to) from one block. False if it stopped early.
    fn block<S: ReadAt + ?Sized>(&self, storage: &S, step: &Step, run: Run, out: &mut Collect) -> bool {
        let block = storage.read_at(step.file, run.offset, run.block_len as usize).unwrap_or_default();
        let head = BlockHead::decode(&block, self.ids, step.file, run.offset).ok();
        let from = head.as_ref().map_or(0, BlockHead::head_len).min(block.len());
        let payload = block.slice(from..);
        while out.next < step.to {
            if !out.entries.is_empty() && out.bytes >= self.max_bytes {
                return false;
            }
            let entry = head.as_ref().and_then(|head| head.entry(&payload, self.segment, out.next));
            let Some(bytes) = entry else {
                out.damage = Some(Damage { segment: self.segment, entry: out.next, file: step.file });
                return false;
            };
            out.bytes += bytes.len() as u64;
            out.entries.push(bytes);
            out.next += 1;
        }
        true
    }
}

struct Collect {
    next: EntryId,
    bytes: u64,
    entries: Vec<Bytes>,
    damage: Option<Damage>,
}
