//! The visible top level is fixed, and files stay small enough to read.

use crate::workspace::{files, read, relative, root};

const LINES_MAX: usize = 600;

#[test]
fn the_top_level_is_the_agreed_one() {
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "gateway",
        "bookie",
        "metadata",
        "cache",
        "bench",
        "deploy",
        // Not part of a checkout: build output and the default data folder.
        "target",
        "esker-data",
    ];
    for entry in std::fs::read_dir(root()).expect("readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || agreed.contains(&name.as_str()), "{name} does not belong at the top level");
    }
}

#[test]
fn source_files_fit_a_readers_head() {
    for path in files(&root(), ".rs") {
        let lines = read(&path).lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: two ideas in one file?", relative(&path));
    }
}

#[test]
fn no_large_or_binary_files() {
    let git = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    // Outside a checkout (a source archive) there is nothing to ask.
    let Ok(listing) = git else { return };
    for name in String::from_utf8_lossy(&listing.stdout).split('\0').filter(|n| !n.is_empty()) {
        if let Ok(meta) = std::fs::metadata(root().join(name)) {
            assert!(meta.len() <= 1 << 20, "{name} is larger than 1 MiB");
        }
    }
}
