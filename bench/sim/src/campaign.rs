//! Many seeds on a few threads. Each seed is alone on its thread; the sum does not depend on how they were spread.

use std::sync::atomic::{AtomicU64, Ordering};

use esker_types::AllRules;

use crate::plan::Plan;
use crate::run::{Report, run};
use crate::sometimes::Sometimes;

/// What a campaign showed.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seeds: u64,
    pub events: u64,
    pub acks: u64,
    pub beyond_model: u64,
    /// Seeds that were run twice.
    pub repeated: u64,
    pub cases: Sometimes,
    /// The failing seed with the lowest number.
    pub failure: Option<(u64, String)>,
}

impl Outcome {
    fn take(&mut self, seed: u64, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.acks += report.acks;
        self.beyond_model += u64::from(report.beyond_model);
        self.cases.merge(&report.cases);
        if let Some(violation) = &report.violation {
            self.fail(seed, format!("{}: {}", violation.rule, violation.text));
        }
    }

    fn fail(&mut self, seed: u64, text: String) {
        if self.failure.as_ref().is_none_or(|(first, _)| seed < *first) {
            self.failure = Some((seed, text));
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.acks += other.acks;
        self.beyond_model += other.beyond_model;
        self.repeated += other.repeated;
        self.cases.merge(&other.cases);
        if let Some((seed, text)) = other.failure {
            self.fail(seed, text);
        }
    }
}

/// Runs `count` seeds from `first` on `threads` threads and stops early after a failure. Every hundredth seed runs
/// twice: a difference is a failure, since then no seed names its run.
pub fn campaign(first: u64, count: u64, threads: usize) -> Outcome {
    let next = AtomicU64::new(first);
    let stop = first + count;
    let work = || {
        let mut outcome = Outcome::default();
        while outcome.failure.is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= stop {
                break;
            }
            let plan = Plan::from_seed(seed);
            let report = run::<AllRules>(&plan, false);
            outcome.take(seed, &report);
            if seed.is_multiple_of(100) {
                outcome.repeated += 1;
                if run::<AllRules>(&plan, false).trace_hash != report.trace_hash {
                    outcome.fail(seed, "two runs of the same seed differ".into());
                }
            }
        }
        if outcome.failure.is_some() {
            next.store(stop, Ordering::Relaxed);
        }
        outcome
    };
    let mut total = Outcome::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            total.merge(worker.join().expect("runs catch panics of the code under test"));
        }
    });
    total
}
