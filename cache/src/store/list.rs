//! Listing, page by page, in the order of keys. For sweeps and for rebuilding; never on a path where a client waits.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use object_store::path::Path;

use super::error::{Error, Kind};
use super::{Class, Location, Store, Task};

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Below the store's prefix.
    pub key: String,
    pub bytes: u64,
    /// By the store's clock.
    pub modified: SystemTime,
}

impl Listed {
    /// Time since the object was written; zero for one from the future.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.modified).unwrap_or_default()
    }
}

/// Names that one request for a page may ask for. A bucket gives 1,000 at a time, and ten such answers are well within
/// the time of one try; a folder is walked as a whole for each page, however small.
fn page_names(location: &Location) -> usize {
    match location {
        Location::File { .. } => 1 << 20,
        _ => 10_000,
    }
}

impl Store {
    /// All objects below `folder`, ordered by key. The caller bounds what may stand there.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn list_all(&self, folder: &str, class: Class) -> Result<Vec<Listed>, Error> {
        let mut all = Vec::new();
        self.list_each(folder, class, |listed| all.push(listed)).await?;
        Ok(all)
    }

    /// Shows `each` object below `folder`, ordered by key, page by page: each page has the time of a request.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn list_each(&self, folder: &str, class: Class, mut each: impl FnMut(Listed)) -> Result<(), Error> {
        let (limit, mut after) = (page_names(self.location()), None::<String>);
        loop {
            let page = self.list(folder, after.as_deref(), limit, class).await?;
            let more = page.len() == limit;
            after = page.last().map(|listed| listed.key.clone());
            page.into_iter().for_each(&mut each);
            if !more {
                return Ok(());
            }
        }
    }

    /// The `limit` first objects below `folder` (whole path parts; empty for all) whose keys come after `after`,
    /// ordered by key. Fewer than `limit` means that there are no more. A listing may miss what is being written.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
        limit: usize,
        class: Class,
    ) -> Result<Vec<Listed>, Error> {
        let below = if folder.is_empty() { self.root()? } else { Some(self.path(folder.trim_end_matches('/'))?) };
        let after = after.map(|key| self.path(key)).transpose()?;
        let shown = if folder.is_empty() { self.location().describe() } else { folder.to_owned() };
        let task = Task { operation: "list", subject: &shown, class, bytes: 0 };
        self.run(task, || self.page(task, below.clone(), after.clone(), limit)).await
    }

    async fn page(
        &self,
        task: Task<'_>,
        below: Option<Path>,
        after: Option<Path>,
        limit: usize,
    ) -> Result<Vec<Listed>, Error> {
        let objects = &self.inner.objects;
        let mut listing = match &after {
            Some(after) => objects.list_with_offset(below.as_ref(), after),
            None => objects.list(below.as_ref()),
        };
        // Folders list in no order: keep the smallest keys of all. Stores list in order: the first ones will do.
        let ordered = !matches!(self.location(), Location::File { .. });
        let mut page = BTreeMap::new();
        while let Some(found) = listing.next().await {
            let meta = found.map_err(|e| Error::from_store(task.operation, task.subject, e))?;
            let Some(key) = self.key(&meta.location) else { continue };
            if after.as_ref().is_some_and(|after| meta.location <= *after) {
                continue;
            }
            let modified = SystemTime::from(meta.last_modified);
            page.insert(key.clone(), Listed { key, bytes: meta.size, modified });
            if page.len() > limit {
                page.pop_last();
            }
            if ordered && page.len() == limit {
                break;
            }
        }
        Ok(page.into_values().collect())
    }

    fn root(&self) -> Result<Option<Path>, Error> {
        let prefix = self.location().prefix();
        if prefix.is_empty() {
            return Ok(None);
        }
        Path::parse(prefix).map(Some).map_err(|e| Error::new(Kind::Invalid, "list", prefix, e.to_string()))
    }

    /// The key below the prefix; none for a foreign path.
    fn key(&self, path: &Path) -> Option<String> {
        let prefix = self.location().prefix();
        if prefix.is_empty() {
            return Some(path.as_ref().to_owned());
        }
        path.as_ref().strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_bucket_is_a_few_answers_long() {
        let of = |url: &str| page_names(&Location::parse(url).expect("a good URL"));
        // Each answer has 1,000 names; a try has `store.attempt-timeout`, 10 s.
        assert!(of("s3://b/p") <= 10_000 && of("gs://b/p") <= 10_000 && of("file:///tmp/x") >= 1 << 20);
    }
}
