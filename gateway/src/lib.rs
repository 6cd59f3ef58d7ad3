//! The broker. It keeps nothing that it can't rebuild from metadata and bookies.
//!
//! ```text
//!  doors (QUIC, Kafka) ── Produce ──> shard: Partition core ──ADD──> bookies
//!     │   │                     │  ▲        │ ▲                 │
//!     │   └── Read <── tail cache  └─ acks ─┼─┼─────────────────┘
//!     │              <── bookies            │ └ news ── keeper <── view of metadata
//!     └── Call ──> metadata <── proposer <──┘
//! ```
//! A partition belongs to one shard task, which drives its pure core (`esker-gateway-core`) and carries out its effects.
//! Doors see a partition through a `partition::Handle`. The keeper holds the session in the metadata quorum and tells
//! shards which partitions are theirs. Safety lies in the cores, the bookies and metadata; what is here is plumbing
//! with bounds.

mod accounts;
mod append;
pub mod auth;
mod call;
mod clock;
mod config;
mod door;
mod gateway;
mod groups;
mod internal;
mod kafka;
mod keeper;
mod metrics;
pub mod offload;
mod partition;
mod producer_ids;
mod proposer;
mod read;
mod reborn;
mod server;
mod shard;
mod stop;
mod tail;
mod throttle;
mod transfers;

pub use config::{AppendConfig, BATCH_BYTES_MAX, Config, InternalConfig, QuicConfig, ReadConfig};
pub use door::EndpointError;
pub use groups::GroupsConfig;
pub use kafka::{KafkaConfig, ListenerError as KafkaListenerError};
pub use keeper::RegisterError;
pub use server::{Addresses, Deps, Server, StartError};
