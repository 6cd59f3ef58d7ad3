//! One `Rpc` per address, dialled when needed and again after it broke.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_types::{Frame, Role};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::address::Address;
use crate::error::{ConnectError, RpcError};
use crate::network::Network;
use crate::rpc::Rpc;

/// Addresses remembered; beyond it those without a live link are forgotten.
const SLOTS_MAX: usize = 1024;

/// Clones share the links.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    network: Network,
    slots: Mutex<BTreeMap<(Address, Role), Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    live: Mutex<Option<Rpc>>,
    /// Held by the one task that dials; the others wait for its result.
    dial: tokio::sync::Mutex<Backoff>,
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    next: Option<Instant>,
    last: String,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("addresses", &self.inner.slots.lock().len()).finish()
    }
}

impl Pool {
    pub fn new(network: Network) -> Self {
        Self { inner: Arc::new(Inner { network, slots: Mutex::default() }) }
    }

    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// The live link to `address`, dialled now if there is none. While a failed dial backs off this fails at once.
    pub async fn rpc(&self, address: &Address, role: Role) -> Result<Rpc, ConnectError> {
        let slot = self.slot(address, role);
        if let Some(rpc) = slot.live() {
            return Ok(rpc);
        }
        let mut backoff = slot.dial.lock().await;
        if let Some(rpc) = slot.live() {
            return Ok(rpc);
        }
        if backoff.next.is_some_and(|next| Instant::now() < next) {
            return Err(ConnectError::BackingOff { address: address.clone(), last: backoff.last.clone() });
        }
        match self.inner.network.connect(address, role).await {
            Ok(link) => {
                let rpc = Rpc::without_pushes(link);
                *backoff = Backoff::default();
                *slot.live.lock() = Some(rpc.clone());
                Ok(rpc)
            }
            Err(error) => {
                let config = self.inner.network.config();
                let wait = config.reconnect_min.saturating_mul(1 << backoff.failures.min(16));
                backoff.failures += 1;
                backoff.next = Some(Instant::now() + wait.min(config.reconnect_max));
                backoff.last = error.to_string();
                Err(error)
            }
        }
    }

    /// A call over the live link; see [`Rpc::call`]. `timeout` includes the dial.
    pub async fn call(
        &self,
        address: &Address,
        role: Role,
        opcode: u16,
        message: &impl prost::Message,
        payload: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Frame, RpcError> {
        let deadline = Instant::now() + timeout;
        let rpc = tokio::time::timeout(timeout, self.rpc(address, role)).await;
        let rpc = rpc.map_err(|_| RpcError::NotSent(format!("no link to {address} in time")))??;
        rpc.call(opcode, message, payload, deadline.saturating_duration_since(Instant::now())).await
    }

    /// [`Pool::call`] without payload whose answer is one message.
    pub async fn ask<A: prost::Message + Default>(
        &self,
        address: &Address,
        role: Role,
        opcode: u16,
        message: &impl prost::Message,
        timeout: Duration,
    ) -> Result<A, RpcError> {
        let frame = self.call(address, role, opcode, message, Vec::new(), timeout).await?;
        frame.decode_control().map_err(|error| RpcError::BadAnswer(error.to_string()))
    }

    /// Closes the link to `address` and forgets its back-off.
    pub fn forget(&self, address: &Address, role: Role) {
        let slot = self.inner.slots.lock().remove(&(address.clone(), role));
        if let Some(rpc) = slot.and_then(|slot| slot.live.lock().take()) {
            rpc.close();
        }
    }

    fn slot(&self, address: &Address, role: Role) -> Arc<Slot> {
        let mut slots = self.inner.slots.lock();
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.live().is_some());
        }
        slots.entry((address.clone(), role)).or_default().clone()
    }
}

impl Slot {
    fn live(&self) -> Option<Rpc> {
        self.live.lock().as_ref().filter(|rpc| !rpc.is_closed()).cloned()
    }
}
