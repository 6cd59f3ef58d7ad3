//! What the server holds.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub bytes: Bytes,
    pub modified: SystemTime,
    pub etag: String,
}

impl Object {
    fn new(bytes: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self { etag: format!("\"{:016x}\"", hasher.finish()), modified: SystemTime::now(), bytes }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub exists: bool,
    pub objects: BTreeMap<String, Object>,
    /// By upload id: the key, and parts by number.
    pub uploads: BTreeMap<String, (String, BTreeMap<u32, Bytes>)>,
    pub lifecycle: Option<Bytes>,
    uploads_begun: u64,
}

impl Bucket {
    pub(crate) fn put(&mut self, key: &str, bytes: Bytes) -> String {
        let object = Object::new(bytes);
        let etag = object.etag.clone();
        self.objects.insert(key.to_owned(), object);
        etag
    }

    pub(crate) fn begin(&mut self, key: &str) -> String {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        self.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
        id
    }

    pub(crate) fn part(&mut self, id: &str, number: u32, bytes: Bytes) -> Option<String> {
        let etag = Object::new(bytes.clone()).etag;
        self.uploads.get_mut(id)?.1.insert(number, bytes);
        Some(etag)
    }

    /// Joins the parts; the etag, or none for an unknown upload. Parts below 5 MiB are refused like S3 does.
    pub(crate) fn complete(&mut self, id: &str) -> Option<Result<String, &'static str>> {
        let (key, parts) = self.uploads.get(id)?.clone();
        let last = parts.len().saturating_sub(1);
        let sizes: Vec<usize> = parts.values().map(Bytes::len).collect();
        if sizes[..last].iter().any(|&size| size < 5 << 20 || size != sizes[0]) {
            return Some(Err("EntityTooSmall"));
        }
        self.uploads.remove(id);
        let whole: Vec<u8> = parts.into_values().flat_map(|part| part.to_vec()).collect();
        Some(Ok(self.put(&key, whole.into())))
    }

    pub(crate) fn make_older(&mut self, key: &str, by: Duration) {
        if let Some(object) = self.objects.get_mut(key) {
            object.modified -= by;
        }
    }
}
