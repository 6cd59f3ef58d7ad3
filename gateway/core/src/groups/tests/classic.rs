use std::time::Duration;

use bytes::Bytes;
use esker_types::ErrorCode;

use super::world::{World, commit, fetch, fetched, heartbeat, instance, join, member, sync};
use crate::groups::{Config, Identity, Join, Joined, Leave, List, Request, Response, Ticket};

const SECOND: Duration = Duration::from_secs(1);

fn joined(response: Option<Response>) -> Joined {
    match response {
        Some(Response::Join(Ok(joined))) => joined,
        other => panic!("{other:?}"),
    }
}

fn refused(response: Response) -> (ErrorCode, String) {
    match response {
        Response::Join(Err(refused)) => (refused.code, refused.member),
        other => panic!("{other:?}"),
    }
}

fn beats(world: &mut World, who: &Identity, generation: i32) -> Result<(), ErrorCode> {
    match world.ask(heartbeat("g", who.clone(), generation)) {
        Response::Heartbeat(result) => result,
        other => panic!("{other:?}"),
    }
}

fn leave(world: &mut World, members: Vec<Identity>) -> Vec<Result<(), ErrorCode>> {
    match world.ask(Request::Leave(Leave { group: "g".to_owned(), members })) {
        Response::Leave(Ok(each)) => each,
        other => panic!("{other:?}"),
    }
}

fn state(world: &mut World) -> &'static str {
    match world.ask(Request::Describe { group: "g".to_owned() }) {
        Response::Describe(described) => described.state,
        other => panic!("{other:?}"),
    }
}

fn assignment(response: Response) -> Result<Bytes, ErrorCode> {
    match response {
        Response::Sync(result) => result.map(|synced| synced.assignment),
        other => panic!("{other:?}"),
    }
}

/// Two members in a stable group: the leader first.
fn pair(world: &mut World, first: Join, second: Join) -> [Joined; 2] {
    let a = world.send(Request::Join(first));
    let a = joined(world.answer(a));
    let b = world.send(Request::Join(second.clone()));
    let again = Join { who: Identity { member: a.member.clone(), ..Identity::default() }, ..second };
    let again = Join { who: Identity { instance: None, ..again.who.clone() }, ..again };
    let a = world.send(Request::Join(again));
    let (a, b) = (joined(world.answer(a)), joined(world.answer(b)));
    stabilise(world, &a, &b);
    [a, b]
}

fn stabilise(world: &mut World, leader: &Joined, other: &Joined) {
    let follows = world.send(sync("g", member(&other.member), other.generation, Vec::new()));
    let parts = vec![(leader.member.clone(), Bytes::from("one")), (other.member.clone(), Bytes::from("two"))];
    let leads = world.ask(sync("g", member(&leader.member), leader.generation, parts));
    assert_eq!(assignment(leads), Ok(Bytes::from("one")));
    assert_eq!(assignment(world.answer(follows).expect("answered")), Ok(Bytes::from("two")));
}

#[test]
fn members_get_an_id_first_if_they_can_and_others_at_once() {
    let mut world = World::eager();
    let mut first = join("g", member(""));
    first.knows_member_ids = true;
    let (code, id) = refused(world.ask(Request::Join(first.clone())));
    assert_eq!(code, ErrorCode::MemberIdRequired);
    first.who.member = id.clone();
    let ticket = world.send(Request::Join(first.clone()));
    let a = joined(world.answer(ticket));
    assert_eq!((a.member.as_str(), a.leader.as_str(), a.generation), (id.as_str(), id.as_str(), 1));
    assert_eq!(a.members.len(), 1);
    // An id that was not given out is not known.
    first.who.member = "made-up".to_owned();
    assert_eq!(refused(world.ask(Request::Join(first))).0, ErrorCode::UnknownMember);
}

#[test]
fn the_first_generation_waits_for_more_members_as_long_as_they_come() {
    let mut world = World::new(Config::default());
    let a = world.send(Request::Join(join("g", member(""))));
    world.pass(2 * SECOND);
    let b = world.send(Request::Join(join("g", member(""))));
    world.pass(2 * SECOND);
    assert!(world.answer(a).is_none(), "a member came within the delay: it is prolonged");
    world.pass(2 * SECOND);
    let (a, b) = (joined(world.answer(a)), joined(world.answer(b)));
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!(a.members.len() + b.members.len(), 2, "the leader alone sees the members");
}

#[test]
fn what_members_may_not_do() {
    let mut world = World::eager();
    let [a, b] = pair(&mut world, join("g", member("")), join("g", member("")));
    let (a, b) = (member(&a.member), member(&b.member));
    assert_eq!(beats(&mut world, &a, 2), Ok(()));
    assert_eq!(beats(&mut world, &a, 1), Err(ErrorCode::IllegalGeneration));
    assert_eq!(beats(&mut world, &member("x"), 2), Err(ErrorCode::UnknownMember));
    assert_eq!(assignment(world.ask(sync("g", b.clone(), 1, Vec::new()))), Err(ErrorCode::IllegalGeneration));
    assert_eq!(assignment(world.ask(sync("g", b.clone(), 2, Vec::new()))), Ok(Bytes::from("two")), "asked again");
    let mut wrong = join("g", member(""));
    wrong.protocol_type = "connect".to_owned();
    assert_eq!(refused(world.ask(Request::Join(wrong))).0, ErrorCode::InconsistentGroupProtocol);
    let mut wrong = join("g", member(""));
    wrong.protocols[0].0 = "other".to_owned();
    assert_eq!(refused(world.ask(Request::Join(wrong))).0, ErrorCode::InconsistentGroupProtocol);
    let mut wrong = join("g", member(""));
    wrong.session_timeout = Duration::from_millis(1);
    assert_eq!(refused(world.ask(Request::Join(wrong))).0, ErrorCode::InvalidSessionTimeout);
    assert_eq!(refused(world.ask(Request::Join(join("", member(""))))).0, ErrorCode::InvalidGroupId);
    assert_eq!(world.ask(Request::Delete { group: "g".into() }), Response::Delete(Err(ErrorCode::GroupNotEmpty)));
    assert_eq!(world.ask(Request::Delete { group: "h".into() }), Response::Delete(Err(ErrorCode::UnknownGroup)));
    let forget = Request::DeleteOffsets { group: "g".into(), partitions: vec![("t".into(), 0), ("u".into(), 0)] };
    let expected = Ok(vec![Err(ErrorCode::GroupSubscribed), Ok(())]);
    assert_eq!(world.ask(forget), Response::DeleteOffsets(expected));
}

#[test]
fn a_group_and_its_ids_are_bounded() {
    let config = Config { members_max: 2, pending_max: 3, member_bytes_max: 100, ..Config::default() };
    let mut world = World::new(Config { initial_rebalance_delay: Duration::ZERO, ..config });
    let [_, _] = pair(&mut world, join("g", member("")), join("g", member("")));
    assert_eq!(refused(world.ask(Request::Join(join("g", member(""))))).0, ErrorCode::GroupFull);
    let mut asks = join("h", member(""));
    asks.knows_member_ids = true;
    for _ in 0..3 {
        asks.fresh[15] += 1;
        assert_eq!(refused(world.ask(Request::Join(asks.clone()))).0, ErrorCode::MemberIdRequired);
    }
    assert_eq!(refused(world.ask(Request::Join(asks.clone()))).0, ErrorCode::GroupFull);
    world.pass(11 * SECOND);
    assert_eq!(refused(world.ask(Request::Join(asks.clone()))).0, ErrorCode::MemberIdRequired, "ids are forgotten");
    let mut large = join("k", member(""));
    large.protocols[0].1 = Bytes::from(vec![0; 101]);
    assert_eq!(refused(world.ask(Request::Join(large))).0, ErrorCode::GroupFull);
    world.pass(11 * SECOND);
    assert_eq!(world.coordinator.groups(), 1, "groups that nobody joined leave nothing behind");
}

#[test]
fn a_silent_member_is_out_and_the_others_rebalance() {
    let mut world = World::eager();
    let [a, b] = pair(&mut world, join("g", member("")), join("g", member("")));
    for _ in 0..3 {
        world.pass(4 * SECOND);
        let _ = beats(&mut world, &member(&a.member), 2);
    }
    assert_eq!(beats(&mut world, &member(&a.member), 2), Err(ErrorCode::RebalanceInProgress));
    assert_eq!(beats(&mut world, &member(&b.member), 2), Err(ErrorCode::UnknownMember));
    let again = world.send(Request::Join(join("g", member(&a.member))));
    let again = joined(world.answer(again));
    assert_eq!((again.generation, again.members.len()), (3, 1));
}

#[test]
fn who_does_not_rejoin_or_sync_in_time_is_out() {
    let mut world = World::eager();
    let mut quick = join("g", member(""));
    quick.rebalance_timeout = 5 * SECOND;
    let mut other = join("g", member(""));
    other.rebalance_timeout = 5 * SECOND;
    let [a, b] = pair(&mut world, quick.clone(), other);
    quick.who = member(&b.member);
    quick.protocols[0].1 = Bytes::from_static(b"changed");
    let waiting = world.send(Request::Join(quick));
    world.pass(3 * SECOND);
    assert_eq!(beats(&mut world, &member(&a.member), 2), Err(ErrorCode::RebalanceInProgress));
    assert!(world.answer(waiting).is_none());
    world.pass(3 * SECOND);
    let b = joined(world.answer(waiting));
    assert_eq!((b.generation, b.leader.as_str(), b.members.len()), (3, b.member.as_str(), 1));
    world.pass(6 * SECOND);
    assert_eq!(state(&mut world), "Empty", "the leader never assigned");
}

#[test]
fn votes_choose_the_protocol() {
    let mut world = World::eager();
    let with = |names: &[&str]| {
        let mut join = join("g", member(""));
        join.protocols = names.iter().map(|name| ((*name).to_owned(), Bytes::from(name.to_string()))).collect();
        join
    };
    let a = world.send(Request::Join(with(&["range", "sticky", "rr"])));
    let a = joined(world.answer(a));
    assert_eq!(a.protocol, "range");
    let tickets: Vec<Ticket> =
        [&["sticky", "range"], &["sticky", "range"]].iter().map(|n| world.send(Request::Join(with(*n)))).collect();
    let mut again = with(&["range", "sticky", "rr"]);
    again.who.member = a.member;
    let leader = world.send(Request::Join(again));
    let leader = joined(world.answer(leader));
    assert_eq!(leader.protocol, "sticky", "two votes against one, and `rr` is not known to all");
    assert_eq!(leader.members[0].metadata, Bytes::from("sticky"));
    assert!(tickets.into_iter().all(|ticket| joined(world.answer(ticket)).protocol == "sticky"));
}

#[test]
fn static_members_come_back_without_a_rebalance_and_fence_their_former_selves() {
    let mut world = World::eager();
    let [leader, other] = pair(&mut world, join("g", member("")), join("g", instance("", "i2")));
    let mut back = join("g", instance("", "i2"));
    back.knows_skip = true;
    let ticket = world.send(Request::Join(back));
    let back = joined(world.answer(ticket));
    assert_ne!(back.member, other.member);
    assert_eq!((back.generation, back.leader.as_str(), back.skip_assignment), (2, leader.member.as_str(), false));
    let now = instance(&back.member, "i2");
    assert_eq!(assignment(world.ask(sync("g", now.clone(), 2, Vec::new()))), Ok(Bytes::from("two")));
    let old = instance(&other.member, "i2");
    assert_eq!(beats(&mut world, &old, 2), Err(ErrorCode::FencedInstance));
    assert_eq!(beats(&mut world, &now, 2), Ok(()));
    world.crash(0);
    assert_eq!(beats(&mut world, &now, 2), Ok(()), "the replacement is in the log");
    assert_eq!(beats(&mut world, &old, 2), Err(ErrorCode::FencedInstance));
    let answers = leave(&mut world, vec![old, instance("", "i9"), instance("", "i2")]);
    assert_eq!(answers, [Err(ErrorCode::FencedInstance), Err(ErrorCode::UnknownMember), Ok(())]);
    assert_eq!(beats(&mut world, &member(&leader.member), 2), Err(ErrorCode::RebalanceInProgress));
}

#[test]
fn a_static_leader_that_comes_back_need_not_assign() {
    for knows_skip in [true, false] {
        let mut world = World::eager();
        let a = world.send(Request::Join(join("g", instance("", "i1"))));
        let a = joined(world.answer(a));
        let one = vec![(a.member.clone(), Bytes::from("one"))];
        assert!(assignment(world.ask(sync("g", member(&a.member), 1, one))).is_ok());
        let mut back = join("g", instance("", "i1"));
        back.knows_skip = knows_skip;
        let back = world.send(Request::Join(back));
        let back = joined(world.answer(back));
        assert_eq!(back.generation, 1);
        assert_eq!((back.skip_assignment, back.members.len()), (knows_skip, usize::from(knows_skip)));
        assert_eq!(back.leader == back.member, knows_skip, "an old client must not think that it leads");
    }
}

#[test]
fn a_crash_between_two_members_costs_no_rebalance() {
    let mut world = World::eager();
    let [a, b] = pair(&mut world, join("g", member("")), join("g", member("")));
    world.pass(9 * SECOND);
    world.crash(0);
    world.pass(9 * SECOND);
    for who in [&a, &b] {
        assert_eq!(beats(&mut world, &member(&who.member), 2), Ok(()), "a full session from the reload on");
    }
    assert_eq!(assignment(world.ask(sync("g", member(&b.member), 2, Vec::new()))), Ok(Bytes::from("two")));
    assert_eq!(state(&mut world), "Stable");
    // In the middle of a rebalance: the generation was told, so it is kept.
    let c = world.send(Request::Join(join("g", member(""))));
    let again = [&a, &b].map(|who| world.send(Request::Join(join("g", member(&who.member)))));
    let c = joined(world.answer(c));
    again.map(|ticket| joined(world.answer(ticket)).generation).iter().for_each(|g| assert_eq!(*g, 3));
    world.crash(0);
    assert_eq!(state(&mut world), "CompletingRebalance");
    let parts = vec![(c.member.clone(), Bytes::from("three"))];
    let waits = world.send(sync("g", member(&c.member), 3, Vec::new()));
    assert!(assignment(world.ask(sync("g", member(&c.leader), 3, parts))).is_ok());
    assert_eq!(assignment(world.answer(waits).expect("answered")), Ok(Bytes::from("three")));
}

#[test]
fn nothing_is_told_before_it_is_committed() {
    let mut world = World::eager();
    world.prompt = false;
    let a = world.send(Request::Join(join("g", member(""))));
    assert!(world.answer(a).is_none());
    world.commit(1);
    let a = joined(world.answer(a));
    let stored = world.send(commit("g", member(&a.member), 1, 0, 7));
    assert!(world.answer(stored).is_some(), "refused while the assignment is awaited: nothing to store");
    let synced = world.send(sync("g", member(&a.member), 1, Vec::new()));
    let stored = world.send(commit("g", member(&a.member), 1, 0, 7));
    let seen = world.send(fetch("g", 0));
    assert!(world.answer(synced).is_none() && world.answer(stored).is_none() && world.answer(seen).is_none());
    world.crash(1);
    assert_eq!(beats(&mut world, &member(&a.member), 1), Ok(()));
    assert_eq!(fetched(world.ask(fetch("g", 0))), -1, "the commit was never acknowledged, and is gone");
}

#[test]
fn groups_are_listed_by_state_and_kind() {
    let mut world = World::eager();
    pair(&mut world, join("g", member("")), join("g", member("")));
    world.ask(commit("simple", member(""), -1, 0, 5));
    let mut names = |states: &[&str], types: &[&str]| -> Vec<(String, &'static str)> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match world.ask(Request::List(List { states: own(states), types: own(types) })) {
            Response::List(listed) => listed.into_iter().map(|group| (group.group, group.state)).collect(),
            other => panic!("{other:?}"),
        }
    };
    let both = vec![("g".to_owned(), "Stable"), ("simple".to_owned(), "Empty")];
    assert_eq!(names(&[], &[]), both);
    assert_eq!(names(&["stable"], &["Classic"]), both[..1]);
    assert_eq!(names(&[], &["consumer"]), []);
}

#[test]
fn static_members_without_patience_do_not_keep_the_coordinator_busy() {
    let mut world = World::eager();
    let mut hasty = join("g", instance("", "i1"));
    hasty.rebalance_timeout = Duration::ZERO;
    let a = world.send(Request::Join(hasty));
    let a = joined(world.answer(a));
    assert!(assignment(world.ask(sync("g", member(&a.member), 1, Vec::new()))).is_ok());
    let mut other = join("g", member(""));
    other.rebalance_timeout = Duration::ZERO;
    let other = world.send(Request::Join(other));
    world.pass(5 * SECOND);
    assert_eq!(joined(world.answer(other)).generation, 2);
    world.pass(40 * SECOND);
    assert_eq!(state(&mut world), "Empty");
    world.pass(80 * SECOND);
    assert_eq!(state(&mut world), "Dead", "an empty group without offsets is forgotten");
}
