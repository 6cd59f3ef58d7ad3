//! Why a metadata node does not start. Each is one line that says what to do.

use std::path::PathBuf;

use esker_types::ClusterId;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("metadata configuration: {0}")]
    Config(String),
    #[error("metadata data-dir {path}: {reason}", path = path.display())]
    DataDir { path: PathBuf, reason: String },
    #[error("metadata data-dir {path} is in use by another process", path = path.display())]
    InUse { path: PathBuf },
    #[error(
        "metadata log {path} can't be read: {reason}; if the disk is damaged, empty data-dir and add this node anew",
        path = path.display()
    )]
    Log { path: PathBuf, reason: String },
    #[error(
        "metadata snapshot {path} can't be read: {reason}; if the disk is damaged, empty data-dir and add this node \
         anew",
        path = path.display()
    )]
    Snapshot { path: PathBuf, reason: String },
    #[error(
        "metadata data-dir {path} holds snapshots but no log: half of it is lost; empty it and add this node anew",
        path = path.display()
    )]
    HalfEmpty { path: PathBuf },
    #[error("metadata data-dir {path} belongs to cluster {found}, not to {expected}", path = path.display())]
    WrongCluster { path: PathBuf, found: ClusterId, expected: ClusterId },
    #[error("the system gives no random numbers")]
    NoRandomness,
    #[error(transparent)]
    Listen(#[from] esker_net::ListenError),
    #[error("metadata objects.url: {0}")]
    Objects(#[from] esker_cache::Error),
    #[error("raft does not start: {0}")]
    Raft(String),
}
