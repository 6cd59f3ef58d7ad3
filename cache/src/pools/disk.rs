//! The SSD tier's folder. What is in it belongs to the cache and may be thrown away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Raise it when what is stored under a key changes.
const FORMAT: u32 = 1;
/// The library's format on disk changes without notice, also between minor versions.
const FOYER: &str = "0.22.6";
const PREFIX: &str = "esker-cache-";

/// The folder of this format, held by this process alone.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Keeps other processes out until the last clone is dropped.
    _lock: Arc<File>,
}

impl Folder {
    /// None without a folder in the configuration, or if it can't be used; that is said in the log.
    pub(super) fn open(dir: &Path) -> Option<Self> {
        if dir.as_os_str().is_empty() {
            return None;
        }
        match Self::try_open(dir) {
            Ok(folder) => Some(folder),
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "the cache can't use its SSD folder: it works in memory only");
                None
            }
        }
    }

    fn try_open(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        lock.try_lock().map_err(|_| std::io::Error::other("another process uses it"))?;
        let name = format!("{PREFIX}{FORMAT}-foyer-{FOYER}");
        for found in std::fs::read_dir(dir)?.flatten() {
            let other = found.file_name();
            if other.to_string_lossy().starts_with(PREFIX) && *other != *name {
                std::fs::remove_dir_all(found.path())?;
            }
        }
        Ok(Self { path: dir.join(name), _lock: Arc::new(lock) })
    }

    pub(super) fn pool(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_named_by_the_locked_version_of_the_library() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let text = std::fs::read_to_string(lock).expect("the workspace has a lock file");
        assert!(text.contains(&format!("name = \"foyer\"\nversion = \"{FOYER}\"\n")), "raise FOYER with the library");
    }

    #[test]
    fn other_formats_are_deleted_other_files_stay_and_a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let old = dir.path().join("esker-cache-0-foyer-0.1.0/tail");
        std::fs::create_dir_all(&old).expect("writable");
        std::fs::write(dir.path().join("mine.txt"), "x").expect("writable");
        let folder = Folder::open(dir.path()).expect("usable");
        assert!(!old.exists() && dir.path().join("mine.txt").exists());
        assert!(Folder::open(dir.path()).is_none(), "one process at a time");
        drop(folder);
        assert!(Folder::open(dir.path()).is_some());
    }
}
