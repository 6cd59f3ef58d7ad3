use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use esker_bookie_core::wire::{
    Add, AddStatus, AddStatusKind, FenceItem, FenceRequest, FenceResponse, FenceResult, FenceVerdict, Read,
    ReadResponse, ReadStatus,
};
use esker_net::{Address, BoxFuture, ConnectionCtx, Network, Service, serve};
use esker_types::{Epoch, Frame, Member, PartitionId, SegmentId, opcode};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A bookie in memory with the rules that a gateway relies on: contiguous entries, fences, instances. What it holds
/// outlives its process, as a disk does.
#[derive(Clone)]
pub struct Disk {
    pub member: Member,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    epochs: BTreeMap<PartitionId, Epoch>,
    segments: BTreeMap<SegmentId, Copy>,
}

#[derive(Default)]
struct Copy {
    entries: Vec<Bytes>,
    lac: u64,
}

/// A running bookie process over a [`Disk`].
pub struct Bookie {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    held: watch::Sender<bool>,
}

impl Disk {
    pub fn new(member: Member) -> Self {
        Self { member, held: Arc::default() }
    }

    pub async fn start(&self, network: Network) -> Bookie {
        let (cancel, held) = (CancellationToken::new(), watch::Sender::new(false));
        let address = Address::InProcess(format!("bookie-{}", self.member.bookie));
        let listener = network.listen(&address).await.expect("free name");
        let front = Arc::new(Front { disk: self.clone(), held: held.subscribe() });
        let task = tokio::spawn(serve(listener, front, cancel.clone()));
        Bookie { cancel, task, held }
    }

    /// What it holds of a partition changes places with `other`: with nothing it is lost, and comes back with the same call.
    pub fn swap(&self, partition: PartitionId, other: &mut BTreeMap<SegmentId, Vec<Bytes>>) {
        let mut held = self.held.lock();
        for (segment, copy) in held.segments.iter_mut().filter(|(segment, _)| segment.partition == partition) {
            std::mem::swap(&mut copy.entries, other.entry(*segment).or_default());
        }
    }

    fn add(&self, add: &Add) -> AddStatus {
        let mut held = self.held.lock();
        let max_epoch = held.epochs.get(&add.segment.partition).copied().unwrap_or_default();
        let copy = held.segments.entry(add.segment).or_default();
        let have = copy.entries.len() as u64;
        let (kind, next) = if add.instance != self.member.instance {
            (AddStatusKind::WrongInstance, add.entry)
        } else if add.req_epoch < max_epoch {
            (AddStatusKind::Fenced, add.entry)
        } else if add.entry > have {
            (AddStatusKind::Gap, have)
        } else if add.entry < have && copy.entries[add.entry as usize] != add.bytes {
            (AddStatusKind::Conflict, add.entry)
        } else {
            if add.entry == have {
                copy.entries.push(add.bytes.clone());
            }
            copy.lac = copy.lac.max(add.lac);
            (AddStatusKind::Ok, copy.entries.len() as u64)
        };
        AddStatus {
            segment: add.segment,
            instance: self.member.instance,
            kind,
            next,
            req_epoch: add.req_epoch,
            max_epoch,
        }
    }

    fn fence(&self, item: &FenceItem) -> FenceResult {
        let mut held = self.held.lock();
        let epoch = held.epochs.entry(item.segment.partition).or_default();
        let verdict = if item.instance != self.member.instance {
            FenceVerdict::WrongInstance
        } else if item.epoch < *epoch {
            FenceVerdict::Fenced { max_epoch: *epoch }
        } else {
            *epoch = item.epoch;
            let copy = held.segments.get(&item.segment);
            let durable = copy.map_or(0, |copy| copy.entries.len() as u64);
            FenceVerdict::Ok { durable, lac: copy.map_or(0, |copy| copy.lac), limbo: false }
        };
        FenceResult { instance: self.member.instance, segment: item.segment, req_epoch: item.epoch, verdict }
    }

    fn read(&self, read: &Read) -> ReadResponse {
        let held = self.held.lock();
        let copy = held.segments.get(&read.segment);
        let entries = copy.map(|copy| copy.entries.as_slice()).unwrap_or_default();
        let durable = entries.len() as u64;
        let (mut bytes, max) = (0usize, read.max_bytes as usize);
        let wanted = entries.iter().take(usize::try_from(read.to).unwrap_or(usize::MAX)).skip(read.from as usize);
        let found: Vec<Bytes> = wanted
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.len() <= max;
                bytes += entry.len();
                fits
            })
            .cloned()
            .collect();
        let status = match (read.instance == self.member.instance, found.is_empty()) {
            (false, _) => ReadStatus::WrongInstance,
            (true, true) => ReadStatus::NoSuchEntry,
            (true, false) => ReadStatus::Data,
        };
        let next = read.from + found.len() as u64;
        let lac = copy.map_or(0, |copy| copy.lac);
        ReadResponse {
            instance: self.member.instance,
            segment: read.segment,
            status,
            next,
            durable,
            lac,
            entries: found,
        }
    }
}

impl Bookie {
    pub async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("serves without panic");
    }

    /// While held, ADDs are not looked at: a disk that hangs.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

struct Front {
    disk: Disk,
    held: watch::Receiver<bool>,
}

impl Service for Front {
    fn in_order(&self, opcode: u16) -> bool {
        opcode == opcode::bookie::ADD
    }

    fn handle<'a>(&'a self, ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            match frame.opcode {
                opcode::bookie::ADD => {
                    let released = self.held.clone().wait_for(|held| !held).await.is_ok();
                    let add = Add::from_frame(&frame).expect("gateways send whole entries");
                    if released {
                        let _ = ctx.tx.send(self.disk.add(&add).to_frame()).await;
                    }
                    None
                }
                opcode::bookie::FENCE => {
                    let request = FenceRequest::from_frame(&frame).expect("gateways send whole fences");
                    let results = request.items.iter().map(|item| self.disk.fence(item)).collect();
                    Some(frame.answer(&FenceResponse { results }.to_message()))
                }
                opcode::bookie::READ => {
                    let read = Read::from_frame(&frame).expect("gateways send whole reads");
                    Some(self.disk.read(&read).to_frame(&frame))
                }
                _ => esker_net::unknown_opcode(&frame),
            }
        })
    }
}
