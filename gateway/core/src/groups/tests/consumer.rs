use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::ErrorCode;

use super::world::{World, beat, commit, fetch, fetched, instance, join, member, topic_id};
use crate::groups::consumer::{AssignMember, Assignment, range, uniform};
use crate::groups::{
    ConsumerHeartbeat, ConsumerHeartbeated, Fetch, Identity, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Partitions, Request,
    Response, Times,
};

const SECOND: Duration = Duration::from_secs(1);

fn beats(world: &mut World, beat: ConsumerHeartbeat) -> Result<ConsumerHeartbeated, ErrorCode> {
    match world.ask(Request::ConsumerHeartbeat(beat)) {
        Response::ConsumerHeartbeat(result) => result.map_err(|refused| refused.code),
        other => panic!("{other:?}"),
    }
}

fn parts(partitions: &[i32]) -> Partitions {
    Partitions::from([(topic_id("t"), partitions.to_vec())])
}

fn tell(id: &str, epoch: i32, owned: &[i32]) -> ConsumerHeartbeat {
    ConsumerHeartbeat { owned: Some(parts(owned)), ..beat("g", member(id), epoch) }
}

fn state(world: &mut World) -> &'static str {
    match world.ask(Request::ConsumerDescribe { group: "g".to_owned() }) {
        Response::ConsumerDescribe(described) => described.expect("there").state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partition_is_revoked_before_it_is_given_away() {
    let mut world = World::eager();
    let a = beats(&mut world, beat("g", member("a"), 0)).expect("joins");
    assert_eq!((a.epoch, a.assignment), (1, Some(parts(&[0, 1, 2, 3, 4, 5]))));
    let b = beats(&mut world, beat("g", member("b"), 0)).expect("joins");
    assert_eq!((b.epoch, b.assignment), (2, Some(Partitions::new())), "nothing is free yet");
    assert_eq!(state(&mut world), "Reconciling");
    let a = beats(&mut world, beat("g", member("a"), 1)).expect("keeps");
    assert_eq!((a.epoch, a.assignment), (1, Some(parts(&[0, 1, 2]))), "told to give back");
    let a = beats(&mut world, tell("a", 1, &[0, 1, 2, 3])).expect("still holds one");
    assert_eq!((a.epoch, a.assignment), (1, None));
    assert_eq!(beats(&mut world, beat("g", member("b"), 2)).expect("waits").assignment, None);
    world.crash(0);
    let a = beats(&mut world, tell("a", 1, &[0, 1, 2])).expect("has given back");
    assert_eq!(a.epoch, 2);
    let b = beats(&mut world, beat("g", member("b"), 2)).expect("takes");
    assert_eq!(b.assignment, Some(parts(&[3, 4, 5])));
    assert_eq!(state(&mut world), "Stable");
}

#[test]
fn who_is_fenced() {
    let mut world = World::eager();
    assert_eq!(beats(&mut world, beat("g", member("a"), 1)).map(|_| ()), Err(ErrorCode::UnknownGroup));
    let _ = beats(&mut world, beat("g", member("a"), 0));
    assert_eq!(beats(&mut world, beat("g", member("x"), 1)).map(|_| ()), Err(ErrorCode::UnknownMember));
    assert_eq!(beats(&mut world, beat("g", member("a"), 9)).map(|_| ()), Err(ErrorCode::FencedMemberEpoch));
    let _ = beats(&mut world, beat("g", member("b"), 0));
    let _ = beats(&mut world, tell("a", 1, &[0, 1, 2, 3, 4, 5]));
    assert_eq!(beats(&mut world, tell("a", 1, &[0, 1, 2])).expect("moves on").epoch, 2);
    // The answer got lost: the old epoch is good with what the member may have, and only then.
    assert_eq!(beats(&mut world, tell("a", 1, &[0, 1, 2])).expect("again").epoch, 2);
    assert_eq!(beats(&mut world, tell("a", 1, &[0, 5])).map(|_| ()), Err(ErrorCode::FencedMemberEpoch));
    let mut odd = beat("g", member("c"), 0);
    odd.assignor = Some("best".to_owned());
    assert_eq!(beats(&mut world, odd).map(|_| ()), Err(ErrorCode::UnsupportedAssignor));
    for spoil in [
        |beat: &mut ConsumerHeartbeat| beat.topics = None,
        |beat: &mut ConsumerHeartbeat| beat.rebalance_timeout = None,
        |beat: &mut ConsumerHeartbeat| beat.owned = None,
        |beat: &mut ConsumerHeartbeat| beat.epoch = -3,
    ] {
        let mut odd = beat("g", member("c"), 0);
        spoil(&mut odd);
        assert_eq!(beats(&mut world, odd).map(|_| ()), Err(ErrorCode::InvalidRequest));
    }
}

#[test]
fn silence_and_keeping_what_was_asked_back_end_a_membership() {
    let mut world = World::eager();
    let _ = beats(&mut world, beat("g", member("a"), 0));
    world.pass(40 * SECOND);
    let _ = beats(&mut world, beat("g", member("b"), 0));
    assert_eq!(beats(&mut world, beat("g", member("a"), 1)).expect("asked").assignment, Some(parts(&[0, 1, 2])));
    world.pass(29 * SECOND);
    let _ = beats(&mut world, beat("g", member("b"), 2));
    assert!(beats(&mut world, beat("g", member("a"), 1)).is_ok(), "within its rebalance timeout");
    world.pass(2 * SECOND);
    assert_eq!(beats(&mut world, beat("g", member("a"), 1)).map(|_| ()), Err(ErrorCode::UnknownMember));
    let b = beats(&mut world, beat("g", member("b"), 2)).expect("takes all");
    assert_eq!(b.assignment, Some(parts(&[0, 1, 2, 3, 4, 5])));
    world.pass(46 * SECOND);
    assert_eq!(state(&mut world), "Empty");
}

#[test]
fn static_members_leave_for_a_while_and_find_their_place() {
    let mut world = World::eager();
    let a = beats(&mut world, beat("g", instance("a", "i"), 0)).expect("joins");
    let twin = beats(&mut world, beat("g", instance("a2", "i"), 0));
    assert_eq!(twin.map(|_| ()), Err(ErrorCode::UnreleasedInstance));
    let away = beats(&mut world, beat("g", instance("a", "i"), LEAVE_STATIC_EPOCH)).expect("leaves");
    assert_eq!(away.epoch, LEAVE_STATIC_EPOCH);
    let b = beats(&mut world, beat("g", member("b"), 0)).expect("joins");
    assert_eq!(b.assignment, Some(Partitions::new()), "the place is kept");
    world.crash(0);
    let back = beats(&mut world, beat("g", instance("a2", "i"), 0)).expect("is back");
    assert_eq!((back.epoch, back.assignment), (2, Some(parts(&[0, 1, 2]))), "of {a:?}");
    let old = beats(&mut world, beat("g", instance("a", "i"), 2));
    assert_eq!(old.map(|_| ()), Err(ErrorCode::FencedInstance));
    assert!(beats(&mut world, beat("g", instance("a2", "i"), LEAVE_EPOCH)).is_ok());
    let b = beats(&mut world, beat("g", member("b"), 2)).expect("takes all");
    assert_eq!(b.assignment, Some(parts(&[0, 1, 2, 3, 4, 5])));
}

#[test]
fn topics_that_come_and_grow_are_assigned_also_by_pattern() {
    let mut world = World::eager();
    let mut first = beat("g", member("a"), 0);
    (first.topics, first.regex) = (None, Some("^[tv].*".to_owned()));
    assert_eq!(beats(&mut world, first.clone()).expect("joins").assignment, Some(parts(&[0, 1, 2, 3, 4, 5])));
    world.topics.counts.insert("v1".to_owned(), 2);
    world.topics.counts.insert("w".to_owned(), 2);
    world.topics.revision += 1;
    world.pass(3 * SECOND);
    let grown = beats(&mut world, beat("g", member("a"), 1)).expect("told").assignment.expect("of the new topic");
    assert_eq!(grown.keys().copied().collect::<Vec<_>>(), [topic_id("t"), topic_id("v1")]);
    first.who = member("b");
    for bad in ["(", "a{1000}{1000}{1000}", &"(".repeat(200)] {
        first.regex = Some(bad.to_owned());
        assert_eq!(beats(&mut world, first.clone()).map(|_| ()), Err(ErrorCode::InvalidRegex), "{bad}");
    }
}

#[test]
fn offsets_need_the_present_epoch() {
    let mut world = World::eager();
    let _ = beats(&mut world, beat("g", member("a"), 0));
    let mut result = |epoch, id: &str| match world.ask(commit("g", member(id), epoch, 0, 9)) {
        Response::Commit(each) => each[0],
        other => panic!("{other:?}"),
    };
    assert_eq!(result(1, "a"), Ok(()));
    assert_eq!(result(0, "a"), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(result(1, "b"), Err(ErrorCode::UnknownMember));
    assert_eq!(result(-1, ""), Err(ErrorCode::UnknownMember));
    let ask = |epoch| {
        let partitions = Some(vec![("t".to_owned(), 0)]);
        Request::Fetch(Fetch { group: "g".into(), member: Some(("a".to_owned(), epoch)), partitions })
    };
    assert_eq!(fetched(world.ask(ask(1))), 9);
    assert_eq!(world.ask(ask(2)), Response::Fetch(Err(ErrorCode::StaleMemberEpoch)));
}

#[test]
fn the_two_protocols_do_not_mix_but_an_empty_group_changes_over() {
    let mut world = World::eager();
    let _ = beats(&mut world, beat("g", member("a"), 0));
    match world.ask(Request::Join(join("g", Identity::default()))) {
        Response::Join(Err(refused)) => assert_eq!(refused.code, ErrorCode::InconsistentGroupProtocol),
        other => panic!("{other:?}"),
    }
    world.ask(commit("g", member("a"), 1, 0, 9));
    let _ = beats(&mut world, beat("g", member("a"), LEAVE_EPOCH));
    let ticket = world.send(Request::Join(join("g", Identity::default())));
    let Some(Response::Join(Ok(joined))) = world.answer(ticket) else { panic!("joins") };
    assert_eq!(beats(&mut world, beat("g", member("a"), 0)).map(|_| ()), Err(ErrorCode::UnknownGroup));
    assert_eq!(fetched(world.ask(fetch("g", 0))), 9, "offsets stay");
    let members = vec![member(&joined.member)];
    world.ask(Request::Leave(crate::groups::Leave { group: "g".into(), members }));
    assert!(beats(&mut world, beat("g", member("a"), 0)).is_ok());
    world.crash(0);
    assert!(beats(&mut world, beat("g", member("a"), 1)).is_ok());
    assert_eq!(fetched(world.ask(fetch("g", 0))), 9);
}

#[test]
fn a_group_may_have_times_of_its_own() {
    let mut world = World::eager();
    let joined = beats(&mut world, beat("g", member("a"), 0)).expect("joins");
    assert_eq!(joined.heartbeat_interval, world.config.consumer_heartbeat_interval);
    world.topics.times = Times { session_timeout: Some(100 * SECOND), heartbeat_interval: Some(60 * SECOND) };
    let told = beats(&mut world, beat("g", member("a"), 1)).expect("lives");
    assert_eq!(told.heartbeat_interval, 60 * SECOND);
    world.pass(99 * SECOND);
    // The next coordinator knows it before anybody's next heartbeat.
    world.crash(0);
    world.pass(99 * SECOND);
    assert!(beats(&mut world, beat("g", member("a"), 1)).is_ok());
    world.pass(101 * SECOND);
    assert_eq!(beats(&mut world, beat("g", member("a"), 1)).map(|_| ()), Err(ErrorCode::UnknownMember));
}

#[test]
fn a_refused_member_does_not_change_what_a_group_is() {
    let mut world = World::eager();
    world.ask(commit("g", member(""), -1, 0, 5));
    let kind = |world: &mut World| match world.ask(Request::List(Default::default())) {
        Response::List(listed) => listed[0].kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(&mut world), "classic");
    let bad = ConsumerHeartbeat { assignor: Some("mine".to_owned()), ..beat("g", member("a"), 0) };
    assert_eq!(beats(&mut world, bad), Err(ErrorCode::UnsupportedAssignor));
    assert_eq!(kind(&mut world), "classic");
    beats(&mut world, beat("g", member("a"), 0)).expect("joins");
    assert_eq!(kind(&mut world), "consumer");
    world.crash(0);
    assert_eq!((kind(&mut world), fetched(world.ask(fetch("g", 0)))), ("consumer", 5));
}

#[test]
fn a_pattern_beside_names_counts_from_the_next_heartbeat_on() {
    let mut world = World::eager();
    let both = |id: &str| {
        let names = Some(vec!["t".to_owned()]);
        ConsumerHeartbeat { topics: names, regex: Some("u|v".to_owned()), ..beat("g", member(id), 0) }
    };
    let a = beats(&mut world, both("a")).expect("joins");
    let all = Partitions::from([(topic_id("t"), (0..6).collect()), (topic_id("u"), (0..3).collect())]);
    assert_eq!(a.assignment, Some(parts(&[0, 1, 2, 3, 4, 5])), "the names at once");
    let a = beats(&mut world, tell("a", a.epoch, &[0, 1, 2, 3, 4, 5])).expect("holds them");
    assert_eq!((a.epoch, a.assignment), (2, Some(all.clone())));
    // Whoever comes to a pattern that is in use waits for nothing, nor does the group after a crash.
    world.crash(0);
    assert!(beats(&mut world, both("b")).expect("joins").assignment.is_some());
    beats(&mut world, beat("g", member("b"), LEAVE_EPOCH)).expect("leaves");
    beats(&mut world, beat("g", member("a"), LEAVE_EPOCH)).expect("leaves");
    let alone = ConsumerHeartbeat { topics: None, ..both("c") };
    let found = beats(&mut world, alone).expect("joins").assignment.expect("told");
    assert_eq!(found, Partitions::from([(topic_id("u"), (0..3).collect())]), "nothing else is there to be answered");
}

fn readers(count: usize, topics: &[&str]) -> Vec<AssignMember> {
    let topics: BTreeSet<_> = topics.iter().map(|topic| topic_id(topic)).collect();
    let reader = |n| {
        let id = format!("m{n:02}");
        AssignMember { order: id.clone(), id, topics: topics.clone(), current: Assignment::new() }
    };
    (0..count).map(reader).collect()
}

fn loads(targets: &BTreeMap<String, Assignment>) -> Vec<usize> {
    targets.values().map(|target| target.values().map(BTreeSet::len).sum()).collect()
}

#[test]
fn range_splits_each_topic_in_order() {
    let counts = BTreeMap::from([(topic_id("t"), 7), (topic_id("u"), 2)]);
    let targets = range(readers(3, &["t", "u"]), &counts);
    assert_eq!(loads(&targets), [4, 3, 2]);
    assert_eq!(targets["m00"][&topic_id("t")], BTreeSet::from([0, 1, 2]));
    assert_eq!(targets["m02"][&topic_id("t")], BTreeSet::from([5, 6]));
}

#[test]
fn uniform_is_even_and_moves_little() {
    let counts = BTreeMap::from([(topic_id("t"), 20), (topic_id("u"), 11)]);
    let mut members = readers(4, &["t", "u"]);
    for size in [4usize, 5, 9, 3, 1, 6] {
        let before: BTreeMap<String, Assignment> =
            members.iter().map(|member| (member.id.clone(), member.current.clone())).collect();
        let mut next = readers(size, &["t", "u"]);
        next.iter_mut().for_each(|member| member.current = before.get(&member.id).cloned().unwrap_or_default());
        let targets = uniform(next.clone(), &counts);
        let loads = loads(&targets);
        let (least, most) = (loads.iter().min().expect("some"), loads.iter().max().expect("some"));
        assert!(loads.iter().sum::<usize>() == 31 && most - least <= 1, "{loads:?}");
        if next.iter().all(|member| !member.current.is_empty()) && size < before.len() {
            let kept = |member: &AssignMember| {
                member.current.iter().all(|(topic, held)| targets[&member.id][topic].is_superset(held))
            };
            assert!(next.iter().all(kept), "nobody loses anything when others leave");
        }
        next.iter_mut().for_each(|member| member.current.clone_from(&targets[&member.id]));
        members = next;
    }
    // Unequal subscriptions: only m00 reads `u`, so the others take `t`.
    let mut members = readers(3, &["t"]);
    members[0].topics.insert(topic_id("u"));
    assert_eq!(loads(&uniform(members, &BTreeMap::from([(topic_id("t"), 8), (topic_id("u"), 4)]))), [4, 4, 4]);
}
