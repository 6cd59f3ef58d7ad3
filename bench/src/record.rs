//! Records that can be recognised and verified when they come back.
//!
//! `producer u64 | sequence u64 | filler`, big-endian; the filler follows from the two numbers, so that a wrong byte
//! anywhere is seen. About half of it compresses, as typical JSON does.

pub const HEAD: usize = 16;

/// Writes the record of `bytes` length (at least [`HEAD`]).
pub fn fill(out: &mut Vec<u8>, producer: u64, sequence: u64, bytes: usize) {
    out.clear();
    out.extend_from_slice(&producer.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    let mut state = seed(producer, sequence);
    while out.len() < bytes {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ producer;
        let noise = state.to_be_bytes();
        let chunk = [noise[0], noise[1], noise[2], noise[3], b'e', b's', b'k', b'r'];
        out.extend_from_slice(&chunk[..chunk.len().min(bytes - out.len())]);
    }
}

fn seed(producer: u64, sequence: u64) -> u64 {
    producer.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ sequence.wrapping_mul(0xa076_1d64_78bd_642f) ^ 0x1357
}

/// Producer and sequence, if every byte is as [`fill`] wrote it.
pub fn verify(value: &[u8]) -> Option<(u64, u64)> {
    let (producer, rest) = value.split_first_chunk::<8>()?;
    let (sequence, _) = rest.split_first_chunk::<8>()?;
    let (producer, sequence) = (u64::from_be_bytes(*producer), u64::from_be_bytes(*sequence));
    let mut expected = Vec::with_capacity(value.len());
    fill(&mut expected, producer, sequence, value.len());
    (expected == value).then_some((producer, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_byte_is_seen() {
        let mut value = Vec::new();
        for bytes in [HEAD, 17, 100, 1024] {
            fill(&mut value, 3, 99, bytes);
            assert_eq!((value.len(), verify(&value)), (bytes, Some((3, 99))));
            for i in 0..bytes {
                value[i] ^= 1;
                assert_ne!(verify(&value), Some((3, 99)), "byte {i}");
                value[i] ^= 1;
            }
        }
    }
}
