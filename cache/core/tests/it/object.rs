//! What goes into an object comes out of it, found by offset and by time.

use bytes::Bytes;
use esker_cache_core::object::*;
use esker_metadata_core::ObjectPlace;
use esker_types::*;

use crate::samples::*;

fn payloads(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| if i % 3 == 0 { noise(700, i as u64) } else { vec![b'a' + (i % 20) as u8; 900] }).collect()
}

fn slice(object: &[u8], position: u64, len: u32) -> Bytes {
    Bytes::copy_from_slice(&object[position as usize..position as usize + len as usize])
}

#[test]
fn segments_round_trip_through_footer_and_blocks() {
    let segments = [segment(4, 100, &payloads(40)), segment(5, 300, &payloads(2)), segment(9, 900, &payloads(200))];
    let (object, finished) = encode(identity(4), 4_096, &segments);
    let (trailer, directory, footers) = index(&object).unwrap();
    assert_eq!((trailer.identity, &directory.parts), (identity(4), &finished.parts));
    assert_eq!(parse_head(&object), Ok(identity(4)));
    for ((facts, entries), footer) in segments.iter().zip(&footers) {
        assert_eq!(footer.facts, *facts);
        let mut seen = Vec::new();
        for (number, info) in footer.blocks.iter().enumerate() {
            let stored = slice(&object, info.position, info.stored);
            assert!(verify_block(&trailer.identity, facts.segment, number as u32, info, &stored));
            let block = decode_block(&trailer.identity, facts.segment, number as u32, info, &stored).unwrap();
            assert!(block.raw.len() <= 4_096 + 984, "blocks end at the target");
            seen.extend(block.entries().map(|entry| entry.unwrap().bytes));
        }
        assert_eq!(&seen, entries);
    }
    assert!(footers[2].blocks.iter().any(|block| block.codec == Codec::Zstd), "what shrinks is compressed");
}

#[test]
fn noise_is_stored_raw() {
    let (object, _) = encode(identity(4), 0, &[segment(4, 0, &[noise(10, 1), noise(50_000, 2), noise(50_000, 3)])]);
    let (_, _, footers) = index(&object).unwrap();
    assert_eq!(footers[0].blocks.iter().map(|block| block.codec).collect::<Vec<_>>(), [Codec::Raw]);
}

#[test]
fn every_offset_and_time_is_found_in_its_block() {
    let (facts, entries) = segment(4, 100, &payloads(120));
    let (object, _) = encode(identity(4), 3_000, &[(facts, entries.clone())]);
    let footer = index(&object).unwrap().2.remove(0);
    let headers: Vec<EntryHeader> = entries.iter().map(|bytes| EntryHeader::decode(bytes).unwrap()).collect();
    let block_of_entry = |entry: u64| footer.blocks.partition_point(|block| block.first_entry <= entry) as u32 - 1;
    for header in headers.iter().filter(|header| header.count > 0) {
        for offset in header.base_offset..header.end_offset() {
            assert_eq!(footer.block_of(offset), Some(block_of_entry(header.entry)), "offset {offset}");
        }
    }
    assert_eq!((footer.block_of(99), footer.block_of(facts.end_offset)), (None, None));
    for time in (0..facts.max_ts + 20).step_by(3) {
        let first = headers.iter().find(|header| header.count > 0 && header.max_ts >= time);
        assert_eq!(footer.block_at(time), first.map(|header| block_of_entry(header.entry)), "time {time}");
    }
}

#[test]
fn a_verifier_takes_any_pieces_and_asks_for_the_blocks_only() {
    let segments = [segment(4, 100, &payloads(40)), segment(5, 300, &payloads(60))];
    let (object, _) = encode(identity(4), 4_096, &segments);
    let facts: Vec<SegmentFacts> = segments.iter().map(|(facts, _)| *facts).collect();
    for piece in [1, 17, 4_000, object.len()] {
        let (trailer, directory, footers) = index(&object).unwrap();
        let mut verifier = Verifier::new(&trailer, &directory, footers, &facts).unwrap();
        let end = verifier.needs_up_to() as usize;
        assert!(end < object.len());
        for chunk in object[..end].chunks(piece) {
            verifier.push(Bytes::copy_from_slice(chunk)).unwrap();
        }
        verifier.finish().unwrap();
    }
    let (trailer, directory, footers) = index(&object).unwrap();
    let mut short = Verifier::new(&trailer, &directory, footers.clone(), &facts).unwrap();
    short.push(Bytes::copy_from_slice(&object[..5_000])).unwrap();
    assert!(matches!(short.finish(), Err(VerifyError::Short { .. })));
    let other = SegmentFacts { digest: 1, ..facts[1] };
    assert!(Verifier::new(&trailer, &directory, footers, &[facts[0], other]).is_err(), "not what metadata closed");
}

#[test]
fn one_segment_of_a_shared_object_is_proved_without_the_others() {
    let segments = [segment(4, 100, &payloads(40)), segment(5, 300, &payloads(60)), segment(9, 900, &payloads(20))];
    let shared = Identity { key: ObjectKey { shared: true, ..object_key(4) }, ..identity(4) };
    let (object, finished) = encode(shared, 4_096, &segments);
    let (trailer, directory, footers) = index(&object).unwrap();
    let place = finished.parts[1].place(shared.key, finished.len);
    let verify = |object: &[u8], place: &ObjectPlace, facts: &SegmentFacts| -> Result<(), VerifyError> {
        let mut verifier = Verifier::place(&trailer, &directory, place, footers[1].clone(), facts)?;
        let end = verifier.needs_up_to();
        assert_eq!(end, finished.parts[1].position + finished.parts[1].len);
        verifier.push(Bytes::copy_from_slice(&object[place.position as usize..end as usize]))?;
        verifier.finish()
    };
    let facts = segments[1].0;
    assert_eq!(verify(&object, &place, &facts), Ok(()));
    let mut damaged = object.clone();
    damaged[finished.parts[0].position as usize] ^= 1;
    damaged[finished.parts[2].position as usize] ^= 1;
    assert_eq!(verify(&damaged, &place, &facts), Ok(()), "what others have in it is not its affair");
    damaged[finished.parts[1].position as usize + 7] ^= 1;
    assert!(verify(&damaged, &place, &facts).is_err());
    assert!(verify(&object, &place, &SegmentFacts { digest: 1, ..facts }).is_err(), "not what metadata closed");
    let elsewhere = finished.parts[0].place(shared.key, finished.len);
    assert!(verify(&object, &elsewhere, &facts).is_err(), "metadata would keep a place that it is not at");
}

#[test]
fn nothing_but_the_closed_segment_is_encoded() {
    let (facts, entries) = segment(4, 100, &payloads(10));
    let run = |facts: SegmentFacts, entries: &[Bytes]| -> Result<(), EncodeError> {
        let mut encoder = Encoder::new(identity(4), EncoderOptions::default());
        encoder.begin(facts)?;
        entries.iter().try_for_each(|entry| encoder.push(entry))?;
        encoder.end()
    };
    assert_eq!(run(facts, &entries), Ok(()));
    assert!(matches!(run(facts, &entries[..9]), Err(EncodeError::Ended { .. })), "one short");
    assert!(matches!(run(facts, &entries[1..]), Err(EncodeError::Entry { .. })), "not from the start");
    let mut swapped = entries.clone();
    swapped.swap(3, 4);
    assert!(run(facts, &swapped).is_err());
    assert_eq!(run(SegmentFacts { digest: 7, ..facts }, &entries), Err(EncodeError::Digest(facts.segment)));
    assert!(run(SegmentFacts { seg_epoch: Epoch(9), ..facts }, &entries).is_err());
    let mut flipped = entries[5].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut damaged = entries.clone();
    damaged[5] = flipped.into();
    assert!(matches!(run(facts, &damaged), Err(EncodeError::Entry { entry: 5, .. })));
}

/// All parts but compressed blocks, whose bytes are zstd's affair.
const GOLDEN: &str = include_str!("golden.hex");

#[test]
fn golden_bytes() {
    // Noise: raw blocks.
    let (object, _) = encode(identity(4), 0, &[segment(4, 100, &[noise(9, 1), noise(1_500, 2)])]);
    let (_, _, footers) = index(&object).unwrap();
    assert!(footers[0].blocks.iter().all(|block| block.codec == Codec::Raw));
    let hex: String = object.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden: String = GOLDEN.split_whitespace().collect();
    assert_eq!(hex, golden, "the format is frozen: a change is a new version, not a new golden value");
}

#[test]
fn blocks_grow_with_the_segment_so_that_footers_stay_small() {
    assert_eq!(block_target(0), BLOCK_TARGET);
    assert_eq!(block_target(1 << 30), BLOCK_TARGET);
    assert!((1u64 << 39) / (block_target(1 << 39) as u64) <= BLOCKS_MAX as u64);
    assert_eq!(block_target(1 << 50), BLOCK_TARGET_MAX);
}
