//! What an upload leaves behind when its process is killed. In a bucket the lifecycle rule removes it; in a folder we
//! do.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::{Error, Kind};
use super::{Location, Store};

impl Store {
    /// Deletes the files of uploads that nobody finished, if they were last written `age` ago or earlier, and says how
    /// many. With `dry_run` it only counts. 0 for stores that are not folders: `esker bucket setup` has those clean up
    /// by themselves.
    ///
    /// # Errors
    /// `Disk` or `Denied`.
    pub async fn sweep_abandoned(&self, age: Duration, dry_run: bool) -> Result<usize, Error> {
        let Location::File { dir } = self.location() else { return Ok(0) };
        let (dir, shown) = (dir.clone(), self.location().describe());
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, age, dry_run)).await;
        match swept {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => {
                let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                let kind = if denied { Kind::Denied } else { Kind::Disk };
                Err(Error::new(kind, "sweep", shown, error.to_string()))
            }
            Err(_) => Err(Error::new(Kind::Shutdown, "sweep", shown, "")),
        }
    }
}

fn sweep(dir: &Path, age: Duration, dry_run: bool) -> std::io::Result<usize> {
    let (now, mut count) = (SystemTime::now(), 0);
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for found in std::fs::read_dir(dir)? {
            let found = found?;
            if found.file_type()?.is_dir() {
                open.push(found.path());
                continue;
            }
            if !is_staged(&found.file_name().to_string_lossy()) {
                continue;
            }
            // It may have been finished meanwhile.
            let Ok(modified) = found.metadata().and_then(|meta| meta.modified()) else { continue };
            if now.duration_since(modified).unwrap_or_default() >= age {
                if !dry_run {
                    std::fs::remove_file(found.path())?;
                }
                count += 1;
            }
        }
    }
    Ok(count)
}

/// An object is written as `NAME#NUMBER` and renamed when it is whole. No key holds a `#`.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
