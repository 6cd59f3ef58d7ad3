//! How everybody else uses the metadata quorum: the [`MetadataStore`] trait, its implementations (remote, in memory),
//! a local copy fed by a watch, and a session keeper.

pub mod admin;
pub mod conformance;
mod keeper;
mod memory;
pub mod messages;
mod remote;

mod store;
mod view;

pub use keeper::{SessionKeeper, SessionLost};
pub use memory::{Fault, MemoryStore};
pub use remote::{RemoteConfig, RemoteStore};

pub use store::{MetadataStore, ProposeError, Proposed, ReadError, RenewError, Renewed, Watch, WatchEvent};
pub use view::{News, NewsEvent, View};
