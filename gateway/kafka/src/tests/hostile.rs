//! Bytes that lie: nothing panics, nothing allocates beyond its bound.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use crate::api::{Api, Request};
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
