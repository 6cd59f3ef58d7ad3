//! Storage decisions without IO: what gateways and bookies say to each other, the writer of a segment, its recovery,
//! what a bookie takes and answers, and the journal's bytes. No clock, randomness, threads or async.

pub mod bookie;
pub mod journal;
pub mod owner;
pub mod quorum;
pub mod recovery;
pub mod wire;

#[cfg(test)]
mod testing;
