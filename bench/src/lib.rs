//! Tools that treat Esker as a black box: a cluster of real processes, load, and the check that nothing
//! acknowledged was lost, doubled or reordered.

pub mod check;
pub mod cluster;
pub mod cpu;
pub mod history;
pub mod load;
pub mod read;
pub mod record;
pub mod replay;
pub mod tier;
pub mod wait;
pub mod workload;
