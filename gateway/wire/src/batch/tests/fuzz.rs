//! Record batches as producers send them, changed: in the header, in the compressed data, and in the records before they are
//! compressed, with lengths and checksum made right again or not. What is taken must be read to its end or to an error, within the
//! memory that it may take, and stay whole when the gateway gives it its place.
//!
//! An input depends on its number alone. By environment:
//! - `ESKER_FUZZ_INPUTS=6500000`: so many inputs (10 minutes on one core), or
//! - `ESKER_FUZZ_SEED=77`: the number of the first one.

use super::*;
use crate::batch::header::*;
use esker_types::checksum;

/// Largest output of a batch here: small, so that bombs pass it.
const OUTPUT_MAX: usize = 64 << 10;

/// Splitmix64: any seed is as good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.pick(&[0, 1, 10, 63, 64, 200]);
        let byte = self.next() as u8;
        match self.below(5) {
            0 => None,
            1 => Some((0..len).map(|_| self.next() as u8).collect()),
            _ => Some(vec![byte; len]),
        }
    }
}

/// Says how to run an input again if it panics.
struct Rerun(u64);

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("again: ESKER_FUZZ_SEED={seed} ESKER_FUZZ_INPUTS=1 cargo test --release -p esker-wire fuzz");
        }
    }
}

fn change(bytes: &mut Vec<u8>, from: usize, random: &mut Random) {
    for _ in 0..random.below(5) {
        let at = from + random.below(bytes.len().saturating_sub(from));
        if at >= bytes.len() {
            return;
        }
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => bytes[at] ^= 1 << random.below(8),
            // A varint of the most bytes, or of one too many.
            3 => drop(bytes.splice(at..at, vec![0xff; random.pick(&[4, 5, 9, 10])])),
            4 => {
                let until = (at + random.below(40)).min(bytes.len());
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let number = random.pick(&[0, 1, -1, i32::MAX, i32::MIN]).to_be_bytes();
                let end = (at + 4).min(bytes.len());
                bytes.splice(at..end, number);
            }
            _ => bytes[at] = random.pick(&[0, 1, 2, 0x7f, 0x80, 0xff]),
        }
    }
}

fn records(random: &mut Random) -> BatchBuilder {
    let mut builder = BatchBuilder::new(random.pick(&Compression::ALL), 0);
    for _ in 0..random.pick(&[1, 2, 5, 40]) {
        let headers: Vec<Header> = (0..random.pick(&[0, 0, 1, 4]))
            .map(|_| Header { key: random.bytes().unwrap_or_default().into(), value: random.bytes().map(Bytes::from) })
            .collect();
        let time = random.pick(&[-1, 0, 1_700_000_000_000, i64::MAX, 5]);
        let (key, value) = (random.bytes(), random.bytes());
        builder.push(time, key.as_deref(), value.as_deref(), &headers);
    }
    builder
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A batch of some client, changed in one of its layers.
fn input(random: &mut Random) -> Vec<u8> {
    if random.below(30) == 0 {
        return (0..random.below(300)).map(|_| random.next() as u8).collect();
    }
    let foreign = random.below(4) == 0;
    let mut bytes = match foreign {
        true => hex(random.pick(&FOREIGN).1).to_vec(),
        false => records(random).build((random.below(2) == 0).then_some(STAMP)).into_bytes().to_vec(),
    };
    match random.below(3) {
        // The records, before they are compressed again.
        0 => {
            let header = BatchHeader::parse(&bytes).expect("whole");
            let codec = random.pick(&Compression::ALL);
            let plain = header
                .compression()
                .and_then(|from| from.decompress(bytes[BATCH_HEADER_LEN..].to_vec().into(), DecodeLimits::default()));
            let mut plain = plain.expect("whole").to_vec();
            change(&mut plain, 0, random);
            if random.below(20) == 0 {
                plain.resize(random.pick(&[OUTPUT_MAX - 1, OUTPUT_MAX, OUTPUT_MAX + 1, 1 << 20]), 0);
            }
            bytes.truncate(BATCH_HEADER_LEN);
            bytes.extend_from_slice(&codec.compress(&plain).expect("memory"));
            put(&mut bytes, AT_ATTRIBUTES, &codec.bits().to_be_bytes());
        }
        1 => change(&mut bytes, BATCH_HEADER_LEN, random),
        _ => change(&mut bytes, 0, random),
    }
    // As an attacker makes them right.
    if random.below(8) > 0 && bytes.len() >= BATCH_HEADER_LEN {
        let length = (bytes.len() - LENGTH_BASE) as i32;
        put(&mut bytes, AT_LENGTH, &length.to_be_bytes());
        put(&mut bytes, AT_MAGIC, &[MAGIC as u8]);
        let crc = checksum::crc32c(&bytes[AT_ATTRIBUTES..]);
        put(&mut bytes, AT_CRC, &crc.to_be_bytes());
    }
    bytes
}

/// Reads what there is; every record lies in the output that was allowed.
fn read(batch: &Batch) {
    let limits = DecodeLimits { bytes_max: OUTPUT_MAX };
    let Ok(records) = batch.records(limits) else { return };
    let (mut count, mut size) = (0, 0);
    for record in records {
        let Ok(record) = record else { break };
        assert_eq!(record.offset, batch.header().base_offset.saturating_add(i64::from(count)));
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        size += len(&record.key) + len(&record.value);
        size += record.headers.iter().map(|header| header.key.len() + len(&header.value)).sum::<usize>();
        count += 1;
    }
    assert!(count <= batch.count(), "{count} records of {}", batch.count());
    let most = if batch.header().compression() == Ok(Compression::None) { batch.bytes().len() } else { OUTPUT_MAX };
    assert!(size <= most, "{size} bytes of records, {most} are allowed");
}

/// What a gateway does with a batch that it takes.
fn handle(mut batch: Batch, random: &mut Random) {
    let header = *batch.header();
    assert!(header.count >= 1 && header.last_offset_delta == header.count - 1 && header.producer_id >= NO_PRODUCER);
    read(&batch);
    let limits = DecodeLimits { bytes_max: OUTPUT_MAX };
    if let Ok(again) = batch.recompressed(random.pick(&Compression::ALL), limits) {
        let again = Batch::check(again.into_bytes(), BatchLimits { bytes_max: usize::MAX, ..BatchLimits::default() });
        let again = again.expect("what is made of one that was taken is taken too");
        let records =
            |batch: &Batch| batch.records(DecodeLimits::default()).expect("read before").collect::<Result<Vec<_>, _>>();
        assert_eq!(records(&again).expect("read before"), records(&batch).expect("read before"));
    }
    let base = random.pick(&[0, 1, 1 << 40, i64::MAX - (1 << 32)]);
    batch.assign(base, 7);
    assert_eq!(batch.crc32c(), checksum::crc32c(batch.bytes()), "of all bytes, from the batch's own");
    let mut copy = bytes::BytesMut::new();
    let summed = batch.copy_assigned(&mut copy, base + 1, 8);
    assert_eq!(summed, checksum::crc32c(&copy));
    batch.stamp_append_time(1_800_000_000_000);
    let stored = Batch::verify(batch.bytes().clone()).expect("what is stored is whole");
    assert_eq!(stored.header().end_offset(), base + i64::from(header.count));
    read(&stored);
    copy.extend_from_slice(stored.bytes());
    assert_eq!(split(copy.freeze(), true).filter(Result::is_ok).count(), 2, "two behind one another are two");
}

/// Some twenty seconds on one core.
#[test]
fn batches() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) = (number("ESKER_FUZZ_SEED").unwrap_or(0), number("ESKER_FUZZ_INPUTS").unwrap_or(450_000));
    let mut taken = 0u64;
    for seed in first..first + count {
        let _rerun = Rerun(seed);
        let mut random = Random(seed);
        let bytes: Bytes = input(&mut random).into();
        for found in split(bytes.clone(), false).flatten() {
            read(&found);
        }
        if let Ok(batch) = Batch::check(bytes, BatchLimits::default()) {
            taken += 1;
            handle(batch, &mut random);
        }
    }
    println!("batches: {count} inputs, {taken} of them taken");
    assert!(count < 1_000 || (taken > count / 50 && taken < count), "{taken} of {count} inputs were taken");
}
