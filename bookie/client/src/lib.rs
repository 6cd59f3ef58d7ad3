//! esker-bookie-client
