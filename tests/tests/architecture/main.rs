//! The structural invariants of docs/invariants.md, checked against cargo's metadata and the tokens of the sources.

mod documents;
mod interface;
mod names;
mod production;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use source::{Source, assert_only, find, sources};

/// Returns the workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Reads cargo's metadata of the workspace's crates, by directory.
fn crates() -> Result<BTreeMap<String, Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()?;
    ensure!(
        done.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let metadata: Value = serde_json::from_slice(&done.stdout)?;
    let top = Path::new(metadata["workspace_root"].as_str().context("no root")?);
    let packages = metadata["packages"].as_array().context("no packages")?;
    let by_folder = packages.iter().map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().context("no manifest")?);
        let folder = manifest.parent().context("no folder")?.strip_prefix(top)?;
        Ok((folder.display().to_string(), package.clone()))
    });
    by_folder.collect()
}

/// Returns the names of a crate's dependencies.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let all = package["dependencies"].as_array().into_iter().flatten();
    all.filter_map(|dependency| dependency["name"].as_str()).collect()
}

/// Returns the texts in backticks.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn crate_dependencies_match_the_table() -> Result<()> {
    let text = read("docs/crates.md")?;
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let rows_by_folder: BTreeMap<&str, &str> = rows
        .filter_map(|row| Some((row.split_once('`')?.0, row.rsplit_once(" | ")?.1)))
        .collect();
    let crates = crates()?;
    let folder_of: BTreeMap<&str, &str> = crates
        .iter()
        .filter_map(|(folder, package)| Some((package["name"].as_str()?, &**folder)))
        .collect();
    for (folder, package) in &crates {
        let row = rows_by_folder
            .get(&**folder)
            .with_context(|| format!("{folder} has no row in docs/crates.md"))?;
        if *row == "anything" {
            continue;
        }
        let allowed: BTreeSet<&str> = quoted(row).collect();
        for dependency in dependencies(package).into_iter().filter_map(|name| folder_of.get(name)) {
            ensure!(
                allowed.contains(dependency),
                "{folder} depends on {dependency}, and may on {row}"
            );
        }
    }
    Ok(())
}

#[test]
fn only_the_runtime_names_wasmtime() -> Result<()> {
    for (folder, package) in crates()? {
        let found = dependencies(&package)
            .into_iter()
            .find(|name| name.starts_with("wasmtime"));
        ensure!(
            folder == "host/runtime" || found.is_none(),
            "{folder} depends on {found:?}"
        );
    }
    for source in sources(&["host", "plugins", "tests", "xtask", "examples"])? {
        let found = source.words.iter().find(|word| word.starts_with("wasmtime"));
        ensure!(
            source.is_in("host/runtime") || found.is_none(),
            "{} contains {found:?}",
            source.path
        );
    }
    Ok(())
}

#[test]
fn shim_has_no_slow_dependencies() -> Result<()> {
    const SLOW: [&str; 7] = ["tokio", "hyper", "axum", "mio", "wasmtime", "clap", "tracing"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--package", "xenplug-script", "--edges", "normal"])
        .args(["--prefix", "none", "--offline", "--locked"])
        .current_dir(root())
        .output()?;
    ensure!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout)?;
    ensure!(tree.contains("xenplug-xenstore "), "cargo tree: {tree}");
    let found = tree.lines().find(|line| SLOW.iter().any(|slow| line.starts_with(slow)));
    ensure!(found.is_none(), "it depends on {found:?}");
    Ok(())
}

#[test]
fn only_the_system_crate_calls_the_kernel() -> Result<()> {
    const KERNEL: [&str; 6] = ["libc", "rustix", "nix", "netlink-sys", "rtnetlink", "linux-raw-sys"];
    for (folder, package) in crates()? {
        let found = dependencies(&package).into_iter().find(|name| KERNEL.contains(name));
        let may = folder == "host/system" || !folder.starts_with("host/");
        ensure!(may || found.is_none(), "{folder} depends on {found:?}");
    }
    for source in sources(&["host", "plugins"])? {
        let found = source
            .words
            .iter()
            .find(|word| KERNEL.contains(&&*word.replace('_', "-")));
        ensure!(
            source.is_in("host/system") || found.is_none(),
            "{} contains {found:?}",
            source.path
        );
    }
    Ok(())
}

#[test]
fn unsafe_code_is_in_the_system_crate_and_one_other_line() -> Result<()> {
    ensure!(
        read("Cargo.toml")?.contains("unsafe_code = \"deny\""),
        "the workspace allows unsafe"
    );
    for folder in crates()?.keys() {
        let manifest = read(&format!("{folder}/Cargo.toml"))?;
        ensure!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder} does not have the workspace's lints"
        );
    }
    let host: Vec<Source> = sources(&["host"])?
        .into_iter()
        .filter(|source| !source.is_in("host/system"))
        .collect();
    assert_only(&host, &["host/runtime/src/cache.rs"], "unsafe", |source| {
        source.has(&["unsafe"])
    });
    let lines: usize = host.iter().map(|source| source.count(&["unsafe"])).sum();
    assert_eq!(lines, 1, "lines with unsafe outside of host/system");

    let others: Vec<Source> = sources(&["plugins", "tests", "xtask", "examples"])?
        .into_iter()
        .filter(|source| !source.is_in("tests/xenstored-preload"))
        .collect();
    // wit-bindgen's output, ptrace, unshare, a terminal, and the ioctls of xenplug-floor, which shares no code with the daemon.
    let expected = [
        "plugins/sdk/src/bindings.rs",
        "plugins/sdk/src/export.rs",
        "tests/src/floor/loop_device.rs",
        "tests/src/bin/enter.rs",
        "tests/src/harness/terminal.rs",
        "tests/src/syscall_injector/ptrace.rs",
    ];
    assert_only(&others, &expected, "unsafe_code", |source| source.has(&["unsafe_code"]));
    Ok(())
}

#[test]
fn only_the_store_crate_knows_the_wire_format_and_path() -> Result<()> {
    for source in sources(&["host"])? {
        if source.is_test() || source.is_in("host/xenstore") {
            continue;
        }
        let is_store_path = |word: &&String| word.contains("/dev/xen/xenbus") || word.contains("xenstored/socket");
        let bytes =
            |word: &&String| word.ends_with("e_bytes") && (word.starts_with("to_") || word.starts_with("from_"));
        let found = source.words.iter().find(is_store_path);
        ensure!(found.is_none(), "{} contains {found:?}", source.path);
        // Byte order of numbers in messages of the store. Those of netlink are in host/system.
        let found = source.words.iter().find(bytes);
        ensure!(
            source.is_in("host/system") || found.is_none(),
            "{} contains {found:?}",
            source.path
        );
    }
    let sources = sources(&["host/xenstore"])?;
    let top = sources
        .iter()
        .find(|source| source.path.ends_with("src/lib.rs"))
        .context("no lib.rs")?;
    ensure!(top.has(&["mod", "wire"]), "where is the wire?");
    ensure!(
        !top.has(&["pub", "mod", "wire"]) && !top.has(&["pub", "use", "wire"]),
        "the wire is public"
    );
    Ok(())
}

#[test]
fn store_writes_are_in_daemon_shim_and_toolstack_only() -> Result<()> {
    let publish = "host/daemon/src/device/publish.rs";
    // They remove empty directories above a device, and the nodes that a QEMU wrote about itself.
    let prune = "host/daemon/src/device/prune.rs";
    let device_model = "host/daemon/src/device/device_model.rs";
    let shim = "host/script/src/directory.rs";
    // They create and remove the backends of requests. One decides, in the transaction in which the other writes.
    let [act, task] = [
        "host/daemon/src/device_requests/act.rs",
        "host/daemon/src/device_requests/task.rs",
    ];
    // They write requests for driver domains, in dom0.
    let [call, store] = ["host/toolstack/src/call.rs", "host/toolstack/src/store.rs"];
    let host: Vec<Source> = sources(&["host"])?
        .into_iter()
        .filter(|source| !source.is_test() && !source.is_in("host/xenstore"))
        .collect();
    assert_only(
        &host,
        &[publish, prune, device_model, act, task, shim, call, store],
        "a request that changes nodes",
        |source| {
            let request = |name| source.has(&["Request", ":", ":", name]);
            let method = |name| source.has(&[".", name, "("]);
            let write = |on| source.has(&[on, ".", "write", "("]);
            ["Write", "Mkdir", "Rm", "SetPermissions"].into_iter().any(request)
                || ["transaction", "rm", "mkdir"].into_iter().any(method)
                || ["client", "transaction", "store"].into_iter().any(write)
        },
    );
    // A request's snapshot reads both, a vif's backend is created with an empty status, and an observation has the
    // status. The dispatch watches it, it identifies disks of the original scripts, the runtime refuses it to plugins,
    // and the protocol to toolstacks.
    let readers = [
        publish,
        "host/daemon/src/device/observe.rs",
        "host/runtime/src/device.rs",
        shim,
        "host/hotplug/src/request.rs",
        "host/daemon/src/device_requests/read.rs",
        act,
        "host/daemon/src/dispatch.rs",
        "host/daemon/src/foreign_disks.rs",
        "host/xenbus/src/fsm/event.rs",
    ];
    assert_only(&host, &readers, "\"hotplug-status\"", |source| {
        source.words.iter().any(|word| word.contains("hotplug-status"))
    });
    assert_only(&host, &readers[..6], "\"hotplug-error\"", |source| {
        source.words.iter().any(|word| word.contains("hotplug-error"))
    });
    Ok(())
}

#[test]
fn grants_are_made_from_the_configuration_only() -> Result<()> {
    let all: Vec<Source> = sources(&["host", "plugins", "xtask", "tests/src"])?
        .into_iter()
        .filter(|source| !source.is_test())
        .collect();
    let makers = ["host/daemon/src/config.rs", "host/system/src/grant.rs"];
    assert_only(&all, &makers, "Operator::of_configuration", |source| {
        source.has(&["of_configuration"])
    });
    let grant = all
        .iter()
        .find(|source| source.path == makers[1])
        .context("no grant.rs")?;
    ensure!(
        grant.has(&["pub", "struct", "Operator", "(", "(", ")", ")"]),
        "anybody can make an Operator"
    );
    Ok(())
}

#[test]
fn system_crate_interface_takes_plain_data() -> Result<()> {
    for source in sources(&["host/system/src"])? {
        let contract = Path::new(&source.path).parent() == Some(Path::new("host/system/src"));
        if !contract || source.is_test() {
            continue;
        }
        let found = source
            .words
            .iter()
            .find(|word| word.ends_with("Fd") || matches!(&***word, "Fn" | "FnMut" | "FnOnce"));
        ensure!(found.is_none(), "{} contains {found:?}", source.path);
    }
    for source in sources(&["host/runtime/src/capability", "host/runtime/src/resource"])? {
        for word in ["std :: fs", "std :: process", "std :: net", "tokio"] {
            let row: Vec<&str> = word
                .split(' ')
                .flat_map(|word| if word == "::" { vec![":", ":"] } else { vec![word] })
                .collect();
            ensure!(!source.has(&row), "{} bypasses xenplug-system: {word}", source.path);
        }
    }
    Ok(())
}

#[test]
fn crates_declare_their_licence_and_the_same_msrv() -> Result<()> {
    for (folder, package) in crates()? {
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{folder}");
        assert_eq!(package["rust_version"], "1.95", "{folder}");
        assert_eq!(package["edition"], "2024", "{folder}");
    }
    Ok(())
}

#[test]
fn licence_files_are_in_packaged_folders() -> Result<()> {
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        for folder in ["wit", "plugins", "examples"] {
            assert_eq!(read(&format!("{folder}/{name}"))?, read(name)?, "{folder}/{name}");
        }
    }
    Ok(())
}

#[test]
fn files_open_with_module_documentation() -> Result<()> {
    let mut files = Vec::new();
    for folder in ["host", "plugins", "tests", "xtask", "examples"] {
        find(&root().join(folder), &mut files)?;
    }
    // Unit tests belong to the module beside them.
    files.retain(|file| !file.ends_with("tests.rs"));
    for file in files {
        ensure!(
            fs::read_to_string(&file)?.starts_with("//! "),
            "{} begins without //!",
            file.display()
        );
    }
    Ok(())
}
