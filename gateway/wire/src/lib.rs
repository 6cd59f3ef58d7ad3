//! esker-wire
