//! esker-gateway-core
pub mod partition;
pub mod producers;
