//! Bytes that a client should never send, and that must cost nothing but an error.

use std::io::Write;

use super::*;
use crate::batch::header::*;
use esker_types::checksum;

/// Writes `value` at `at` and makes the CRC right again, as an attacker would.
fn patched(text: &str, at: usize, value: &[u8]) -> Bytes {
    let mut bytes = hex(text).to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = checksum::crc32c(&bytes[AT_ATTRIBUTES..]);
    bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn refusal(bytes: Bytes) -> BatchError {
    Batch::check(bytes, BatchLimits::default()).unwrap_err()
}

#[test]
fn every_flipped_bit_is_seen() {
    let good = hex(golden::SNAPPY);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // Base offset and leader epoch are not the client's to say and are overwritten.
        let outside = (0..8).contains(&(bit / 8)) || (AT_EPOCH..AT_MAGIC).contains(&(bit / 8));
        assert_eq!(Batch::check(bytes.into(), BatchLimits::default()).is_ok(), outside, "bit {bit}");
    }
    for cut in 0..good.len() {
        assert!(Batch::check(good.slice(..cut), BatchLimits::default()).is_err(), "cut at {cut}");
    }
}

#[test]
fn lies_in_the_header_are_refused_each_for_its_reason() {
    let i32b = i32::to_be_bytes;
    assert!(matches!(refusal(patched(golden::ONE, AT_MAGIC, &[1])), BatchError::Magic(1)));
    for length in [-1, 0, 48, i32::MIN, i32::MAX] {
        assert!(matches!(refusal(patched(golden::ONE, AT_LENGTH, &i32b(length))), BatchError::Length { .. }));
    }
    for count in [0, -1, 2, i32::MAX] {
        assert!(matches!(refusal(patched(golden::ONE, AT_COUNT, &i32b(count))), BatchError::Count { .. }));
    }
    assert!(matches!(refusal(patched(golden::ONE, AT_LAST_DELTA, &i32b(1))), BatchError::Count { .. }));
    for attributes in [0x10i16, 0x20, 0x40] {
        let bytes = patched(golden::ONE, AT_ATTRIBUTES, &attributes.to_be_bytes());
        assert!(matches!(refusal(bytes), BatchError::Attributes(_)));
    }
    for codec in 5..8i16 {
        let bytes = patched(golden::ONE, AT_ATTRIBUTES, &codec.to_be_bytes());
        assert_eq!(refusal(bytes), BatchError::UnknownCompression(codec as u8));
    }
    for at in [AT_BASE_TS, AT_MAX_TS] {
        assert!(matches!(refusal(patched(golden::ONE, at, &i64::MIN.to_be_bytes())), BatchError::Timestamp { .. }));
    }
    let producers = [(AT_PRODUCER, -2i64.pow(40)), (AT_PRODUCER_EPOCH, -1), (AT_SEQUENCE, -5)];
    for (at, value) in producers {
        let width = if at == AT_PRODUCER {
            0
        } else if at == AT_PRODUCER_EPOCH {
            6
        } else {
            4
        };
        let bytes = patched(golden::ZSTD, at, &value.to_be_bytes()[width..]);
        assert!(matches!(refusal(bytes), BatchError::Producer { .. }), "{at}");
    }
}

#[test]
fn a_count_that_can_not_be_true_is_refused_without_decoding() {
    let count = |text, n: i32| {
        let mut bytes = patched(text, AT_LAST_DELTA, &(n - 1).to_be_bytes()).to_vec();
        bytes[AT_COUNT..AT_COUNT + 4].copy_from_slice(&n.to_be_bytes());
        let crc = checksum::crc32c(&bytes[AT_ATTRIBUTES..]);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(bytes)
    };
    assert!(matches!(refusal(count(golden::NONE, 41)), BatchError::TooManyRecords { .. }));
    assert!(matches!(refusal(count(golden::ZSTD, i32::MAX)), BatchError::TooManyRecords { .. }));
    // A smaller lie is found by whoever reads the records.
    let lie = Batch::check(count(golden::ZSTD, 4), BatchLimits::default()).unwrap();
    let read: Result<Vec<Record>, BatchError> = lie.records(DecodeLimits::default()).unwrap().collect();
    assert!(matches!(read, Err(BatchError::Record { index: 3, .. })));
    let lie = Batch::check(count(golden::ZSTD, 2), BatchLimits::default()).unwrap();
    let read: Result<Vec<Record>, BatchError> = lie.records(DecodeLimits::default()).unwrap().collect();
    assert!(matches!(read, Err(BatchError::TrailingBytes(_))));
}

#[test]
fn decompression_stops_at_its_cap() {
    let zeros = vec![0u8; 8 << 20];
    let limits = DecodeLimits { bytes_max: 1 << 20 };
    for compression in Compression::ALL.into_iter().filter(|c| !c.is_none()) {
        let bomb = Bytes::from(compression.compress(&zeros).unwrap());
        let error = compression.decompress(bomb.clone(), limits).unwrap_err();
        assert!(matches!(error, BatchError::DecompressedTooLarge { .. }), "{compression:?}: {error}");
        let whole = compression.decompress(bomb, DecodeLimits { bytes_max: 8 << 20 }).unwrap();
        assert_eq!(whole.len(), 8 << 20, "{compression:?}");
    }
}

#[test]
fn gzip_members_and_bare_snappy_blocks_are_read() {
    let mut two = Vec::new();
    for part in [b"one", b"two"] {
        let mut encoder = flate2::write::GzEncoder::new(&mut two, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
    }
    assert_eq!(Compression::Gzip.decompress(two.into(), DecodeLimits::default()).unwrap(), &b"onetwo"[..]);
    let bare = snap::raw::Encoder::new().compress_vec(&[7; 100]).unwrap();
    assert_eq!(Compression::Snappy.decompress(bare.into(), DecodeLimits::default()).unwrap(), &[7u8; 100][..]);
}

#[test]
fn snappy_lengths_are_not_believed() {
    // A bare block whose first varint claims 2 GiB, and a xerial chunk longer than the input.
    let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x07, 0]);
    assert!(Compression::Snappy.decompress(claim, DecodeLimits { bytes_max: usize::MAX }).is_err());
    let mut chunk = Compression::Snappy.compress(b"abc").unwrap();
    chunk[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Compression::Snappy.decompress(chunk.into(), DecodeLimits::default()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Batch::check(bytes.clone().into(), BatchLimits::default());
        for found in split(bytes.into(), false).flatten() {
            if let Ok(records) = found.records(DecodeLimits { bytes_max: 1 << 16 }) {
                let _ = records.count();
            }
        }
    }

    #[test]
    fn arbitrary_records_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200), codec in 0i16..5, count in 1i32..20,
    ) {
        let mut bytes = hex(golden::ONE)[..BATCH_HEADER_LEN].to_vec();
        bytes.extend_from_slice(&body);
        let length = (bytes.len() - LENGTH_BASE) as i32;
        bytes[AT_LENGTH..AT_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        bytes[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&codec.to_be_bytes());
        bytes[AT_COUNT..].first_chunk_mut::<4>().unwrap().copy_from_slice(&count.to_be_bytes());
        let batch = split(bytes.into(), false).next().unwrap().unwrap();
        if let Ok(records) = batch.records(DecodeLimits { bytes_max: 1 << 16 }) {
            prop_assert!(records.count() <= count as usize + 1);
        }
    }

    #[test]
    fn damaged_compressed_data_never_panics(codec in 0usize..4, at in 0usize..400, bit in 0u8..8) {
        let compression = Compression::ALL[codec + 1];
        let mut data = compression.compress(&b"some text, some text, some more".repeat(20)).unwrap();
        let at = at % data.len();
        data[at] ^= 1 << bit;
        let _ = compression.decompress(data.into(), DecodeLimits { bytes_max: 1 << 16 });
    }
}
