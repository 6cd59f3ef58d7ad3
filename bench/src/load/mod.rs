//! Load: as fast as the client goes, or at a steady rate.

pub mod consume;
pub mod produce;
pub mod stats;
