//! Names of the metadata's backups in the bucket. What stands in one is the state itself (`encode_snapshot`): it carries
//! its own version, checksum and hash.
//!
//! ```text
//! metadata/{incarnation, 3 digits}-{revision, 20 digits}-{node, 16 hex digits}
//! ```
//! The state of one incarnation at one revision is the same on every member, and a name holds the node that wrote it:
//! whatever happens twice writes the same bytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::FormatError;

/// Folder of all backups.
pub const BACKUPS: &str = "metadata";
/// No backup is larger, bytes.
pub const BACKUP_MAX: u64 = 1 << 30;

/// In the order of age: the largest is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName {
    pub incarnation: u8,
    /// Of the state.
    pub revision: u64,
    /// Of the metadata node that wrote it.
    pub node: u64,
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BACKUPS}/{:03}-{:020}-{:016x}", self.incarnation, self.revision, self.node)
    }
}

impl FromStr for BackupName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let parse = || {
            let (incarnation, rest) = text.strip_prefix(BACKUPS)?.strip_prefix('/')?.split_once('-')?;
            let (revision, node) = rest.split_once('-')?;
            let node = u64::from_str_radix(node, 16).ok()?;
            Some(Self { incarnation: incarnation.parse().ok()?, revision: revision.parse().ok()?, node })
        };
        let named = parse().filter(|name| name.to_string() == text);
        named.map_or_else(|| FormatError::damaged("backup name", "not one that Esker gives out"), Ok)
    }
}

/// Those of life `incarnation` that may go, given all and the time since each was written, so that at most `kept` of it
/// stay: the newer half of them the newest there are, and then one each that is up to 1 h, 2 h, 4 h ... old.
///
/// Those of other lives stay. A later one's are none of ours, and former ones, of which each left at most `kept`, are
/// what is left if the newest recovery was a mistake.
pub fn surplus(backups: &[(BackupName, Duration)], incarnation: u8, kept: usize) -> Vec<BackupName> {
    let mut ours: Vec<_> = backups.iter().copied().filter(|(name, _)| name.incarnation == incarnation).collect();
    ours.sort_unstable();
    let newest = kept.div_ceil(2);
    ours.truncate(ours.len().saturating_sub(newest));
    // The oldest of each span stays, so that there is one to grow into the next span.
    let mut spans = vec![false; kept - newest];
    ours.retain(|(_, age)| match spans.get_mut(span(*age)) {
        Some(taken) => std::mem::replace(taken, true),
        None => true,
    });
    ours.into_iter().map(|(name, _)| name).collect()
}

/// 0 below an hour, 1 below two, 2 below four, and so on.
fn span(age: Duration) -> usize {
    let hours = age.as_secs() / 3_600;
    (u64::BITS - hours.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(incarnation: u8, revision: u64) -> BackupName {
        BackupName { incarnation, revision, node: 0xab }
    }

    #[test]
    fn names_round_trip_and_sort_by_age() {
        let text = name(2, 77).to_string();
        assert_eq!(text, "metadata/002-00000000000000000077-00000000000000ab");
        assert_eq!(text.parse(), Ok(name(2, 77)));
        for bad in ["", "metadata/", "metadata/2-77-ab", "metadata/002-00000000000000000077", "0/1/2/3-4"] {
            assert!(bad.parse::<BackupName>().is_err(), "{bad}");
        }
        assert!(
            name(2, 77).to_string() < name(2, 1_000).to_string()
                && name(2, u64::MAX).to_string() < name(10, 0).to_string()
        );
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_newest_stay_and_those_of_other_lives_are_not_touched() {
        let names = [name(1, 5), name(0, 900), name(1, 3), name(2, 1), name(1, 4), name(1, 2)];
        let young = names.map(|name| (name, MINUTE));
        assert_eq!(surplus(&young, 1, 1), [name(1, 2), name(1, 3), name(1, 4)]);
        assert_eq!(surplus(&young, 1, 2), [name(1, 3), name(1, 4)], "the newest, and the oldest of this hour");
        assert!(surplus(&young, 1, 9).is_empty() && surplus(&young, 0, 1).is_empty());
    }

    #[test]
    fn a_day_of_backups_leaves_some_of_every_age() {
        // One every five minutes, and now and then a dozen within a minute.
        let (mut there, mut revision): (Vec<(BackupName, Duration)>, u64) = (Vec::new(), 0);
        for minute in 0..1_440 {
            there.iter_mut().for_each(|(_, age)| *age += MINUTE);
            let count = if minute % 100 == 99 { 12 } else { usize::from(minute % 5 == 0) };
            for _ in 0..count {
                revision += 1;
                there.push((name(1, revision), Duration::ZERO));
                let gone = surplus(&there, 1, 12);
                there.retain(|(name, _)| !gone.contains(name));
                assert!(there.len() <= 12 && there.last().is_some_and(|(newest, _)| newest.revision == revision));
            }
        }
        let older = |hours: u32| there.iter().filter(|(_, age)| *age >= MINUTE * 60 * hours).count();
        assert!(older(1) >= 3 && older(4) >= 1 && older(32) == 0, "{there:?}");
        assert!(there.iter().filter(|(_, age)| *age < MINUTE * 60).count() >= 6, "{there:?}");
    }
}
