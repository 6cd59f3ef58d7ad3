//! The server around the journal: start, connections, upkeep.

pub mod identity;
pub mod register;
