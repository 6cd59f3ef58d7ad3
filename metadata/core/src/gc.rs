//! R14: which local copies a bookie may drop. Asked of a linearizable read only.

use esker_types::{InstanceId, SegmentId};

use crate::state::State;

crate::codes! {
    /// What to do with a local copy.
    pub enum Verdict {
        /// Metadata counts on it, or may soon.
        #[default]
        Keep = 0,
        Drop = 1,
        /// Metadata does not know the segment though it should: set the copy aside (72 h), never delete on this word
        /// alone.
        Quarantine = 2,
    }
}

/// Judges `instance`'s copy of `segment`.
pub fn verdict(state: &State, instance: InstanceId, segment: SegmentId) -> Verdict {
    if state.deleted(segment.partition).is_some() {
        return Verdict::Drop;
    }
    let Some(partition) = state.partition(segment.partition) else {
        return Verdict::Quarantine;
    };
    if segment.n < partition.copies_from || partition.dropped.contains(&segment.n) {
        return Verdict::Drop;
    }
    if state.live_intent(segment, instance).is_some() {
        return Verdict::Keep;
    }
    if let Some(open) = partition.open.as_ref().filter(|open| open.n == segment.n) {
        let named = open.members.iter().any(|member| member.instance == instance);
        return if named { Verdict::Keep } else { Verdict::Drop };
    }
    match state.segment(segment) {
        Some(closed) if closed.names(instance) => Verdict::Keep,
        Some(_) => Verdict::Drop,
        None => Verdict::Quarantine,
    }
}
