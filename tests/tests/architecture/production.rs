//! Shipped binaries: their dependencies and features, as cargo resolves them.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{crates, read, root};

/// Packages of the shipped binaries.
const SHIPPED: [&str; 3] = ["xenplugd", "xenplug", "xenplug-script"];

/// Returns the crates and features of a common build of these packages.
fn resolved<'a>(packages: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--edges", "features,normal", "--prefix", "none"])
        .args(["--offline", "--locked"])
        .current_dir(root());
    for package in packages {
        tree.args(["--package", package]);
    }
    let done = tree.output()?;
    ensure!(
        done.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?)
}

fn assert_absent(tree: &str, forbidden: &[&str]) -> Result<()> {
    ensure!(tree.contains("xenplug-xenstore "), "cargo tree prints {tree}");
    for words in forbidden {
        let found = tree.lines().find(|line| line.starts_with(words));
        ensure!(found.is_none(), "the build has {found:?}");
    }
    Ok(())
}

#[test]
fn shipped_binaries_have_no_test_code() -> Result<()> {
    let crates = crates()?;
    let name = |folder: &str| crates[folder]["name"].as_str().unwrap_or_default().to_owned();
    let (tests, others): (Vec<&String>, Vec<&String>) = crates
        .keys()
        .partition(|folder| folder.split('/').next() == Some("tests"));
    // `cargo xtask build` builds the shipped binaries with all packages but these.
    let build = read("xtask/src/workspace.rs")?;
    for folder in &tests {
        let package = format!("{:?}", name(folder));
        ensure!(
            build.contains(&package),
            "xtask builds {folder} together with the shipped binaries"
        );
    }
    let others: Vec<String> = others.into_iter().map(|folder| name(folder)).collect();
    let forbidden = [
        "tokio feature \"test-util\"",
        "xenplug-store-server ",
        "xenplug-xenstore feature \"server\"",
        "proptest ",
    ];
    assert_absent(&resolved(SHIPPED)?, &forbidden)?;
    assert_absent(&resolved(others.iter().map(String::as_str))?, &forbidden)
}

#[test]
fn shipped_binaries_do_not_link_xenstore_rs() -> Result<()> {
    let forbidden = ["xenstore-rs ", "xenplug-xenstore feature \"xenstore-rs-traits\""];
    assert_absent(&resolved(SHIPPED)?, &forbidden)?;
    let manifest = read("deny.toml")?;
    let exceptions = manifest.split("exceptions = [").nth(1).unwrap_or_default();
    let exceptions = exceptions.split("\n]").next().unwrap_or_default();
    assert_eq!(
        exceptions.matches("crate = ").count(),
        1,
        "licences besides those allowed: {exceptions}"
    );
    ensure!(
        exceptions.contains("\"xenstore-rs\""),
        "the exception is for {exceptions}"
    );
    Ok(())
}
