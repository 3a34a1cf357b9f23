//! Folder of hotplug scripts: states of its scripts, and installing and removing shims.
//!
//! Every change is one `link`, `rename` or `unlink`, in an order that keeps a complete script under the name at every moment.
//! A killed run leaves a state that [`Folder::slot`] knows and the next run completes.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use xenplug_control::script::{SHIM, saved_original, script_of_saved};

use super::name::Name;

/// Mode of a shim, whatever the umask.
const MODE: u32 = 0o755;

/// Bytes read to recognise a shim: more than the kernel reads of a first line
/// (linux/include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const FIRST_LINE_MAX: u64 = 512;

/// Error of reading or changing a script.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is not a file", path = .0.display())]
    NotAFile(PathBuf),
}

/// State of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The shim is installed.
    Shim,
    /// The shim names another program or was edited.
    Outdated,
    /// The original is in script and none is saved.
    Original,
    /// Another script has replaced the shim, as a package's upgrade does, and an original is saved.
    Changed,
    /// There is no script.
    Missing,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Outdated => "outdated",
            Self::Original => "original",
            Self::Changed => "changed",
            Self::Missing => "missing",
        }
    }
}

/// State of a script's name in the folder.
#[derive(Debug)]
pub(super) struct ScriptSlot {
    pub(super) state: State,
    /// Path of the original, if there is one.
    pub(super) original: Option<PathBuf>,
    /// Target of the original, if it is a symbolic link.
    pub(super) link_target: Option<PathBuf>,
}

/// Change of a script by a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The shim was installed, an original perhaps saved, and an earlier one perhaps set aside.
    Installed { saved: bool, aside: bool },
    /// The shim has replaced an outdated one.
    Renewed,
    /// The shim was installed already.
    AlreadyInstalled,
    /// The original was restored.
    Restored,
    /// The shim was removed; there was no original.
    Removed,
    /// Another script had replaced the shim and stays; the saved original was set aside.
    SetAside,
    /// There was no shim.
    NotInstalled,
}

/// Folder of scripts, with the program of its shims.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    program: PathBuf,
}

/// Folder that no other run of this program changes meanwhile.
pub(super) struct Locked<'a> {
    folder: &'a Folder,
    lock: File,
}

impl Folder {
    pub(super) fn new(path: &Path, program: &Path) -> Self {
        Self {
            path: path.to_owned(),
            program: program.to_owned(),
        }
    }

    /// Returns the scripts that have a shim or a saved original.
    pub(super) fn changed(&self) -> Result<Vec<Name>, Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at(&self.path))? {
            let path = entry.map_err(at(&self.path))?.path();
            let script = match script_of_saved(&path) {
                Some(script) => script,
                None if is_shim(&path)? => path,
                None => continue,
            };
            let name = script.file_name().and_then(|name| name.to_str());
            names.extend(name.and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Reads the state of a script.
    pub(super) fn slot(&self, name: &Name) -> Result<ScriptSlot, Error> {
        let script = self.script(name);
        let saved = saved_original(&script);
        let (current, saved_file) = (metadata(&script)?, metadata(&saved)?);
        let state = match (&current, &saved_file) {
            (None, _) => State::Missing,
            (Some(_), _) if is_shim(&script)? => {
                if fs::read(&script).map_err(at(&script))? == self.text(name).as_bytes() {
                    State::Shim
                } else {
                    State::Outdated
                }
            }
            // A killed install leaves the same file under both names.
            (Some(current), Some(saved_file)) if !is_same(current, saved_file) => State::Changed,
            _ => State::Original,
        };
        let original = match state {
            State::Original | State::Changed => Some(script),
            _ => saved_file.map(|_| saved),
        };
        Ok(ScriptSlot {
            state,
            link_target: original.as_ref().and_then(|path| fs::read_link(path).ok()),
            original,
        })
    }

    /// Locks the folder against other runs.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let lock = File::open(&self.path).map_err(at(&self.path))?;
        lock.lock().map_err(at(&self.path))?;
        Ok(Locked { folder: self, lock })
    }

    fn script(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    fn text(&self, name: &Name) -> String {
        format!(
            "#!{program}\n\
             # Xenplug's shim for the hotplug script of this name: it calls xenplugd, which connects the device.\n\
             # The original, if there was one, is {original}, beside this file;\n\
             # `xenplug scripts uninstall {name}` restores it.\n",
            program = self.program.display(),
            original = saved_original(Path::new(name.as_str())).display(),
        )
    }
}

impl Locked<'_> {
    /// Installs a shim and keeps the original.
    pub(super) fn install(&self, name: &Name) -> Result<Change, Error> {
        let (script, new) = self.clear(name)?;
        let state = self.folder.slot(name)?.state;
        let aside = state == State::Changed;
        let change = match state {
            State::Shim => return Ok(Change::AlreadyInstalled),
            State::Outdated => {
                self.write(name, &new)?;
                rename(&new, &script)?;
                Change::Renewed
            }
            State::Missing => {
                self.write(name, &new)?;
                // A package may have installed a script meanwhile, which `link` does not replace.
                link(&new, &script)?;
                remove(&new)?;
                Change::Installed {
                    saved: metadata(&saved_original(&script))?.is_some(),
                    aside,
                }
            }
            State::Original | State::Changed => {
                if aside {
                    self.set_aside(&script)?;
                }
                self.write(name, &new)?;
                let saved = saved_original(&script);
                if metadata(&saved)?.is_none() {
                    link(&script, &saved)?;
                }
                rename(&new, &script)?;
                Change::Installed { saved: true, aside }
            }
        };
        self.sync()?;
        Ok(change)
    }

    /// Removes the shim and restores the original, the very same file.
    pub(super) fn uninstall(&self, name: &Name) -> Result<Change, Error> {
        let (script, _) = self.clear(name)?;
        let saved = saved_original(&script);
        let has_saved = metadata(&saved)?.is_some();
        let change = match (self.folder.slot(name)?.state, has_saved) {
            (State::Shim | State::Outdated | State::Missing, true) => {
                rename(&saved, &script)?;
                Change::Restored
            }
            (State::Shim | State::Outdated, false) => {
                remove(&script)?;
                Change::Removed
            }
            (State::Changed, _) => {
                self.set_aside(&script)?;
                Change::SetAside
            }
            // A killed install has left the second name.
            (State::Original, true) => {
                remove(&saved)?;
                Change::NotInstalled
            }
            (State::Original | State::Missing, false) => return Ok(Change::NotInstalled),
        };
        self.sync()?;
        Ok(change)
    }

    /// Returns the paths of the script and of the temporary file, after removing what a killed run has left of the latter.
    fn clear(&self, name: &Name) -> Result<(PathBuf, PathBuf), Error> {
        let new = self.folder.path.join(format!(".{name}.xenplug-new"));
        match remove(&new) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
        Ok((self.folder.script(name), new))
    }

    fn write(&self, name: &Name, new: &Path) -> Result<(), Error> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)?;
            file.write_all(self.folder.text(name).as_bytes())?;
            file.set_permissions(Permissions::from_mode(MODE))?;
            file.sync_all()
        };
        write().map_err(at(new))
    }

    /// Renames a saved original whose script was replaced by another.
    fn set_aside(&self, script: &Path) -> Result<(), Error> {
        rename(&saved_original(script), &script.with_added_extension("xenplug-old"))
    }

    /// Syncs the changes to disk.
    fn sync(&self) -> Result<(), Error> {
        self.lock.sync_all().map_err(at(&self.folder.path))
    }
}

/// Reads the metadata of a file or a link itself; `None` if there is nothing.
fn metadata(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() || found.is_symlink() => Ok(Some(found)),
        Ok(_) => Err(Error::NotAFile(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Tells whether a file's first line names the shim's program, in any folder.
fn is_shim(path: &Path) -> Result<bool, Error> {
    let is_file = fs::symlink_metadata(path).map_err(at(path))?.is_file();
    if !is_file {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(at(path))?;
    file.take(FIRST_LINE_MAX).read_to_end(&mut start).map_err(at(path))?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let program = line.strip_prefix(b"#!").and_then(|line| std::str::from_utf8(line).ok());
    Ok(program.is_some_and(|program| Path::new(program.trim()).file_name() == Some(SHIM.as_ref())))
}

fn link(from: &Path, to: &Path) -> Result<(), Error> {
    fs::hard_link(from, to).map_err(at(to))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(at(to))
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
