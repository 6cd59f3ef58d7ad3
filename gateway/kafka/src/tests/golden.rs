//! Bytes as clients of old sent them, so that both sides of the other tests can't drift together.

use bytes::Bytes;

use crate::api::{Request, Response};
use crate::header::RequestHeader;
use crate::messages::{api_versions, metadata};
use crate::reader::{DecodeLimits, Reader};

fn decode(bytes: &'static [u8]) -> (RequestHeader, Request) {
    let mut reader = Reader::new(Bytes::from_static(bytes), DecodeLimits::default());
    let header = RequestHeader::decode(&mut reader).expect("header");
    let request = Request::decode(&header, &mut reader).expect("body");
    (header, request)
}

#[test]
fn api_versions_3() {
    let bytes = b"\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka\x00\x0blibrdkafka\x062.3.0\x00";
    let (header, request) = decode(bytes);
    assert_eq!((header.correlation_id, header.client_id.as_deref()), (1, Some("rdkafka")));
    let Request::ApiVersions(body) = request else { panic!("another API") };
    assert_eq!((body.client_software_name.as_str(), body.client_software_version.as_str()), ("librdkafka", "2.3.0"));
}

#[test]
fn metadata_1_of_all_topics() {
    let (header, request) = decode(b"\x00\x03\x00\x01\x00\x00\x00\x02\xff\xff\xff\xff\xff\xff");
    assert_eq!((header.version, header.client_id), (1, None));
    assert_eq!(request, Request::Metadata(metadata::Request { topics: None, ..Default::default() }));
}

#[test]
fn metadata_12_of_all_topics_as_librdkafka_sends_it() {
    // The count has the room of a plain one: null, then what reads as the next fields, and three bytes too many.
    let (_, request) = decode(b"\x00\x03\x00\x0c\x00\x00\x00\x03\x00\x07rdkafka\x00\x00\x00\x00\x00\x00\x00\x00");
    let Request::Metadata(body) = request else { panic!("another API") };
    assert_eq!(body.topics, None);
}

#[test]
fn an_unsupported_version_is_answered_in_version_0() {
    let body = api_versions::Response {
        error_code: crate::code::UNSUPPORTED_VERSION,
        api_keys: vec![api_versions::Api { api_key: 18, min_version: 0, max_version: 3 }],
        throttle_time_ms: 0,
    };
    let parts = Response::ApiVersions(body).encode(0, 5);
    assert_eq!(parts.concat(), b"\x00\x00\x00\x10\x00\x00\x00\x05\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x03");
}
