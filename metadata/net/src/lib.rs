//! Links between nodes: frames over TCP, over mutual TLS, or inside one process, with the same rules on all three.
//!
//! A [`Network`] is one role's identity on the wire. [`Network::connect`] and [`Listener::accept`] give a [`Link`]:
//! a bounded sender and a receiver of frames whose peer has said who it is. [`Rpc`] matches answers to requests,
//! [`Pool`] keeps one `Rpc` per address and reconnects, [`serve`] runs a [`Service`] on every incoming link.
//!
//! Bounds, all in [`NetConfig`]: frames and bytes queued per direction, frames being handled per connection, bytes
//! that a peer may make us buffer, time until it must have said who it is. A full queue makes the sender wait, so a
//! slow peer slows only those who talk to it.
//!
//! Architecture invariant: nothing here knows what a frame means, apart from HELLO and PING.

mod address;
mod config;
mod error;
mod handshake;
mod hub;
mod link;
mod network;
mod pool;
mod queue;
mod rpc;
mod serve;
mod stats;
mod stream;
mod tls;

pub use address::{Address, BadAddress};
pub use config::{Identity, NetConfig};
pub use error::{ConnectError, ListenError, RpcError, SendError, TrySendError};
pub use hub::Hub;
pub use link::{FrameReceiver, Link, Peer};
pub use network::{Listener, Network, Probe};
pub use pool::Pool;
pub use queue::FrameSender;
pub use rpc::Rpc;
pub use serve::{ConnectionCtx, Service, refusal, serve, unknown_opcode};
pub use stats::NetStats;
pub use tls::{BadTls, TlsConfig};

/// A boxed future, as the traits of this project return it.
pub use futures_util::future::BoxFuture;
