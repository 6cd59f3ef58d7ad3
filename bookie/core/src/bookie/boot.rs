use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

use esker_types::{Epoch, Rules, SegmentId};

use super::files::Phase;
use super::segment::SegmentState;
use super::{Action, BookieState, Limits};
use crate::journal::JournalIds;
use crate::journal::restart::Restored;
use crate::journal::space::SpaceLevel;
use crate::journal::writer::Writer;

/// What metadata says of this instance, read linearizably after the restart scan and before anything is served.
#[derive(Clone, Debug, Default)]
pub struct BootFacts {
    /// Every segment that is not CLOSED and names this instance, with its partition's current epoch.
    pub open: Vec<(SegmentId, Epoch)>,
    /// Every segment, open or closed, that names this instance as member or holder. Needed only if
    /// [`Restored::needs_names`]: the journal lost entries without a trace, maybe all of a segment.
    pub named: Vec<SegmentId>,
}

impl<R: Rules> BookieState<R> {
    /// Builds the state that the journal and metadata tell. Not open yet: [`BookieState::offer_file`] and the writes
    /// that follow make what was decided here durable first.
    pub fn boot(ids: JournalIds, limits: Limits, restored: Restored, facts: BootFacts) -> Self {
        let mut segments: BTreeMap<SegmentId, SegmentState> = BTreeMap::new();
        for (segment, runs) in &restored.runs {
            let state = segments.entry(*segment).or_default();
            for run in runs {
                state.index.add(*run, !restored.footered.contains(&run.file));
            }
        }
        for segment in &restored.limbo {
            segments.entry(*segment).or_default().limbo = true;
        }
        for (segment, entry) in &restored.damaged {
            segments.entry(*segment).or_default().damaged.insert(*entry);
        }
        if restored.needs_names() {
            let named = facts.named.iter().chain(facts.open.iter().map(|(segment, _)| segment));
            for segment in named {
                segments.entry(*segment).or_default();
            }
            segments.values_mut().for_each(|state| state.limbo = true);
        }
        for state in segments.values_mut() {
            state.durable = state.index.contiguous_from(0);
            state.accepted = state.durable;
            // A hole in a copy that should have none: never guess which part counts.
            state.limbo |= state.index.end() > state.durable;
        }
        let mut max_epoch = restored.max_epoch;
        if R::EPOCHS_READ_AT_BOOT {
            for (segment, epoch) in &facts.open {
                let held = max_epoch.entry(segment.partition).or_default();
                *held = (*epoch).max(*held);
            }
        }
        Self {
            ids,
            limits,
            space: SpaceLevel::All,
            draining: false,
            poisoned: false,
            segments,
            max_epoch,
            tombstones: restored.tombstones,
            dropping: BTreeMap::new(),
            files: restored.files.into_iter().map(|file| (file.id.seq, file)).collect(),
            unlink: restored.stray,
            spare: None,
            phase: Phase::Starting,
            writer: Writer::new(ids, restored.next_lsn),
            next_seq: 1,
            durable_seq: 0,
            next_file_seq: restored.next_file_seq,
            waiters: VecDeque::new(),
            fences: VecDeque::new(),
            retiring: VecDeque::new(),
            actions: VecDeque::from([Action::WantFile]),
            idle: false,
            roll: false,
            rules: PhantomData,
        }
    }
}
