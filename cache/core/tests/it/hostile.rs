//! Whatever a bucket gives back: never a panic, never a wrong byte, never more memory than the bounds.

use bytes::Bytes;
use esker_cache_core::manifest::{Edit, Page, PageRef, decode_page, root_ref};
use esker_cache_core::object::*;
use esker_types::*;
use proptest::prelude::*;

use crate::samples::*;

fn object() -> (Vec<u8>, Vec<SegmentFacts>) {
    let segments =
        [segment(4, 100, &[noise(20, 1), vec![7; 400], noise(60, 3)]), segment(5, 300, &[noise(5, 4), vec![9; 300]])];
    let facts = segments.iter().map(|(facts, _)| *facts).collect();
    (encode(identity(4), 256, &segments).0, facts)
}

/// Reads an object in every way there is. True if all of it verified.
fn read(bytes: &[u8], facts: &[SegmentFacts]) -> bool {
    let Ok((trailer, directory, footers)) = guarded_index(bytes) else { return false };
    let Ok(mut verifier) = Verifier::new(&trailer, &directory, footers, facts) else { return false };
    verifier.push(Bytes::copy_from_slice(bytes)).is_ok() && verifier.finish().is_ok()
}

/// As [`index`], for bytes whose lengths lie.
fn guarded_index(bytes: &[u8]) -> Result<(Trailer, Directory, Vec<Footer>), ()> {
    let trailer = Trailer::parse(bytes, bytes.len() as u64).map_err(drop)?;
    let range = |from: u64, len: u32| bytes.get(from as usize..(from as usize).checked_add(len as usize)?);
    let directory = range(trailer.directory_position, trailer.directory_len).ok_or(())?;
    let directory = Directory::decode(&trailer, directory).map_err(drop)?;
    let footers: Result<Vec<Footer>, ()> = directory
        .parts
        .iter()
        .map(|part| {
            let bytes = range(part.footer_position, part.footer_len).ok_or(())?;
            Footer::decode(&trailer.identity, part.segment, part.footer_position, bytes).map_err(drop)
        })
        .collect();
    Ok((trailer, directory, footers?))
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_object_is_seen() {
    let (object, facts) = object();
    assert!(read(&object, &facts));
    for bit in 0..object.len() * 8 {
        let mut bytes = object.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!read(&bytes, &facts), "bit {bit} of {}", object.len() * 8);
    }
    for cut in 0..object.len() {
        assert!(!read(&object[..cut], &facts), "cut at {cut}");
        assert!(!read(&object[cut + 1..], &facts), "begins at {}", cut + 1);
    }
    let mut longer = object.clone();
    longer.push(0);
    assert!(!read(&longer, &facts));
}

#[test]
fn a_block_of_another_place_or_object_does_not_verify() {
    let (object, _) = object();
    let (_, _, footers) = index(&object).unwrap();
    let footer = &footers[0];
    assert!(footer.blocks.len() > 1);
    let stored = |i: usize| {
        let info = &footer.blocks[i];
        Bytes::copy_from_slice(&object[info.position as usize..][..info.stored as usize])
    };
    let segment = footer.facts.segment;
    let info = &footer.blocks[1];
    assert!(decode_block(&identity(4), segment, 1, info, &stored(1)).is_ok());
    assert!(decode_block(&identity(5), segment, 1, info, &stored(1)).is_err(), "another object");
    assert!(decode_block(&identity(4), SegmentId::new(7, 5), 1, info, &stored(1)).is_err(), "another segment");
    assert!(decode_block(&identity(4), segment, 0, info, &stored(1)).is_err(), "another number");
    assert!(decode_block(&identity(4), segment, 1, info, &stored(0)).is_err(), "another block");
    let moved = BlockInfo { position: info.position + 1, ..*info };
    assert!(decode_block(&identity(4), segment, 1, &moved, &stored(1)).is_err(), "another place");
}

#[test]
fn a_footer_can_not_ask_for_memory() {
    let (object, _) = object();
    let (_, _, footers) = index(&object).unwrap();
    let info = BlockInfo { raw: u32::MAX, codec: Codec::Zstd, ..footers[0].blocks[0] };
    let stored = Bytes::copy_from_slice(&object[info.position as usize..][..info.stored as usize]);
    assert!(decode_block(&identity(4), footers[0].facts.segment, 0, &info, &stored).is_err());
}

fn page() -> (PageRef, Bytes) {
    let mut bucket = Bucket::new();
    let append: Vec<_> = (1..=5).map(leaf_entry).collect();
    bucket.edit(&Edit { append, folded_to: 5, ..Edit::default() });
    let Page::Root(root) = &*bucket.root() else { panic!("a root") };
    let of = root.children[0].clone();
    let bytes = bucket.stored[&of.key].clone();
    (of, bytes)
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_page_is_seen() {
    let (of, bytes) = page();
    assert!(decode_page(CLUSTER, &of, &bytes).is_ok());
    // The parent's checksum is made to fit, so that the page's own has to notice.
    let refers = |bytes: &[u8]| PageRef { len: bytes.len() as u32, crc: checksum::crc32c(bytes), ..of.clone() };
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_page(CLUSTER, &of, &bad).is_err() && decode_page(CLUSTER, &refers(&bad), &bad).is_err());
    }
    for cut in 0..bytes.len() {
        assert!(decode_page(CLUSTER, &refers(&bytes[..cut]), &bytes[..cut]).is_err());
    }
    let other = PageRef { key: PageKey { seq: of.key.seq + 1, ..of.key }, ..of.clone() };
    assert!(decode_page(CLUSTER, &other, &bytes).is_err(), "a page under another name");
    assert!(decode_page(ClusterId([1; 16]), &of, &bytes).is_err(), "a page of another cluster");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), position in any::<u64>()) {
        let len = bytes.len() as u64;
        prop_assert!(Trailer::parse(&bytes, len).is_err() && parse_head(&bytes).is_err());
        prop_assert!(Footer::decode(&identity(4), SegmentId::new(7, 4), position, &bytes).is_err());
        let mut bucket = Bucket::new();
        let edited = bucket.edit(&Edit { append: vec![leaf_entry(1)], folded_to: 1, ..Edit::default() });
        let of = PageRef { len: len as u32, crc: checksum::crc32c(&bytes), ..root_ref(&edited.root) };
        prop_assert!(decode_page(CLUSTER, &of, &bytes).is_err());
        prop_assert!(Entries::over(SegmentId::new(7, 4), bytes.into()).all(|entry| entry.is_err()));
    }
}
