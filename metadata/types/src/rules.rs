//! The safety rules that can be switched off in the simulator, to prove that it notices.
//!
//! Production code is generic over `R: Rules` and instantiated with [`AllRules`], so every check compiles to a
//! constant. A *mutant* is a type that overrides one constant; the simulator must find a violation for each.

/// Each constant is one rule; `true` is the safe behaviour.
pub trait Rules: Copy + Default + std::fmt::Debug + Send + Sync + 'static {
    const NAME: &'static str;

    /// R4: a fence is answered only after its own record is fsynced.
    const FENCE_DURABLE: bool = true;
    /// R4: a fence is queued behind the ADDs that were accepted before it, so its answer counts them.
    const FENCE_BEHIND_ADDS: bool = true;
    /// R7: recovery waits for Qw-Qa+1 answers.
    const RECOVERY_COVERAGE: bool = true;
    /// R7, R9: an answer in limbo counts neither for coverage nor for the ack quorum.
    const LIMBO_EXCLUDED: bool = true;
    /// R11: a wiped bookie can't come back as the same instance.
    const INSTANCE_IDENTITY: bool = true;
    /// R6: after the freeze, late acks neither move the LAC nor complete clients.
    const FREEZE_BEFORE_ROLL: bool = true;
    /// R7: the suffix is written back to an ack quorum before the close.
    const WRITE_BACK: bool = true;
    /// R7: write-back goes in order, the whole suffix per member; an entry-by-entry quorum is not enough.
    const WRITE_BACK_WHOLE_SUFFIX: bool = true;
    /// 2.2: "not applied" in a read never unfreezes; only the committed record decides.
    const STAY_FROZEN_WHILE_UNKNOWN: bool = true;
    /// R6: a handover freezes first.
    const HANDOVER_FREEZES: bool = true;
    /// R6: a process writes an OPEN segment only if it started it itself.
    const OWN_START_ONLY: bool = true;
    /// R18: a snapshot folds exactly the entries before it, never the live table.
    const SNAPSHOT_FOLDS_PREFIX: bool = true;
    /// R8, I8: the fence table outlives the files that its records were in.
    const FENCES_SURVIVE_GC: bool = true;
    /// R5: ADD is answered after its fsync.
    const ACK_AFTER_FSYNC: bool = true;
    /// R10: in limbo a missing entry is Unknown, not NO_SUCH_ENTRY.
    const LIMBO_IS_UNKNOWN: bool = true;
    /// R9: a torn tail is cut without limbo.
    const TORN_IS_CUT: bool = true;
    /// R9: damage below the durable evidence is limbo, never cut.
    const CORRUPT_IS_LIMBO: bool = true;
    /// I1: Open and Roll leave at most one OPEN segment.
    const ONE_OPEN_SEGMENT: bool = true;
    /// R17: OFFSET_OUT_OF_RANGE only from a recovered owner.
    const RANGE_NEEDS_RECOVERY: bool = true;
    /// R18: dedupe looks at pending batches too.
    const DEDUPE_PENDING: bool = true;
    /// R18: a duplicate is answered with the original offset.
    const DUPLICATE_KEEPS_OFFSET: bool = true;
    /// 2.6: a bookie reads the epochs of its open segments from metadata at every boot.
    const EPOCHS_READ_AT_BOOT: bool = true;
    /// R12: an object is committed only after it was read back whole.
    const OFFLOAD_VERIFIED: bool = true;
    /// R12: copies on bookies go only after a second read of the object.
    const DROP_AFTER_SECOND_READ: bool = true;
    /// R16: what a manifest no longer reaches is deleted a grace after the change, for those who still read it.
    const DELETE_AFTER_GRACE: bool = true;
    /// 2.7: the sweep deletes what no manifest reaches, never what has no record.
    const SWEEP_BY_REACHABILITY: bool = true;
    /// R16: nothing is deleted before metadata has let go of it.
    const DELETE_AFTER_METADATA: bool = true;
    /// R16: an object with segments of several partitions is deleted by the sweep alone, never by one partition's grave.
    const GRAVES_SPARE_SHARED: bool = true;
    /// 2.7: the sweep takes a shared object only if none of the segments in it is reached.
    const SWEEP_ASKS_ALL_SEGMENTS: bool = true;
    /// R14: copies that have no record are set aside, and too many of them stop the collection.
    const ORPHANS_KEPT: bool = true;
    /// I9, 2.9: after a restore no ordinal of a segment is given out that the lost past may have used.
    const ORDINALS_JUMP_AT_RESTORE: bool = true;
    /// 2.7: a 409 says that two requests met, not who won: what is stored there decides.
    const CONFLICT_IS_NO_ANSWER: bool = true;
    /// 2.8: what a cache holds is verified on every hit.
    const CACHE_CHECKED: bool = true;
}

/// Production: every rule holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllRules;

impl Rules for AllRules {
    const NAME: &'static str = "all rules";
}
