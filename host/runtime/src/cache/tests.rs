//! Code that was tampered with, other keys, directories of others, and compilers that fail.

use std::os::unix::fs::{PermissionsExt, chown};

use tempfile::TempDir;

use super::*;
use crate::text::chain;

/// A cache, components, and a compiler that counts how often it was run.
struct Fixture {
    directory: TempDir,
    engine: Engine,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            directory: TempDir::new().expect("a directory"),
            engine: Engine::new().expect("an engine"),
        };
        for (name, text) in [("a", "(component)"), ("b", "(component (core module))")] {
            let bytes = wat::parse_str(text).expect("it is text of a component");
            fs::write(fixture.component(name), bytes).expect("it is written");
        }
        fixture
    }

    fn component(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.wasm"))
    }

    fn open(&self, compiler: Compiler) -> io::Result<Cache> {
        Cache::open(&self.directory.path().join("cache"), compiler)
    }

    /// A cache whose compiler is a line of shell, in the fixture's directory.
    fn shell(&self, line: &str) -> Cache {
        let line = format!("cd {}; {line}", self.directory.path().display());
        self.open(Compiler::Process {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), line],
        })
        .expect("a cache")
    }

    /// A cache whose compiler knows component `a` alone, and counts.
    fn counting(&self) -> Cache {
        let code = Engine::compile(&fs::read(self.component("a")).expect("it is there")).expect("it compiles");
        fs::write(self.directory.path().join("code"), code).expect("it is written");
        self.shell("echo >> runs; cat > /dev/null; cat code")
    }

    fn runs(&self) -> usize {
        fs::read(self.directory.path().join("runs")).map_or(0, |lines| lines.len())
    }

    /// The files of compiled code.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join("cache")).expect("a cache");
        let files = entries.map(|entry| entry.expect("an entry").path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
            .collect()
    }

    fn load(&self, cache: &Cache, name: &str) -> Result<(), String> {
        cache
            .load(&self.engine, &self.component(name))
            .map(drop)
            .map_err(|error| chain(&error))
    }
}

#[test]
fn compiled_code_is_used_again_also_by_the_next_daemon() {
    let fixture = Fixture::new();
    let cache = fixture.counting();
    assert_eq!(fixture.load(&cache, "a"), Ok(()));
    assert_eq!(fixture.load(&cache, "a"), Ok(()));
    assert_eq!(fixture.load(&fixture.counting(), "a"), Ok(()));
    assert_eq!((fixture.runs(), fixture.kept().len()), (1, 1));
    let mode = fs::metadata(&fixture.kept()[0])
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn changed_file_is_not_loaded_but_compiled_again() {
    let fixture = Fixture::new();
    let cache = fixture.counting();
    assert_eq!(fixture.load(&cache, "a"), Ok(()));
    let path = fixture.kept().remove(0);
    let whole = fs::read(&path).expect("it is there");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let changes = [
        flipped(0),
        flipped(whole.len() / 2),
        flipped(whole.len() - SEAL - 1),
        flipped(whole.len() - 1),
        whole[..whole.len() - 1].to_vec(),
        whole[..SEAL].to_vec(),
        whole[..SEAL - 1].to_vec(),
        Vec::new(),
        [whole.as_slice(), b"x"].concat(),
    ];
    for (number, bytes) in changes.into_iter().enumerate() {
        fs::write(&path, bytes).expect("it is written");
        assert_eq!(fixture.load(&cache, "a"), Ok(()));
        assert_eq!(fixture.runs(), number + 2, "change {number} was loaded");
        assert_eq!(fs::read(&path).expect("it is there"), whole, "change {number} stayed");
    }
}

#[test]
fn code_of_one_component_is_not_used_for_another() {
    let fixture = Fixture::new();
    let cache = fixture.open(Compiler::InProcess).expect("a cache");
    assert_eq!(fixture.load(&cache, "a"), Ok(()));
    let a = fixture.kept().remove(0);
    assert_eq!(fixture.load(&cache, "b"), Ok(()));
    let b = fixture
        .kept()
        .into_iter()
        .find(|path| *path != a)
        .expect("the other's file");
    let whole = fs::read(&b).expect("it is there");
    fs::copy(&a, &b).expect("it is copied");
    assert_eq!(fixture.load(&cache, "b"), Ok(()));
    assert_eq!(fs::read(&b).expect("it is there"), whole);
}

#[test]
fn another_key_has_everything_compiled_again() {
    let fixture = Fixture::new();
    let key = fixture.directory.path().join("cache/key");
    assert_eq!(fixture.load(&fixture.counting(), "a"), Ok(()));
    for (number, cut) in [b"".as_slice(), b"short"].into_iter().enumerate() {
        fs::write(&key, cut).expect("it is written");
        assert_eq!(fixture.load(&fixture.counting(), "a"), Ok(()));
        assert_eq!(fixture.runs(), number + 2);
        let facts = fs::metadata(&key).expect("it is there");
        assert_eq!((facts.len(), facts.permissions().mode() & 0o777), (SEAL as u64, 0o600));
    }
}

#[test]
fn directory_that_others_can_change_is_refused() {
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("cache");
    fs::create_dir(&directory).expect("it is made");
    for (mode, accepted) in [
        (0o777, false),
        (0o770, false),
        (0o702, false),
        (0o755, true),
        (0o700, true),
    ] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("it is ours");
        let opened = fixture.open(Compiler::InProcess);
        assert_eq!(opened.is_ok(), accepted, "{mode:o}");
        if let Err(error) = opened {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        }
    }
    // A user who cannot give a directory away is not root, and /usr belongs to root.
    let foreign = match chown(&directory, Some(54321), None) {
        Ok(()) => directory,
        Err(_) => "/usr".into(),
    };
    let error = Cache::open(&foreign, Compiler::InProcess).expect_err("it is somebody else's");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn failed_compiler_is_reported_in_one_line() {
    let fixture = Fixture::new();
    for (line, expected) in [
        (
            "cat > /dev/null; printf 'no\\n\\033[31mluck' >&2; exit 1",
            "it cannot be compiled: no [31mluck",
        ),
        (
            "exit 3",
            "it cannot be compiled: the compiler ended with exit status: 3",
        ),
        (
            "cat > /dev/null; kill -9 $$",
            "signal: 9 (SIGKILL) (it ran out of memory or time)",
        ),
        ("cat > /dev/null; echo this is no code", "it cannot be compiled: "),
        ("cat > /dev/null", "it cannot be compiled: "),
    ] {
        let error = fixture.load(&fixture.shell(line), "a").expect_err(line);
        assert!(error.contains(expected), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{error:?}");
        assert_eq!(fixture.kept(), [""; 0].map(PathBuf::from), "{line}");
    }
    let absent = Compiler::Process {
        program: "/absent/compiler".into(),
        arguments: Vec::new(),
    };
    let error = fixture
        .load(&fixture.open(absent).expect("a cache"), "a")
        .expect_err("there is no such program");
    assert!(error.contains("/absent/compiler"), "{error}");
}

#[test]
fn file_that_is_no_component_is_refused() {
    let fixture = Fixture::new();
    let cache = fixture.open(Compiler::InProcess).expect("a cache");
    let good = fs::read(fixture.component("a")).expect("it is there");
    let code = Engine::compile(&good).expect("it compiles");
    for (bytes, expected) in [
        (b"".to_vec(), "not a WebAssembly component"),
        (b"(component)".to_vec(), "not a WebAssembly component"),
        (b"\0asm\x01\0\0\0".to_vec(), "a core module"),
        (good[..6].to_vec(), "cannot be compiled"),
        (code, "compiled code, not a component"),
    ] {
        fs::write(fixture.component("wrong"), bytes).expect("it is written");
        let error = fixture.load(&cache, "wrong").expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    fs::File::create(fixture.component("wrong"))
        .and_then(|file| file.set_len(COMPONENT_MAX + 1))
        .expect("it is made");
    assert_eq!(
        fixture.load(&cache, "wrong"),
        Err("it is larger than 64 MiB".to_owned())
    );
    fs::create_dir(fixture.component("directory")).expect("it is made");
    assert_eq!(
        fixture.load(&cache, "directory"),
        Err("it cannot be read: it is not a file".to_owned())
    );
}

#[test]
fn file_that_changes_while_it_is_compiled_changes_nothing() {
    let fixture = Fixture::new();
    // The compiler has read component `a`; before it answers, `b` stands in its place, and a link to it.
    for swap in ["cp b.wasm a.wasm", "ln -sf b.wasm a.wasm"] {
        let good = wat::parse_str("(component)").expect("it is text of a component");
        let _ = fs::remove_file(fixture.component("a"));
        fs::write(fixture.component("a"), &good).expect("it is written");
        let code = Engine::compile(&good).expect("it compiles");
        fs::write(fixture.directory.path().join("code"), code).expect("it is written");
        let cache = fixture.shell(&format!("cat > read; {swap}; cat code"));
        let digest = Cache::digest(&fixture.engine, &good);
        let _ = fs::remove_file(fixture.directory.path().join("cache").join(format!("{digest}.cwasm")));

        let (_, loaded) = cache
            .load(&fixture.engine, &fixture.component("a"))
            .expect("it is loaded");
        assert_eq!(loaded, digest, "{swap}");
        let read = fs::read(fixture.directory.path().join("read")).expect("it is there");
        assert_eq!(read, good, "{swap}");
        // The file now holds another component, which is not taken for the compiled one.
        let (_, next) = fixture
            .open(Compiler::InProcess)
            .and_then(|cache| {
                cache
                    .load(&fixture.engine, &fixture.component("a"))
                    .map_err(io::Error::other)
            })
            .expect("it is loaded");
        assert_ne!(next, digest, "{swap}");
    }
}
