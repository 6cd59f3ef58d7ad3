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

/// Those that may go: all but the newest `kept`, and none of a life above `incarnation`.
pub fn surplus(names: &[BackupName], incarnation: u8, kept: usize) -> Vec<BackupName> {
    let mut ours: Vec<BackupName> = names.iter().copied().filter(|name| name.incarnation <= incarnation).collect();
    ours.sort_unstable();
    ours.truncate(ours.len().saturating_sub(kept));
    ours
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

    #[test]
    fn the_newest_stay_and_those_of_a_later_life_are_not_ours() {
        let names = [name(1, 5), name(0, 900), name(1, 3), name(2, 1), name(1, 4)];
        assert_eq!(surplus(&names, 1, 2), [name(0, 900), name(1, 3)]);
        assert!(surplus(&names, 1, 9).is_empty());
    }
}
