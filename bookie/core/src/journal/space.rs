//! What is still taken as the disk fills. A bookie that can't fence blocks failover, so fences go last.

/// Bytes that must stay free for each kind of write. `add >= recovery >= copies >= journal_file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceMarks {
    /// Ordinary ADDs stop below this.
    pub add: u64,
    /// ADDs of recoveries and repairs stop below this.
    pub recovery: u64,
    /// Copies that free a file stop below this. What is left is for one last file of fences, headers and footers.
    pub copies: u64,
}

/// What is still taken; each level refuses all that the one before refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    #[default]
    All,
    NoAdds,
    NoRecovery,
    /// Only fences, limbo and drop records, headers and footers.
    FencesOnly,
}

impl SpaceMarks {
    /// Marks for journal files of `file_bytes`: 4, 3 and 2 files.
    pub fn for_files(file_bytes: u64) -> Self {
        Self {
            add: file_bytes.saturating_mul(4),
            recovery: file_bytes.saturating_mul(3),
            copies: file_bytes.saturating_mul(2),
        }
    }

    pub fn level(&self, free: u64) -> SpaceLevel {
        match free {
            free if free < self.copies => SpaceLevel::FencesOnly,
            free if free < self.recovery => SpaceLevel::NoRecovery,
            free if free < self.add => SpaceLevel::NoAdds,
            _ => SpaceLevel::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_stop_first_and_fences_never() {
        let marks = SpaceMarks::for_files(100);
        let levels = [500, 399, 299, 199, 0].map(|free| marks.level(free));
        use SpaceLevel::*;
        assert_eq!(levels, [All, NoAdds, NoRecovery, FencesOnly, FencesOnly]);
    }
}
