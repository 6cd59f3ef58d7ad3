//! Dependencies point down, pure crates stay pure, and each heavy library is known to one crate.

use crate::workspace::{manifests, read, root};

/// A crate may depend on crates of lower rank only. Servers share a rank: they are blind to each other.
fn rank(name: &str) -> u32 {
    match name {
        "esker-types" => 0,
        "esker-wire" | "esker-kafka" | "esker-metadata-core" | "esker-bookie-core" => 1,
        "esker-gateway-core" | "esker-cache-core" => 2,
        "esker-net" => 3,
        "esker-metadata-client" => 4,
        "esker-bookie-client" | "esker-cache" | "esker-client" | "esker-s3admin" | "esker-s3stub" => 5,
        "esker-metadata" | "esker-bookie" | "esker-gateway" | "esker-sim" => 6,
        "esker-bench" | "esker-sim-mutants" | "esker" => 7,
        other => panic!("{other}: give the new crate a place in the order of dependencies"),
    }
}

#[test]
fn dependencies_point_down() {
    for manifest in manifests() {
        for dependency in manifest.dependencies.iter().filter(|d| d.starts_with("esker")) {
            assert!(rank(dependency) < rank(&manifest.name), "{} may not depend on {dependency}", manifest.name);
        }
    }
}

#[test]
fn the_load_generator_never_links_the_server() {
    let servers = ["esker", "esker-gateway", "esker-bookie", "esker-metadata"];
    let bench = manifests().into_iter().find(|m| m.name == "esker-bench").expect("esker-bench exists");
    assert!(bench.dependencies.iter().all(|d| !servers.contains(&d.as_str())));
}

#[test]
fn pure_crates_know_no_runtime() {
    let forbidden =
        ["tokio", "tokio-util", "futures-util", "rand", "quinn", "rustls", "redb", "parking_lot", "tracing"];
    for manifest in manifests() {
        let pure = ["/core", "/wire", "/kafka", "/types"].iter().any(|end| manifest.folder.ends_with(end));
        if pure || manifest.name == "esker-sim" {
            let bad = manifest.dependencies.iter().find(|d| forbidden.contains(&d.as_str()));
            assert!(bad.is_none(), "{} is pure and may not depend on {bad:?}", manifest.name);
        }
    }
}

#[test]
fn each_heavy_library_has_one_home() {
    let homes = [
        ("openraft", vec!["esker-metadata"]),
        ("redb", vec!["esker-metadata"]),
        ("foyer", vec!["esker-cache"]),
        ("object_store", vec!["esker-cache"]),
        ("aws-sdk-s3", vec!["esker-s3admin"]),
        ("kafka-protocol", vec!["esker-kafka"]),
        ("anyhow", vec!["esker", "esker-bench"]),
    ];
    for manifest in manifests() {
        for (library, allowed) in &homes {
            let uses = manifest.dependencies.iter().any(|d| d == library);
            assert!(!uses || allowed.contains(&manifest.name.as_str()), "{} may not use {library}", manifest.name);
        }
    }
}

#[test]
fn the_lock_file_holds_no_banned_or_broken_package() {
    let lock = read(&root().join("Cargo.lock"));
    let packages: Vec<(&str, &str)> = lock
        .split("[[package]]")
        .filter_map(|p| {
            Some((p.split_once("name = \"")?.1.split('"').next()?, p.split_once("version = \"")?.1.split('"').next()?))
        })
        .collect();
    for banned in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "openssl", "native-tls", "bincode", "sled"] {
        assert!(packages.iter().all(|(name, _)| *name != banned), "{banned} must stay out of the tree");
    }
    // 0.11.14 and older: a malformed Initial panics the endpoint, reassembly memory is not bounded.
    for (_, version) in packages.iter().filter(|(name, _)| *name == "quinn-proto") {
        let parts: Vec<u32> = version.split('.').map(|n| n.parse().expect("plain version")).collect();
        assert!(parts.as_slice() >= &[0, 11, 15], "quinn-proto {version} has known holes");
    }
}
