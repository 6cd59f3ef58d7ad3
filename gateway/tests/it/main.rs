//! Whole gateways in this process: real QUIC, real links, the real client; metadata and bookies in memory.

mod bookie;
mod hostile;
mod moves;
mod produce;
mod world;
