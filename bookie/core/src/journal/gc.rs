//! Which copies a bookie may drop (R14).

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use esker_types::{AllRules, Rules, SegmentId, Time};

/// What a linearizable read of metadata says of one local segment. In order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFact {
    /// The partition is in the deleted list.
    PartitionDeleted,
    /// `n < copies_from`: the partition does not need its copies on bookies any more.
    BelowCopiesFrom,
    /// A record exists and this instance is a member, a holder, or the destination of a live intent.
    Needed,
    /// A record exists, and this instance is none of these.
    NotNamed,
    /// No record, and `n >= copies_from`, or no such partition at all. Never a reason to drop by itself: metadata may
    /// have been restored from an old backup.
    Absent,
}

/// The answer of one read, about the segments that were asked for.
#[derive(Clone, Debug, Default)]
pub struct GcFacts {
    /// Incarnation of the cluster that answered.
    pub incarnation: u8,
    pub segments: BTreeMap<SegmentId, SegmentFact>,
}

#[derive(Clone, Copy, Debug)]
pub struct GcPolicy {
    /// How long a segment stays absent before it is dropped.
    pub quarantine: Duration,
    /// More absent segments than this share of all, in percent, is taken for a fault of metadata.
    pub absent_percent_max: u64,
    /// So few are no fault of metadata whatever their share: on a bookie with ten segments one stray, which quarantine
    /// guards anyway, must not keep all other space from being freed.
    pub absent_few: usize,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self { quarantine: Duration::from_secs(72 * 3600), absent_percent_max: 5, absent_few: 2 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcDecision {
    /// Drop these; the rest stays.
    Drop(Vec<SegmentId>),
    /// Drop nothing at all and call the operator.
    Refuse(GcAlarm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GcAlarm {
    #[error(
        "{absent} of {total} local segments have no record in metadata: nothing is dropped; check whether metadata was restored from an old backup"
    )]
    TooManyAbsent { absent: usize, total: usize },
    #[error(
        "metadata is of incarnation {found}, this bookie knows {known}: nothing is dropped until it has reconciled"
    )]
    OtherIncarnation { known: u8, found: u8 },
}

/// Remembers since when segments are absent. In memory: a restart begins the quarantine anew, which is the safe side.
#[derive(Clone, Debug)]
pub struct SegmentGc<R = AllRules> {
    policy: GcPolicy,
    incarnation: u8,
    absent_since: BTreeMap<SegmentId, Time>,
    rules: PhantomData<R>,
}

impl<R: Rules> SegmentGc<R> {
    pub fn new(policy: GcPolicy, incarnation: u8) -> Self {
        Self { policy, incarnation, absent_since: BTreeMap::new(), rules: PhantomData }
    }

    /// Decides about `local`, all segments held. A segment that the facts do not mention stays.
    pub fn decide(&mut self, now: Time, local: &[SegmentId], facts: &GcFacts) -> GcDecision {
        if facts.incarnation != self.incarnation {
            let (known, found) = (self.incarnation, facts.incarnation);
            return GcDecision::Refuse(GcAlarm::OtherIncarnation { known, found });
        }
        let fact = |segment: &SegmentId| facts.segments.get(segment).copied().unwrap_or(SegmentFact::Needed);
        let absent = local.iter().filter(|segment| fact(segment) == SegmentFact::Absent).count();
        self.absent_since.retain(|segment, _| fact(segment) == SegmentFact::Absent);
        let too_large_a_share = absent as u64 * 100 > local.len() as u64 * self.policy.absent_percent_max;
        if absent > self.policy.absent_few && too_large_a_share && R::ORPHANS_KEPT {
            return GcDecision::Refuse(GcAlarm::TooManyAbsent { absent, total: local.len() });
        }
        let mut dropped = Vec::new();
        for segment in local {
            let drop = match fact(segment) {
                SegmentFact::PartitionDeleted | SegmentFact::BelowCopiesFrom | SegmentFact::NotNamed => true,
                SegmentFact::Needed => false,
                SegmentFact::Absent => {
                    let since = *self.absent_since.entry(*segment).or_insert(now);
                    now.since(since) >= self.policy.quarantine || !R::ORPHANS_KEPT
                }
            };
            if drop {
                self.absent_since.remove(segment);
                dropped.push(*segment);
            }
        }
        GcDecision::Drop(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(count: u64) -> Vec<SegmentId> {
        (1..=count).map(|n| SegmentId::new(1, n)).collect()
    }

    fn facts(of: &[(SegmentId, SegmentFact)]) -> GcFacts {
        GcFacts { incarnation: 0, segments: of.iter().copied().collect() }
    }

    #[test]
    fn drops_only_what_metadata_says_is_not_needed() {
        let all = local(4);
        let mut gc = SegmentGc::<AllRules>::new(GcPolicy::default(), 0);
        let says = facts(&[
            (all[0], SegmentFact::PartitionDeleted),
            (all[1], SegmentFact::BelowCopiesFrom),
            (all[2], SegmentFact::NotNamed),
            (all[3], SegmentFact::Needed),
        ]);
        assert_eq!(gc.decide(Time::ZERO, &all, &says), GcDecision::Drop(all[..3].to_vec()));
        assert_eq!(gc.decide(Time::ZERO, &all, &facts(&[])), GcDecision::Drop(vec![]), "silence keeps");
    }

    #[test]
    fn absence_is_quarantined_and_starts_anew_when_the_record_comes_back() {
        let all = local(40);
        let mut gc = SegmentGc::<AllRules>::new(GcPolicy::default(), 0);
        let absent = facts(&[(all[0], SegmentFact::Absent)]);
        let hours = |h: u64| Time::from_millis(h * 3_600_000);
        assert_eq!(gc.decide(hours(0), &all, &absent), GcDecision::Drop(vec![]));
        assert_eq!(gc.decide(hours(71), &all, &absent), GcDecision::Drop(vec![]));
        assert_eq!(gc.decide(hours(71), &all, &facts(&[])), GcDecision::Drop(vec![]));
        assert_eq!(gc.decide(hours(72), &all, &absent), GcDecision::Drop(vec![]));
        assert_eq!(gc.decide(hours(144), &all, &absent), GcDecision::Drop(vec![all[0]]));
    }

    #[test]
    fn many_absent_segments_or_another_incarnation_are_refused() {
        let all = local(40);
        let mut gc = SegmentGc::<AllRules>::new(GcPolicy::default(), 0);
        let mut says: Vec<_> = all[..3].iter().map(|s| (*s, SegmentFact::Absent)).collect();
        says.push((all[9], SegmentFact::BelowCopiesFrom));
        let refused = GcDecision::Refuse(GcAlarm::TooManyAbsent { absent: 3, total: 40 });
        assert_eq!(gc.decide(Time::ZERO, &all, &facts(&says)), refused);
        let other = GcFacts { incarnation: 1, ..facts(&says[3..]) };
        let refused = GcDecision::Refuse(GcAlarm::OtherIncarnation { known: 0, found: 1 });
        assert_eq!(gc.decide(Time::ZERO, &all, &other), refused);
    }

    #[test]
    fn a_stray_among_few_segments_blocks_nobody() {
        let all = local(4);
        let mut gc = SegmentGc::<AllRules>::new(GcPolicy::default(), 0);
        let says =
            facts(&[(all[0], SegmentFact::Absent), (all[1], SegmentFact::Absent), (all[2], SegmentFact::NotNamed)]);
        assert_eq!(gc.decide(Time::ZERO, &all, &says), GcDecision::Drop(vec![all[2]]));
    }
}
