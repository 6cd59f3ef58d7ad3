//! The door for Kafka clients: TCP, one request after the other, answers in the order of requests.
//!
//! ```text
//!  listener ── connection: reader ── frames ──> decoded requests ──> writer: one at a time, in order ──> client
//!                             └── Produce goes to its shards at once; the writer waits for the outcome
//! ```
//! Brokers are gateways, leaders are owners, leader epochs are partition epochs. Which APIs are advertised stands in
//! [`apis`]; what they look like on the wire is `esker-kafka`'s business alone.

mod apis;
mod brokers;
mod cluster;
mod config;
mod configs;
mod connection;
mod epochs;
mod errors;
mod fetch;
mod frames;
mod groups;
mod listener;
mod log_dirs;
mod metadata;
mod near;
mod offsets;
mod partitions;
mod produce;
mod producers;
mod replay;
mod send;
mod session;
mod slice;
mod topics;

pub use config::KafkaConfig;
pub use listener::{KafkaDoor, ListenerError, accept, open};
