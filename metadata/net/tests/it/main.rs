//! Links, checked on every transport.

mod conformance;
mod fixture;
mod hostile;
mod pressure;
mod tls;
