//! esker-bookie-core
