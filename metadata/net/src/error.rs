//! What can go wrong on a link, by what the caller should do about it.

use std::io;

use esker_types::error::ErrorInfo;
use esker_types::{ErrorClass, Frame};

use crate::address::Address;

/// No link came to be; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there: the process is gone or was never started.
    #[error("{address} refused the connection: nobody listens there")]
    Refused { address: Address },
    #[error("can't reach {address}: {source}")]
    Unreachable { address: Address, source: io::Error },
    #[error("no answer from {address} within {seconds:.1} s")]
    Timeout { address: Address, seconds: f32 },
    /// The peer looked at our Hello and said no.
    #[error("{address} refused us: {}", .info.message)]
    Rejected { address: Address, info: ErrorInfo },
    /// We looked at the peer's Hello or certificate and said no.
    #[error("{address} is not who we want: {reason}")]
    WrongPeer { address: Address, reason: String },
    #[error("tls with {address}: {reason}")]
    Tls { address: Address, reason: String },
    /// The last dial failed a moment ago; the next one is not due yet.
    #[error("{address} is being redialled: {last}")]
    BackingOff { address: Address, last: String },
}

/// The port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("can't listen on {address}: {source}")]
    Bind { address: Address, source: io::Error },
    #[error("inproc:{name} is taken by another role of this process")]
    NameTaken { name: String },
    #[error(
        "{address} can be reached from other machines and has no TLS: configure certificates, listen on 127.0.0.1, \
         or set insecure-internal = true"
    )]
    Insecure { address: Address },
}

/// The frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the link is closed")]
    Closed,
    #[error("frame of {len} bytes is over the limit of {max}")]
    TooLarge { len: usize, max: usize },
}

/// The frame was not queued and comes back.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    #[error("the link's queue is full")]
    Full(Frame),
    #[error("the link is closed")]
    Closed(Frame),
    #[error("frame of {len} bytes is over the limit of {max}")]
    TooLarge { len: usize, max: usize },
}

/// A call brought no good answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RpcError {
    /// The request never left: it was certainly not done.
    #[error("request not sent: {0}")]
    NotSent(String),
    /// No answer in time. It may have been done.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The link broke before the answer. It may have been done.
    #[error("the link closed before the answer came")]
    Closed,
    #[error("{}", .0.message)]
    Remote(ErrorInfo),
    /// The answer's control part does not parse: a bug of the peer, and the request may have been done.
    #[error("the answer does not parse: {0}")]
    BadAnswer(String),
}

impl RpcError {
    /// False only if it is certain that the peer did nothing.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::Timeout(_) | Self::Closed | Self::BadAnswer(_) => true,
            Self::Remote(info) => info.class == ErrorClass::UnknownOutcome as i32,
        }
    }
}

impl From<ConnectError> for RpcError {
    fn from(error: ConnectError) -> Self {
        Self::NotSent(error.to_string())
    }
}
