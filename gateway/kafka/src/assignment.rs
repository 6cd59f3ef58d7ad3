//! What members of classic groups are assigned. Brokers pass it on unread; tools want to see it.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::reader::{DecodeLimits, Reader};

/// The partitions, by topic, of a member's assignment as consumers write it (`ConsumerProtocolAssignment`, all versions:
/// later ones add only what stands behind). Empty bytes: nothing is assigned.
pub fn member_assignment(bytes: Bytes) -> Result<Vec<(String, Vec<i32>)>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes, DecodeLimits::default());
    let version = reader.i16()?;
    if version < 0 {
        return Err(DecodeError::Version(version));
    }
    // A topic has a length of two bytes and a count of four.
    let topics = reader.array(false, 6, size_of::<(String, Vec<i32>)>())?.unwrap_or(0);
    let mut assigned = Vec::with_capacity(topics);
    for _ in 0..topics {
        let topic = reader.string(false)?.unwrap_or_default();
        let count = reader.array(false, 4, 4)?.unwrap_or(0);
        let partitions: Result<Vec<i32>, DecodeError> = (0..count).map(|_| reader.i32()).collect();
        assigned.push((topic, partitions?));
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, topic "t" with partitions 0 and 3, no user data.
    const GOLDEN: &[u8] = &[0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff];

    #[test]
    fn an_assignment_is_read() {
        let assigned = member_assignment(Bytes::from_static(GOLDEN)).expect("well formed");
        assert_eq!(assigned, [("t".to_owned(), vec![0, 3])]);
        assert_eq!(member_assignment(Bytes::new()).expect("nothing"), []);
    }

    #[test]
    fn lies_are_errors() {
        // Up to the partitions, everything is needed.
        for len in 1..GOLDEN.len() - 4 {
            assert!(member_assignment(Bytes::from_static(&GOLDEN[..len])).is_err(), "cut at {len}");
        }
        let mut huge = GOLDEN.to_vec();
        huge[2..6].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(member_assignment(huge.into()).is_err());
        assert!(member_assignment(Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0])).is_err(), "a negative version");
    }
}
