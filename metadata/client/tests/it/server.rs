//! Metadata nodes of a test: one state machine behind several listeners, of which one leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use esker_metadata_client::messages::{
    ProposeAnswer, ProposeRequest, ReadAnswer, ReadRequest, RenewAnswer, RenewRequest, WatchAnswer, WatchPart,
    WatchRequest, pack, pack_answer, unpack,
};
use esker_metadata_client::{
    MemoryStore, MetadataStore, ProposeError, RemoteConfig, RemoteStore, RenewError, WatchEvent,
};
use esker_net::{Address, BoxFuture, ConnectionCtx, Hub, Identity, NetConfig, Network, Service, refusal, serve};
use esker_types::error::{ErrorInfo, OwnerHint};
use esker_types::{BootId, ErrorCode, Frame, Role, opcode};
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Quorum {
    pub store: MemoryStore,
    pub hub: Hub,
    pub leader: Arc<AtomicUsize>,
    /// Proposals that reached a node.
    pub proposals: Arc<AtomicUsize>,
    pub stops: Vec<DropGuard>,
}

struct Node {
    index: usize,
    store: MemoryStore,
    leader: Arc<AtomicUsize>,
    proposals: Arc<AtomicUsize>,
}

pub fn address(index: usize) -> Address {
    Address::InProcess(format!("metadata-{index}"))
}

pub fn network(hub: &Hub, role: Role) -> Network {
    Network::with_hub(Identity::new(role, "test", BootId([7; 16])), NetConfig::default(), hub.clone())
}

impl Quorum {
    pub async fn start(nodes: usize) -> Self {
        let (store, hub, leader) = (MemoryStore::new(), Hub::new(), Arc::new(AtomicUsize::new(0)));
        let proposals = Arc::new(AtomicUsize::new(0));
        let mut quorum = Self { store, hub, leader, proposals, stops: Vec::new() };
        for index in 0..nodes {
            quorum.start_node(index).await;
        }
        quorum
    }

    async fn start_node(&mut self, index: usize) {
        let listener = network(&self.hub, Role::Metadata).listen(&address(index)).await.unwrap();
        let node =
            Node { index, store: self.store.clone(), leader: self.leader.clone(), proposals: self.proposals.clone() };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::new(node), stop.clone()));
        self.stops.push(stop.drop_guard());
    }

    pub fn client(&self, nodes: usize) -> RemoteStore {
        let config = RemoteConfig::new((0..nodes).map(address).collect());
        RemoteStore::new(network(&self.hub, Role::Gateway), config)
    }
}

impl Node {
    async fn answer(&self, ctx: &ConnectionCtx, frame: &Frame) -> Result<Frame, ErrorInfo> {
        let leader = self.leader.load(Ordering::SeqCst);
        if frame.opcode != opcode::metadata::WATCH && leader != self.index {
            let hint = OwnerHint { addresses: vec![address(leader).to_string()], ..OwnerHint::default() };
            return Err(ErrorInfo { owner: Some(hint), ..ErrorInfo::new(ErrorCode::NotLeader, "not the leader") });
        }
        let bad = |error: esker_metadata_core::wire::DecodeError| {
            ErrorInfo::new(ErrorCode::InvalidRequest, error.to_string())
        };
        match frame.opcode {
            opcode::metadata::PROPOSE => {
                self.proposals.fetch_add(1, Ordering::SeqCst);
                let ProposeRequest { commands } = unpack(frame).map_err(bad)?;
                match self.store.propose(commands).await {
                    Ok(done) => {
                        let answer = ProposeAnswer { revision: done.revision, results: done.results };
                        Ok(pack_answer(frame, &answer))
                    }
                    Err(ProposeError::NotApplied(why)) => Err(ErrorInfo::new(ErrorCode::MetadataUnavailable, why)),
                    Err(ProposeError::Unknown(why)) => Err(ErrorInfo::new(ErrorCode::TimedOutUnknown, why)),
                }
            }
            opcode::metadata::READ => {
                let ReadRequest { query } = unpack(frame).map_err(bad)?;
                let answer = self.store.read(query).await;
                let answer = answer.map_err(|e| ErrorInfo::new(ErrorCode::MetadataUnavailable, e.to_string()))?;
                Ok(pack_answer(frame, &ReadAnswer { answer }))
            }
            opcode::metadata::RENEW_SESSION => {
                let RenewRequest { session, boot } = unpack(frame).map_err(bad)?;
                match self.store.renew(session, boot).await {
                    Ok(renewed) => Ok(pack_answer(frame, &RenewAnswer { ttl_ms: renewed.ttl.as_millis() as u32 })),
                    Err(RenewError::Lost) => Err(ErrorInfo::new(ErrorCode::NoSuchSession, "ended")),
                    Err(error) => Err(ErrorInfo::new(ErrorCode::MetadataUnavailable, error.to_string())),
                }
            }
            opcode::metadata::WATCH => {
                let WatchRequest { from } = unpack(frame).map_err(bad)?;
                tokio::spawn(push(self.store.clone(), from, ctx.tx.clone(), frame.request_id));
                Ok(pack_answer(frame, &WatchAnswer {}))
            }
            _ => Err(ErrorInfo::new(ErrorCode::UnknownOpcode, "unknown")),
        }
    }
}

impl Service for Node {
    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            match self.answer(ctx, &frame).await {
                Ok(answer) => Some(answer),
                Err(info) => refusal(&frame, &info),
            }
        })
    }
}

/// Sends every event in pieces of one change, to prove that they are put together.
async fn push(store: MemoryStore, from: u64, tx: esker_net::FrameSender, request_id: u64) {
    let mut watch = store.watch();
    while let Some(event) = watch.next().await {
        let (revision, wall, snapshot, changes) = match event {
            WatchEvent::Snapshot(state) if state.revision() == from => continue,
            WatchEvent::Snapshot(state) => (state.revision(), state.wall(), true, state.rows().collect()),
            WatchEvent::Delta(delta) => (delta.revision, delta.wall, false, delta.changes.clone()),
        };
        let mut pieces: Vec<Vec<_>> = changes.into_iter().map(|change| vec![change]).collect();
        if pieces.is_empty() {
            pieces.push(Vec::new());
        }
        let last = pieces.len() - 1;
        for (i, changes) in pieces.into_iter().enumerate() {
            let part = WatchPart { revision, wall, snapshot, changes, more: i < last };
            if tx.send(pack(opcode::metadata::WATCH_EVENT, request_id, &part)).await.is_err() {
                return;
            }
        }
    }
}
