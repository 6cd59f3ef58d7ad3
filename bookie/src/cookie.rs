//! The cookie: which bookie of which cluster a data directory belongs to (R11).
//!
//! A directory that is wiped, mounted wrongly or taken from another node must never answer "I do not have it" in the
//! name of the one that acknowledged the entry. So each directory carries an instance id that is drawn once and is
//! known to metadata, and every request names the instance that it is meant for.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use esker_types::{BookieId, ClusterId, InstanceId, checksum};

use crate::disk::dir;

const NAME: &str = "cookie";
const FIRST_LINE: &str = "esker bookie cookie, version 1";
/// A cookie is a few hundred bytes; anything larger is not one.
const BYTES_MAX: usize = 4096;

/// Contents of the file `cookie` in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub cluster: ClusterId,
    /// 0 while the first registration has not been answered yet.
    pub bookie: BookieId,
    pub instance: InstanceId,
    /// This directory.
    pub directory: InstanceId,
    /// All directories of the instance, this one included; for now exactly one.
    pub directories: Vec<InstanceId>,
}

/// Why a cookie can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    #[error("can't read or write the cookie: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the cookie is damaged ({0}): restore it from a backup, or start with new-instance = true to give the data up"
    )]
    Damaged(&'static str),
}

impl Cookie {
    /// A cookie for an empty directory, from 32 random bytes.
    pub fn fresh(cluster: ClusterId, random: [u8; 32]) -> Self {
        let (mut instance, mut directory) = ([0; 16], [0; 16]);
        instance.copy_from_slice(&random[..16]);
        directory.copy_from_slice(&random[16..]);
        let directory = InstanceId::from_random(directory);
        Self {
            cluster,
            bookie: BookieId(0),
            instance: InstanceId::from_random(instance),
            directory,
            directories: vec![directory],
        }
    }

    /// None: the directory has no cookie.
    ///
    /// # Errors
    /// When it can't be read or does not verify. A damaged cookie is never taken for a missing one.
    pub fn read(directory: &Path) -> Result<Option<Self>, CookieError> {
        let Some(bytes) = dir::read_file(&directory.join(NAME), BYTES_MAX)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| CookieError::Damaged("not text"))?;
        Self::parse(&text).map(Some)
    }

    /// Durable when it returns; a crash leaves the old cookie or the new one.
    pub fn write(&self, directory: &Path) -> Result<(), CookieError> {
        Ok(dir::replace_file(directory, NAME, self.encode().as_bytes())?)
    }

    fn encode(&self) -> String {
        let directories: Vec<String> = self.directories.iter().map(InstanceId::to_string).collect();
        let mut text = format!(
            "{FIRST_LINE}\ncluster {}\nbookie {}\ninstance {}\ndirectory {}\ndirectories {}\n",
            self.cluster,
            self.bookie,
            self.instance,
            self.directory,
            directories.join(" ")
        );
        let crc = checksum::crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("writing to a string can't fail");
        text
    }

    fn parse(text: &str) -> Result<Self, CookieError> {
        use CookieError::Damaged;
        let body_len = text.find("crc32c ").ok_or(Damaged("no checksum"))?;
        let (body, crc) = text.split_at(body_len);
        if crc != format!("crc32c {:08x}\n", checksum::crc32c(body.as_bytes())) {
            return Err(Damaged("wrong checksum"));
        }
        let mut lines = body.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(Damaged("unknown version"));
        }
        let mut field = |name: &str| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ')
        };
        let missing = Damaged("a field is missing");
        let (Some(cluster), Some(bookie), Some(instance), Some(directory), Some(directories)) =
            (field("cluster"), field("bookie"), field("instance"), field("directory"), field("directories"))
        else {
            return Err(missing);
        };
        let bad = |_| Damaged("a field is not an id");
        Ok(Self {
            cluster: cluster.parse().map_err(bad)?,
            bookie: BookieId(bookie.parse().map_err(|_| Damaged("a field is not a number"))?),
            instance: instance.parse().map_err(bad)?,
            directory: directory.parse().map_err(bad)?,
            directories: directories.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(bad)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Cookie {
        Cookie { bookie: BookieId(3), ..Cookie::fresh(ClusterId([9; 16]), [5; 32]) }
    }

    #[test]
    fn golden_text() {
        let text = sample().encode();
        let uuid = "05050505-0505-4505-8505-050505050505";
        let expected = format!(
            "esker bookie cookie, version 1\ncluster 09090909-0909-0909-0909-090909090909\nbookie 3\ninstance {uuid}\n\
             directory {uuid}\ndirectories {uuid}\n"
        );
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn round_trip_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Cookie::read(dir.path()).unwrap().is_none());
        sample().write(dir.path()).unwrap();
        assert_eq!(Cookie::read(dir.path()).unwrap(), Some(sample()));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = sample().encode().into_bytes();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict = String::from_utf8(bytes).map(|text| Cookie::parse(&text));
            assert!(!matches!(verdict, Ok(Ok(_))), "bit {bit}");
        }
    }
}
