//! esker-gateway
