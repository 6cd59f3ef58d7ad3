//! Zigzag varints as in Kafka's records: 7 bits a byte, lowest first.

use bytes::{BufMut, BytesMut};

/// Longest encoding of an i64.
pub(super) const VARLONG_MAX: usize = 10;
/// Longest encoding of an i32.
pub(super) const VARINT_MAX: usize = 5;

pub(super) fn put(out: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Bytes that [`put`] writes.
pub(super) fn len(value: i64) -> usize {
    (70 - (zigzag(value) | 1).leading_zeros() as usize) / 7
}

/// Reads a value off the front of `from`. None: cut off, or longer than an i64 can be.
pub(super) fn take(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, byte) in from.iter().take(VARLONG_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit alone.
        if i == VARLONG_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *from = &from[i + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value in any::<i64>()) {
            let mut out = BytesMut::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(take(&mut &out[..]), Some(value));
            prop_assert_eq!(take(&mut &out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn edges() {
        for (value, bytes) in [(0, 1), (-1, 1), (63, 1), (64, 2), (-64, 1), (i64::MAX, 10), (i64::MIN, 10)] {
            assert_eq!(len(value), bytes, "{value}");
        }
        assert_eq!(take(&mut &[0xff; 11][..]), None, "endless");
        assert_eq!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None, "65 bits");
    }
}
