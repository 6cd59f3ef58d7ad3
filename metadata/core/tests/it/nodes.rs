//! Gateways, bookies, sessions, ids.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

#[test]
fn nothing_happens_before_the_cluster_is_born() {
    let mut w = World { state: State::default(), wall: 0 };
    assert_eq!(w.refused(bookie(1)), ErrorCode::Precondition);
    w.ok(init(1));
    w.ok(init(1));
    assert_eq!(w.refused(init(2)), ErrorCode::WrongCluster);
}

#[test]
fn a_gateway_keeps_its_id_and_shares_its_name_with_nobody_alive() {
    let mut w = World::empty();
    let Reply::Gateway(first) = w.ok(gateway(1, 1)) else { panic!("a gateway reply") };
    assert_eq!(w.ok(gateway(1, 1)), Reply::Gateway(first.clone()), "proposed again");
    assert_eq!(w.refused(gateway(1, 2)), ErrorCode::NameInUse);
    w.ok(DrainGateway { gateway: first.gateway, draining: true });
    w.ok(ExpireSession { session: first.session });
    w.ok(ExpireSession { session: first.session });
    assert_eq!(w.refused(ExpireSession { session: SessionId(99) }), ErrorCode::NoSuchSession);
    let Reply::Gateway(second) = w.ok(gateway(1, 2)) else { panic!("a gateway reply") };
    assert_eq!(second.gateway, first.gateway);
    assert_ne!(second.session, first.session, "session ids are not used twice");
    assert!(!w.state.gateway(first.gateway).unwrap().draining, "a new process is wanted");
}

#[test]
fn a_process_whose_session_ended_opens_another() {
    let mut w = World::new(0, 1, 0);
    let node = NodeRef::Gateway(GatewayId(1));
    let old = w.session(1);
    assert_eq!(w.ok(OpenSession { node, boot: boot(1) }), Reply::Session(SessionReply { session: old }));
    w.ok(ExpireSession { session: old });
    let Reply::Session(new) = w.ok(OpenSession { node, boot: boot(1) }) else { panic!("a session reply") };
    assert_ne!(new.session, old);
    assert_eq!(w.session(1), new.session);
    assert_eq!(w.refused(OpenSession { node, boot: boot(2) }), ErrorCode::NameInUse);
    let nobody = NodeRef::Gateway(GatewayId(7));
    assert_eq!(w.refused(OpenSession { node: nobody, boot: boot(1) }), ErrorCode::UnknownNode);
}

#[test]
fn the_newest_boot_of_a_bookie_wins() {
    let mut w = World::empty();
    let Reply::Bookie(first) = w.ok(bookie(1)) else { panic!("a bookie reply") };
    assert_eq!(first.boot_no, 1);
    assert_eq!(w.ok(bookie(1)), Reply::Bookie(first.clone()), "proposed again");
    let second = RegisterBookie { boot: boot(2), expect_boot_no: 1, durable_lsn: 70, ..bookie(1) };
    let third = RegisterBookie { boot: boot(3), ..second.clone() };
    let Reply::Bookie(reply) = w.ok(second) else { panic!("a bookie reply") };
    assert_eq!((reply.bookie, reply.boot_no), (first.bookie, 2));
    assert!(w.state.session(first.session).is_none());
    assert_eq!(w.refused(third), ErrorCode::Precondition, "two clones: one of them wins");
    let report = |boot_no, durable_lsn| ReportBookie {
        bookie: first.bookie,
        instance: instance(1),
        boot_no,
        durable_lsn,
        read_only: true,
        disk_total: 10,
        disk_used: 9,
    };
    assert_eq!(w.refused(report(1, 99)), ErrorCode::WrongInstance, "the older one learns that it must stop");
    w.ok(report(2, 60));
    let record = w.state.bookie(first.bookie).unwrap();
    assert_eq!((record.durable_lsn, record.state), (70, BookieState::ReadOnly));
    assert!(!record.takes_segments());
}

#[test]
fn other_data_under_a_name_needs_the_operators_word() {
    let mut w = World::new(2, 0, 0);
    let fresh = RegisterBookie { instance: instance(50), boot: boot(9), ..bookie(1) };
    assert_eq!(w.refused(fresh.clone()), ErrorCode::WrongInstance);
    let wrong = RegisterBookie { replaces: Some(instance(2)), ..fresh.clone() };
    assert_eq!(w.refused(wrong), ErrorCode::WrongInstance);
    let swapped = RegisterBookie { instance: instance(2), replaces: Some(instance(1)), ..fresh.clone() };
    assert_eq!(w.refused(swapped), ErrorCode::WrongInstance, "that data is another bookie's");
    let replace = RegisterBookie { replaces: Some(instance(1)), ..fresh };
    let first = w.ok(replace.clone());
    assert_eq!(w.ok(replace), first);
    assert!(w.state.member(member(1)).is_none(), "the old data is lost");
    let back = RegisterBookie { boot: boot(10), replaces: Some(instance(50)), ..bookie(1) };
    assert_eq!(w.refused(back), ErrorCode::WrongInstance, "and does not come back");
    w.ok(LoseBookie { bookie: BookieId(2), instance: instance(2) });
    w.ok(LoseBookie { bookie: BookieId(2), instance: instance(2) });
    let revived = RegisterBookie { boot: boot(11), expect_boot_no: 1, ..bookie(2) };
    assert_eq!(w.refused(revived), ErrorCode::WrongInstance);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut w = World::empty();
    assert_eq!(w.refused(AllocProducerIds { count: 0 }), ErrorCode::InvalidRequest);
    let ids = |reply| match reply {
        Reply::ProducerIds(ids) => (ids.first.0, ids.count),
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(w.ok(AllocProducerIds { count: 100 })), (1, 100));
    assert_eq!(ids(w.ok(AllocProducerIds { count: 5 })), (101, 5));
}

#[test]
fn the_version_moves_up_and_only_as_far_as_known() {
    let mut w = World::new(1, 0, 0);
    w.ok(FinalizeVersion { version: VERSION_MAX });
    assert_eq!(w.refused(FinalizeVersion { version: 0 }), ErrorCode::Precondition);
    assert_eq!(w.refused(FinalizeVersion { version: VERSION_MAX + 1 }), ErrorCode::NewerVersion);
    let old = RegisterGateway { version: 0, ..gateway(1, 1) };
    assert_eq!(w.refused(old), ErrorCode::NewerVersion);
}

#[test]
fn a_bookie_reads_what_it_must_fence_at_boot() {
    let mut w = World::new(3, 1, 2);
    let epoch = w.assign(1);
    w.open();
    let ask = |w: &World, n| match w.state.answer(&Query::OpenSegmentsOf(InstanceQuery { instance: instance(n) })) {
        Answer::OpenSegmentsOf(answer) => answer.open,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(&w, 2), vec![OpenOn { segment: w.partition(0).open_id().unwrap(), epoch }]);
    assert_eq!(ask(&w, 9), vec![]);
}
