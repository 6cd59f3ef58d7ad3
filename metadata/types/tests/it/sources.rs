//! What may not stand in the source.

use crate::workspace::{files, read, relative, root};

/// Files that may hold `unsafe`, each with its reason beside the code.
const UNSAFE_ALLOWED: [&str; 3] = ["bookie/src/", "bench/src/", "deploy/esker/src/"];

fn production(path: &str) -> bool {
    !path.contains("/tests/") && !path.contains("/benches/") && !path.ends_with("tests.rs")
}

/// The part of a file before its unit tests.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn pure_code_asks_for_no_time_randomness_or_hash_order() {
    let forbidden = [
        "std::time::Instant",
        "Instant::now",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::thread",
        "std::net",
        "std::fs",
        "async fn",
        ".await",
    ];
    for path in files(&root(), ".rs") {
        let name = relative(&path);
        let pure = [
            "metadata/types/src",
            "metadata/core/src",
            "bookie/core/src",
            "gateway/core/src",
            "gateway/wire/src",
            "gateway/kafka/src",
            "cache/core/src",
        ]
        .iter()
        .any(|folder| name.starts_with(folder));
        if !pure || !production(&name) {
            continue;
        }
        let text = read(&path);
        for (number, line) in before_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let bad = forbidden.iter().find(|word| code.contains(*word));
            assert!(bad.is_none(), "{name}:{}: {bad:?} in a pure crate", number + 1);
        }
    }
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let this = "metadata/types/tests/it/sources.rs";
    for path in files(&root(), ".rs").into_iter().filter(|p| relative(p) != this) {
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            let bad =
                ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX"].iter().find(|word| line.contains(*word));
            assert!(bad.is_none(), "{}:{}: {bad:?}", relative(&path), number + 1);
        }
    }
}

#[test]
fn tests_do_not_sleep() {
    for path in files(&root(), ".rs") {
        let name = relative(&path);
        // The load generator and its cluster harness wait for real processes.
        if name == "metadata/types/tests/it/sources.rs" || name.starts_with("bench/src") {
            continue;
        }
        let text = read(&path);
        let tests =
            if production(&name) { text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests) } else { &text };
        assert!(!tests.contains("thread::sleep"), "{name}: wait for a condition, not for time");
    }
}

#[test]
fn unsafe_stands_only_where_it_is_allowed() {
    for path in files(&root(), ".rs") {
        let name = relative(&path);
        if name.starts_with("metadata/types/tests") {
            continue;
        }
        let has = read(&path).lines().any(|line| line.split("//").next().unwrap_or_default().contains("unsafe "));
        assert!(!has || UNSAFE_ALLOWED.iter().any(|p| name.starts_with(p)), "{name} holds unsafe code");
    }
}
