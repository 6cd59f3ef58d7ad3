//! Settings of consumer groups.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

const INTERVAL: &str = "consumer.heartbeat.interval.ms";
const SESSION: &str = "consumer.session.timeout.ms";

fn alter(name: &str, settings: Vec<Setting>) -> AlterGroup {
    AlterGroup { name: name.to_owned(), settings, validate_only: false }
}

fn cleared(name: &str) -> Setting {
    Setting { name: name.to_owned(), value: None }
}

#[test]
fn a_group_has_a_row_as_long_as_it_has_settings() {
    let mut w = World::new(1, 0, 0);
    let set = alter("readers", vec![setting(INTERVAL, "2000"), setting(SESSION, "9000")]);
    w.ok(AlterGroup { validate_only: true, ..set.clone() });
    assert_eq!(w.state.group("readers"), None, "only checked");
    w.ok(set.clone());
    w.ok(set);
    w.ok(alter("readers", vec![cleared(INTERVAL)]));
    let settings = &w.state.group("readers").expect("there").settings;
    assert_eq!((settings.consumer_heartbeat_interval_ms, settings.consumer_session_timeout_ms), (None, Some(9_000)));
    w.ok(alter("readers", vec![cleared(SESSION)]));
    assert_eq!(w.state.groups().len(), 0, "nothing is kept of a group without settings");
    w.ok(alter("readers", vec![cleared(SESSION)]));
}

#[test]
fn names_values_and_the_number_of_groups_are_checked() {
    let mut w = World::new(1, 0, 0);
    assert_eq!(w.refused(alter("", vec![setting(INTERVAL, "2000")])), ErrorCode::InvalidGroupId);
    assert_eq!(w.refused(alter(&"x".repeat(1_025), vec![setting(INTERVAL, "2000")])), ErrorCode::InvalidGroupId);
    assert_eq!(w.refused(alter("g", vec![setting(INTERVAL, "1")])), ErrorCode::InvalidConfig);
    assert_eq!(w.refused(alter("g", vec![setting("retention.ms", "1")])), ErrorCode::InvalidConfig);
    // Each is judged beside what is there.
    w.ok(alter("g", vec![setting(SESSION, "6000")]));
    assert_eq!(w.refused(alter("g", vec![setting(INTERVAL, "6000")])), ErrorCode::InvalidConfig);
    let many = (1..10_000).map(|n| alter(&format!("g{n}"), vec![setting(INTERVAL, "2000")]).into());
    assert!(w.apply(&many.collect::<Vec<_>>()).results.iter().all(Result::is_ok));
    assert_eq!(w.refused(alter("one more", vec![setting(INTERVAL, "2000")])), ErrorCode::InvalidConfig);
    w.ok(alter("g", vec![setting(INTERVAL, "2000")]));
}
