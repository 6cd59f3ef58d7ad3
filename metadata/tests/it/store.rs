//! Doors: who may ask for what, and requests that make no sense.

use bytes::Bytes;
use esker_metadata_client::messages::{ReadRequest, pack};
use esker_metadata_core::{Query, SummaryQuery};
use esker_net::{Rpc, RpcError};
use esker_types::{ErrorCode, Frame, Role, opcode::metadata as opcode};

use crate::fixture::{Cluster, LONG, network};

async fn link(cluster: &Cluster, role: Role) -> Rpc {
    let address = cluster.nodes[0].address();
    let network = network(role, "n", &cluster.hub);
    Rpc::without_pushes(network.connect(&address, Role::Metadata).await.expect("link"))
}

fn code(answer: Result<Frame, RpcError>) -> ErrorCode {
    match answer.expect_err("refused") {
        RpcError::Remote(info) => info.error_code().expect("known"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_checked() {
    let mut cluster = Cluster::single().await;
    let read = pack(opcode::READ, 0, &ReadRequest { query: Query::Summary(SummaryQuery {}) });
    let client = link(&cluster, Role::Client).await;
    assert_eq!(code(client.call_frame(read.clone(), LONG).await), ErrorCode::NotAuthorized);
    let bookie = link(&cluster, Role::Bookie).await;
    bookie.call_frame(read, LONG).await.expect("answered");
    for raft in [opcode::RAFT_VOTE, opcode::RAFT_APPEND, opcode::RAFT_SNAPSHOT, opcode::ADMIN] {
        assert_eq!(code(bookie.call(raft, &(), Vec::new(), LONG).await), ErrorCode::NotAuthorized);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_and_the_node_lives_on() {
    let mut cluster = Cluster::single().await;
    let gateway = link(&cluster, Role::Gateway).await;
    let voter = link(&cluster, Role::Metadata).await;
    for bytes in [&b""[..], &[0xff; 40], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let junk = |opcode| Frame {
            opcode,
            version: 1,
            control: Bytes::copy_from_slice(bytes),
            payload: vec![Bytes::from_static(b"junk")],
            ..Frame::default()
        };
        for opcode in [opcode::PROPOSE, opcode::READ, opcode::WATCH, opcode::RENEW_SESSION] {
            let answer = code(gateway.call_frame(junk(opcode), LONG).await);
            assert_eq!(answer, ErrorCode::InvalidRequest, "opcode {opcode}, {bytes:?}");
        }
        for opcode in [opcode::RAFT_VOTE, opcode::RAFT_APPEND, opcode::RAFT_SNAPSHOT] {
            let answer = code(voter.call_frame(junk(opcode), LONG).await);
            assert!(matches!(answer, ErrorCode::InvalidRequest | ErrorCode::WrongInstance), "{answer:?}");
        }
    }
    assert_eq!(code(gateway.call(399, &(), Vec::new(), LONG).await), ErrorCode::UnknownOpcode);
    cluster.nodes[0].server().ready().expect("lives on");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_passes_the_suite_of_all_stores() {
    let mut cluster = Cluster::born(3, true).await;
    esker_metadata_client::conformance::run(std::sync::Arc::new(cluster.client("g1"))).await;
    cluster.stop().await;
}
