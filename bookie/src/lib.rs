//! esker-bookie
