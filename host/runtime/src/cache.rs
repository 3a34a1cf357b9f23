//! Compiled components on disk: compiled once, under limits, in a process of its own, and trusted only with a seal.
//!
//! A file is named by the SHA-256 of the component and of wasmtime's compatibility hash, and sealed by an HMAC with a
//! key that only root can read: wasmtime runs whatever code it is given, so a poisoned file must never reach it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    hash::{Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::{engine::Engine, text::clean};

type Seal = Hmac<Sha256>;

/// Bytes of a seal.
const SEAL: usize = 32;
/// Bytes of the largest component. CPython as a component has 18 MB.
const COMPONENT_MAX: u64 = 64 << 20;

/// A component that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is larger than any handler.
    #[error("it is larger than {} MiB", COMPONENT_MAX >> 20)]
    TooLarge,
    /// It cannot be compiled.
    #[error("it cannot be compiled: {0}")]
    Compile(String),
}

/// The compiler of components.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// This process: for tests and tools, on components that are trusted.
    InProcess,
    /// A program that reads a component on standard input and writes compiled code on standard output, with exit
    /// code 0, or the reason on standard error. It sets its own limits.
    Process {
        /// The program.
        program: PathBuf,
        /// The program's arguments.
        arguments: Vec<String>,
    },
}

/// Compiled components in a directory that only root may change.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    key: [u8; SEAL],
    compiler: Compiler,
}

impl Cache {
    /// Opens the cache, and creates a missing one.
    ///
    /// Errors: the directory belongs to somebody else or others can write to it, or it cannot be made.
    pub fn open(directory: &Path, compiler: Compiler) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let facts = fs::metadata(directory)?;
        let me = fs::metadata("/proc/self")?.uid();
        if facts.uid() != me || facts.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} must belong to user {me} and be writable by nobody else (chown {me}, chmod go-w)",
                    directory.display()
                ),
            ));
        }
        Ok(Self {
            key: Self::key(&directory.join("key"))?,
            directory: directory.to_owned(),
            compiler,
        })
    }

    fn key(path: &Path) -> io::Result<[u8; SEAL]> {
        let mut key = [0; SEAL];
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
                file.write_all(&key)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::File::open(path)?.read_exact(&mut key).is_err() {
                    // A truncated key seals nothing: a new one has everything compiled again.
                    fs::remove_file(path)?;
                    return Self::key(path);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(key)
    }

    /// Loads the component of a file, compiled now or earlier, and its digest. The file is read once: the compiled code
    /// is that of the bytes that were read, whatever happens to the file meanwhile.
    pub(crate) fn load(&self, engine: &Engine, component: &Path) -> Result<(Component, String), CacheError> {
        // To open a pipe would wait for ever.
        if !fs::metadata(component).map_err(CacheError::Read)?.is_file() {
            return Err(CacheError::Read(io::Error::other("it is not a file")));
        }
        let file = fs::File::open(component).map_err(CacheError::Read)?;
        let mut bytes = Vec::new();
        file.take(COMPONENT_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(CacheError::Read)?;
        if bytes.len() as u64 > COMPONENT_MAX {
            return Err(CacheError::TooLarge);
        }
        let digest = Self::digest(engine, &bytes);
        let path = self.directory.join(format!("{digest}.cwasm"));
        if let Some(code) = self.sealed(&path) {
            return Ok((self.trust(engine, &code)?, digest));
        }
        let code = self.compile(&bytes)?;
        let compiled = self.trust(engine, &code)?;
        if let Err(error) = self.store(&path, &code) {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
        }
        Ok((compiled, digest))
    }

    /// Loads code that [`Cache::compile`] or [`Cache::sealed`] answered with.
    fn trust(&self, engine: &Engine, code: &[u8]) -> Result<Component, CacheError> {
        // SAFETY: the code was made by `Engine::compile` of this program, just now or earlier: its seal was made with
        // a key that only this user can read.
        #[allow(unsafe_code, reason = "the one way to load compiled code")]
        unsafe { Component::deserialize(engine.wasmtime(), code) }
            .map_err(|error| CacheError::Compile(clean(&format!("{error:#}"), 400)))
    }

    /// The digest of a component, for this version of wasmtime.
    fn digest(engine: &Engine, component: &[u8]) -> String {
        /// Feeds a `Hash` to SHA-256, for a digest that is the same in every run.
        struct Digester(Sha256);
        impl Hasher for Digester {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let mut digester = Digester(Sha256::new());
        engine.wasmtime().precompile_compatibility_hash().hash(&mut digester);
        digester.0.update(component);
        digester.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The code in a file, if its seal is whole.
    fn sealed(&self, path: &Path) -> Option<Vec<u8>> {
        let mut code = fs::read(path).ok()?;
        let at = code.len().checked_sub(SEAL)?;
        let seal = code.split_off(at);
        if self.seal(path, &code).verify_slice(&seal).is_err() {
            tracing::warn!(path = %path.display(), "removed compiled code with a broken seal");
            let _ = fs::remove_file(path);
            return None;
        }
        Some(code)
    }

    fn seal(&self, path: &Path, code: &[u8]) -> Seal {
        let mut seal = Seal::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        // The name is sealed too, so that one component's code cannot be put in the place of another's.
        seal.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        seal.update(code);
        seal
    }

    fn store(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(code)?;
        file.write_all(&self.seal(path, code).finalize().into_bytes())?;
        fs::rename(&temporary, path)
    }

    fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CacheError> {
        let Compiler::Process { program, arguments } = &self.compiler else {
            return Engine::compile(component).map_err(CacheError::Compile);
        };
        let failed = |error: io::Error| CacheError::Compile(format!("{}: {error}", program.display()));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // The compiler reads all before it writes. One that ends early closes the pipe, and says why on standard error.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(component);
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let reason = clean(&String::from_utf8_lossy(&output.stderr), 400);
        Err(CacheError::Compile(if reason.is_empty() {
            format!(
                "the compiler ended with {} (it ran out of memory or time)",
                output.status
            )
        } else {
            reason
        }))
    }
}

#[cfg(test)]
mod tests;
