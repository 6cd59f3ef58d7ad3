//! Makes a failing run smaller: faults are switched off one by one, then acts and work cut, as long as it still fails.

use crate::plan::{Fault, Plan};
use crate::run::Report;

/// The smallest plan found that still breaks a promise, and its report. `tries` bounds the work.
pub fn shrink(plan: &Plan, report: Report, run: fn(&Plan, bool) -> Report, tries: u32) -> (Plan, Report) {
    let (mut best, mut best_report) = (plan.clone(), report);
    let mut left = tries;
    loop {
        let mut smaller = false;
        for candidate in candidates(&best) {
            if left == 0 {
                return (best, best_report);
            }
            left -= 1;
            let report = run(&candidate, false);
            if report.violation.is_some() {
                (best, best_report) = (candidate, report);
                smaller = true;
                break;
            }
        }
        if !smaller {
            return (best, best_report);
        }
    }
}

fn candidates(plan: &Plan) -> Vec<Plan> {
    let without = |fault: &Fault| Plan { faults: plan.faults.without(*fault), ..plan.clone() };
    let mut out: Vec<Plan> = Fault::ALL.iter().filter(|fault| plan.faults.has(**fault)).map(without).collect();
    if plan.objects.is_some() {
        out.push(Plan { objects: None, ..plan.clone() });
    }
    if plan.acts > 1 {
        out.push(Plan { acts: plan.acts / 2, ..plan.clone() });
        out.push(Plan { acts: plan.acts - 1, ..plan.clone() });
    }
    if plan.batches > 1 {
        out.push(Plan { batches: plan.batches / 2, ..plan.clone() });
    }
    if plan.partitions > 1 {
        out.push(Plan { partitions: plan.partitions - 1, ..plan.clone() });
    }
    if plan.producers > 1 {
        out.push(Plan { producers: plan.producers - 1, ..plan.clone() });
    }
    out
}
