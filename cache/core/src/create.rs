//! What a write that may only create came to, when the store did not say so plainly.
//!
//! Stores answer 412 when the key is taken, 409 when two requests met, and sometimes not at all; behind each of them our own
//! object may stand, from this try or from an earlier one whose answer was lost. What is stored decides.

use esker_types::Rules;

/// The store's answer to the last try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// 412: there is an object of this name.
    Taken,
    /// 409: another request for this name was under way.
    Conflict,
    /// No answer, or one that means nothing.
    Unknown,
}

/// What was read under the name after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    Nothing,
    /// The very bytes that we wrote; nobody else writes the same.
    Ours,
    Others,
}

/// What the writer may believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Ours,
    /// Somebody else was first, and stays.
    Others,
    /// Nobody knows yet: write again.
    Again,
}

/// Settles a try by what is there.
pub fn created<R: Rules>(said: Said, there: There) -> Created {
    if !R::CONFLICT_IS_NO_ANSWER && said == Said::Conflict {
        return Created::Others;
    }
    match there {
        There::Nothing => Created::Again,
        There::Ours => Created::Ours,
        There::Others => Created::Others,
    }
}
