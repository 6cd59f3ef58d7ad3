//! Reads one object by itself: no cluster, no manifest, no cache. For people who want to know what a file holds.
//!
//! Everything is found from the object's own end and verified before it is shown. Memory is bounded whatever the bytes
//! say: one footer (3 MiB), one read (4 MiB) and one block (32 MiB) at a time.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use esker_cache_core::FormatError;
use esker_cache_core::object::{
    BLOCKS_MAX, Directory, Each, Footer, HEAD_LEN, Identity, TRAILER_LEN, Trailer, Verifier, parse_head,
};

use crate::config::StoreConfig;
use crate::store::{Class, Error, Kind, Location, Store, StoreMetrics};

/// Read from the store at once.
const READ: u64 = 4 << 20;

/// An object whose head, trailer and directory are verified.
pub struct Inspect {
    source: Source,
    name: String,
    size: u64,
    identity: Identity,
    directory: Directory,
}

enum Source {
    File(File),
    Store(Store, String),
}

impl Inspect {
    /// `what` is a path, or the URL of a store with the object's key behind it.
    ///
    /// # Errors
    /// One line: not there, not readable, not an object, of a newer version, or damaged.
    pub async fn open(what: &str, config: StoreConfig) -> Result<Self, Error> {
        let (source, name) = locate(what, config)?;
        Self::read(source, name).await
    }

    /// One object of a store that is open already.
    ///
    /// # Errors
    /// As [`Inspect::open`].
    pub async fn of(store: &Store, key: &str) -> Result<Self, Error> {
        Self::read(Source::Store(store.clone(), key.to_owned()), key.to_owned()).await
    }

    async fn read(source: Source, name: String) -> Result<Self, Error> {
        let size = source.size(&name).await?;
        let head = source.read(&name, 0, (HEAD_LEN as u64).min(size)).await?;
        known_kind(&name, &head)?;
        let bad = |error: FormatError| damaged(&name, error.to_string());
        let identity = parse_head(&head).map_err(bad)?;
        let end = source.read(&name, size.saturating_sub(TRAILER_LEN as u64), TRAILER_LEN as u64).await?;
        let trailer = Trailer::parse(&end, size).map_err(bad)?;
        if trailer.identity != identity {
            return Err(damaged(&name, "its two ends are of different objects".to_owned()));
        }
        let directory = source.read(&name, trailer.directory_position, trailer.directory_len.into()).await?;
        let directory = Directory::decode(&trailer, &directory).map_err(bad)?;
        // Nothing lies between the parts: what no checksum covers has no place to hide in.
        let mut at = directory.parts.last().map_or(HEAD_LEN as u64, |part| part.position + part.len);
        for part in &directory.parts {
            if part.footer_position != at {
                return Err(damaged(&name, "bytes between its parts".to_owned()));
            }
            at += u64::from(part.footer_len);
        }
        if at != trailer.directory_position {
            return Err(damaged(&name, "bytes between its parts".to_owned()));
        }
        Ok(Self { source, name, size, identity, directory })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Bytes of the whole object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The index of the segment that the directory lists at `at`.
    ///
    /// # Errors
    /// Those of the store; `Damaged`.
    ///
    /// # Panics
    /// If the directory lists no such segment.
    pub async fn footer(&self, at: usize) -> Result<Footer, Error> {
        let part = &self.directory.parts[at];
        if part.footer_len as usize > Footer::encoded_len(BLOCKS_MAX) {
            return Err(damaged(&self.name, format!("the footer of segment {} is longer than any", part.segment)));
        }
        let bytes = self.source.read(&self.name, part.footer_position, part.footer_len.into()).await?;
        if esker_types::checksum::crc32c(&bytes) != part.footer_crc {
            return Err(damaged(&self.name, format!("the footer of segment {} is another one", part.segment)));
        }
        Footer::decode(&self.identity, part.segment, part.footer_position, &bytes)
            .map_err(|error| damaged(&self.name, error.to_string()))
    }

    /// Reads all blocks of a segment, compares them with its index and digest, and shows `each` entry.
    ///
    /// # Errors
    /// Those of the store; `Damaged`, also with what `each` has to say.
    ///
    /// # Panics
    /// If the directory lists no segment at `at`.
    pub async fn entries(&self, at: usize, footer: Footer, each: Each<'_>) -> Result<(), Error> {
        let part = &self.directory.parts[at];
        let bad = |error: &dyn std::fmt::Display| damaged(&self.name, error.to_string());
        let mut verifier = Verifier::segment(self.identity, part, footer).map_err(|e| bad(&e))?;
        let (mut position, end) = (part.position, verifier.needs_up_to());
        while position < end {
            let length = READ.min(end - position);
            let bytes = self.source.read(&self.name, position, length).await?;
            verifier.push_each(bytes, each).map_err(|e| bad(&e))?;
            position += length;
        }
        verifier.finish().map_err(|e| bad(&e))
    }
}

fn locate(what: &str, config: StoreConfig) -> Result<(Source, String), Error> {
    let path = if what.contains("://") || what.starts_with("memory:") {
        match Location::parse(what)? {
            Location::File { dir } => dir,
            location => {
                let Some((store, key)) = location.split_key() else {
                    let detail = "the URL names a store: put the object's key behind it";
                    return Err(Error::new(Kind::Invalid, "read", what, detail));
                };
                return Ok((
                    Source::Store(Store::open_as(store, None, config, StoreMetrics::default())?, key.clone()),
                    key,
                ));
            }
        }
    } else {
        PathBuf::from(what)
    };
    let name = path.display().to_string();
    let file = File::open(&path).map_err(|error| disk(&name, &error))?;
    Ok((Source::File(file), name))
}

impl Source {
    async fn size(&self, name: &str) -> Result<u64, Error> {
        match self {
            Self::File(file) => match file.metadata().map_err(|error| disk(name, &error))? {
                meta if meta.is_file() => Ok(meta.len()),
                _ => Err(Error::new(Kind::Invalid, "read", name, "not a file: name one object of the store")),
            },
            Self::Store(store, key) => store.size(key, Class::Foreground).await,
        }
    }

    async fn read(&self, name: &str, from: u64, length: u64) -> Result<Bytes, Error> {
        match self {
            Self::File(file) => {
                let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or(usize::MAX));
                match file.read_exact_at(&mut bytes, from) {
                    Ok(()) => Ok(bytes.freeze()),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(damaged(name, "cut off".to_owned())),
                    Err(error) => Err(disk(name, &error)),
                }
            }
            Self::Store(store, key) => store.read(key, from..from.saturating_add(length), Class::Foreground).await,
        }
    }
}

/// Other files are refused by name, before anything in them is believed.
fn known_kind(name: &str, head: &[u8]) -> Result<(), Error> {
    let refuse = |what: &str| Err(Error::new(Kind::Invalid, "read", name, what));
    match head.get(..4) {
        Some(b"ESKH") => Ok(()),
        Some(b"ESKP") => refuse("this is a page of a manifest, not an object with records"),
        Some(b"ESKM") => refuse("this is a metadata snapshot, not an object with records"),
        _ => refuse("this is not an object of Esker: it begins with something else"),
    }
}

fn damaged(name: &str, why: String) -> Error {
    Error::new(Kind::Damaged, "read", name, why)
}

fn disk(name: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Disk,
    };
    Error::new(kind, "read", name, error.to_string())
}
