//! Programs of others that boots consist of: Debian packages, unpacked.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::build_directory;

/// Unpacked packages: Xen, its tools, a kernel, qemu, and a small userland.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
}

impl Parts {
    /// Finds the packages by `XENPLUG_XEN`, which `cargo xtask xen` and `cargo xtask test` set after unpacking.
    pub fn find() -> Result<Self> {
        let folder = env::var_os("XENPLUG_XEN").map(PathBuf::from).context(
            "XENPLUG_XEN is not set: use `cargo xtask xen` or `cargo xtask test`, which unpack Xen and qemu and set it",
        )?;
        Ok(Self { folder })
    }

    /// Returns the emulator's path, or an error that names what is missing.
    pub fn emulator(&self) -> Result<PathBuf> {
        self.program("qemu-system-x86_64")
    }

    /// Returns the folder in which the kernel and the roots of dom0 and of guests are assembled.
    pub fn workplace() -> Result<PathBuf> {
        Ok(build_directory()?.with_file_name("xen"))
    }

    /// Returns the last file in `folder` whose name begins with `prefix`.
    pub(super) fn only(&self, folder: &str, prefix: &str) -> Result<PathBuf> {
        let folder = self.folder.join(folder);
        let mut found: Vec<_> = fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .collect();
        found.sort();
        found
            .pop()
            .with_context(|| format!("no {prefix}* in {}", folder.display()))
    }

    /// Returns the path of a program: from the packages, or else the host's own.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let xen = self.only("usr/lib", "xen-4")?.join("bin");
        // Xen's folder comes first, because programs in `usr` may be wrappers that look for the running Xen's version.
        let of = |root: &Path| ["usr/bin", "usr/sbin", "bin", "sbin"].map(|folder| root.join(folder));
        let mut folders = std::iter::once(xen).chain(of(&self.folder)).chain(of(Path::new("/")));
        folders
            .find_map(|folder| Some(folder.join(name)).filter(|path| path.exists()))
            .with_context(|| format!("no program {name}"))
    }

    /// Returns the path of another file of the packages, such as `etc/xen/scripts`.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Returns a command of the packages, with their libraries.
    pub(super) fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.program(name)?);
        self.equip(&mut command);
        Ok(command)
    }

    /// Sets the library path of a command to the packages' libraries.
    pub(super) fn equip(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", self.library_path());
    }

    /// Returns the libraries that a program is linked to, and the loader.
    pub(super) fn libraries(&self, program: &Path) -> Result<BTreeSet<PathBuf>> {
        let loader = "/lib64/ld-linux-x86-64.so.2";
        let output = Command::new(loader)
            .args(["--library-path", &self.library_path(), "--list"])
            .arg(program)
            .output()
            .with_context(|| loader.to_owned())?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !errors.contains("shared object file"),
            "{}: {errors}",
            program.display()
        );
        // Static programs and scripts have no libraries.
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut libraries = BTreeSet::new();
        for line in listed.lines() {
            ensure!(!line.contains("not found"), "{} lacks {line}", program.display());
            let path = line.split_whitespace().find(|word| word.starts_with('/'));
            libraries.extend(path.map(PathBuf::from));
        }
        Ok(libraries)
    }

    fn library_path(&self) -> String {
        ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|folder| self.folder.join(folder).display().to_string())
            .join(":")
    }

    /// Returns kernel modules and their dependencies, by their path below `lib/modules`.
    pub(super) fn modules(&self, names: &[&str]) -> Result<BTreeMap<PathBuf, PathBuf>> {
        let all = self.folder.join("lib/modules");
        let mut by_name = BTreeMap::new();
        find_modules(&all, &mut by_name)?;
        let mut wanted: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
        let mut found = BTreeMap::new();
        while let Some(name) = wanted.pop() {
            let Some(path) = by_name.get(&name) else {
                bail!("the kernel has no module {name}");
            };
            let below = path.strip_prefix(&all)?.to_owned();
            if found.contains_key(&below) {
                continue;
            }
            wanted.extend(needs(&fs::read(path)?));
            found.insert(below, path.clone());
        }
        Ok(found)
    }
}

fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_modules(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Returns the dependencies in a module's `.modinfo` section.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}
