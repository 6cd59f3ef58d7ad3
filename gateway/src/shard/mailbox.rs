use std::sync::Arc;
use std::time::Duration;

use esker_bookie_client::{BookieEvent, Sink};
use esker_gateway_core::partition::{Event, Location, Refusal, Settings, Transfer};
use esker_metadata_core::PartitionInfo;
use esker_net::BoxFuture;
use esker_types::{Epoch, GatewayId, Offset, PartitionId, SessionId};
use esker_wire::batch::{Batch, Compression};
use tokio::sync::{mpsc, oneshot};

use super::tickets::{Outcome, Room};
use crate::partition::Handle;

/// A batch for a partition. Whoever sends it holds `room`, so the mailbox can't hold more than the bounds allow.
pub struct Append {
    pub handle: Arc<Handle>,
    pub batch: Batch,
    pub reply: oneshot::Sender<Outcome>,
    pub room: Room,
}

/// All else that a shard is told. Answers and news go before appends.
pub enum Control {
    /// What metadata says of a partition that is ours, or was until now.
    Info(PartitionNews),
    /// The topic is gone.
    Deleted(PartitionId),
    /// The gateway has a new session, or none: everything that an old one owned is let go.
    Session(Option<(GatewayId, SessionId)>),
    Bookie(BookieEvent),
    /// Answer to a question that a partition asked in its life `life` at this gateway.
    Answer {
        partition: PartitionId,
        life: u64,
        event: Event,
    },
    Move {
        partition: PartitionId,
        to: SessionId,
        reply: MoveReply,
    },
    /// Take no more appends, answer what is under way and close the segment: the process is about to end.
    Drain {
        partition: PartitionId,
        done: oneshot::Sender<()>,
    },
    DeleteRecords {
        partition: PartitionId,
        before: Offset,
        reply: oneshot::Sender<Outcome>,
    },
    /// Where to read an offset; asked about once per segment and reader.
    Locate {
        partition: PartitionId,
        offset: Offset,
        reply: oneshot::Sender<Result<Location, Refusal>>,
    },
    Transfer {
        partition: PartitionId,
        transfer: Transfer,
    },
}

/// Facts of one revision, settings included, so that a new partition has all it needs at once.
#[derive(Clone, Debug)]
pub struct PartitionNews {
    pub revision: u64,
    pub info: PartitionInfo,
    pub settings: Settings,
    pub batch_bytes_max: u32,
    pub append_time: bool,
    /// None: batches stay as they are sent.
    pub compression: Option<Compression>,
}

/// A partition was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub epoch: Epoch,
    /// From the first refused append until the new owner was named and had what it needs.
    pub pause: Duration,
}

/// Dropped without an answer: the partition is not here, or was let go otherwise.
pub type MoveReply = oneshot::Sender<Moved>;

/// The way to all shards.
#[derive(Clone)]
pub struct Shards {
    shards: Arc<[Mailbox]>,
}

struct Mailbox {
    control: mpsc::Sender<Control>,
    appends: mpsc::Sender<Append>,
}

/// The shard's end.
pub struct Inbox {
    pub control: mpsc::Receiver<Control>,
    pub appends: mpsc::Receiver<Append>,
}

/// Messages that wait for one shard. What they weigh is bounded elsewhere: appends by room, questions by partitions.
const MAILBOX: usize = 4096;

impl Shards {
    pub fn new(count: usize) -> (Self, Vec<Inbox>) {
        let mut inboxes = Vec::new();
        let mailbox = |_| {
            let (control, control_rx) = mpsc::channel(MAILBOX);
            let (appends, appends_rx) = mpsc::channel(MAILBOX);
            inboxes.push(Inbox { control: control_rx, appends: appends_rx });
            Mailbox { control, appends }
        };
        let shards = (0..count.max(1)).map(mailbox).collect();
        (Self { shards }, inboxes)
    }

    /// Waits for space: that is the back-pressure on streams. False: the gateway is stopping.
    pub async fn append(&self, append: Append) -> bool {
        self.of(append.handle.id).appends.send(append).await.is_ok()
    }

    /// Waits for space. False: the gateway is stopping.
    pub async fn tell(&self, partition: PartitionId, control: Control) -> bool {
        self.of(partition).control.send(control).await.is_ok()
    }

    /// Tells every shard.
    pub async fn tell_all(&self, control: impl Fn() -> Control) {
        for shard in self.shards.iter() {
            // A closed mailbox belongs to a shard that has let everything go already.
            let _ = shard.control.send(control()).await;
        }
    }

    fn of(&self, partition: PartitionId) -> &Mailbox {
        // Ids count up: neighbours go to different shards.
        &self.shards[(partition.0 % self.shards.len() as u64) as usize]
    }
}

impl Sink for Shards {
    fn deliver(&self, event: BookieEvent) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &event {
                BookieEvent::Add(answer) => {
                    self.tell(answer.segment.partition, Control::Bookie(event)).await;
                }
                BookieEvent::Fence(answer) => {
                    self.tell(answer.segment.partition, Control::Bookie(event)).await;
                }
                BookieEvent::Link { .. } => self.tell_all(|| Control::Bookie(event.clone())).await,
            }
        })
    }
}
