use esker_sim::campaign::campaign;
use esker_sim::plan::{Faults, Plan};
use esker_sim::run::run;
use esker_sim::shrink::shrink;
use esker_types::AllRules;
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    if args.len() == 1 {
        let mut plan = Plan::from_seed(args[0]);
        if let Ok(f) = std::env::var("F") { plan.faults = Faults(f.parse().unwrap()); }
        let r = run::<AllRules>(&plan, true);
        println!("{:?} events {} acks {}", r.violation, r.events, r.acks);
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    if args.len() == 3 {
        let start = std::time::Instant::now();
        let (mut failed, mut kinds) = (0, std::collections::BTreeMap::<String, Vec<u64>>::new());
        let mut slow = (0u128, 0);
        for seed in args[0]..args[0] + args[1] {
            let t = std::time::Instant::now();
            let r = run::<AllRules>(&Plan::from_seed(seed), false);
            let us = t.elapsed().as_micros();
            if us > slow.0 { slow = (us, seed); }
            if let Some(v) = r.violation {
                failed += 1;
                let k: String = format!("{} {}", v.rule, v.text.split(|c: char| c.is_ascii_digit()).collect::<Vec<_>>().join("#")).chars().take(110).collect();
                kinds.entry(k).or_default().push(seed);
            }
        }
        for (k, s) in &kinds { println!("{:>4} {k}  {:?}", s.len(), &s[..s.len().min(4)]); }
        println!("{failed} failed, {:.1} s, slowest {} us seed {}", start.elapsed().as_secs_f64(), slow.0, slow.1);
        return;
    }
    let start = std::time::Instant::now();
    let o = campaign(args[0], args[1], 2);
    let s = start.elapsed().as_secs_f64();
    println!("{}", o.cases);
    println!("{} seeds {:.1}s {:.0}/s events {} acks {} beyond {}", o.seeds, s, o.seeds as f64 / s, o.events, o.acks, o.beyond_model);
    if let Some((seed, text)) = o.failure {
        println!("FAIL {seed} {text}");
        let plan = Plan::from_seed(seed);
        let rep = run::<AllRules>(&plan, false);
        let (p, r) = shrink(&plan, rep, run::<AllRules>, 200);
        println!("F={} {:?} acts {} batches {} parts {} prods {}: {:?}", p.faults.0, p.faults, p.acts, p.batches, p.partitions, p.producers, r.violation);
    }
}
