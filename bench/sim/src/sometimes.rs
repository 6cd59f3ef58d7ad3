//! Cases that a long run must have met. A generator that never makes a case proves nothing about it.

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A case worth meeting. Each is counted where the simulator sees it happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Case { $($(#[$doc])* $name,)* }

        impl Case {
            pub const ALL: &'static [Case] = &[$(Case::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Case::$name => stringify!($name),)* }
            }
        }
    };
}

cases! {
    Acked,
    ProduceRefused,
    Recovery,
    /// A recovery that had to write a suffix back.
    RecoveryWroteBack,
    /// A member answered a recovery's fence in limbo.
    RecoveryWithLimbo,
    /// The recovery copied the segment to a bookie that was no member.
    Substitution,
    /// A recovery of an epoch that another assignment had overtaken.
    RecoveryOvertaken,
    CleanScan,
    TornVerdict,
    CorruptVerdict,
    DamagedEntry,
    LimboCleared,
    /// A disk lost what was acked, and nothing shows it.
    SilentLoss,
    UnknownOutcome,
    UnknownRollOutcome,
    CommandAppliedTwice,
    CommandAppliedLate,
    CommandNeverApplied,
    StaleCommandRejected,
    DuplicateOfPending,
    DuplicateOfCommitted,
    ProducerResumedAtNewOwner,
    GcDeletedFile,
    GcRefused,
    GcCopiedForward,
    /// An owner that was replaced goes on for a while, for the news reaches it last.
    OwnerHearsLate,
    ZombieFenced,
    HandoverDone,
    HandoverRefused,
    RestartAfterHandover,
    RollDone,
    RollAwayFromMember,
    EntriesResentAfterRoll,
    MemberGap,
    BookieCrash,
    BookieCrashWhileWriting,
    GatewayCrash,
    PowerCutAll,
    Pause,
    OneWayPartition,
    FsyncError,
    DiskFull,
    Wipe,
    WipedRefused,
    RolledBackImage,
    ClonedDisk,
    CloneEvicted,
    BitFlip,
    MisdirectedWrite,
    LostWrite,
    MessageLost,
    MessageDuplicated,
    MemberGoneForGood,
    Retention,
    TopicDeleted,
    OwnerStorm,
    ReadServed,
    OutOfRangeServed,
    RunConverged,
    ReadFromBookie,
    GcDroppedSegment,
    StoreDown,
    /// A request to the store that its client heard no success of.
    StoreFailed,
    ObjectWritten,
    /// Segments of several partitions were written into one object.
    ObjectShared,
    SharedObjectSwept,
    ObjectDamagedInPut,
    ObjectVerified,
    /// What was written is not there, or not the segment.
    ObjectBad,
    OffloadCommitted,
    /// A committed object was damaged later.
    ObjectRotted,
    SecondReadFailed,
    StepRejected,
    PagesWritten,
    GravesEmptied,
    Swept,
    Pinned,
    ReadFromBucket,
    ReadFromCache,
    CacheDamaged,
    /// A reader held on to a version of the manifest for longer than it is kept.
    ReaderTooLate,
    MetadataAmnesia,
}

/// How often each case was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sometimes {
    counts: Vec<u64>,
}

impl Default for Sometimes {
    fn default() -> Self {
        Self { counts: vec![0; Case::ALL.len()] }
    }
}

impl Sometimes {
    pub fn hit(&mut self, case: Case) {
        self.counts[case as usize] += 1;
    }

    pub fn count(&self, case: Case) -> u64 {
        self.counts[case as usize]
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    pub fn never_met(&self) -> Vec<Case> {
        Case::ALL.iter().copied().filter(|case| self.count(*case) == 0).collect()
    }
}

impl std::fmt::Display for Sometimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for case in Case::ALL {
            writeln!(f, "{:>12}  {}", self.count(*case), case.name())?;
        }
        Ok(())
    }
}
