/// Bytes of the bucket that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Cut off, flipped, misplaced or foreign. Ask again, then another copy; never serve it.
    #[error("{what} is damaged: {why}")]
    Damaged { what: &'static str, why: &'static str },
    #[error("{what} has format version {found}, this program knows up to {known}: upgrade it")]
    Newer { what: &'static str, found: u16, known: u16 },
}

impl FormatError {
    pub(crate) fn damaged<T>(what: &'static str, why: &'static str) -> Result<T, Self> {
        Err(Self::Damaged { what, why })
    }
}
