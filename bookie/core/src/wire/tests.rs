use bytes::Bytes;
use esker_types::{Epoch, Frame, InstanceId, SegmentId};
use proptest::prelude::*;

use super::*;
use crate::testing::{add, entry_bytes, seg};

const INSTANCE: InstanceId = InstanceId([7; 16]);

#[test]
fn an_add_round_trips_and_every_lie_is_refused() {
    let good = add(seg(1, 2), 3, 4);
    let frame = good.to_frame(9);
    assert_eq!(Add::from_frame(&frame), Ok(good.clone()));
    let golden = "0a101a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a10011802200328043003";
    let hex: String = frame.control.iter().take(28).map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden, "the wire format is frozen");

    let refused = |change: &dyn Fn(&mut Add)| {
        let mut bad = good.clone();
        change(&mut bad);
        Add::from_frame(&bad.to_frame(1)).expect_err("a lie")
    };
    assert!(matches!(refused(&|add| add.crc ^= 1), WireError::Crc { .. }));
    assert!(matches!(refused(&|add| add.entry += 1), WireError::Misnamed { .. }));
    assert!(matches!(refused(&|add| add.segment.n += 1), WireError::Misnamed { .. }));
    assert!(matches!(refused(&|add| add.bytes = add.bytes.slice(..90)), WireError::Entry(_)));
    assert!(matches!(refused(&|add| add.bytes = Bytes::new()), WireError::Entry(_)));
    let message = AddMessage { instance: Bytes::from_static(b"short"), ..AddMessage::default() };
    assert_eq!(Add::from_frame(&Frame::new(200, 1, &message)), Err(WireError::Instance(5)));
}

#[test]
fn a_status_round_trips() {
    for kind in [0, 1, 2, 3, 4, 5, 6] {
        let kind = AddStatusKind::try_from(kind).expect("known");
        let (segment, req_epoch, max_epoch) = (SegmentId::new(1, 2), Epoch(3), Epoch(4));
        let status = AddStatus { segment, instance: INSTANCE, kind, next: 5, req_epoch, max_epoch };
        assert_eq!(AddStatus::from_frame(&status.to_frame()), Ok(status));
    }
    let message = AddStatusMessage { instance: Bytes::from_static(&[0; 16]), kind: 7, ..AddStatusMessage::default() };
    let unknown = AddStatus::from_frame(&Frame::new(201, 0, &message));
    assert_eq!(unknown, Err(WireError::Value(7, "add status")));
}

#[test]
fn fences_round_trip_and_are_bounded() {
    let item = FenceItem { instance: INSTANCE, segment: SegmentId::new(1, 2), epoch: Epoch(3) };
    let request = FenceRequest { items: vec![item, item] };
    let frame = request.to_frame(1);
    assert_eq!(FenceRequest::from_frame(&frame), Ok(request));
    let verdicts = [
        FenceVerdict::Ok { durable: 1, lac: 2, limbo: true },
        FenceVerdict::Fenced { max_epoch: Epoch(9) },
        FenceVerdict::WrongInstance,
    ];
    let result = |verdict| FenceResult { instance: INSTANCE, segment: item.segment, req_epoch: Epoch(3), verdict };
    let response = FenceResponse { results: verdicts.map(result).to_vec() };
    assert_eq!(FenceResponse::from_frame(&frame.answer(&response.to_message())), Ok(response));
    let many = FenceRequest { items: vec![item; FENCE_ITEMS_MAX + 1] };
    assert!(matches!(FenceRequest::from_frame(&many.to_frame(1)), Err(WireError::TooMany { .. })));
}

#[test]
fn a_read_answer_is_cut_into_verified_entries() {
    let segment = seg(1, 1);
    let read = Read { instance: INSTANCE, segment, from: 4, to: u64::MAX, max_bytes: 100 };
    let request = read.to_frame(5);
    assert_eq!(Read::from_frame(&request), Ok(read));
    let entries = vec![entry_bytes(segment, 4), entry_bytes(segment, 5)];
    let response =
        ReadResponse { instance: INSTANCE, segment, status: ReadStatus::Data, next: 6, durable: 9, lac: 8, entries };
    let frame = response.to_frame(&request);
    assert_eq!(ReadResponse::from_frame(&frame), Ok(response));
    let payload = frame.payload_bytes();
    for at in 0..payload.len() {
        let mut bad = payload.to_vec();
        bad[at] ^= 0x20;
        let bad = Frame { payload: vec![Bytes::from(bad)], ..frame.clone() };
        assert!(ReadResponse::from_frame(&bad).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(control in proptest::collection::vec(any::<u8>(), 0..100), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { control: Bytes::from(control), ..Frame::new(200, 1, &AddMessage::default()) };
        let frame = frame.with_payload(payload);
        let _ = (Add::from_frame(&frame), AddStatus::from_frame(&frame), Read::from_frame(&frame));
        let _ = (FenceRequest::from_frame(&frame), FenceResponse::from_frame(&frame), ReadResponse::from_frame(&frame));
    }
}
