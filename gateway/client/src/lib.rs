//! esker-client
