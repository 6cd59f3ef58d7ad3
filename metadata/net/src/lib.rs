//! esker-net
