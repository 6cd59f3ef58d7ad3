//! Scenarios that once found a bug, each under the bug's name. The plan is written out, so that a change of the
//! generator does not change what is shown.

use esker_sim::plan::{Fault, Faults, Mode, Plan, Profile};
use esker_sim::run::run;
use esker_types::{AllRules, Quorum};

/// A quiet plan on which each story puts its own trouble.
fn plan(seed: u64, quorum: (u8, u8), bookies: usize, faults: &[Fault]) -> Plan {
    Plan {
        profile: Profile::Mixed,
        mode: Mode::Liveness,
        quorum: Quorum { write: quorum.0, ack: quorum.1 },
        bookies,
        gateways: 3,
        partitions: 1,
        producers: 1,
        batches: 13,
        in_flight: 4,
        faults: Faults::of(faults),
        ..Plan::from_seed(seed)
    }
}

fn assert_clean(plan: &Plan) {
    let report = run::<AllRules>(plan, false);
    assert_eq!(report.violation, None, "{}", plan.rerun_line());
    assert!(report.acks > 0, "nothing was acked, so nothing was shown");
}

/// With as many bookies as members, two suspects left too few for an ack quorum, and the owner asked for others for
/// ever although all had come back.
#[test]
fn ack_quorum_lost_with_no_spare_bookie() {
    for seed in 80..110 {
        let mut plan = plan(seed, (3, 2), 3, &[Fault::FsyncError, Fault::MisdirectedWrite, Fault::BookieCrash]);
        (plan.network_us, plan.disk_us, plan.metadata_us, plan.member_timeout_ms) = (1_000, 300, 200, 5);
        (plan.nemesis_us, plan.acts) = (2_000, 6);
        assert_clean(&plan);
    }
}

/// Segments too small for what was on its way were closed before anything in them was acked, again and again.
#[test]
fn small_segments_on_slow_links_make_progress() {
    for seed in 398..418 {
        let mut plan = plan(seed, (3, 3), 3, &[Fault::MessageReorder, Fault::MessageDuplicate]);
        (plan.batch_bytes, plan.entry_bytes_max, plan.segment_bytes) = (6_000, 4_000, 4_000);
        (plan.network_us, plan.disk_us, plan.metadata_us) = (8_000, 300, 200);
        (plan.nemesis_us, plan.acts, plan.batches) = (2_000, 8, 6);
        assert_clean(&plan);
    }
}

/// Rolls away from slow members sent everything again, which made the members slower: none of it was ever acked.
#[test]
fn rolls_under_overload_back_off() {
    for seed in 16..26 {
        let mut plan = plan(seed, (3, 3), 5, &[Fault::SlowDisk, Fault::PowerCutAll]);
        (plan.batch_bytes, plan.entry_bytes_max, plan.segment_bytes) = (6_000, 1, 1_200);
        (plan.network_us, plan.disk_us, plan.metadata_us, plan.member_timeout_ms) = (50, 10_000, 200, 30);
        (plan.nemesis_us, plan.acts) = (500, 18);
        assert_clean(&plan);
    }
}
