//! Which partition a record goes to: Kafka's murmur2 over the key, so that all clients agree; without a key, one
//! partition for a while and then another, so that batches fill.

/// The partition of `key` among `partitions`, as the Java client's default partitioner has it.
///
/// # Panics
/// If `partitions` is 0.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// 32-bit murmur2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// Stays with one partition until a batch's worth of bytes went there.
#[derive(Debug)]
pub(crate) struct Sticky {
    partition: u32,
    bytes: usize,
    state: u64,
}

impl Sticky {
    pub(crate) fn new(seed: u64, partitions: u32) -> Self {
        let mut sticky = Self { partition: 0, bytes: 0, state: seed | 1 };
        sticky.turn(partitions);
        sticky
    }

    pub(crate) fn next(&mut self, bytes: usize, batch_bytes: usize, partitions: u32) -> u32 {
        if self.bytes >= batch_bytes || self.partition >= partitions {
            self.turn(partitions);
        }
        self.bytes += bytes;
        self.partition
    }

    /// Another partition, if there is one.
    fn turn(&mut self, partitions: u32) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let next = (self.state >> 33) as u32 % partitions;
        self.partition = if next == self.partition { (next + 1) % partitions } else { next };
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_kafkas() {
        // From Kafka's own UtilsTest.
        let known: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_of_key(b"foobar", 7), (-790_332_482i32 as u32 & 0x7fff_ffff) % 7);
    }

    #[test]
    fn sticky_stays_and_turns() {
        let mut sticky = Sticky::new(1, 3);
        let first = sticky.next(100, 150, 3);
        assert_eq!(sticky.next(100, 150, 3), first);
        assert_ne!(sticky.next(100, 150, 3), first);
        assert_eq!(Sticky::new(9, 1).next(1, 1, 1), 0);
    }
}
