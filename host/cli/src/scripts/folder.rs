//! A folder of scripts: what is in a script's place, putting a stand-in there, and taking it back.
//!
//! Every change is one `link`, `rename` or `unlink`, in an order that leaves a whole script in its place at every moment.
//! Whoever is killed in between leaves a state that [`Folder::look`] knows, and another run ends well.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use xenplug_control::script::{SHIM, saved_original, script_of_saved};

use super::name::Name;

/// What a stand-in is executable as, whatever the umask.
const MODE: u32 = 0o755;

/// How much of a file tells whether it is a stand-in: more than the kernel reads of a first line
/// (linux/include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const FIRST_LINE_MAX: u64 = 512;

/// Why a script's place could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is no file", path = .0.display())]
    NotAFile(PathBuf),
}

/// What is in a script's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A stand-in.
    StandIn,
    /// A stand-in, but not what would be put there now: it names another program, or was edited.
    Outdated,
    /// The original, and no other is saved.
    Original,
    /// Another script, though an original is saved: a package's upgrade, perhaps, has replaced the stand-in.
    Changed,
    /// Nothing.
    Missing,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StandIn => "stand-in",
            Self::Outdated => "outdated",
            Self::Original => "original",
            Self::Changed => "changed",
            Self::Missing => "missing",
        }
    }
}

/// A script's place, looked at.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state: State,
    /// Where the original is, if there is one.
    pub(super) original: Option<PathBuf>,
    /// Where the original leads, if it is a symbolic link.
    pub(super) leads_to: Option<PathBuf>,
}

/// What a run has done about a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A stand-in is there; whether an original was saved, and an earlier one set aside.
    Installed { saved: bool, aside: bool },
    /// A stand-in has replaced an outdated one.
    Renewed,
    /// There was nothing to do, as the stand-in is there.
    StandsIn,
    /// The original is back.
    Restored,
    /// The stand-in is gone; there was no original.
    Removed,
    /// Another script was in the place, and stays; the saved original was set aside.
    SetAside,
    /// There was nothing to do, as no stand-in is there.
    StandsAlone,
}

/// A folder of scripts, and the program that is to stand in for them.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    program: PathBuf,
}

/// A folder that nobody else changes meanwhile with this program.
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

    /// The scripts that have a stand-in or a saved original.
    pub(super) fn touched(&self) -> Result<Vec<Name>, Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at(&self.path))? {
            let path = entry.map_err(at(&self.path))?.path();
            let script = match script_of_saved(&path) {
                Some(script) => script,
                None if is_stand_in(&path)? => path,
                None => continue,
            };
            let name = script.file_name().and_then(|name| name.to_str());
            names.extend(name.and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// What is in a script's place.
    pub(super) fn look(&self, name: &Name) -> Result<Place, Error> {
        let place = self.place(name);
        let saved = saved_original(&place);
        let (here, kept) = (facts(&place)?, facts(&saved)?);
        let state = match (&here, &kept) {
            (None, _) => State::Missing,
            (Some(_), _) if is_stand_in(&place)? => {
                if fs::read(&place).map_err(at(&place))? == self.text(name).as_bytes() {
                    State::StandIn
                } else {
                    State::Outdated
                }
            }
            // The same file under both names: an install that was killed in between.
            (Some(here), Some(kept)) if !is_same(here, kept) => State::Changed,
            _ => State::Original,
        };
        let original = match state {
            State::Original | State::Changed => Some(place),
            _ => kept.map(|_| saved),
        };
        Ok(Place {
            state,
            leads_to: original.as_ref().and_then(|path| fs::read_link(path).ok()),
            original,
        })
    }

    /// Keeps others from changing the folder.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let lock = File::open(&self.path).map_err(at(&self.path))?;
        lock.lock().map_err(at(&self.path))?;
        Ok(Locked { folder: self, lock })
    }

    fn place(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    fn text(&self, name: &Name) -> String {
        format!(
            "#!{program}\n\
             # Xenplug's stand-in for the hotplug script of this name: it asks xenplugd to plug the device.\n\
             # The original, where there was one, is {original}, beside this file, and comes back with\n\
             # `xenplug scripts uninstall {name}`.\n",
            program = self.program.display(),
            original = saved_original(Path::new(name.as_str())).display(),
        )
    }
}

impl Locked<'_> {
    /// Puts a stand-in into a script's place, and keeps what was there.
    pub(super) fn install(&self, name: &Name) -> Result<Change, Error> {
        let (place, new) = self.clear(name)?;
        let state = self.folder.look(name)?.state;
        let aside = state == State::Changed;
        let change = match state {
            State::StandIn => return Ok(Change::StandsIn),
            State::Outdated => {
                self.write(name, &new)?;
                rename(&new, &place)?;
                Change::Renewed
            }
            State::Missing => {
                self.write(name, &new)?;
                // Not over what a package's installation has put there meanwhile.
                link(&new, &place)?;
                remove(&new)?;
                Change::Installed {
                    saved: facts(&saved_original(&place))?.is_some(),
                    aside,
                }
            }
            State::Original | State::Changed => {
                if aside {
                    self.set_aside(&place)?;
                }
                self.write(name, &new)?;
                let saved = saved_original(&place);
                if facts(&saved)?.is_none() {
                    link(&place, &saved)?;
                }
                rename(&new, &place)?;
                Change::Installed { saved: true, aside }
            }
        };
        self.keep()?;
        Ok(change)
    }

    /// Takes the stand-in back: what was there before is there again, the very same file.
    pub(super) fn uninstall(&self, name: &Name) -> Result<Change, Error> {
        let (place, _) = self.clear(name)?;
        let saved = saved_original(&place);
        let has_saved = facts(&saved)?.is_some();
        let change = match (self.folder.look(name)?.state, has_saved) {
            (State::StandIn | State::Outdated | State::Missing, true) => {
                rename(&saved, &place)?;
                Change::Restored
            }
            (State::StandIn | State::Outdated, false) => {
                remove(&place)?;
                Change::Removed
            }
            (State::Changed, _) => {
                self.set_aside(&place)?;
                Change::SetAside
            }
            // Its second name, of an install that was killed in between.
            (State::Original, true) => {
                remove(&saved)?;
                Change::StandsAlone
            }
            (State::Original | State::Missing, false) => return Ok(Change::StandsAlone),
        };
        self.keep()?;
        Ok(change)
    }

    /// The script's place, and where the stand-in is written: what a run that was killed has left there is removed.
    fn clear(&self, name: &Name) -> Result<(PathBuf, PathBuf), Error> {
        let new = self.folder.path.join(format!(".{name}.xenplug-new"));
        match remove(&new) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
        Ok((self.folder.place(name), new))
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

    /// Gives the saved original a name that nothing of ours looks at: another script has come into its place.
    fn set_aside(&self, place: &Path) -> Result<(), Error> {
        rename(&saved_original(place), &place.with_added_extension("xenplug-old"))
    }

    /// Makes the changes outlast a power cut.
    fn keep(&self) -> Result<(), Error> {
        self.lock.sync_all().map_err(at(&self.folder.path))
    }
}

/// What a path itself is, links not followed; `None` if there is nothing.
fn facts(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_file() || facts.is_symlink() => Ok(Some(facts)),
        Ok(_) => Err(Error::NotAFile(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether a file's first line names the stand-in's program, wherever that is.
fn is_stand_in(path: &Path) -> Result<bool, Error> {
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
