//! Components refused before the daemon serves anything, each with one clear line.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{Config, TestHost, plugins_directory};

use crate::guests::{DEADLINE, Fate, GUESTS, beside};

/// Checks that the daemon ends with code 1 and one line with all of these texts, and has served nothing.
pub(crate) fn assert_refused(host: &TestHost, config: &Config, words: &[&str]) -> Result<()> {
    let output = host.refused_daemon(config)?;
    let log = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    let others = log
        .lines()
        .filter(|line| !line.contains("ERROR") && !line.contains("INFO"));
    ensure!(errors.len() == 1 && others.count() == 0, "not one line: {log}");
    for word in words {
        ensure!(errors[0].contains(word), "{word:?} is not in: {log}");
    }
    ensure!(!log.contains("serving"), "{log}");
    let control = config.run_directory().join("control.sock");
    ensure!(!control.exists(), "{} was made", control.display());
    Ok(())
}

#[test]
fn plugin_that_does_not_fit_or_start_is_refused() -> Result<()> {
    let host = TestHost::new()?;
    for guest in GUESTS {
        if let Fate::Refused(words) = guest.fate {
            let config = beside(host.config()?, &host.images(), [*guest]);
            let position = format!("{}:", config.file().display());
            let component = format!("guests/{}.wasm", guest.name);
            let words: Vec<&str> = words.iter().copied().chain([position.as_str(), &component]).collect();
            assert_refused(&host, &config, &words).with_context(|| guest.name)?;
        }
    }
    Ok(())
}

#[test]
fn file_that_is_no_component_is_refused() -> Result<()> {
    let host = TestHost::new()?;
    let good = fs::read(plugins_directory()?.join("phy.wasm"))?;
    // A first start fills the cache with compiled code.
    let empty = host.directory().join("empty.wasm");
    File::create(&empty)?;
    assert_refused(
        &host,
        &wrong(&host, &empty)?,
        &["empty.wasm", "not a WebAssembly component"],
    )?;
    let compiled = fs::read_dir(host.directory().join("cache"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .context("phy was compiled before the wrong plugin was refused")?;

    let mut flipped = good.clone();
    flipped[4] ^= 0x40;
    for (name, bytes, words) in [
        (
            "text.wasm",
            b"(component)".to_vec(),
            &["not a WebAssembly component"][..],
        ),
        ("core.wasm", b"\0asm\x01\0\0\0".to_vec(), &["core module"]),
        (
            "truncated.wasm",
            good[..good.len() / 2].to_vec(),
            &["cannot be compiled"],
        ),
        ("other-version.wasm", flipped, &["cannot be compiled"]),
        (
            "compiled.wasm",
            fs::read(compiled)?,
            &["compiled code, not a component"],
        ),
        (
            "script.wasm",
            b"#!/bin/sh\nreboot\n".to_vec(),
            &["not a WebAssembly component"],
        ),
    ] {
        let path = host.directory().join(name);
        fs::write(&path, bytes)?;
        let words: Vec<&str> = words.iter().copied().chain([name]).collect();
        assert_refused(&host, &wrong(&host, &path)?, &words).with_context(|| name)?;
    }

    let large = host.directory().join("large.wasm");
    File::create(&large)?.set_len((64 << 20) + 1)?;
    assert_refused(&host, &wrong(&host, &large)?, &["large.wasm", "larger than 64 MiB"])?;
    assert_refused(&host, &wrong(&host, host.directory())?, &["not a file"])?;
    assert_refused(
        &host,
        &wrong(&host, Path::new("/dev/zero"))?,
        &["/dev/zero", "not a file"],
    )
}

/// Returns a configuration with a plugin of this component after the good ones.
pub(crate) fn wrong(host: &TestHost, component: &Path) -> Result<Config> {
    Ok(host.config()?.with(&format!(
        "\n[plugin.wrong]\ncomponent = {component:?}\nkinds = [\"vbd\"]\nscripts = [\"wrong\"]\n\
         [plugin.wrong.limits]\ndeadline = \"{DEADLINE:?}\"\n"
    )))
}
