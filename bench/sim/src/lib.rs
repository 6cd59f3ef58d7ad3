//! esker-sim
