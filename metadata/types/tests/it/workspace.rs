//! Finds the workspace and reads its files.

use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("metadata/types is two levels below the root").to_owned()
}

/// Files below `dir` whose name ends in `suffix`, without build output and hidden folders, sorted.
pub fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("workspace folders are readable").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') || name == "target" || name == "esker-data" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Path below the root, with forward slashes.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/")
}

/// One crate's manifest.
pub struct Manifest {
    pub name: String,
    /// Folder below the root.
    pub folder: String,
    pub dependencies: Vec<String>,
}

pub fn manifests() -> Vec<Manifest> {
    let parse = |path: &PathBuf| {
        let text = read(path);
        let mut section = String::new();
        let (mut name, mut dependencies) = (String::new(), Vec::new());
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.trim().split('.').next().unwrap_or_default();
                match section.as_str() {
                    "[package]" if key == "name" => name = value.trim().trim_matches('"').to_owned(),
                    "[dependencies]" => dependencies.push(key.to_owned()),
                    _ => {}
                }
            }
        }
        let folder = relative(path.parent().expect("manifests stand in folders"));
        Manifest { name, folder, dependencies }
    };
    files(&root(), "Cargo.toml").iter().map(parse).filter(|m| !m.name.is_empty()).collect()
}
