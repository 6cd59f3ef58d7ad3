//! Bytes changed at random, in the ways in which the wire can be lied to. Needs nothing of its crate: the tests of the gateway
//! take this file too.

/// A small generator whose whole state is its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// A place in something so long; 0 in nothing.
    pub fn place(&mut self, len: usize) -> usize {
        self.below(len.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.place(of.len())]
    }
}

/// Where numbers change their form or their meaning.
const NUMBERS: [i64; 17] = [
    0,
    1,
    2,
    -1,
    -2,
    127,
    128,
    255,
    256,
    32_767,
    -32_768,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
];
/// Most that one step adds, now and then far more than a usual request has.
const RUN: usize = 300;
const LONG_RUN: usize = 200_000;

/// Changes `bytes` behind the first `keep` in one to six steps. Parts are taken from `other`.
pub fn mutate(bytes: &mut Vec<u8>, keep: usize, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        step(bytes, keep.min(bytes.len()), other, random);
    }
}

fn step(bytes: &mut Vec<u8>, keep: usize, other: &[u8], random: &mut Random) {
    let at = keep + random.place(bytes.len() - keep);
    let rest = bytes.len() - at;
    match random.below(13) {
        0 => bytes.truncate(at),
        1 | 2 if rest > 0 => bytes[at] ^= 1 << random.below(8),
        3 if rest > 0 => bytes[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        4 => put(bytes, at, &random.next().to_be_bytes()[..random.place(9)], true),
        5 => drop(bytes.drain(at..at + random.place(rest + 1).min(RUN))),
        // A part of it once more, here or there.
        6 => {
            let again = part(&bytes[keep..], random).to_vec();
            put(bytes, at, &again, true);
        }
        7 => put(bytes, at, part(other, random), true),
        // From here on as in the other.
        8 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.place(other.len())..]);
        }
        9 => {
            let number = random.pick(&NUMBERS).to_be_bytes();
            let width = random.pick(&[2, 4, 8]);
            let over = random.below(4) == 0;
            put(bytes, at, &number[8 - width..], over);
        }
        // A length that is nearly right.
        10 => {
            let number = (rest as i64 + random.below(5) as i64 - 4) as i32;
            put(bytes, at, &number.to_be_bytes()[random.pick(&[0, 2])..], false);
        }
        11 => {
            let near = rest as u64 + random.below(5);
            let number = random.pick(&[0, 1, 2, 127, 128, near, u64::from(u32::MAX), u64::MAX]);
            let over = random.below(2) == 0;
            put(bytes, at, &varint(number), over);
        }
        _ => {
            let most = if random.below(200) == 0 { LONG_RUN } else { RUN };
            let run = vec![random.pick(&[0, 1, 2, 0x80, 0xff]); random.place(most)];
            put(bytes, at, &run, true);
        }
    }
}

/// Writes over what is at `at`, or between it and what is before it.
fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8], between: bool) {
    let end = if between { at } else { (at + new.len()).min(bytes.len()) };
    bytes.splice(at..end, new.iter().copied());
}

fn part<'a>(of: &'a [u8], random: &mut Random) -> &'a [u8] {
    let from = random.place(of.len());
    let len = random.place(of.len() - from + 1).min(RUN);
    &of[from..from + len]
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
