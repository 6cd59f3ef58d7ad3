//! A partition's life at one gateway as a pure state machine: ownership, recovery, offsets, packing of batches into
//! entries, rolls and handovers, retention, and the memory of idempotent producers. And the coordinator of consumer
//! groups, whose state is the log of such a partition.

pub mod groups;
pub mod partition;
pub mod producers;
