//! One type per broken rule. The simulator must catch each: what it can't see broken, it can't prove whole.

use std::time::Instant;

use esker_sim::plan::{Plan, WITH_BUCKET};
use esker_sim::run::{Report, run};
use esker_sim::show::show;
use esker_types::{AllRules, Rules};

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident breaks $rule:ident, $text:literal;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Rules for $name {
            const NAME: &'static str = $text;
            const $rule: bool = false;
        })*

        /// All mutants, with how to run a plan under each.
        pub const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $text,
            rule: stringify!($rule),
            run: run::<$name>,
        },)*];
    };
}

/// A broken rule and the cluster that breaks it.
pub struct Mutant {
    pub name: &'static str,
    /// The constant of [`Rules`] that is false.
    pub rule: &'static str,
    pub run: fn(&Plan, bool) -> Report,
}

mutants! {
    FenceNotDurable breaks FENCE_DURABLE, "fence answered before its fsync";
    FenceBeforeAdds breaks FENCE_BEHIND_ADDS, "fence answered before queued adds";
    CoverageOfOne breaks RECOVERY_COVERAGE, "recovery with a coverage of one";
    LimboIgnored breaks LIMBO_EXCLUDED, "limbo counts in recovery";
    WipedKeepsIdentity breaks INSTANCE_IDENTITY, "same identity after a wipe";
    LateAcksInRoll breaks FREEZE_BEFORE_ROLL, "late acks in a roll";
    NoWriteBack breaks WRITE_BACK, "no write-back";
    WriteBackPerEntry breaks WRITE_BACK_WHOLE_SUFFIX, "write-back per entry";
    UnfreezeAfterRead breaks STAY_FROZEN_WHILE_UNKNOWN, "unfreeze after a read";
    HandoverUnfrozen breaks HANDOVER_FREEZES, "handover without freeze";
    RestartContinues breaks OWN_START_ONLY, "a restarted process continues its segment";
    SnapshotOfLiveTable breaks SNAPSHOT_FOLDS_PREFIX, "snapshot from the live table";
    FencesDroppedByGc breaks FENCES_SURVIVE_GC, "fence table dropped by GC";
    AckBeforeFsync breaks ACK_AFTER_FSYNC, "ack before fsync";
    LimboDenies breaks LIMBO_IS_UNKNOWN, "NO_SUCH_ENTRY in limbo";
    TornIsLimbo breaks TORN_IS_CUT, "torn taken for corrupt";
    CorruptIsCut breaks CORRUPT_IS_LIMBO, "corrupt taken for torn";
    TwoOpen breaks ONE_OPEN_SEGMENT, "two OPEN segments";
    RangeUnrecovered breaks RANGE_NEEDS_RECOVERY, "OFFSET_OUT_OF_RANGE from an unrecovered owner";
    PendingForgotten breaks DEDUPE_PENDING, "dedupe ignores pending batches";
    DuplicateMoves breaks DUPLICATE_KEEPS_OFFSET, "a duplicate answered with the new offset";
    BootWithoutEpochs breaks EPOCHS_READ_AT_BOOT, "no epoch read at boot";
    CommitUnverified breaks OFFLOAD_VERIFIED, "offload commit without verify";
    DropUnread breaks DROP_AFTER_SECOND_READ, "copies dropped without a second read";
    DeleteEarly breaks DELETE_AFTER_METADATA, "delete before metadata";
    DeleteAtOnce breaks DELETE_AFTER_GRACE, "delete without a grace";
    SweepByRecord breaks SWEEP_BY_REACHABILITY, "sweep by record instead of reachability";
    GraveOfShared breaks GRAVES_SPARE_SHARED, "a grave of a shared object deletes it";
    FirstSegmentOnly breaks SWEEP_ASKS_ALL_SEGMENTS, "the sweep looks at a shared object's first segment only";
    OrphansDropped breaks ORPHANS_KEPT, "orphan mass-delete";
    CacheUnchecked breaks CACHE_CHECKED, "cache without CRC";
}

/// How a hunt for a mutant ended.
#[derive(Clone, Debug)]
pub struct Kill {
    /// Seeds run, the killing one included.
    pub seeds: u64,
    pub rule: &'static str,
    pub text: String,
}

impl Mutant {
    /// Runs seeds until one shows a broken promise, at most `seeds` of them: of the log and with a bucket, in turn.
    pub fn hunt(&self, seeds: u64) -> Option<Kill> {
        (0..seeds).find_map(|turn| {
            let plan = Plan::from_seed(turn / 2 + turn % 2 * WITH_BUCKET);
            let violation = (self.run)(&plan, false).violation?;
            // A cluster that stands still is a poor witness: a broken rule must break what was promised.
            if violation.rule == "live" {
                return None;
            }
            // What breaks with all rules in force too is no proof of the broken one.
            if run::<AllRules>(&plan, false).violation.is_some() {
                return None;
            }
            Some(Kill { seeds: turn + 1, rule: violation.rule, text: violation.text })
        })
    }
}

/// A survivor of so many seeds is a bug of the simulator.
const SEEDS: u64 = 5_000;

/// Shows one seed under a mutant, line by line: `ESKER_SIM_MUTANT=FENCE_DURABLE ESKER_SIM_SEED=7`.
#[test]
fn one_seed() {
    let rule = std::env::var("ESKER_SIM_MUTANT").ok();
    if let Some(mutant) = rule.and_then(|rule| MUTANTS.iter().find(|mutant| mutant.rule == rule)) {
        show(mutant.run);
    }
}

/// Every rule that can be switched off is missed within the bound, and a person can read how soon.
#[test]
fn each_mutant_is_killed() {
    if cfg!(debug_assertions) {
        return; // a dev build would take minutes for what the release build shows
    }
    let only = std::env::var("ESKER_SIM_MUTANT").ok();
    let chosen: Vec<_> = MUTANTS.iter().filter(|mutant| only.as_ref().is_none_or(|rule| rule == mutant.rule)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let hunt = || {
        let mut survivors = Vec::new();
        while let Some(mutant) = chosen.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let start = Instant::now();
            match mutant.hunt(SEEDS) {
                Some(kill) => println!(
                    "{:>5} seeds {:>7.2} s  {:<26} {:<45} {}: {}",
                    kill.seeds,
                    start.elapsed().as_secs_f64(),
                    mutant.rule,
                    mutant.name,
                    kill.rule,
                    kill.text.chars().take(150).collect::<String>()
                ),
                None => {
                    println!("      survived {SEEDS} seeds  {:<26} {}", mutant.rule, mutant.name);
                    survivors.push(mutant.rule);
                }
            }
        }
        survivors
    };
    let survivors: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(hunt)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("hunts do not panic")).collect()
    });
    assert!(survivors.is_empty(), "mutants that nobody missed: {survivors:?}");
}
