use esker_types::ProducerId;

/// Place of a batch in its producer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub producer: ProducerId,
    pub epoch: i16,
    pub first: i32,
    /// Inclusive; wraps around from 2^31-1 to 0.
    pub last: i32,
}
