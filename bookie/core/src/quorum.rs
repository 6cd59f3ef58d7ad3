//! Quorum arithmetic. Positions are counts: "holds the first `k` entries", so 0 means nothing and no entry is -1.

use esker_types::{Member, Quorum};

/// A bookie's answer about how much of a segment it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub member: Member,
    /// Entries `0..durable` are fsynced there.
    pub durable: u64,
}

/// Qa-th largest position: so many entries are on an ack quorum. 0 while fewer than `ack` members answered.
pub fn acked(positions: impl IntoIterator<Item = u64>, ack: u8) -> u64 {
    // No member set is larger; this runs for every answer, so it allocates nothing.
    let mut all = [0; Quorum::WRITE_MAX as usize];
    for (slot, position) in all.iter_mut().zip(positions) {
        *slot = position;
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    usize::from(ack).checked_sub(1).and_then(|i| all.get(i).copied()).unwrap_or(0)
}

/// Where recovery may end the segment: the `coverage`-th smallest position. So many members have durably promised
/// not to take entries beyond it that no ack quorum can exist there. None while fewer answered.
pub fn recovery_end(positions: impl IntoIterator<Item = u64>, coverage: usize) -> Option<u64> {
    let mut all: Vec<u64> = positions.into_iter().collect();
    all.sort_unstable();
    coverage.checked_sub(1).and_then(|i| all.get(i).copied())
}

/// True if `members` can be the members of a segment with this quorum: as many as Qw, no bookie twice.
pub fn is_member_set(quorum: Quorum, members: &[Member]) -> bool {
    let mut bookies: Vec<_> = members.iter().map(|m| m.bookie).collect();
    bookies.sort_unstable();
    bookies.dedup();
    quorum.is_valid() && bookies.len() == members.len() && members.len() == usize::from(quorum.write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acked_and_end_by_hand() {
        assert_eq!(acked([5, 3, 4], 2), 4);
        assert_eq!(acked([5], 2), 0);
        assert_eq!(recovery_end([5, 3], 2), Some(5));
        assert_eq!(recovery_end([5, 3, 3], 2), Some(3));
        assert_eq!(recovery_end([5], 2), None);
    }

    /// Whatever was acked is kept, whichever members answer: all positions of 1..=5 members up to 4 entries.
    #[test]
    fn recovery_never_cuts_below_what_was_acked() {
        for write in 1..=5u8 {
            for ack in 1..=write {
                let quorum = Quorum { write, ack };
                for code in 0..5u64.pow(write.into()) {
                    let all: Vec<u64> = (0..write).map(|i| code / 5u64.pow(i.into()) % 5).collect();
                    for mask in 0..1u32 << write {
                        let answered = (0..usize::from(write)).filter(|i| mask >> i & 1 == 1).map(|i| all[i]);
                        if let Some(end) = recovery_end(answered, quorum.coverage()) {
                            assert!(end >= acked(all.iter().copied(), ack), "{all:?} {mask:b} {quorum:?}");
                        }
                    }
                }
            }
        }
    }
}
