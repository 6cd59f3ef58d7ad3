use bytes::Bytes;
use esker_types::{ClusterId, Epoch, InstanceId, PartitionId, SegmentId, checksum};
use proptest::prelude::*;

use super::*;
use crate::journal::writer::Writer;
use crate::journal::{Queued, Record};

const IDS: JournalIds = JournalIds { cluster: ClusterId([1; 16]), instance: InstanceId([2; 16]) };
const FILE: FileId = FileId { seq: 5, uuid: [3; 16] };

fn records() -> Vec<Record> {
    let entry = |segment, entry, text: &'static [u8]| {
        let bytes = Bytes::from_static(text);
        Record::Entry { segment, entry, crc: checksum::crc32c(&bytes), bytes }
    };
    let segment = SegmentId::new(7, 8);
    vec![
        entry(segment, 9, b"first entry"),
        Record::Fence { partition: PartitionId(7), epoch: Epoch(10) },
        entry(SegmentId::new(11, 12), 0, b"second"),
        Record::LimboSet { segment },
        Record::LimboCleared { segment, end: 13 },
        Record::Dropped { segment },
        Record::PartitionDeleted { partition: PartitionId(14) },
        entry(segment, 10, b""),
    ]
}

fn block() -> BlockWrite {
    let mut writer = Writer::new(IDS, Lsn(1 << 20));
    let header = writer.begin_file(FILE, b"header");
    writer.completed(header.head.lsn);
    records().into_iter().zip(1..).for_each(|(record, seq)| writer.push(Queued { seq, record }));
    writer.group(1 << 20).expect("records wait")
}

#[test]
fn golden_bytes() {
    let bytes = block().to_bytes();
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(0..8) + &hex(56..112),
        GOLDEN_HEAD,
        "the format is frozen: a change is a new version, not a new golden value"
    );
    let items: Vec<String> = (0..8).map(|i| hex(112 + 40 * i..152 + 40 * i)).collect();
    assert_eq!(items, GOLDEN_ITEMS);
    assert_eq!(hex(432..449), "666972737420656e7472797365636f6e64");
    assert!(bytes[449..].iter().all(|b| *b == 0) && bytes.len() == 4096);
}

const GOLDEN_HEAD: &str = concat!(
    "45534b4a010200000500000000000000001010000000000000101000000000",
    "00e07fc30a0800000011000000781130a4001000000000000000000000a97a2af8"
);
const GOLDEN_ITEMS: [&str; 8] = [
    "010000000b000000070000000000000008000000000000000900000000000000343cd04200000000",
    "0200000000000000070000000000000000000000000000000a000000000000000000000000000000",
    "01000000060000000b000000000000000c0000000000000000000000000000002894fd7a00000000",
    "03000000000000000700000000000000080000000000000000000000000000000000000000000000",
    "0400000000000000070000000000000008000000000000000d000000000000000000000000000000",
    "05000000000000000700000000000000080000000000000000000000000000000000000000000000",
    "06000000000000000e00000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000070000000000000008000000000000000a000000000000000000000000000000",
];

#[test]
fn the_payload_crc_is_put_together_without_reading_it() {
    let block = block();
    let bytes = block.to_bytes();
    let head = BlockHead::decode(&bytes, IDS, FILE, 4096).expect("own bytes");
    assert_eq!(head, block.head);
    let payload = head.payload(&bytes).expect("whole");
    assert!(head.payload_verifies(&payload));
    let entries: Vec<_> = head.entries(&payload).map(|(item, bytes)| (item.value, bytes)).collect();
    let expected = [(9, "first entry"), (0, "second"), (10, "")];
    assert_eq!(entries, expected.map(|(e, text)| (e, Some(Bytes::from_static(text.as_bytes())))));
    let mut copy = vec![0xff; block.len()];
    block.copy_to(&mut copy);
    assert_eq!(copy, bytes);
}

#[test]
fn every_flipped_bit_of_head_and_payload_is_seen() {
    let block = block();
    let bytes = block.to_bytes();
    for bit in 0..449 * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = Bytes::from(bad);
        match BlockHead::decode(&bad, IDS, FILE, 4096) {
            Err(_) => assert!(bit / 8 < 432, "bit {bit}: the head is whole"),
            Ok(head) => {
                assert!(bit / 8 >= 432, "bit {bit} of the head went unseen");
                let payload = head.payload(&bad).expect("whole");
                assert!(!head.payload_verifies(&payload));
                let damaged = head.entries(&payload).filter(|(_, bytes)| bytes.is_none()).count();
                assert_eq!(damaged, 1, "bit {bit}: only its own entry is hit");
            }
        }
    }
    for cut in 0..bytes.len() {
        let decoded = BlockHead::decode(&bytes[..cut], IDS, FILE, 4096);
        assert_eq!(decoded.is_ok(), cut >= 432, "cut at {cut}");
    }
}

#[test]
fn a_block_verifies_only_where_it_was_written() {
    let bytes = block().to_bytes();
    let other_uuid = FileId { uuid: [4; 16], ..FILE };
    let other_seq = FileId { seq: 6, ..FILE };
    assert_eq!(BlockHead::decode(&bytes, IDS, FILE, 8192), Err(BlockFault::Head), "misdirected");
    assert_eq!(BlockHead::decode(&bytes, IDS, other_uuid, 4096), Err(BlockFault::Head), "recycled");
    assert_eq!(BlockHead::decode(&bytes, IDS, other_seq, 4096), Err(BlockFault::Foreign));
    let other = JournalIds { instance: InstanceId([9; 16]), ..IDS };
    assert_eq!(BlockHead::decode(&bytes, other, FILE, 4096), Err(BlockFault::Foreign));
    let other = JournalIds { cluster: ClusterId([9; 16]), ..IDS };
    assert_eq!(BlockHead::decode(&bytes, other, FILE, 4096), Err(BlockFault::Foreign));
}

#[test]
fn groups_respect_their_bounds() {
    let mut writer = Writer::new(IDS, Lsn(0));
    let header = writer.begin_file(FILE, b"");
    writer.completed(header.head.lsn);
    let entry = |entry, len: usize| {
        let bytes = Bytes::from(vec![1u8; len]);
        Record::Entry { segment: SegmentId::new(1, 1), entry, crc: checksum::crc32c(&bytes), bytes }
    };
    (0..3000).for_each(|e| writer.push(Queued { seq: e + 1, record: entry(e, 1) }));
    assert_eq!(writer.pending_bytes(), 3000);
    assert_eq!(writer.group(1 << 20).expect("queued").head.items.len(), ITEMS_MAX);
    assert_eq!(writer.group(100).expect("queued").head.items.len(), 100);
    while writer.group(1 << 20).is_some() {}
    writer.push(Queued { seq: 3001, record: entry(3000, 500) });
    assert_eq!(writer.group(100).expect("the first alone may be larger").head.payload_len, 500);
    assert_eq!(writer.pending_bytes(), 3500, "until it is written");
}

#[test]
fn writes_complete_in_any_order_and_count_without_a_hole() {
    let mut writer = Writer::new(IDS, Lsn(8192));
    let header = writer.begin_file(FILE, b"");
    assert_eq!(header.head.lsn, Lsn(8192));
    assert_eq!(writer.completed(header.head.lsn).map(|durable| durable.started), Some(vec![FILE]));
    let mut blocks = Vec::new();
    for (seq, record) in (1..).zip(records().into_iter().take(3)) {
        writer.push(Queued { seq, record });
        blocks.push(writer.group(1 << 20).expect("queued").head);
    }
    assert!(blocks.iter().all(|head| head.durable_upto == header.head.end_lsn()));
    assert_eq!(writer.completed(blocks[1].lsn), None);
    assert!(writer.epilogue().is_none(), "a write is under way");
    let first = writer.completed(blocks[0].lsn).expect("two are done");
    assert_eq!((first.seq, first.lsn), (2, blocks[1].end_lsn()));
    assert_eq!(writer.completed(blocks[2].lsn).expect("all").seq, 3);
    let epilogue = writer.epilogue().expect("the last block knew less");
    assert_eq!(epilogue.head.durable_upto, blocks[2].end_lsn());
    assert!(writer.epilogue().is_none(), "one is enough");
    writer.completed(epilogue.head.lsn);
    assert!(writer.epilogue().is_none(), "an epilogue needs no epilogue");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_verify(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), fix in any::<bool>()) {
        if fix && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&[0x45, 0x53, 0x4b, 0x4a, 1, 2, 0, 0]);
        }
        let _ = BlockHead::peek(&bytes);
        prop_assert!(BlockHead::decode(&bytes, IDS, FILE, 0).is_err());
    }
}
