//! The object tier's IO: stores behind one handle with deadlines, retries and bounds; caches in memory and on SSD; and
//! the reader that turns both into entries.
//!
//! The only crate that knows `object_store` and `foyer`. What the bytes mean is the business of `esker-cache-core`.

mod backup;
mod claim;
pub mod config;
mod directory;
mod inspect;
pub mod pools;
pub mod reader;
pub mod recover;
pub mod store;
pub mod testing;

pub use config::{Config, IoEngine, PoolConfig, StoreConfig};
pub use inspect::Inspect;
pub use pools::{BlockKey, Pool, Pools};
pub use reader::{For, Reader, Scan, Start};
pub use store::{Class, Error, Kind, Listed, Location, Store, Upload};
