use esker_cache_core::FormatError;
use esker_cache_core::object::{DIRECTORY_MAX, Directory, Identity, TRAILER_LEN, Trailer};

use crate::store::{Class, Error, Kind, Store};

/// Trailer and the largest directory: one request finds what any object holds.
const END: u64 = (TRAILER_LEN + DIRECTORY_MAX) as u64;

impl Store {
    /// What the object that should be `identity` holds, and its size. Of its content nothing is proved.
    ///
    /// # Errors
    /// Those of the store; `Damaged` if it is no whole object, of another cluster, or of another name.
    pub async fn directory(&self, identity: &Identity, class: Class) -> Result<(Directory, u64), Error> {
        let key = identity.key.to_string();
        let (end, size) = self.read_end(&key, END, class).await?;
        let damaged = |why: &str| Error::new(Kind::Damaged, "read the directory of", &key, why);
        let bad = |error: FormatError| damaged(&error.to_string());
        let trailer = Trailer::parse(&end, size).map_err(bad)?;
        if trailer.identity != *identity {
            return Err(damaged("it is of another cluster or name"));
        }
        let from = trailer.directory_position.checked_sub(size - end.len() as u64);
        let from = from.and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| end.get(from..end.len() - TRAILER_LEN));
        let bytes = bytes.ok_or_else(|| damaged("its directory is longer than any"))?;
        Ok((Directory::decode(&trailer, bytes).map_err(bad)?, size))
    }
}
