//! The connection that carries ADDs to one bookie.
//!
//! Senders never wait. While the link takes frames they go straight into its queue; when that is full they go to an
//! overflow, which one task pumps in order; when the overflow is full too, or there is no link, they are dropped,
//! and `Link { up: true }` asks the owners to send again once there is room.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use esker_bookie_core::owner::{Add, AddAnswer, AddAnswerKind};
use esker_bookie_core::wire::{self, AddStatus, AddStatusKind};
use esker_net::{FrameReceiver, FrameSender, TrySendError};
use esker_types::{BookieId, Frame, InstanceId, Role, opcode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::{BookieEvent, Inner};

pub(crate) struct AddConnection {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was put into the overflow.
    overflowed: Notify,
    overflow_max: usize,
    bookie: BookieId,
}

#[derive(Default)]
struct Queue {
    link: Option<FrameSender>,
    overflow: VecDeque<Frame>,
    overflow_bytes: usize,
    /// The pump holds a frame that it took out of the overflow: nothing may go past it.
    pumping: bool,
    /// A frame was dropped although the link stands.
    dropped: bool,
    down: bool,
    /// Instances that were written to; all live behind this one connection.
    instances: BTreeSet<InstanceId>,
}

impl AddConnection {
    pub fn new(bookie: BookieId, overflow_max: usize) -> Self {
        Self { shared: Arc::new(Shared { queue: Mutex::default(), overflowed: Notify::new(), overflow_max, bookie }) }
    }

    pub fn start(&self, client: &Arc<Inner>) {
        let (shared, weak) = (self.shared.clone(), Arc::downgrade(client));
        let cancel = client.cancel.clone();
        client.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = keep_connected(&shared, &weak) => {}
            }
            // Dropping the sender closes the link once what is queued has been written.
            shared.queue.lock().link = None;
        });
    }

    pub fn is_up(&self) -> bool {
        self.shared.queue.lock().link.is_some()
    }

    /// The last dial failed, or the link broke and there is no new one. False before the first dial has ended.
    pub fn is_down(&self) -> bool {
        self.shared.queue.lock().down
    }

    pub fn push(&self, add: &Add) {
        let mut queue = self.shared.queue.lock();
        queue.instances.insert(add.member.instance);
        let Some(link) = &queue.link else { return };
        if queue.overflow.is_empty() && !queue.pumping {
            match link.try_send(to_frame(add)) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(frame)) => self.shared.overflow(&mut queue, frame),
                Err(TrySendError::TooLarge { len, max }) => {
                    tracing::error!(segment = %add.segment, len, max, "an entry is larger than a frame may be");
                }
            }
        } else {
            self.shared.overflow(&mut queue, to_frame(add));
        }
    }
}

impl Shared {
    fn overflow(&self, queue: &mut Queue, frame: Frame) {
        let bytes = frame.wire_len();
        // After the first drop everything is dropped until the pump is through: a later entry would only be a gap.
        if queue.dropped || queue.overflow_bytes + bytes > self.overflow_max {
            queue.dropped = true;
            return;
        }
        queue.overflow_bytes += bytes;
        queue.overflow.push_back(frame);
        self.overflowed.notify_one();
    }

    /// Moves the overflow into the link as it takes it. Ends when the link is closed.
    async fn pump(&self, link: &FrameSender, client: &Weak<Inner>) {
        loop {
            self.overflowed.notified().await;
            while let Some(frame) = self.take_overflow() {
                if link.send(frame).await.is_err() {
                    return;
                }
            }
            if std::mem::take(&mut self.queue.lock().dropped) {
                self.tell(client, true).await;
            }
        }
    }

    fn take_overflow(&self) -> Option<Frame> {
        let mut queue = self.queue.lock();
        let frame = queue.overflow.pop_front();
        queue.pumping = frame.is_some();
        queue.overflow_bytes -= frame.as_ref().map_or(0, Frame::wire_len);
        frame
    }

    fn set_link(&self, link: Option<FrameSender>) {
        let mut queue = self.queue.lock();
        let instances = std::mem::take(&mut queue.instances);
        *queue = Queue { down: link.is_none(), link, instances, ..Queue::default() };
    }

    async fn tell(&self, client: &Weak<Inner>, up: bool) {
        let instances: Vec<InstanceId> = self.queue.lock().instances.iter().copied().collect();
        let Some(client) = client.upgrade() else { return };
        for instance in instances {
            client.sink.deliver(BookieEvent::Link { bookie: self.bookie, instance, up }).await;
        }
    }
}

/// Dials, serves the link until it breaks, and again. Cancel-safe at every await: nothing is owned by this future
/// but the link itself.
async fn keep_connected(shared: &Arc<Shared>, client: &Weak<Inner>) {
    let bookie = shared.bookie;
    let mut wait = None;
    loop {
        let Some(inner) = client.upgrade() else { return };
        let (first, longest) = (inner.config.redial_min, inner.config.redial_max);
        let dialled = match inner.directory.address(bookie) {
            Some(address) => inner.network.connect(&address, Role::Bookie).await.map_err(|e| e.to_string()),
            None => Err("metadata knows no address of it".to_owned()),
        };
        drop(inner);
        match dialled {
            Ok(link) => {
                let esker_net::Link { tx, rx, .. } = link;
                shared.set_link(Some(tx.clone()));
                tracing::debug!(%bookie, "connected");
                shared.tell(client, true).await;
                serve(shared, client, tx, rx).await;
                shared.set_link(None);
                shared.tell(client, false).await;
                tracing::debug!(%bookie, "connection lost");
                wait = None;
            }
            // Told each time: segments that were opened since the last try learn of it too.
            Err(reason) => {
                tracing::debug!(%bookie, reason, "can't connect");
                shared.queue.lock().down = true;
                shared.tell(client, false).await;
            }
        }
        let pause = wait.map_or(first, |w: std::time::Duration| (w * 2).min(longest));
        wait = Some(pause);
        tokio::time::sleep(pause).await;
    }
}

async fn serve(shared: &Arc<Shared>, client: &Weak<Inner>, tx: FrameSender, mut rx: FrameReceiver) {
    // Cancel-safe: `recv` is, and a frame that the pump holds is lost with the link anyway.
    tokio::select! {
        () = shared.pump(&tx, client) => {}
        () = receive(client, &mut rx) => {}
    }
    tx.close();
}

async fn receive(client: &Weak<Inner>, rx: &mut FrameReceiver) {
    while let Some(frame) = rx.recv().await {
        if frame.opcode != opcode::bookie::ADD_STATUS {
            tracing::warn!(opcode = frame.opcode, "a bookie sent something unasked");
            continue;
        }
        let status = match AddStatus::from_frame(&frame) {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(%error, "a bookie's answer does not parse");
                return;
            }
        };
        let Some(client) = client.upgrade() else { return };
        client.sink.deliver(BookieEvent::Add(answer(&status))).await;
    }
}

fn to_frame(add: &Add) -> Frame {
    let request = wire::Add {
        instance: add.member.instance,
        segment: add.segment,
        entry: add.entry.header.entry,
        req_epoch: add.req_epoch,
        lac: add.lac,
        crc: add.entry.crc(),
        recovery: add.recovery,
        bytes: add.entry.bytes.clone(),
    };
    request.to_frame(0)
}

fn answer(status: &AddStatus) -> AddAnswer {
    let kind = match status.kind {
        AddStatusKind::Ok => AddAnswerKind::Ok { durable: status.next },
        AddStatusKind::Gap => AddAnswerKind::Gap { accepted: status.next },
        AddStatusKind::Fenced => AddAnswerKind::Fenced { max_epoch: status.max_epoch },
        AddStatusKind::Conflict => AddAnswerKind::Conflict { entry: status.next },
        AddStatusKind::ReadOnly => AddAnswerKind::ReadOnly,
        AddStatusKind::Limbo => AddAnswerKind::Limbo,
        AddStatusKind::WrongInstance => AddAnswerKind::WrongInstance,
    };
    AddAnswer { segment: status.segment, instance: status.instance, req_epoch: status.req_epoch, kind }
}
