use bytes::Bytes;
use esker_types::ErrorCode;
use proptest::prelude::*;

use super::*;

mod fuzz;
mod golden;
mod hostile;

pub(super) fn hex(text: &str) -> Bytes {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub(super) fn sample(compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, 0);
    let header = |key: &'static str, value: Option<&'static str>| Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|v| Bytes::from_static(v.as_bytes())),
    };
    let value = "value ".repeat(20);
    let headers = [header("h", Some("x")), header("h", Some("y")), header("n", None)];
    builder.push(1_700_000_000_000, Some(b"key-0"), Some(value.as_bytes()), &headers);
    builder.push(1_700_000_000_005, None, Some(value.as_bytes()), &[]);
    builder.push(1_700_000_000_003, Some(b"key-2"), None, &[]);
    builder
}

const STAMP: ProducerStamp = ProducerStamp { id: 4711, epoch: 3, base_sequence: 100 };
const FOREIGN: [(Compression, &str); 5] = [
    (Compression::None, golden::NONE),
    (Compression::Gzip, golden::GZIP),
    (Compression::Snappy, golden::SNAPPY),
    (Compression::Lz4, golden::LZ4),
    (Compression::Zstd, golden::ZSTD),
];

pub(super) fn read_all(batch: &Batch) -> Vec<Record> {
    batch.records(DecodeLimits::default()).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn golden_bytes_are_kafkas() {
    // base offset and leader epoch are the broker's business: kafka-python writes 0 there.
    let mut ours = sample(Compression::None).build(Some(STAMP));
    ours.assign(0, 0);
    assert_eq!(ours.bytes(), &hex(golden::NONE));
    let mut one = BatchBuilder::new(Compression::None, 0);
    one.push(1_503_229_838_908, None, Some(b"123"), &[]);
    let mut one = one.build(None);
    one.assign(0, 0);
    assert_eq!(one.bytes(), &hex(golden::ONE));
}

#[test]
fn batches_of_another_client_are_read_in_every_compression() {
    let ours = read_all(&sample(Compression::None).build(None));
    for (compression, text) in FOREIGN {
        let batch = Batch::check(hex(text), BatchLimits::default()).unwrap();
        assert_eq!(batch.header().compression(), Ok(compression));
        assert_eq!(batch.producer(), Some(STAMP));
        assert_eq!((batch.count(), batch.header().last_sequence()), (3, 102));
        assert_eq!(batch.header().largest_ts(), 1_700_000_000_005);
        assert_eq!(read_all(&batch), ours, "{compression:?}");
    }
}

#[test]
fn a_batch_gets_its_place_without_a_new_crc() {
    let mut batch = Batch::check(hex(golden::ZSTD), BatchLimits::default()).unwrap();
    let shared = batch.clone();
    batch.assign(1 << 40, 77);
    assert_eq!(shared.header().base_offset, 0, "a copy elsewhere is not touched");
    let again = Batch::verify(batch.bytes().clone()).unwrap();
    assert_eq!((again.header().base_offset, again.header().leader_epoch), (1 << 40, 77));
    assert_eq!(again.header().end_offset(), (1 << 40) + 3);
    let offsets: Vec<i64> = read_all(&again).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [1 << 40, (1 << 40) + 1, (1 << 40) + 2]);
    let mut copied = bytes::BytesMut::from(&b"before"[..]);
    let crc = shared.copy_assigned(&mut copied, 1 << 40, 77);
    assert_eq!((&copied[6..], crc), (&again.bytes()[..], again.crc32c()));
}

#[test]
fn changes_under_the_crc_keep_it_right() {
    for (compression, text) in FOREIGN {
        let mut batch = Batch::verify(hex(text)).unwrap();
        batch.stamp_append_time(1_800_000_000_000);
        batch.set_producer(ProducerStamp { id: 9, epoch: 4, base_sequence: 0 });
        let again = Batch::verify(batch.bytes().clone()).unwrap();
        assert!(again.header().is_log_append_time(), "{compression:?}");
        assert_eq!(again.producer(), Some(ProducerStamp { id: 9, epoch: 4, base_sequence: 0 }));
        assert!(read_all(&again).iter().all(|r| r.timestamp_ms == 1_800_000_000_000));
        assert_eq!(again.crc32c(), esker_types::checksum::crc32c(again.bytes()));
    }
}

#[test]
fn data_that_does_not_shrink_is_sent_as_it_is() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression, 0);
        builder.push(-1, None, Some(b"x"), &[]);
        let batch = builder.build(None);
        assert_eq!(batch.header().compression(), Ok(Compression::None));
        assert_eq!(read_all(&Batch::check(batch.into_bytes(), BatchLimits::default()).unwrap()).len(), 1);
    }
}

#[test]
fn batches_behind_each_other_are_walked() {
    let (a, b) = (hex(golden::LZ4), hex(golden::ONE));
    let both = Bytes::from([&a[..], &b[..]].concat());
    let found: Vec<Bytes> = split(both.clone(), true).map(|batch| batch.unwrap().into_bytes()).collect();
    assert_eq!(found, [a.clone(), b]);
    let mut cut = split(both.slice(..both.len() - 1), true);
    assert!(cut.next().unwrap().is_ok());
    assert!(matches!(cut.next(), Some(Err(BatchError::Truncated { .. }))));
    assert!(cut.next().is_none(), "over after an error");
}

#[test]
fn sequences_wrap_at_two_to_the_31() {
    assert_eq!(next_sequence(i32::MAX, 1), 0);
    assert_eq!(next_sequence(i32::MAX - 1, 3), 1);
    assert_eq!(next_sequence(5, 0), 5);
}

#[test]
fn errors_have_the_clients_codes() {
    let check = |bytes: Bytes, limits| Batch::check(bytes, limits).unwrap_err().code();
    let good = hex(golden::ZSTD);
    let small = BatchLimits { bytes_max: 100, ..BatchLimits::default() };
    assert_eq!(check(good.clone(), small), ErrorCode::BatchTooLarge);
    let early = BatchLimits { timestamp_max_ms: 1_700_000_000_004, ..BatchLimits::default() };
    assert_eq!(check(good.clone(), early), ErrorCode::InvalidTimestamp);
    assert_eq!(check(good.slice(..good.len() - 1), BatchLimits::default()), ErrorCode::CorruptBatch);
    let mut dated = Batch::verify(good).unwrap();
    dated.stamp_append_time(1);
    assert_eq!(check(dated.into_bytes(), BatchLimits::default()), ErrorCode::InvalidTimestamp);
}

#[test]
fn records_are_the_same_under_any_compression() {
    let limits = DecodeLimits { bytes_max: 1 << 20 };
    for (from, text) in FOREIGN {
        let batch = Batch::check(hex(text), BatchLimits::default()).unwrap();
        for to in Compression::ALL {
            let again = batch.recompressed(to, limits).unwrap();
            let again = Batch::check(again.into_bytes(), BatchLimits::default()).unwrap();
            assert_eq!(again.header().compression(), Ok(to), "{from:?}");
            assert_eq!((again.producer(), again.header().max_ts), (Some(STAMP), batch.header().max_ts));
            assert_eq!(read_all(&again), read_all(&batch), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn what_can_not_be_read_is_not_recompressed() {
    let mut builder = BatchBuilder::new(Compression::Gzip, 0);
    builder.push(1, None, Some(&vec![0; 1 << 20]), &[]);
    let bomb = builder.build(None);
    let error = bomb.recompressed(Compression::Zstd, DecodeLimits { bytes_max: 1 << 20 }).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BatchTooLarge, "{error}");
    // A record that says it is longer than it is, under a checksum that fits.
    let mut lie = hex(golden::ONE).to_vec();
    lie[header::BATCH_HEADER_LEN] = 0x7e;
    let crc = esker_types::checksum::crc32c(&lie[header::AT_ATTRIBUTES..]);
    lie[header::AT_CRC..header::AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    let lie = Batch::check(lie.into(), BatchLimits::default()).unwrap();
    let error = lie.recompressed(Compression::Lz4, DecodeLimits::default()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidBatch, "{error}");
}

fn any_bytes(max: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..max))
}

type RawRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn any_record() -> impl Strategy<Value = RawRecord> {
    let header = (proptest::collection::vec(any::<u8>(), 0..9), any_bytes(9));
    let headers = proptest::collection::vec(header, 0..4);
    (-1i64..1 << 45, any_bytes(40), any_bytes(300), headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn round_trip(records in proptest::collection::vec(any_record(), 1..40), codec in 0usize..5) {
        let mut builder = BatchBuilder::new(Compression::ALL[codec], 0);
        let mut expected = Vec::new();
        for (i, (ts, key, value, headers)) in records.iter().enumerate() {
            let headers: Vec<Header> = headers
                .iter()
                .map(|(k, v)| Header { key: k.clone().into(), value: v.clone().map(Bytes::from) })
                .collect();
            let (before, at_most) = (
                builder.len(),
                BatchBuilder::record_len_max(key.as_deref(), value.as_deref(), &headers),
            );
            builder.push(*ts, key.as_deref(), value.as_deref(), &headers);
            prop_assert!(builder.len() - before <= at_most);
            let bytes = |b: &Option<Vec<u8>>| b.clone().map(Bytes::from);
            expected.push(Record {
                offset: i as i64, timestamp_ms: *ts, key: bytes(key), value: bytes(value), headers,
            });
        }
        let batch = Batch::check(builder.build(None).into_bytes(), BatchLimits::default()).unwrap();
        prop_assert_eq!(read_all(&batch), expected);
    }
}
