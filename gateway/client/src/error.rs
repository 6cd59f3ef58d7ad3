//! What can go wrong, and what the caller should do about it.

use std::time::Duration;

use esker_types::error::{ErrorInfo, OwnerHint};
use esker_types::{ErrorClass, ErrorCode, Frame, Offset};
use esker_wire::batch::BatchError;

/// An error that a gateway answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// None: a newer server sent a code that this library does not know; `class` still holds.
    pub code: Option<ErrorCode>,
    pub class: ErrorClass,
    /// One line for a person: what is wrong and what to do.
    pub message: String,
    /// The partition's owner, if the gateway knows a better one than itself.
    pub owner: Option<OwnerHint>,
    /// Wait before the next try; zero = up to the client.
    pub retry_after: Duration,
    /// With `DataLoss` the lost range, with `OffsetOutOfRange` log start and high watermark.
    pub range: (Offset, Offset),
}

impl From<ErrorInfo> for RemoteError {
    fn from(info: ErrorInfo) -> Self {
        Self {
            code: info.error_code(),
            class: info.class(),
            retry_after: Duration::from_millis(info.retry_after_ms.into()),
            range: (info.from, info.to),
            message: match info.message {
                empty if empty.is_empty() => format!("the gateway refused with error code {}", info.code),
                message => message,
            },
            owner: info.owner,
        }
    }
}

impl RemoteError {
    /// Reads an error answer.
    pub(crate) fn of(frame: &Frame) -> Result<Self, prost::DecodeError> {
        frame.decode_control::<ErrorInfo>().map(Self::from)
    }

    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == Some(code)
    }
}

/// Why connecting or a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// An argument or setting is not valid. Fix it.
    #[error("{0}")]
    Config(String),
    /// The server could not prove that it belongs to the trusted cluster, or the CA can't be read. Names the file.
    #[error("{0}")]
    Certificate(String),
    /// No gateway answered at all. Nothing was done.
    #[error("no gateway answers: {0}")]
    Unreachable(String),
    /// A gateway answered with an error.
    #[error("{0}")]
    Refused(RemoteError),
    /// The answer did not come in time, or the connection was lost on the way.
    #[error("{what}: {reason}{}", if *may_have_applied { " (it may have been done)" } else { "" })]
    Interrupted { what: &'static str, reason: String, may_have_applied: bool },
    /// The peer does not speak this protocol.
    #[error("{server} does not speak the esker protocol: {reason}")]
    Protocol { server: String, reason: String },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// What to do next, in the words of the protocol.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Config(_) | Self::Certificate(_) | Self::Protocol { .. } | Self::Closed => ErrorClass::Fatal,
            Self::Unreachable(_) => ErrorClass::Retry,
            Self::Refused(remote) => remote.class,
            Self::Interrupted { may_have_applied: true, .. } => ErrorClass::UnknownOutcome,
            Self::Interrupted { .. } => ErrorClass::Retry,
        }
    }

    /// True if the same request may succeed later. With [`ErrorClass::UnknownOutcome`] it may also have been done.
    pub fn retryable(&self) -> bool {
        self.class() != ErrorClass::Fatal
    }

    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(remote) => remote.code,
            _ => None,
        }
    }
}

/// Why a record is not known to be in the log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The topic does not exist, or has no such partition.
    #[error("{0}")]
    UnknownPartition(String),
    /// The record alone is larger than a batch may be. Not stored.
    #[error(
        "record of {bytes} bytes is over the limit of {max} (max.message.bytes of the topic, batch_bytes of the producer)"
    )]
    TooLarge { bytes: usize, max: usize },
    /// The gateway refused the batch for good. Not stored.
    #[error("{0}")]
    Refused(RemoteError),
    /// No acknowledgement within the delivery time-out.
    #[error("not acknowledged within {after:?}{}; last trouble: {last}",
        if *may_be_stored { " (it may still be stored)" } else { "" })]
    TimedOut { after: Duration, may_be_stored: bool, last: String },
    /// A batch before it on the same partition failed; storing this one would have changed their order.
    #[error("an earlier batch failed: {reason}{}", if *may_be_stored { " (this one may still be stored)" } else { "" })]
    EarlierFailed { reason: String, may_be_stored: bool },
    /// The producer was closed or dropped first.
    #[error("the producer is closed{}", if *may_be_stored { " (the record may still be stored)" } else { "" })]
    Closed { may_be_stored: bool },
    /// The cluster can't be asked.
    #[error(transparent)]
    Client(#[from] Error),
}

impl SendError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownPartition(_) | Self::TooLarge { .. } | Self::Closed { may_be_stored: false } => {
                ErrorClass::Fatal
            }
            Self::Refused(remote) => remote.class,
            Self::TimedOut { may_be_stored: true, .. }
            | Self::EarlierFailed { may_be_stored: true, .. }
            | Self::Closed { may_be_stored: true } => ErrorClass::UnknownOutcome,
            Self::TimedOut { .. } | Self::EarlierFailed { .. } => ErrorClass::Retry,
            Self::Client(error) => error.class(),
        }
    }

    /// True if sending the record again may succeed. With [`ErrorClass::UnknownOutcome`] it may then be there twice.
    pub fn retryable(&self) -> bool {
        self.class() != ErrorClass::Fatal
    }
}

/// Why reading stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The offset is not, or no longer, in the log: choose another start.
    #[error("offset {offset} is not in the log, which holds {log_start} to {high_watermark}")]
    OutOfRange { offset: Offset, log_start: Offset, high_watermark: Offset },
    /// Records were lost for good. Reading can go on at `to` if that is acceptable.
    #[error("records {from} to {to} (exclusive) are lost for good; read on from {to} if that is acceptable")]
    DataLoss { from: Offset, to: Offset },
    /// What came does not verify, or leaves out offsets. Nothing of it was handed out.
    #[error("at offset {offset}: {reason}")]
    Corrupt { offset: Offset, reason: String },
    #[error("{0}")]
    Refused(RemoteError),
    #[error(transparent)]
    Client(#[from] Error),
}

impl ReadError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::OutOfRange { .. } | Self::DataLoss { .. } => ErrorClass::Fatal,
            Self::Corrupt { .. } => ErrorClass::Retry,
            Self::Refused(remote) => remote.class,
            Self::Client(error) => error.class(),
        }
    }

    pub fn retryable(&self) -> bool {
        self.class() != ErrorClass::Fatal
    }

    pub(crate) fn corrupt(offset: Offset, error: &BatchError) -> Self {
        Self::Corrupt { offset, reason: error.to_string() }
    }
}
