//! The only source of chance in a run: xoshiro256**, seeded by splitmix64, so that one number names a whole run.

/// A small, fast generator. Equal seeds give equal streams on every machine.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A generator of its own for one part, so that one part's use of chance does not move another's.
    pub fn fork(&mut self) -> Self {
        Self::new(self.u64())
    }

    pub fn u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in `0..n`; 0 when `n` is 0. The bias of a 64-bit multiply is far below what a run could notice.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in `per_mille` of 1,000 calls.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }

    /// A waiting time in nanoseconds around `mean_us`: mostly near it, now and then up to twenty times as long.
    pub fn latency_ns(&mut self, mean_us: u64) -> u64 {
        let base = mean_us * 1_000;
        match self.below(64) {
            0 => self.range(base, base * 20),
            1..=8 => self.range(base, base * 4),
            _ => self.range(base / 2, base + base / 2),
        }
    }

    pub fn uuid(&mut self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.u64().to_le_bytes());
        out[8..].copy_from_slice(&self.u64().to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams() {
        let (mut a, mut b, mut c) = (Rng::new(1), Rng::new(1), Rng::new(2));
        let take = |r: &mut Rng| (0..32).map(|_| r.u64()).collect::<Vec<_>>();
        let first = take(&mut a);
        assert_eq!(first, take(&mut b));
        assert_ne!(first, take(&mut c));
        assert!((0..1000).all(|_| a.range(3, 9) >= 3 && b.below(7) < 7 && !c.chance(0)));
    }
}
