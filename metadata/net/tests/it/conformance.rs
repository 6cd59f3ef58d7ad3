//! What every transport must do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use esker_net::{ConnectError, Link, Pool, Probe, Rpc, RpcError, SendError};
use esker_types::error::ErrorInfo;
use esker_types::{ClusterId, ErrorCode, Frame, Role};
use tokio::sync::mpsc;

use crate::fixture::{ALL, ECHO, NEVER, PANIC, PUSH, World, frame};

const LONG: Duration = Duration::from_secs(20);

macro_rules! on_every_transport {
    ($($name:ident)*) => {
        $(mod $name {
            use crate::fixture::{Transport, World};
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tcp() { super::check::$name(World::new(Transport::Tcp)).await }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn tls() { super::check::$name(World::new(Transport::Tls)).await }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_process() { super::check::$name(World::new(Transport::InProcess)).await }
        })*
    };
}

on_every_transport! {
    both_sides_know_each_other
    frames_arrive_whole_and_in_order
    calls_find_their_answers
    pushes_come_in_order
    unknown_opcode_is_an_error_and_the_link_stays
    wrong_cluster_is_refused
    wrong_role_is_refused
    nobody_there_is_refused
    a_panic_closes_only_its_connection
    a_broken_link_ends_calls_with_closed
    a_call_times_out
    stop_lets_queued_answers_out
    the_pool_dials_again
    an_oversize_frame_is_refused_before_it_is_sent
    the_port_is_free_after_stop
}

mod check {
    use super::*;

    pub async fn both_sides_know_each_other(world: World) {
        let mut listener = world.listener().await;
        let address = listener.local_address().clone();
        let (dialed, accepted) = tokio::join!(world.gateway.connect(&address, Role::Bookie), listener.accept());
        let (dialed, accepted) = (dialed.expect("link"), accepted.expect("link"));
        assert_eq!((dialed.peer.role, dialed.peer.name.as_str()), (Role::Bookie, "bookie-1"));
        assert_eq!(dialed.peer.boot, world.bookie.identity().boot);
        assert_eq!((accepted.peer.role, accepted.peer.name.as_str()), (Role::Gateway, "gateway-1"));
        assert_eq!(accepted.peer.boot, world.gateway.identity().boot);
        assert_eq!((accepted.peer.cluster, accepted.peer.version), (None, 1));
        assert_eq!(accepted.peer.certified, world.bookie.config().tls.is_some());
    }

    pub async fn frames_arrive_whole_and_in_order(world: World) {
        let mut listener = world.listener().await;
        let address = listener.local_address().clone();
        let (dialed, accepted) = tokio::join!(world.gateway.connect(&address, Role::Bookie), listener.accept());
        let (dialed, mut accepted) = (dialed.expect("link"), accepted.expect("link"));
        let sizes = [0usize, 1, 83, 1023, 1024, 1025, 65_536, 3 << 20, 0, 17];
        let send = async {
            for (i, size) in sizes.iter().enumerate() {
                let big = Bytes::from(vec![i as u8; *size]);
                let mut frame = Frame::new(ECHO, i as u64, &ErrorInfo::new(ErrorCode::Gap, "control"));
                frame.payload = vec![Bytes::from_static(b"head"), Bytes::new(), big];
                dialed.tx.send(frame).await.expect("open");
            }
        };
        let receive = async {
            for (i, size) in sizes.iter().enumerate() {
                let frame = accepted.rx.recv().await.expect("a frame");
                assert_eq!((frame.request_id, frame.payload.len()), (i as u64, 1));
                assert_eq!(frame.decode_control::<ErrorInfo>().expect("control").message, "control");
                let mut expected = b"head".to_vec();
                expected.resize(4 + size, i as u8);
                assert_eq!(frame.payload_bytes(), expected);
            }
        };
        tokio::join!(send, receive);
        drop(dialed.tx);
        assert_eq!(accepted.rx.recv().await, None);
        accepted.tx.closed().await;
        assert_eq!(accepted.tx.send(frame(ECHO, "late")).await, Err(SendError::Closed));
    }

    pub async fn calls_find_their_answers(world: World) {
        let server = world.echo().await;
        let link = world.gateway.connect(&server.address, Role::Bookie).await.expect("link");
        let rpc = Rpc::without_pushes(link);
        let calls = (0..500u32).map(|i| {
            let rpc = rpc.clone();
            tokio::spawn(async move {
                let payload = vec![Bytes::from(i.to_le_bytes().to_vec())];
                rpc.call(ECHO, &(), payload, LONG).await.map(|frame| (i, frame))
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let (i, frame) = call.await.expect("task").expect("answer");
            assert_eq!(frame.payload_bytes(), &i.to_le_bytes()[..]);
        }
        server.stop().await;
    }

    pub async fn pushes_come_in_order(world: World) {
        let server = world.echo().await;
        let link = world.gateway.connect(&server.address, Role::Bookie).await.expect("link");
        let (pushes_tx, mut pushes) = mpsc::channel(4);
        let rpc = Rpc::new(link, pushes_tx);
        let send = async {
            for i in 0..1000u32 {
                rpc.send(frame(PUSH, i.to_le_bytes().to_vec())).await.expect("open");
            }
        };
        let receive = async {
            for i in 0..1000u32 {
                let push = pushes.recv().await.expect("a push");
                assert_eq!(push.payload_bytes(), &i.to_le_bytes()[..]);
            }
        };
        tokio::join!(send, receive);
        server.stop().await;
    }

    pub async fn unknown_opcode_is_an_error_and_the_link_stays(world: World) {
        let server = world.echo().await;
        let rpc = Rpc::without_pushes(world.gateway.connect(&server.address, Role::Bookie).await.expect("link"));
        let error = rpc.call(65_000, &(), Vec::new(), LONG).await.expect_err("unknown");
        let RpcError::Remote(info) = &error else { panic!("{error:?}") };
        assert_eq!(info.error_code(), Some(ErrorCode::UnknownOpcode));
        assert!(!error.may_have_applied());
        rpc.call(ECHO, &(), Vec::new(), LONG).await.expect("the link stays");
        server.stop().await;
    }

    pub async fn wrong_cluster_is_refused(world: World) {
        let server = world.echo().await;
        world.bookie.set_cluster(ClusterId([1; 16]));
        world.gateway.set_cluster(ClusterId([2; 16]));
        let error = world.gateway.connect(&server.address, Role::Bookie).await.expect_err("refused");
        let ConnectError::Rejected { info, .. } = &error else { panic!("{error:?}") };
        assert_eq!(info.error_code(), Some(ErrorCode::WrongCluster));
        assert_eq!(server.service.opened.load(Ordering::SeqCst), 0);
        world.gateway.set_cluster(ClusterId([1; 16]));
        let link = world.gateway.connect(&server.address, Role::Bookie).await.expect("same cluster");
        assert_eq!(link.peer.cluster, Some(ClusterId([1; 16])));
    }

    pub async fn wrong_role_is_refused(world: World) {
        let server = world.echo().await;
        let error = world.gateway.connect(&server.address, Role::Metadata).await.expect_err("refused");
        assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
        assert!(error.to_string().contains("is a bookie, not a metadata"), "{error}");
    }

    pub async fn nobody_there_is_refused(world: World) {
        let server = world.echo().await;
        let address = server.address.clone();
        let Probe::Alive(peer) = world.gateway.probe(&address, Role::Bookie).await else { panic!("alive") };
        assert_eq!(peer.boot, world.bookie.identity().boot);
        server.stop().await;
        assert_eq!(world.gateway.probe(&address, Role::Bookie).await, Probe::Refused);
        let error = world.gateway.connect(&address, Role::Bookie).await.expect_err("gone");
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }

    pub async fn a_panic_closes_only_its_connection(world: World) {
        let server = world.echo().await;
        let connect =
            || async { Rpc::without_pushes(world.gateway.connect(&server.address, Role::Bookie).await.expect("link")) };
        let (bystander, culprit) = (connect().await, connect().await);
        let error = culprit.call(PANIC, &(), Vec::new(), LONG).await.expect_err("no answer");
        assert_eq!(error, RpcError::Closed);
        server.service.reached(&server.service.closed, 1).await;
        bystander.call(ECHO, &(), Vec::new(), LONG).await.expect("unhurt");
        server.stop().await;
    }

    pub async fn a_broken_link_ends_calls_with_closed(world: World) {
        let server = world.echo().await;
        let rpc = Rpc::without_pushes(world.gateway.connect(&server.address, Role::Bookie).await.expect("link"));
        let call = tokio::spawn({
            let rpc = rpc.clone();
            async move { rpc.call(NEVER, &(), Vec::new(), LONG).await }
        });
        server.service.reached(&server.service.hanging, 1).await;
        rpc.close();
        let error = call.await.expect("task").expect_err("no answer");
        assert_eq!(error, RpcError::Closed);
        assert!(error.may_have_applied());
        rpc.closed().await;
        let error = rpc.call(ECHO, &(), Vec::new(), LONG).await.expect_err("closed");
        assert!(matches!(error, RpcError::NotSent(_)) && !error.may_have_applied());
        // The server drops the handler that hangs and tells the service.
        server.service.reached(&server.service.closed, 1).await;
        server.stop().await;
    }

    pub async fn a_call_times_out(world: World) {
        let server = world.echo().await;
        let rpc = Rpc::without_pushes(world.gateway.connect(&server.address, Role::Bookie).await.expect("link"));
        let error = rpc.call(NEVER, &(), Vec::new(), Duration::from_millis(1)).await.expect_err("no answer");
        assert!(error.may_have_applied(), "{error:?}");
        rpc.call(ECHO, &(), Vec::new(), LONG).await.expect("the link stays");
    }

    pub async fn stop_lets_queued_answers_out(world: World) {
        let server = world.echo().await;
        let service = server.service.clone();
        let Link { tx, mut rx, .. } = world.gateway.connect(&server.address, Role::Bookie).await.expect("link");
        let mut request = frame(ECHO, vec![1; 100_000]);
        request.request_id = 1;
        for _ in 0..50 {
            tx.send(request.clone()).await.expect("open");
        }
        service.reached(&service.echoed, 50).await;
        let (n, ()) = tokio::join!(
            async {
                let mut n = 0;
                while rx.recv().await.is_some() {
                    n += 1;
                }
                n
            },
            server.stop()
        );
        assert_eq!(n, 50);
    }

    pub async fn the_pool_dials_again(world: World) {
        let mut server = world.echo().await;
        let pool = Pool::new(world.gateway.clone());
        let address = server.address.clone();
        pool.call(&address, Role::Bookie, ECHO, &(), Vec::new(), LONG).await.expect("answer");
        let before = pool.rpc(&address, Role::Bookie).await.expect("link");
        pool.call(&address, Role::Bookie, ECHO, &(), Vec::new(), LONG).await.expect("answer");
        assert_eq!(server.service.opened.load(Ordering::SeqCst), 1);
        server.stop().await;
        before.closed().await;
        let error = pool.call(&address, Role::Bookie, ECHO, &(), Vec::new(), LONG).await.expect_err("gone");
        assert!(!error.may_have_applied());
        let again = World { listen: address.clone(), ..world };
        server = again.echo().await;
        // Back-off refuses at once until it has passed; the loop ends when it has.
        while pool.call(&address, Role::Bookie, ECHO, &(), Vec::new(), LONG).await.is_err() {
            tokio::task::yield_now().await;
        }
        server.stop().await;
    }

    pub async fn an_oversize_frame_is_refused_before_it_is_sent(world: World) {
        let server = world.echo().await;
        let link = world.gateway.connect(&server.address, Role::Bookie).await.expect("link");
        let large = frame(ECHO, vec![0; 18 << 20]);
        assert!(matches!(link.tx.send(large).await, Err(SendError::TooLarge { .. })));
        let mut control = frame(ECHO, "");
        control.control = Bytes::from(vec![0; 2 << 20]);
        assert!(matches!(link.tx.send(control).await, Err(SendError::TooLarge { .. })));
        assert!(!link.tx.is_closed());
        // The largest frame that fits is larger than the whole queue, and still passes.
        let rpc = Rpc::without_pushes(link);
        let answer = rpc.call(ECHO, &(), vec![vec![3; 17 << 20].into()], LONG).await.expect("fits");
        assert_eq!(answer.payload_len(), 17 << 20);
    }

    pub async fn the_port_is_free_after_stop(world: World) {
        let server = world.echo().await;
        let again = World { listen: server.address.clone(), ..world };
        server.stop().await;
        again.echo().await.stop().await;
    }
}

#[test]
fn every_transport_is_covered() {
    assert_eq!(ALL.len(), 3);
    assert!(World::new(ALL[1]).bookie.config().tls.is_some());
}
