//! Whole gateways in this process: real QUIC, real links, the real client; metadata and bookies in memory.

mod bookie;
mod groups;
mod hostile;
mod kafka;
mod kafka_client;
mod kafka_compression;
mod kafka_fuzz;
mod kafka_group_settings;
mod kafka_group_wire;
mod kafka_hostile;
mod kafka_near;
mod kafka_tls;
mod moves;
mod objects;
mod produce;
mod world;
