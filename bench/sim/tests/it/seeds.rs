use std::time::Instant;

use esker_sim::campaign::campaign;
use esker_sim::plan::{Plan, WITH_BUCKET};
use esker_sim::run::run;
use esker_sim::show::{number, show};
use esker_sim::shrink::shrink;
use esker_sim::sometimes::Sometimes;
use esker_types::AllRules;

/// Seeds of the log that a release build runs on every test, and a tenth as many with a bucket.
const SEEDS: u64 = 100_000;

/// Many seeds, no broken promise, and every case that matters was met. In a dev build a hundredth of it.
#[test]
fn many_seeds() {
    let share = if cfg!(debug_assertions) { 100 } else { 1 };
    let count = number("ESKER_SIM_SEEDS").unwrap_or(SEEDS / share);
    let first = number("ESKER_SIM_FIRST").unwrap_or(0);
    let mut cases = Sometimes::default();
    for (what, first, count) in [("of the log", first, count), ("with a bucket", WITH_BUCKET + first, count / 10)] {
        let start = Instant::now();
        let outcome = campaign(first, count, 2);
        let seconds = start.elapsed().as_secs_f64();
        println!("{count} seeds {what} in {seconds:.1} s: {:.0} seeds/s", outcome.seeds as f64 / seconds);
        println!(
            "{} events, {} acks, {} seeds beyond the fault model, {} seeds run twice",
            outcome.events, outcome.acks, outcome.beyond_model, outcome.repeated
        );
        if let Some((seed, text)) = outcome.failure {
            panic!("{}", explain(seed, &text));
        }
        assert_eq!(outcome.seeds, count);
        assert!(outcome.repeated >= count / 100, "1 % of the seeds run twice");
        cases.merge(&outcome.cases);
    }
    println!("{cases}");
    if count >= SEEDS {
        let never = cases.never_met();
        assert!(
            never.is_empty(),
            "the generator never made these cases, so the run proves nothing about them: {never:?}"
        );
    }
}

/// What a person needs of a failing seed: why, the smallest plan that still fails, and the line that shows it.
fn explain(seed: u64, text: &str) -> String {
    let plan = Plan::from_seed(seed);
    let report = run::<AllRules>(&plan, false);
    let (small, report) = shrink(&plan, report, run::<AllRules>, 300);
    let violation = report.violation.map(|v| format!("{}: {}", v.rule, v.text)).unwrap_or_default();
    format!(
        "seed {seed} breaks a promise\n  {text}\nshrunk to {:?}, {} acts\n  {violation}\nrerun: {}\n",
        small.faults,
        small.acts,
        small.rerun_line()
    )
}

/// Shows one seed, line by line, if the environment names one.
#[test]
fn one_seed() {
    show(run::<AllRules>);
}
