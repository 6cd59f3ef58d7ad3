//! Answers in the form that S3 gives them.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::bucket::Object;

pub(crate) type Answer = Response<Body>;

pub(crate) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn empty(code: u16) -> Answer {
    with(code, &[], Body::empty())
}

pub(crate) fn error(code: u16, name: &str) -> Answer {
    xml(code, &format!("<Error><Code>{name}</Code><Message>{name} on request</Message></Error>"))
}

pub(crate) fn xml(code: u16, body: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}");
    with(code, &[("content-type", "application/xml".to_owned())], Body::from(text))
}

pub(crate) fn with(code: u16, headers: &[(&str, String)], body: Body) -> Answer {
    let builder =
        headers.iter().fold(Response::builder().status(status(code)), |b, (name, value)| b.header(*name, value));
    builder.body(body).unwrap_or_else(|_| Response::new(Body::empty()))
}

/// An object or a part of it: `range` is inclusive, as in the protocol.
pub(crate) fn object(object: &Object, range: Option<(usize, usize)>, body: bool) -> Answer {
    let size = object.bytes.len();
    let mut headers = vec![
        ("etag", object.etag.clone()),
        ("last-modified", OffsetDateTime::from(object.modified).format(&Rfc2822).unwrap_or_default()),
        ("accept-ranges", "bytes".to_owned()),
    ];
    let (code, bytes) = match range {
        None => (200, object.bytes.clone()),
        Some((first, last)) => {
            headers.push(("content-range", format!("bytes {first}-{last}/{size}")));
            (206, object.bytes.slice(first..=last))
        }
    };
    headers.push(("content-length", bytes.len().to_string()));
    with(code, &headers, if body { Body::from(bytes) } else { Body::empty() })
}

pub(crate) fn rfc3339(object: &Object) -> String {
    OffsetDateTime::from(object.modified).format(&Rfc3339).unwrap_or_default()
}

/// A body that stops in the middle: the connection breaks with it.
pub(crate) fn cut(bytes: &Bytes, after: usize) -> Body {
    let first = Ok(bytes.slice(..after.min(bytes.len())));
    let broken = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    Body::from_stream(stream::iter([first, broken]))
}
