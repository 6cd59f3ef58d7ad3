//! The three digests that Esker uses, and nothing else: CRC-32C for transport and disk (Kafka's choice for
//! record batches), CRC combination so that bytes are summed once, XXH3-64 for the chain over a segment's entries.

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use xxhash_rust::xxh3::Xxh3;

/// CRC-32C (Castagnoli, iSCSI) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

/// CRC-32C of `a` followed by `b`, from the CRC of each and the length of `b`.
pub fn crc32c_combine(a: u32, b: u32, b_len: u64) -> u32 {
    crc_fast::checksum_combine(Crc32Iscsi, a.into(), b.into(), b_len) as u32
}

/// CRC-32C over several pieces, as if they stood one behind the other.
pub fn crc32c_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// The next link of a segment's chain: XXH3-64 over the previous link (little-endian) and `bytes`.
pub fn chain(previous: u64, bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&previous.to_le_bytes());
    hash.update(bytes);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_and_combination() {
        // "123456789" is the check value of every CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_combine(crc32c(b"1234"), crc32c(b"56789"), 5), 0xe306_9283);
        assert_eq!(crc32c_parts([&b"12"[..], b"", b"3456789"]), 0xe306_9283);
        assert_ne!(chain(0, b"a"), chain(1, b"a"));
    }
}
