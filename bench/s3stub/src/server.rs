//! The server: requests to the bucket, with faults on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::answer::{self, Answer};
use crate::bucket::Bucket;
use crate::fault::{Fault, Rule, pick};

/// A running server. It ends when this is dropped.
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    name: String,
    /// Region that requests must be signed for; empty: any.
    region: String,
    state: Mutex<Inner>,
    /// Faults met so far.
    met: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    bucket: Bucket,
    rules: Vec<Rule>,
    /// Requests by method.
    requests: BTreeMap<String, u64>,
}

/// Largest body that is taken.
const BODY_MAX: usize = 1 << 30;

impl Stub {
    /// Serves the bucket `name`, which exists, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port to be had.
    pub async fn start(name: &str) -> std::io::Result<Self> {
        Self::start_at("127.0.0.1:0", name, "").await
    }

    /// As [`Stub::start`], at an address, and refusing requests signed for another region than `region` (if any).
    ///
    /// # Errors
    /// The address can't be bound.
    pub async fn start_at(listen: &str, name: &str, region: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut inner = Inner::default();
        inner.bucket.exists = true;
        let (name, region, met) = (name.to_owned(), region.to_owned(), watch::Sender::new(0));
        let shared = Arc::new(Shared { name, region, state: Mutex::new(inner), met });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let task = tokio::spawn(async move {
            // Ends with the task; an error of accept is retried inside.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, shared, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL for Esker, with everything below `prefix`.
    pub fn url(&self, prefix: &str) -> String {
        let region = if self.shared.region.is_empty() { "us-east-1" } else { &self.shared.region };
        let name = &self.shared.name;
        format!("s3://{name}/{prefix}?endpoint=http://{}&region={region}&path_style=true", self.address)
    }

    /// Adds a rule behind those that are there. The first that matches a request decides.
    pub fn fail(&self, rule: Rule) {
        self.shared.state.lock().rules.push(rule);
    }

    /// Requests that met a fault so far.
    pub fn faults(&self) -> u64 {
        *self.shared.met.borrow()
    }

    /// Returns when so many requests have met a fault since the start. Where a fault says so, they are carried out then.
    pub async fn met(&self, faults: u64) {
        // The sender lives in the same object.
        let _ = self.shared.met.subscribe().wait_for(|met| *met >= faults).await;
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        self.shared.state.lock().rules.clear();
    }

    /// Requests so far, by method; all for an empty one.
    pub fn requests(&self, method: &str) -> u64 {
        let state = self.shared.state.lock();
        state.requests.iter().filter(|(m, _)| method.is_empty() || *m == method).map(|(_, n)| n).sum()
    }

    /// Full keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        self.shared.state.lock().bucket.objects.keys().cloned().collect()
    }

    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.shared.state.lock().bucket.objects.get(key).map(|o| o.bytes.clone())
    }

    /// Puts an object there behind everybody's back, or damages one.
    pub fn set(&self, key: &str, bytes: impl Into<Bytes>) {
        self.shared.state.lock().bucket.put(key, bytes.into());
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.shared.state.lock().bucket.uploads.len()
    }

    /// The lifecycle rules that were set, as XML.
    pub fn lifecycle(&self) -> Option<String> {
        let state = self.shared.state.lock();
        state.bucket.lifecycle.as_ref().map(|rules| String::from_utf8_lossy(rules).into_owned())
    }

    /// The store forgets all uploads under way, as after a lifecycle rule.
    pub fn forget_uploads(&self) {
        self.shared.state.lock().bucket.uploads.clear();
    }

    /// Makes an object look as if it were written earlier.
    pub fn make_older(&self, key: &str, by: Duration) {
        self.shared.state.lock().bucket.make_older(key, by);
    }

    /// The bucket disappears with all it holds, until somebody creates it.
    pub fn drop_bucket(&self) {
        self.shared.state.lock().bucket = Bucket::default();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let method = head.method.as_str().to_owned();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let Ok(body) = to_bytes(body, BODY_MAX).await else { return answer::error(400, "IncompleteBody") };
    let fault = {
        let mut state = shared.state.lock();
        *state.requests.entry(method.clone()).or_default() += 1;
        pick(&mut state.rules, &method, &target)
    };
    let call = Call { method: &method, head: &head, query: Query::new(head.uri.query().unwrap_or_default()) };
    let met_it = fault.is_some().then(|| Met(&shared.met));
    match fault {
        None => shared.serve(&call, body),
        Some(Fault::Status(code, name)) => answer::error(code, name),
        Some(Fault::OkWithError(name)) => answer::error(200, name),
        Some(Fault::OkButNothing) => answer::with(200, &[("etag", "\"0\"".to_owned())], Body::empty()),
        Some(Fault::Silence) => {
            drop(met_it);
            std::future::pending().await
        }
        Some(Fault::SilenceAfter) => {
            shared.serve(&call, body);
            drop(met_it);
            std::future::pending().await
        }
        Some(Fault::StatusAfter(code, name)) => {
            shared.serve(&call, body);
            answer::error(code, name)
        }
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            shared.serve(&call, body)
        }
        Some(fault @ (Fault::CutBody(_) | Fault::ShortBody(_) | Fault::FlipBit(_))) => {
            damage(shared.serve(&call, body), &fault).await
        }
    }
}

/// Counts a fault when what it does is done.
struct Met<'a>(&'a watch::Sender<u64>);

impl Drop for Met<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|met| *met += 1);
    }
}

async fn damage(answer: Answer, fault: &Fault) -> Answer {
    let (mut head, body) = answer.into_parts();
    let bytes = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let body = match fault {
        Fault::CutBody(after) => answer::cut(&bytes, *after),
        Fault::ShortBody(length) => {
            head.headers.remove(header::CONTENT_LENGTH);
            Body::from(bytes.slice(..(*length).min(bytes.len())))
        }
        Fault::FlipBit(at) if !bytes.is_empty() => {
            let mut flipped = bytes.to_vec();
            let at = at % flipped.len();
            flipped[at] ^= 0x10;
            Body::from(flipped)
        }
        _ => Body::from(bytes),
    };
    Answer::from_parts(head, body)
}

struct Call<'a> {
    method: &'a str,
    head: &'a axum::http::request::Parts,
    query: Query<'a>,
}

/// The query, undecoded but for what keys and prefixes may hold.
struct Query<'a>(Vec<(&'a str, String)>);

impl<'a> Query<'a> {
    fn new(text: &'a str) -> Self {
        let pair = |p: &'a str| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            (name, value.replace("%2F", "/").replace("%3D", "=").replace('+', " "))
        };
        Self(text.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }
}

impl Shared {
    fn serve(&self, call: &Call<'_>, body: Bytes) -> Answer {
        if let Some(refusal) = self.refuse(call) {
            return refusal;
        }
        let path = call.head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (query, key) = (&call.query, &key.replace("%3D", "="));
        let mut state = self.state.lock();
        let held = &mut state.bucket;
        let creates = call.method == "PUT" && key.is_empty();
        if bucket != self.name || !(held.exists || creates) {
            return answer::error(404, "NoSuchBucket");
        }
        match (call.method, key.is_empty()) {
            ("GET", true) if query.get("versioning").is_some() => answer::xml(200, "<VersioningConfiguration/>"),
            ("GET", true) if query.get("lifecycle").is_some() => match &held.lifecycle {
                Some(rules) => answer::with(200, &[], Body::from(rules.clone())),
                None => answer::error(404, "NoSuchLifecycleConfiguration"),
            },
            ("GET", true) if query.get("location").is_some() => answer::xml(200, "<LocationConstraint/>"),
            ("GET", true) => list(held, query),
            ("HEAD", true) => answer::empty(200),
            ("PUT", true) if query.get("lifecycle").is_some() => {
                held.lifecycle = Some(body);
                answer::empty(200)
            }
            ("PUT", true) if held.exists => answer::error(409, "BucketAlreadyOwnedByYou"),
            ("PUT", true) => {
                held.exists = true;
                answer::empty(200)
            }
            ("GET" | "HEAD", false) => read(held, key, call),
            ("PUT", false) => write(held, key, call, body),
            ("POST", false) => finish(held, key, query),
            ("DELETE", false) => match query.get("uploadId") {
                Some(id) if held.uploads.remove(id).is_none() => answer::error(404, "NoSuchUpload"),
                _ => {
                    if query.get("uploadId").is_none() {
                        held.objects.remove(key);
                    }
                    answer::empty(204)
                }
            },
            _ => answer::error(405, "MethodNotAllowed"),
        }
    }

    fn refuse(&self, call: &Call<'_>) -> Option<Answer> {
        let signed = call.head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        if self.region.is_empty() || signed.contains(&format!("/{}/s3/", self.region)) {
            return None;
        }
        let message = format!("the region is wrong; expecting '{}'", self.region);
        let code = "AuthorizationHeaderMalformed";
        Some(answer::xml(400, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")))
    }
}

fn read(held: &Bucket, key: &str, call: &Call<'_>) -> Answer {
    let Some(object) = held.objects.get(key) else {
        return if call.method == "HEAD" { answer::empty(404) } else { answer::error(404, "NoSuchKey") };
    };
    let size = object.bytes.len();
    let asked =
        call.head.headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="));
    let range = match asked.and_then(|text| text.split_once('-')) {
        None => None,
        Some(("", last)) => match last.parse::<usize>() {
            Ok(n) if n > 0 && size > 0 => Some((size.saturating_sub(n), size - 1)),
            _ => return answer::error(416, "InvalidRange"),
        },
        Some((first, last)) => match first.parse::<usize>() {
            Ok(first) if first < size => Some((first, last.parse().unwrap_or(size - 1).min(size - 1))),
            _ => return answer::error(416, "InvalidRange"),
        },
    };
    answer::object(object, range, call.method == "GET")
}

fn write(held: &mut Bucket, key: &str, call: &Call<'_>, body: Bytes) -> Answer {
    let etag = match (call.query.get("uploadId"), call.query.get("partNumber").and_then(|n| n.parse().ok())) {
        (Some(id), Some(number)) => match held.part(id, number, body) {
            Some(etag) => etag,
            None => return answer::error(404, "NoSuchUpload"),
        },
        _ => {
            if call.head.headers.contains_key(header::IF_NONE_MATCH) && held.objects.contains_key(key) {
                return answer::error(412, "PreconditionFailed");
            }
            held.put(key, body)
        }
    };
    answer::with(200, &[("etag", etag)], Body::empty())
}

fn finish(held: &mut Bucket, key: &str, query: &Query<'_>) -> Answer {
    if query.get("uploads").is_some() {
        let id = held.begin(key);
        let text = format!("<Bucket>b</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
        return answer::xml(200, &format!("<InitiateMultipartUploadResult>{text}</InitiateMultipartUploadResult>"));
    }
    match query.get("uploadId").and_then(|id| held.complete(id)) {
        None => answer::error(404, "NoSuchUpload"),
        Some(Err(code)) => answer::error(400, code),
        Some(Ok(etag)) => {
            let text = format!("<Key>{key}</Key><ETag>{}</ETag>", etag.replace('"', "&quot;"));
            answer::xml(200, &format!("<CompleteMultipartUploadResult>{text}</CompleteMultipartUploadResult>"))
        }
    }
}

fn list(held: &Bucket, query: &Query<'_>) -> Answer {
    let prefix = query.get("prefix").unwrap_or_default();
    let after = query.get("continuation-token").or(query.get("start-after")).unwrap_or_default();
    let most: usize = query.get("max-keys").and_then(|n| n.parse().ok()).unwrap_or(1000);
    let mut found = held.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let page: Vec<_> = found.by_ref().take(most).collect();
    let more = found.next().is_some();
    let mut text = format!("<IsTruncated>{more}</IsTruncated>");
    for (key, object) in &page {
        let (at, size) = (answer::rfc3339(object), object.bytes.len());
        text += &format!("<Contents><Key>{key}</Key><LastModified>{at}</LastModified><Size>{size}</Size></Contents>");
    }
    if let (true, Some((last, _))) = (more, page.last()) {
        text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    answer::xml(200, &format!("<ListBucketResult><Name>b</Name><Prefix>{prefix}</Prefix>{text}</ListBucketResult>"))
}
