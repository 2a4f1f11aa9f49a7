//! Who may depend on whom, held by reading `cargo metadata`: the planes meet at their contracts only, the rack's crates
//! take little from outside, and there is one provider of TLS and cryptography.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// For each crate, the workspace's crates that it may depend on. Tests, benchmarks and fuzz targets may take anything.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("bootstorm-proto", &[]),
    ("bootstorm-snapshot", &[]),
    ("bootstorm-driver", &[]),
    ("bootstorm-sandbox", &[]),
    ("bootstorm-journal", &["bootstorm-snapshot"]),
    ("bootstorm-content", &["bootstorm-snapshot"]),
    ("bootstorm-engine", &["bootstorm-proto", "bootstorm-snapshot", "bootstorm-journal", "bootstorm-content"]),
    (
        "bootstorm-rackd",
        &[
            "bootstorm-engine",
            "bootstorm-content",
            "bootstorm-journal",
            "bootstorm-snapshot",
            "bootstorm-driver",
            "bootstorm-sandbox",
            "bootstorm-proto",
            "bootstorm-api",
        ],
    ),
    ("bootstorm-gateway", &["bootstorm-api", "bootstorm-snapshot", "bootstorm-proto", "bootstorm-engine"]),
    ("bootstorm-model", &["bootstorm-snapshot"]),
    ("bootstorm-store", &["bootstorm-model", "bootstorm-snapshot"]),
    ("bootstorm-power", &["bootstorm-model"]),
    ("bootstorm-api", &["bootstorm-snapshot"]),
    (
        "bootstorm-controld",
        &[
            "bootstorm-api",
            "bootstorm-model",
            "bootstorm-store",
            "bootstorm-power",
            "bootstorm-snapshot",
            "bootstorm-content",
        ],
    ),
    ("bootstorm-agent", &["bootstorm-api", "bootstorm-snapshot"]),
    (
        "bootstorm",
        &["bootstorm-rackd", "bootstorm-gateway", "bootstorm-controld", "bootstorm-api", "bootstorm-sandbox"],
    ),
    ("loadgen", &["bootstorm-proto", "bootstorm-driver", "bootstorm-api", "bootstorm-snapshot"]),
];

/// Crates that may depend on anything in the workspace.
const FREE: &[&str] = &["bootstorm-tests", "bootstorm-bench", "bootstorm-fuzz"];

/// Crates that run in the rack role or below it.
const RACK_SIDE: &[&str] = &[
    "bootstorm-proto",
    "bootstorm-snapshot",
    "bootstorm-journal",
    "bootstorm-content",
    "bootstorm-engine",
    "bootstorm-driver",
    "bootstorm-sandbox",
    "bootstorm-rackd",
];

/// What those may take from outside.
const RACK_SIDE_MAY_TAKE: &[&str] = &[
    "io-uring",
    "rustix",
    "socket2",
    "libc",
    "httparse",
    "dhcproto",
    "hickory-proto",
    "blake3",
    "zstd",
    "bytes",
    "arc-swap",
    "fastcdc",
    "serde",
    "serde_json",
    "uuid",
    "thiserror",
    "tracing",
    "prometheus-client",
    "getrandom",
    "landlock",
    "seccompiler",
];

/// Second providers of what there is one of.
const BANNED: &[&str] = &["aws-lc-sys", "aws-lc-rs", "openssl-sys", "openssl", "native-tls", "rusqlite"];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(vec![
            "--locked".to_owned(),
            "--filter-platform".to_owned(),
            "x86_64-unknown-linux-gnu".to_owned(),
        ])
        .exec()
        .expect("cargo metadata")
}

/// What a package takes when it is built, its tests' needs aside.
fn taken(package: &Package) -> BTreeSet<&str> {
    let built = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    built.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn crates_depend_on_each_other_as_the_design_says() {
    let metadata = metadata();
    let members = metadata.workspace_packages();
    let names: BTreeSet<_> = members.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in members.iter().filter(|package| !FREE.contains(&package.name.as_str())) {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| *name == package.name.as_str()) else {
            wrong.push(format!("{} is not in the table", package.name));
            continue;
        };
        for taken in taken(package).intersection(&names).filter(|taken| !allowed.contains(taken)) {
            wrong.push(format!("{} must not depend on {taken}", package.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rack_side_takes_only_what_is_listed_from_outside() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        if !RACK_SIDE.contains(&package.name.as_str()) {
            continue;
        }
        let outside = taken(package).into_iter().filter(|name| !name.starts_with("bootstorm-"));
        for name in outside.filter(|name| !RACK_SIDE_MAY_TAKE.contains(name)) {
            wrong.push(format!("{} must not depend on {name}", package.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// By the lock file, which knows every platform and every feature.
#[test]
fn there_is_one_provider_of_cryptography_and_one_sqlite() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("Cargo.lock");
    let packages: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let found: Vec<_> = packages.iter().filter(|name| BANNED.contains(name)).collect();
    assert!(found.is_empty(), "banned: {found:?}");
    let sqlite = packages.iter().filter(|name| **name == "libsqlite3-sys").count();
    assert!(sqlite <= 1, "{sqlite} versions of SQLite");
}

/// Unsafe code has two homes; everybody else's manifest takes the workspace's lints, which forbid it.
#[test]
fn only_the_driver_and_the_agent_relax_the_ban_on_unsafe_code() {
    for package in metadata().workspace_packages() {
        if ["bootstorm-driver", "bootstorm-agent"].contains(&package.name.as_str()) {
            continue;
        }
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package.name);
    }
}
