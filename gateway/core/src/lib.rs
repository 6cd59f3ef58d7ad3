//! esker-gateway-core
pub mod packing;
pub mod partition;
pub mod producers;
