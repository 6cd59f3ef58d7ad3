//! The roles that a process can have, each alone or all in one.

mod files;
mod metadata_client;
mod node;
mod process;
mod single;
mod standalone;

pub use files::{BookieFile, GatewayFile, MetadataFile};
pub use metadata_client::{boot_id, links, metadata_store};
pub use node::{NodeConfig, TlsPaths};
pub use single::{bookie, gateway, metadata};
pub use standalone::{METADATA_LINK, lock, standalone};
