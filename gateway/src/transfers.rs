//! What gateways tell each other around a move: producer state for the new owner, and when it is ready.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_gateway_core::partition::Transfer;
use esker_metadata_client::View;
use esker_metadata_core::NodeRef;
use esker_net::{Address, Pool};
use esker_types::moves::{TransferAnswer, TransferRequest};
use esker_types::{Epoch, PartitionId, Role, SessionId, Time, checksum, opcode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::shard::{MoveReply, Moved};

/// The new owner answers when it is ready, or after this long in any case.
pub const READY_WAIT: Duration = Duration::from_secs(2);
/// Snapshots larger than this are not sent: the new owner reads them from the bookies, which takes as long.
const TRANSFER_BYTES_MAX: usize = 8 << 20;

/// Sends transfers. Clones share the links.
#[derive(Clone)]
pub struct Transfers {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    view: View,
    clock: Clock,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Transfers {
    pub fn new(pool: Pool, view: View, clock: Clock, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { pool, view, clock, tasks, cancel }) }
    }

    /// Sends producer state to the new owner. Only a hint: if it is lost, the new owner reads the log.
    pub fn send(&self, partition: PartitionId, to: SessionId, transfer: Transfer) {
        if transfer.snapshot.iter().map(Bytes::len).sum::<usize>() > TRANSFER_BYTES_MAX {
            return;
        }
        let inner = self.inner.clone();
        self.spawn(async move {
            let request = TransferRequest {
                partition: partition.0,
                to_session: to.0,
                digest: transfer.digest,
                end_offset: transfer.end_offset,
                chunk_lens: transfer.snapshot.iter().map(|chunk| chunk.len() as u32).collect(),
                payload_crc: checksum::crc32c_parts(transfer.snapshot.iter().map(|chunk| &chunk[..])),
            };
            inner.call(to, &request, transfer.snapshot).await;
        });
    }

    /// The partition was let go for `to`: tells whoever asked for the move once the new owner is ready.
    pub fn finish_move(&self, partition: PartitionId, to: SessionId, since: Time, reply: Option<MoveReply>) {
        let Some(reply) = reply else { return };
        let inner = self.inner.clone();
        self.spawn(async move {
            let request = TransferRequest { partition: partition.0, to_session: to.0, ..TransferRequest::default() };
            let answer = inner.call(to, &request, Vec::new()).await;
            if let Some(answer) = answer.filter(|answer| answer.ready) {
                let pause = inner.clock.now().since(since);
                // Whoever asked may have given up.
                let _ = reply.send(Moved { epoch: Epoch(answer.epoch), pause });
            }
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.inner.cancel.clone();
        self.inner.tasks.spawn(async move {
            cancel.run_until_cancelled(work).await;
        });
    }
}

impl Inner {
    async fn call(&self, to: SessionId, request: &TransferRequest, payload: Vec<Bytes>) -> Option<TransferAnswer> {
        let address = internal_address(&self.view, to)?;
        let (opcode, timeout) = (opcode::gateway::STATE_TRANSFER, READY_WAIT * 2);
        let answer = self.pool.call(&address, Role::Gateway, opcode, request, payload, timeout).await;
        match answer {
            Ok(frame) => frame.decode_control().ok(),
            Err(error) => {
                tracing::debug!(partition = request.partition, %error, "state transfer failed");
                None
            }
        }
    }
}

/// Where the gateway that has this session takes requests of other nodes.
pub fn internal_address(view: &View, session: SessionId) -> Option<Address> {
    view.read(|state| match state.session(session)?.node {
        NodeRef::Gateway(gateway) => state.gateway(gateway)?.addresses.internal.parse().ok(),
        NodeRef::Bookie(_) => None,
    })
}
