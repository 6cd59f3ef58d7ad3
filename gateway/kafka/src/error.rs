/// Why bytes are not a request (or, at a client, a response) of the API and version that they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("cut off: {need} bytes wanted, {have} left")]
    Truncated { need: usize, have: usize },
    #[error("a length or count of {0} is not valid")]
    Length(i64),
    #[error("{count} elements of at least {min_len} bytes are announced, but only {have} bytes are left")]
    Count { count: usize, min_len: usize, have: usize },
    #[error("a varint does not end within its 5 bytes or does not fit 32 bits")]
    Varint,
    #[error("{0} may not be null")]
    Null(&'static str),
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("a boolean is {0}")]
    Bool(i8),
    #[error("tagged fields of more than {0} bytes")]
    TagsTooLarge(usize),
    #[error("more than {0} bytes of memory would be needed for what is not record data")]
    TooLarge(usize),
    #[error("{0} bytes are left over behind the last field")]
    Trailing(usize),
    #[error("version {0} is not known")]
    Version(i16),
    #[error("api key {key} version {version} is not known")]
    UnknownApi { key: i16, version: i16 },
}
