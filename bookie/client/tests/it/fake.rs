use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use esker_bookie_core::wire::{
    Add, AddStatus, AddStatusKind, FenceRequest, FenceResponse, FenceResult, FenceVerdict, Read, ReadResponse,
    ReadStatus,
};
use esker_net::{Address, BoxFuture, ConnectionCtx, Network, Service, serve};
use esker_types::{Epoch, Frame, Member, SegmentId, opcode};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Stores in memory and acknowledges at once.
pub struct FakeBookie {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    member: Member,
    segments: Mutex<BTreeMap<SegmentId, Vec<Bytes>>>,
    fence_requests: AtomicUsize,
    received: AtomicUsize,
    held: watch::Sender<bool>,
}

impl FakeBookie {
    pub async fn start(network: Network, member: Member) -> Self {
        let shared = Arc::new(Shared {
            member,
            segments: Mutex::default(),
            fence_requests: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            held: watch::Sender::new(false),
        });
        let cancel = CancellationToken::new();
        let listener =
            network.listen(&Address::InProcess(format!("bookie-{}", member.bookie))).await.expect("free name");
        let task = tokio::spawn(serve(listener, Arc::new(Front(shared.clone())), cancel.clone()));
        Self { shared, cancel, task }
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("serves without panic");
    }

    pub fn stored(&self, segment: SegmentId) -> usize {
        self.shared.segments.lock().get(&segment).map_or(0, Vec::len)
    }

    pub fn fence_requests(&self) -> usize {
        self.shared.fence_requests.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> usize {
        self.shared.received.load(Ordering::SeqCst)
    }

    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }
}

struct Front(Arc<Shared>);

impl Service for Front {
    fn in_order(&self, opcode: u16) -> bool {
        opcode == opcode::bookie::ADD
    }

    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            match frame.opcode {
                opcode::bookie::ADD => {
                    self.0.held.subscribe().wait_for(|held| !held).await.expect("sender lives");
                    let add = Add::from_frame(&frame).expect("own frames");
                    let status = self.0.add(&add);
                    let _ = ctx.tx.send(status.to_frame()).await;
                    None
                }
                opcode::bookie::FENCE => {
                    self.0.fence_requests.fetch_add(1, Ordering::SeqCst);
                    let request = FenceRequest::from_frame(&frame).expect("own frames");
                    Some(frame.answer(&self.0.fence(&request).to_message()))
                }
                opcode::bookie::READ => {
                    let read = Read::from_frame(&frame).expect("own frames");
                    Some(self.0.read(&read).to_frame(&frame))
                }
                _ => esker_net::unknown_opcode(&frame),
            }
        })
    }
}

impl Shared {
    fn add(&self, add: &Add) -> AddStatus {
        self.received.fetch_add(1, Ordering::SeqCst);
        let mut segments = self.segments.lock();
        let held = segments.entry(add.segment).or_default();
        let next = held.len() as u64;
        if add.entry == next {
            held.push(add.bytes.clone());
        }
        let (kind, next) = match add.entry > next {
            true => (AddStatusKind::Gap, next),
            false => (AddStatusKind::Ok, held.len() as u64),
        };
        AddStatus {
            segment: add.segment,
            instance: self.member.instance,
            kind,
            next,
            req_epoch: add.req_epoch,
            max_epoch: Epoch(0),
        }
    }

    fn fence(&self, request: &FenceRequest) -> FenceResponse {
        let verdict = FenceVerdict::Ok { durable: 0, lac: 0, limbo: false };
        let result = |item: &esker_bookie_core::wire::FenceItem| FenceResult {
            instance: self.member.instance,
            segment: item.segment,
            req_epoch: item.epoch,
            verdict,
        };
        FenceResponse { results: request.items.iter().map(result).collect() }
    }

    fn read(&self, read: &Read) -> ReadResponse {
        let segments = self.segments.lock();
        let held = segments.get(&read.segment).map(Vec::as_slice).unwrap_or_default();
        let (mut bytes, max) = (0usize, read.max_bytes as usize);
        let wanted = held.iter().take(read.to as usize).skip(read.from as usize);
        let entries: Vec<Bytes> = wanted
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.len() <= max;
                bytes += entry.len();
                fits
            })
            .cloned()
            .collect();
        let status = match (read.instance == self.member.instance, entries.is_empty()) {
            (false, _) => ReadStatus::WrongInstance,
            (true, true) => ReadStatus::NoSuchEntry,
            (true, false) => ReadStatus::Data,
        };
        let next = read.from + entries.len() as u64;
        let durable = held.len() as u64;
        ReadResponse { instance: self.member.instance, segment: read.segment, status, next, durable, lac: 0, entries }
    }
}
