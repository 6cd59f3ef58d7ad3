//! Bytes that lie: nothing panics, nothing allocates beyond its bound.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::Random;
use crate::api::{Api, Request, Response};
use crate::error::DecodeError;
use crate::header::RequestHeader;
use crate::reader::{DecodeLimits, Reader};

fn decode(bytes: Bytes, limits: DecodeLimits) -> Result<Request, DecodeError> {
    let mut reader = Reader::new(bytes, limits);
    let header = RequestHeader::decode(&mut reader)?;
    Request::decode(&header, &mut reader)
}

fn header(api: Api, version: i16) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_i16(api as i16);
    bytes.put_i16(version);
    bytes.put_i32(1);
    bytes.put_i16(-1);
    if api.form(version).flexible {
        bytes.put_u8(0);
    }
    bytes
}

/// How long the random tests run: `ESKER_FUZZ_SECONDS` for each, or a number of rounds that takes a second or two.
fn rounds(mut round: impl FnMut(u64)) {
    let seconds: Option<u64> = std::env::var("ESKER_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let until = seconds.map(|s| std::time::Instant::now() + std::time::Duration::from_secs(s));
    for seed in 0.. {
        let done = until.map_or(seed >= 150, |until| std::time::Instant::now() >= until);
        if done {
            return;
        }
        round(seed);
    }
}

#[test]
fn requests_with_flipped_cut_and_added_bytes_are_values() {
    rounds(|seed| {
        for api in Api::ALL {
            let (min, max) = api.versions();
            for version in min..=max {
                let mut random = Random::new(seed << 20 | (*api as u64) << 8 | version as u64);
                let request = Request::sample(*api, &mut random, api.form(version));
                let mut bytes = request.encode(version, 1, Some("c")).concat();
                for _ in 0..=random.below(3) {
                    mutate(&mut bytes, &mut random);
                }
                // Any outcome is fine; that it comes is what is tested.
                let _ = decode(bytes.into(), DecodeLimits { memory_max: 1 << 20, ..DecodeLimits::default() });
            }
        }
    });
}

#[test]
fn responses_with_flipped_cut_and_added_bytes_are_values() {
    rounds(|seed| {
        for api in Api::ALL {
            let version = api.versions().1;
            let mut random = Random::new(seed << 20 | (*api as u64) << 8);
            let response = Response::sample(*api, &mut random, api.form(version));
            let mut bytes = response.encode(version, 1).concat();
            mutate(&mut bytes, &mut random);
            let _ = Response::decode(*api, version, Bytes::from(bytes).split_off(4.min(bytes_len(&response, version))));
        }
    });
}

fn bytes_len(response: &Response, version: i16) -> usize {
    response.encode(version, 1).iter().map(Bytes::len).sum()
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    // Not the API and version: what is behind them is to be reached.
    let at = 4 + random.below((bytes.len() - 4).max(1) as u64) as usize;
    match random.below(5) {
        0 => bytes.truncate(at.max(8)),
        1 => bytes.extend_from_slice(&[0xff; 3]),
        2 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes()),
        3 if at + 5 <= bytes.len() => bytes[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
        _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_values(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for api in Api::ALL {
            let (min, max) = api.versions();
            for version in min..=max {
                let mut bytes = header(*api, version);
                bytes.put_slice(&body);
                let _ = decode(bytes.freeze(), DecodeLimits::default());
            }
        }
        let _ = decode(body.into(), DecodeLimits::default());
    }
}

#[test]
fn a_count_is_held_against_the_bytes_that_are_left() {
    let mut bytes = header(Api::Metadata, 1);
    bytes.put_i32(i32::MAX);
    assert!(matches!(decode(bytes.freeze(), DecodeLimits::default()), Err(DecodeError::Count { .. })));
    let mut bytes = header(Api::Metadata, 9);
    bytes.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(decode(bytes.freeze(), DecodeLimits::default()), Err(DecodeError::Count { .. })));
}

#[test]
fn counts_that_the_bytes_would_cover_are_held_against_memory() {
    // A million topics of the smallest form: each costs a hundred times its 3 bytes in memory.
    let mut bytes = header(Api::Fetch, 12);
    bytes.put_slice(&[0; 25]);
    let count = 3_000_000u32;
    let mut len = count + 1;
    while len >= 0x80 {
        bytes.put_u8(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.put_u8(len as u8);
    bytes.resize(bytes.len() + 3 * count as usize, 1);
    assert!(matches!(decode(bytes.freeze(), DecodeLimits::default()), Err(DecodeError::TooLarge(_))));
}

#[test]
fn null_where_it_is_not_allowed_is_refused() {
    let mut bytes = header(Api::Metadata, 0);
    bytes.put_i32(-1);
    assert_eq!(decode(bytes.freeze(), DecodeLimits::default()), Err(DecodeError::Null("topics")));
    let mut bytes = header(Api::Metadata, 0);
    bytes.put_i32(-2);
    assert_eq!(decode(bytes.freeze(), DecodeLimits::default()), Err(DecodeError::Length(-2)));
}

#[test]
fn tagged_fields_are_bounded_together() {
    let mut bytes = header(Api::ApiVersions, 3);
    bytes.put_slice(&[2, b'a', 2, b'b', 2]);
    for tag in [5u8, 6] {
        bytes.put_u8(tag);
        bytes.put_slice(&[0x80, 0x80, 0x04]);
        bytes.resize(bytes.len() + 65_536, 0);
    }
    let all = bytes.freeze();
    assert_eq!(decode(all.clone(), DecodeLimits::default()), Err(DecodeError::TagsTooLarge(128 << 10)));
    let roomy = DecodeLimits { tags_max: 1 << 20, ..DecodeLimits::default() };
    assert!(decode(all, roomy).is_ok(), "unknown tags are passed over");
}

#[test]
fn varints_end() {
    for bad in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
        let mut reader = Reader::new(Bytes::copy_from_slice(bad), DecodeLimits::default());
        assert_eq!(reader.uvarint(), Err(DecodeError::Varint));
    }
    let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]), DecodeLimits::default());
    assert_eq!(reader.uvarint(), Ok(u32::MAX));
}
