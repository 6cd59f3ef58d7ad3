//! esker-gateway-core
