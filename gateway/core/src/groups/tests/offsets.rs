use std::time::Duration;

use esker_types::ErrorCode;

use super::world::{World, commit, fetch, fetched, join, member};
use crate::groups::{Commit, Config, Fetch, Fetched, Request, Response};

const DAY: Duration = Duration::from_secs(86_400);

fn code(response: Response) -> Result<(), ErrorCode> {
    match response {
        Response::Commit(each) => each[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_come_back_as_they_were_and_missing_ones_are_no_error() {
    let mut world = World::eager();
    assert_eq!(fetched(world.ask(fetch("nobody", 0))), -1);
    assert_eq!(code(world.ask(commit("g", member(""), -1, 2, 41))), Ok(()));
    world.crash(0);
    let all = Request::Fetch(Fetch { group: "g".into(), member: None, partitions: None });
    let found = Fetched { topic: "t".into(), partition: 2, offset: 41, leader_epoch: 3, metadata: "m\u{e9}".into() };
    assert_eq!(world.ask(all), Response::Fetch(Ok(vec![found])));
    assert_eq!(fetched(world.ask(fetch("g", 3))), -1);
}

#[test]
fn who_may_not_commit() {
    let mut world = World::new(Config { offset_metadata_bytes_max: 2, ..Config::default() });
    assert_eq!(code(world.ask(commit("g", member(""), -1, 0, 1))), Err(ErrorCode::OffsetMetadataTooLarge));
    let mut world = World::eager();
    assert_eq!(code(world.ask(commit("g", member("m"), 1, 0, 1))), Err(ErrorCode::UnknownGroup));
    let Request::Commit(old) = commit("g", member("m"), 1, 0, 1) else { unreachable!() };
    let old = Request::Commit(Commit { knows_epochs: false, ..old });
    assert_eq!(code(world.ask(old)), Err(ErrorCode::IllegalGeneration));
    assert_eq!(code(world.ask(commit("g", member(""), -1, 6, 1))), Err(ErrorCode::UnknownPartition));
    assert_eq!(code(world.ask(commit("g", member(""), -1, -1, 1))), Err(ErrorCode::UnknownPartition));
    // With members, only they may.
    world.send(Request::Join(join("h", member(""))));
    assert_eq!(code(world.ask(commit("h", member(""), -1, 0, 1))), Err(ErrorCode::UnknownMember));
    assert_eq!(code(world.ask(commit("h", member("x"), 1, 0, 1))), Err(ErrorCode::UnknownMember));
}

#[test]
fn offsets_of_a_deserted_group_expire_and_the_group_with_them() {
    let mut world = World::eager();
    world.ask(commit("g", member(""), -1, 0, 1));
    world.pass(4 * DAY);
    world.ask(commit("g", member(""), -1, 1, 1));
    world.pass(4 * DAY);
    assert_eq!(fetched(world.ask(fetch("g", 0))), -1, "seven days old");
    assert_eq!(fetched(world.ask(fetch("g", 1))), 1);
    world.pass(4 * DAY);
    assert_eq!(world.coordinator.groups(), 0);
    assert_eq!(world.replayed(0).groups(), 0, "the log says so too");
}

#[test]
fn offsets_of_deleted_topics_go_and_a_retention_of_their_own_counts() {
    let mut world = World::eager();
    let Request::Commit(mut short) = commit("g", member(""), -1, 0, 1) else { unreachable!() };
    short.retention = Some(Duration::from_secs(5));
    world.ask(Request::Commit(short));
    world.ask(commit("g", member(""), -1, 1, 1));
    world.pass(Duration::from_secs(120));
    assert_eq!(fetched(world.ask(fetch("g", 0))), -1);
    assert_eq!(fetched(world.ask(fetch("g", 1))), 1);
    world.topics.counts.remove("t");
    world.pass(Duration::from_secs(1200));
    assert_eq!(fetched(world.ask(fetch("g", 1))), -1);
}

#[test]
fn a_deleted_group_leaves_nothing() {
    let mut world = World::eager();
    world.ask(commit("g", member(""), -1, 0, 1));
    assert_eq!(world.ask(Request::Delete { group: "g".into() }), Response::Delete(Ok(())));
    assert_eq!(world.ask(Request::Delete { group: "g".into() }), Response::Delete(Err(ErrorCode::UnknownGroup)));
    assert_eq!(world.replayed(0).groups(), 0);
}

#[test]
fn snapshots_bound_the_log_and_lose_nothing() {
    let mut world =
        World::new(Config { snapshot_bytes: 2000, initial_rebalance_delay: Duration::ZERO, ..Config::default() });
    world.send(Request::Join(join("members", member(""))));
    for round in 0..400 {
        let group = format!("g{}", round % 7);
        world.ask(commit(&group, member(""), -1, round % 6, i64::from(round)));
        let live = world.log.len() - world.log_start;
        assert!(live < 250, "{live} appends are read at a reload");
        if round % 50 == 49 {
            world.crash(0);
        }
    }
    assert!(world.log_start > 0);
    for group in 0..7 {
        for partition in 0..6 {
            let last = (0..400).rev().find(|round| round % 7 == group && round % 6 == partition);
            let found = fetched(world.ask(fetch(&format!("g{group}"), partition)));
            assert_eq!(found, i64::from(last.expect("each pair comes up")));
        }
    }
    assert_eq!(world.coordinator.groups(), 8);
}

#[test]
fn state_is_bounded() {
    let mut world = World::new(Config { groups_max: 3, ..Config::default() });
    for group in ["a", "b", "c"] {
        assert_eq!(code(world.ask(commit(group, member(""), -1, 0, 1))), Ok(()));
    }
    assert_eq!(code(world.ask(commit("d", member(""), -1, 0, 1))), Err(ErrorCode::CoordinatorUnavailable));
    assert_eq!(code(world.ask(commit("a", member(""), -1, 1, 1))), Ok(()), "groups that are there go on");
}
