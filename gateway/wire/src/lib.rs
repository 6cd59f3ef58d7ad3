//! What travels between clients and gateways: record batches and the messages of the native protocol.
//!
//! [`batch`] is Kafka's record batch v2, the unit that producers make and every tier stores byte for byte.
//! [`native`] holds the control parts of the frames on Esker's own QUIC door. No IO, no clock, no async.

pub mod batch;
pub mod native;
