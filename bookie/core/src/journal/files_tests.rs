use super::*;

fn header() -> FileHeader {
    let id = FileId { seq: 3, uuid: [0xab; 16] };
    let footer = Some(FooterAt { offset: 8192, len: 4096 });
    let holes = vec![Hole { from: 4096, to: 8192 }];
    FileHeader {
        retained: vec![RetainedFile { id, base: Lsn(1 << 20), valid_len: 12288, footer, holes }],
        max_epoch: BTreeMap::from([(PartitionId(1), Epoch(2)), (PartitionId(9), Epoch(1 << 23))]),
        limbo: vec![SegmentId::new(4, 5)],
        tombstones: BTreeMap::from([(SegmentId::new(6, 7), Lsn(8))]),
    }
}

fn footer() -> Footer {
    let run = |first, offset| Run { first, count: 3, file: 7, offset, block_len: 8192, bytes: 300 };
    Footer { segments: BTreeMap::from([(SegmentId::new(1, 2), vec![run(0, 4096), run(3, 12288)])]) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn golden_bytes() {
    let header_golden = concat!(
        "0801122708031210abababababababababababababababab188080402080602880403080203a04802080401a07",
        "01020980808004220204052a03060708"
    );
    assert_eq!(hex(&header().encode()), header_golden, "the format is frozen");
    assert_eq!(hex(&footer().encode()), "08011212080110021a0c00030102ac0203030302ac02", "the format is frozen");
}

#[test]
fn round_trips() {
    assert_eq!(FileHeader::decode(&header().encode()), Ok(header()));
    assert_eq!(Footer::decode(&footer().encode(), 7), Ok(footer()));
    assert_eq!(FileHeader::decode(&FileHeader::default().encode()), Ok(FileHeader::default()));
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(FileHeader::decode(&[]).is_err(), "no bytes are not an empty table");
    let newer = HeaderMessage { format: FORMAT + 1, ..HeaderMessage::default() }.encode_to_vec();
    assert_eq!(FileHeader::decode(&newer), Err(FileFormatError::Newer { found: FORMAT + 1 }));
    let odd = HeaderMessage { format: FORMAT, max_epoch: vec![1], ..HeaderMessage::default() }.encode_to_vec();
    assert_eq!(FileHeader::decode(&odd), Err(FileFormatError::Nonsense("epoch table")));
    let mut bad = header();
    bad.retained[0].holes[0].to = 5;
    assert!(FileHeader::decode(&bad.encode()).is_err());
    let huge = FooterSegmentMessage { partition: 1, n: 1, runs: vec![0, 1, u64::MAX, 1, 1] };
    let huge = FooterMessage { format: FORMAT, segments: vec![huge] }.encode_to_vec();
    assert!(Footer::decode(&huge, 1).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = FileHeader::decode(&bytes);
        let _ = Footer::decode(&bytes, 1);
    }
}
