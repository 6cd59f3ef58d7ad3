//! What can go wrong with an object store, in terms of what the caller does about it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

/// Why an operation failed. One line for an operator; [`Kind`] for code. Cheap enough to share among waiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// What was tried, as a verb: `read`, `write`, …
    pub operation: &'static str,
    /// Key of the object below the store's prefix, or the store itself.
    pub subject: String,
    /// What the store said, at most a few hundred characters, without secrets.
    pub detail: String,
}

/// The variants say what to do; `retryable` says whether trying again as it is can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// There is no such bucket, container or folder.
    NoBucket,
    /// The credentials are good but may not do this.
    Denied,
    /// Credentials are missing, wrong or expired.
    Credentials,
    /// The bucket lives in another region than configured.
    Region,
    /// Nobody answers at that address.
    Unreachable,
    /// No answer in time. A write may have been applied.
    Timeout,
    /// The store is overloaded or broken for now (429, 500, 503).
    Unavailable,
    /// Two requests met at one key (409). Nothing is known about the outcome.
    Conflict,
    /// The key is taken by somebody else's object.
    Exists,
    /// The answer is cut short or is not what the protocol allows.
    BadAnswer,
    /// The bytes are not those that were written: checksum or format are wrong.
    Damaged,
    /// The request itself can't work: a malformed URL, key or range, or an operation that the store lacks.
    Invalid,
    /// The local disk failed or is full.
    Disk,
    /// This process is stopping.
    Shutdown,
}

impl Kind {
    /// Whether the same request can succeed later without anybody changing something.
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Unavailable | Self::Conflict | Self::BadAnswer)
    }

    /// Whether a write that ended so may have happened nevertheless.
    pub fn may_have_applied(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable | Self::Conflict | Self::BadAnswer | Self::Unreachable)
    }

    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoBucket => "no_bucket",
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::Region => "region",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Exists => "exists",
            Self::BadAnswer => "bad_answer",
            Self::Damaged => "damaged",
            Self::Invalid => "invalid",
            Self::Disk => "disk",
            Self::Shutdown => "shutdown",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NotFound => "no such object",
            Self::NoBucket => "no such bucket: create it, or run `esker bucket setup URL`",
            Self::Denied => "no permission: allow read, write, list and delete below the prefix",
            Self::Credentials => "credentials are missing, wrong or expired: set them in the environment",
            Self::Region => "the bucket is in another region: put region=... into the URL",
            Self::Unreachable => "can't reach the store: check the endpoint and the network",
            Self::Timeout => "no answer in time",
            Self::Unavailable => "the store is overloaded or down",
            Self::Conflict => "another request for this key is under way",
            Self::Exists => "the key is taken by another object",
            Self::BadAnswer => "the store's answer is cut short or malformed",
            Self::Damaged => "the object is damaged",
            Self::Invalid => "the request can't work",
            Self::Disk => "the disk failed or is full",
            Self::Shutdown => "stopping",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object store: can't {} {}: {}", self.operation, self.subject, self.kind.advice())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Error {}

impl Error {
    pub fn new(kind: Kind, operation: &'static str, subject: impl Into<String>, detail: impl AsRef<str>) -> Self {
        Self { kind, operation, subject: subject.into(), detail: one_line(detail.as_ref()) }
    }

    pub(crate) fn timeout(operation: &'static str, subject: &str, after: Duration) -> Self {
        Self::new(Kind::Timeout, operation, subject, format!("gave up after {:.1} s", after.as_secs_f64()))
    }

    pub fn retryable(&self) -> bool {
        self.kind.retryable()
    }

    pub(crate) fn from_store(operation: &'static str, subject: &str, error: object_store::Error) -> Self {
        let (kind, detail) = classify(&error);
        Self::new(kind, operation, subject, detail)
    }
}

/// Longest part of a store's answer that is kept. Error pages can be large, and lines in logs should not be.
const DETAIL_MAX: usize = 240;

fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(DETAIL_MAX) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

fn classify(error: &object_store::Error) -> (Kind, String) {
    use object_store::Error as E;
    let text = innermost_answer(error);
    if let Some(answer) = Answer::parse(&text) {
        return (answer.kind(), answer.detail());
    }
    if text.contains("redirect without LOCATION") {
        return (Kind::Region, String::new());
    }
    if let Some(kind) = transport(error) {
        return (kind, root(error));
    }
    let kind = match error {
        E::NotFound { .. } => Kind::NotFound,
        E::AlreadyExists { .. } => Kind::Exists,
        E::Precondition { .. } | E::NotModified { .. } => Kind::Conflict,
        E::PermissionDenied { .. } => Kind::Denied,
        E::Unauthenticated { .. } => Kind::Credentials,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => Kind::Invalid,
        E::JoinError { .. } => Kind::Shutdown,
        _ => generic(error),
    };
    (kind, root(error))
}

/// A failure without an HTTP status: of the local disk, of credentials, or an answer that can't be understood.
fn generic(error: &object_store::Error) -> Kind {
    if let object_store::Error::Generic { store: "LocalFileSystem", .. } = error {
        return match io_kind(error) {
            Some(std::io::ErrorKind::PermissionDenied) => Kind::Denied,
            Some(std::io::ErrorKind::NotFound) => Kind::NotFound,
            _ if root(error).contains("ange") => Kind::Invalid,
            _ => Kind::Disk,
        };
    }
    let text = root(error).to_ascii_lowercase();
    if text.contains("credential") || text.contains("token") || text.contains("metadata endpoint") {
        return Kind::Credentials;
    }
    Kind::BadAnswer
}

fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    chain(error).find_map(|e| e.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
}

/// What lies below `error`, from the outside in.
fn chain(error: &object_store::Error) -> impl DoubleEndedIterator<Item = &(dyn std::error::Error + 'static)> {
    let mut below = Vec::new();
    let mut next = error.source();
    while let Some(inner) = next {
        below.push(inner);
        next = inner.source();
    }
    below.into_iter()
}

fn transport(error: &object_store::Error) -> Option<Kind> {
    let http = chain(error).find_map(|e| e.downcast_ref::<HttpError>())?;
    Some(match http.kind() {
        HttpErrorKind::Connect => Kind::Unreachable,
        HttpErrorKind::Timeout => Kind::Timeout,
        // The connection broke in the middle: whether the request was carried out is not known.
        HttpErrorKind::Request | HttpErrorKind::Interrupted => Kind::Unavailable,
        _ => Kind::BadAnswer,
    })
}

/// The deepest message: the outer ones repeat it.
fn root(error: &object_store::Error) -> String {
    chain(error).next_back().map_or_else(|| error.to_string(), ToString::to_string)
}

const STATUS: &str = "status code: ";

/// The text that carries the HTTP status and body; the library keeps the type to itself.
fn innermost_answer(error: &object_store::Error) -> String {
    chain(error)
        .map(ToString::to_string)
        .rfind(|text| text.contains(STATUS) || text.contains("redirect without LOCATION") || text.contains(RESPONSE))
        .unwrap_or_default()
}

const RESPONSE: &str = "Server returned error response: ";

/// Status and S3 error code of an answer.
struct Answer {
    status: u16,
    code: String,
    message: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (status, body) = if let Some((_, rest)) = text.split_once(STATUS) {
            (rest.get(..3)?.parse().ok()?, rest)
        } else {
            // A success whose body is an error: S3 does that for requests that take long.
            (500, text.split_once(RESPONSE)?.1)
        };
        Some(Self { status, code: element(body, "Code"), message: element(body, "Message") })
    }

    fn kind(&self) -> Kind {
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket" | "ContainerNotFound") => Kind::NoBucket,
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
                Kind::Region
            }
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "RequestTimeTooSkewed",
            )
            | (401, _) => Kind::Credentials,
            (_, "SlowDown" | "InternalError" | "ServiceUnavailable" | "RequestTimeout" | "BadDigest") => {
                Kind::Unavailable
            }
            (301 | 307, _) => Kind::Region,
            (403, _) => Kind::Denied,
            (404 | 410, _) => Kind::NotFound,
            (409, _) => Kind::Conflict,
            (412 | 304, _) => Kind::Exists,
            (408 | 425 | 429 | 500..=599, _) => Kind::Unavailable,
            _ => Kind::Invalid,
        }
    }

    fn detail(&self) -> String {
        format!("{} {} {}", self.status, self.code, self.message)
    }
}

/// Text of the first XML element of that name; empty without one.
fn element(body: &str, name: &str) -> String {
    let open = format!("<{name}>");
    body.split_once(&open)
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(text, _)| text.to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_status_and_code() {
        let kind = |text: &str| Answer::parse(text).map(|a| a.kind());
        let xml = |status: &str, code: &str| {
            format!(
                "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code><Message>m</Message></Error>"
            )
        };
        assert_eq!(kind(&xml("404 Not Found", "NoSuchBucket")), Some(Kind::NoBucket));
        assert_eq!(kind(&xml("404 Not Found", "NoSuchKey")), Some(Kind::NotFound));
        assert_eq!(kind(&xml("403 Forbidden", "AccessDenied")), Some(Kind::Denied));
        assert_eq!(kind(&xml("403 Forbidden", "InvalidAccessKeyId")), Some(Kind::Credentials));
        assert_eq!(kind(&xml("400 Bad Request", "ExpiredToken")), Some(Kind::Credentials));
        assert_eq!(kind(&xml("400 Bad Request", "AuthorizationHeaderMalformed")), Some(Kind::Region));
        assert_eq!(kind(&xml("503 Slow Down", "SlowDown")), Some(Kind::Unavailable));
        assert_eq!(kind(&xml("409 Conflict", "ConditionalRequestConflict")), Some(Kind::Conflict));
        assert_eq!(kind("Server returned error response: <Error><Code>InternalError</Code>"), Some(Kind::Unavailable));
        assert_eq!(kind("no status here"), None);
    }

    #[test]
    fn a_long_answer_becomes_a_short_line() {
        let error = Error::new(Kind::Invalid, "read", "k", "é\n".repeat(5_000));
        assert!(error.to_string().lines().count() == 1 && error.detail.chars().count() <= DETAIL_MAX + 1);
    }
}
