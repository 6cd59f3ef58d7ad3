//! One seed for a person to read, named by the environment as [`Plan::rerun_line`] does.

use crate::plan::{Faults, Plan};
use crate::run::Report;

/// The number that an environment variable holds.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the plan of `ESKER_SIM_SEED`, if there is one, and prints it line by line unless `ESKER_SIM_QUIET` is set.
///
/// # Panics
/// If a promise is broken.
pub fn show(run: fn(&Plan, bool) -> Report) {
    let Some(seed) = number("ESKER_SIM_SEED") else { return };
    let mut plan = Plan::from_seed(seed);
    if let Some(faults) = number("ESKER_SIM_FAULTS") {
        plan.faults = Faults(u32::try_from(faults).expect("a set of faults is 32 bits"));
    }
    plan.acts = number("ESKER_SIM_ACTS").map_or(plan.acts, |acts| acts as u32);
    plan.batches = number("ESKER_SIM_BATCHES").unwrap_or(plan.batches);
    plan.partitions = number("ESKER_SIM_PARTITIONS").map_or(plan.partitions, |n| n as usize);
    plan.producers = number("ESKER_SIM_PRODUCERS").map_or(plan.producers, |n| n as usize);
    let report = run(&plan, std::env::var("ESKER_SIM_QUIET").is_err());
    println!("{} events, {} acks, trace {:#018x}", report.events, report.acks, report.trace_hash);
    if let Some(violation) = report.violation {
        panic!("{}: {}", violation.rule, violation.text);
    }
}
