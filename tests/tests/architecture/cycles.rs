//! Import cycles between the modules of a crate, from the paths in its sources.
//!
//! A module imports another if one of its paths leads there: a `use`, or an inline path from `crate`, `super`, `self`
//! or a child. A path through a re-export leads to the module that defines the item. The declaration and the re-export
//! of a child are not imports, and code for unit tests does not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Result, bail};

use crate::{
    crates,
    source::{Source, sources},
};

/// Path of a module within its crate: `a::b`; empty for the root.
type ModulePath = Vec<String>;

/// Modules of one crate.
#[derive(Default)]
struct Modules {
    by_path: BTreeMap<ModulePath, Module>,
}

/// Source of one module, as words, with its paths and re-exports.
#[derive(Debug, Default)]
struct Module {
    words: Vec<String>,
    imports: Vec<Vec<String>>,
    /// Names that the module re-exports, each with its path; `*` for all names of a module.
    exports: Vec<(String, Vec<String>)>,
}

impl Modules {
    /// Reads modules from the words of their files, by the files' paths below `src`.
    fn new<'a>(files: impl Iterator<Item = (&'a str, &'a [String])>) -> Self {
        let mut by_path = BTreeMap::new();
        for (file, words) in files {
            by_path.insert(module_path(file), Module::new(words));
        }
        Self { by_path }
    }

    /// Returns the modules that each module imports.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let edges = self.by_path.iter().map(|(path, module)| {
            let targets = module.imports.iter().filter_map(|import| self.target(path, import, 0));
            (path, targets.filter(|target| *target != path).collect())
        });
        edges.collect()
    }

    /// Returns the module that a path leads to from a module, if it is one of this crate.
    fn target(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<&ModulePath> {
        let mut at = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => from.clone(),
            first => {
                let mut child = from.clone();
                child.push(first.to_owned());
                self.by_path.contains_key(&child).then(|| from.clone())?
            }
        };
        let mut rest = path;
        if rest[0] == "crate" {
            rest = &rest[1..];
        }
        while let Some(first) = rest.first() {
            match first.as_str() {
                "self" => {}
                "super" => {
                    at.pop();
                }
                name => {
                    at.push(name.to_owned());
                    if !self.by_path.contains_key(&at) {
                        at.pop();
                        break;
                    }
                }
            }
            rest = &rest[1..];
        }
        let (at, module) = self.by_path.get_key_value(&at)?;
        let exported = rest.first().filter(|name| depth < 8 && !module.declares(name));
        let exported = exported.and_then(|name| {
            let named = module.exports.iter().find(|(export, _)| export == name);
            let of_glob = || {
                module.exports.iter().find(|(export, path)| {
                    export == "*"
                        && self
                            .target(at, path, depth + 1)
                            .is_some_and(|target| self.by_path[target].declares(name))
                })
            };
            let (_, path) = named.or_else(of_glob)?;
            self.target(at, path, depth + 1)
        });
        exported.or(Some(at))
    }

    /// Returns the sets of modules that import each other.
    fn cycles(&self) -> Vec<Vec<String>> {
        let imports = self.imports();
        let mut cycles: Vec<Vec<String>> = Vec::new();
        for module in imports.keys() {
            let cycle: Vec<String> = imports
                .keys()
                .filter(|other| reaches(&imports, module, other) && reaches(&imports, other, module))
                .map(|other| name(other))
                .collect();
            if !cycle.is_empty() && !cycles.contains(&cycle) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    /// Describes the shortest cycle through a module: `a -> b -> a`.
    fn shortest(&self, through: &str) -> String {
        let imports = self.imports();
        let Some(start) = imports.keys().copied().find(|module| name(module) == through) else {
            return through.to_owned();
        };
        let mut queue = VecDeque::from([vec![start]]);
        let mut visited = BTreeSet::new();
        while let Some(chain) = queue.pop_front() {
            for next in &imports[chain[chain.len() - 1]] {
                let mut longer = chain.clone();
                longer.push(next);
                if *next == start {
                    let names: Vec<String> = longer.into_iter().map(name).collect();
                    return names.join(" -> ");
                }
                if visited.insert(*next) {
                    queue.push_back(longer);
                }
            }
        }
        through.to_owned()
    }
}

impl Module {
    fn new(words: &[String]) -> Self {
        let mut module = Self {
            words: words.to_vec(),
            ..Self::default()
        };
        let mut at = 0;
        while at < words.len() {
            let is_path = words.get(at + 1..at + 3).is_some_and(|next| next == [":", ":"]);
            let continues = at > 1 && words[at - 1] == ":" && words[at - 2] == ":";
            if words[at] == "use" {
                let exported = at > 0 && (words[at - 1] == "pub" || is_restricted_pub(&words[..at]));
                let mut leaves = Vec::new();
                at += 1;
                use_tree(words, &mut at, &mut Vec::new(), &mut leaves);
                for (name, path) in leaves {
                    if exported {
                        module.exports.push((name, path));
                    } else {
                        module.imports.push(path);
                    }
                }
            } else if is_path && !continues && at.checked_sub(1).is_none_or(|before| words[before] != "$") {
                let mut path = vec![words[at].clone()];
                at += 1;
                while words.get(at..at + 2).is_some_and(|next| next == [":", ":"]) {
                    match words.get(at + 2) {
                        Some(word) if is_identifier(word) => path.push(word.clone()),
                        _ => break,
                    }
                    at += 3;
                }
                module.imports.push(path);
            } else {
                at += 1;
            }
        }
        module
    }

    /// Tests whether the module itself declares an item.
    fn declares(&self, item: &str) -> bool {
        const KEYWORDS: [&str; 9] = [
            "struct",
            "enum",
            "union",
            "trait",
            "type",
            "fn",
            "const",
            "static",
            "macro_rules",
        ];
        let declared = |pair: &[String]| KEYWORDS.contains(&&*pair[0]) && pair[1] == item;
        self.words.windows(2).any(declared)
    }
}

/// Collects the leaves of a `use` tree, each as its name and its path. `at` moves past the tree.
fn use_tree(words: &[String], at: &mut usize, prefix: &mut Vec<String>, leaves: &mut Vec<(String, Vec<String>)>) {
    let depth = prefix.len();
    loop {
        match words.get(*at).map(String::as_str) {
            Some("{") => {
                *at += 1;
                while words.get(*at).is_some_and(|word| word != "}") {
                    use_tree(words, at, prefix, leaves);
                    if words.get(*at).is_some_and(|word| word == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                break;
            }
            Some(":") => *at += 1,
            Some("*") => {
                *at += 1;
                leaves.push(("*".to_owned(), prefix.clone()));
                break;
            }
            Some(word) if is_identifier(word) => {
                prefix.push(word.to_owned());
                *at += 1;
                if words.get(*at).is_some_and(|word| word == ":") {
                    continue;
                }
                let mut name = word.to_owned();
                if words.get(*at).is_some_and(|word| word == "as") {
                    name.clone_from(&words[*at + 1]);
                    *at += 2;
                }
                leaves.push((name, prefix.clone()));
                break;
            }
            _ => {
                *at += 1;
                break;
            }
        }
    }
    prefix.truncate(depth);
}

fn is_identifier(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Tests whether words end with `pub(crate)` or the like.
fn is_restricted_pub(words: &[String]) -> bool {
    let open = words.iter().rposition(|word| word == "(");
    words.last().is_some_and(|word| word == ")") && open.is_some_and(|open| open > 0 && words[open - 1] == "pub")
}

/// Returns the module of a file below `src`.
fn module_path(file: &str) -> ModulePath {
    let stem = file.trim_end_matches(".rs");
    let mut path: ModulePath = stem.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || matches!(stem, "lib" | "main") {
        path.pop();
    }
    path
}

fn name(module: &ModulePath) -> String {
    match module.is_empty() {
        true => "crate".to_owned(),
        false => module.join("::"),
    }
}

fn reaches(imports: &BTreeMap<&ModulePath, BTreeSet<&ModulePath>>, from: &ModulePath, to: &ModulePath) -> bool {
    let mut visited = BTreeSet::new();
    let mut open: Vec<&ModulePath> = imports[from].iter().copied().collect();
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if visited.insert(module) {
            open.extend(imports[module].iter().copied());
        }
    }
    false
}

#[test]
fn modules_of_host_crates_import_one_way() -> Result<()> {
    let sources = sources(&["host"])?;
    for folder in crates()?.keys().filter(|folder| folder.starts_with("host/")) {
        let prefix = format!("{folder}/src/");
        let files = sources.iter().filter_map(|source| {
            let file = source.path.strip_prefix(&prefix)?;
            let counts = !source.is_test() && !file.starts_with("bin/");
            counts.then_some((file, &*source.words))
        });
        let modules = Modules::new(files);
        if let Some(cycle) = modules.cycles().first() {
            bail!(
                "{folder}: {} is an import cycle within {cycle:?}",
                modules.shortest(&cycle[0])
            );
        }
    }
    Ok(())
}

/// Parses modules from their texts.
fn modules(files: &[(&str, &str)]) -> Modules {
    let words: Vec<(&str, Vec<String>)> = files
        .iter()
        .map(|(file, text)| (*file, Source::words_of(text).expect("it is Rust")))
        .collect();
    Modules::new(words.iter().map(|(file, words)| (*file, &**words)))
}

#[test]
fn import_cycle_is_found_and_named() {
    let cyclic = modules(&[
        ("lib.rs", "mod a; mod b; mod c; use crate::a::A;"),
        ("a.rs", "use crate::{b::{self, B as Other}, c}; pub struct A;"),
        ("b.rs", "pub struct B; fn f() { super::c::d::g(); }"),
        ("c.rs", "pub(crate) mod d;"),
        ("c/d.rs", "use crate::a; pub fn g() {}"),
    ]);
    assert_eq!(cyclic.cycles(), [["a", "b", "c::d"]]);
    assert_eq!(cyclic.shortest("a"), "a -> b -> c::d -> a");
}

#[test]
fn child_and_parent_that_use_each_other_are_a_cycle() {
    let cyclic = modules(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; use b::B; pub struct A;"),
        ("a/b.rs", "use super::A; pub struct B;"),
    ]);
    assert_eq!(cyclic.cycles(), [["a", "a::b"]]);
}

#[test]
fn declared_and_reexported_child_and_test_code_are_no_imports() {
    let acyclic = modules(&[
        ("lib.rs", "mod a; mod e;"),
        (
            "a.rs",
            "mod b; pub(crate) mod c; pub(crate) use b::B; pub use self::c::*; pub struct A;",
        ),
        ("a/b.rs", "use super::A; use crate::e; pub struct B;"),
        ("a/c.rs", "pub struct C; #[cfg(test)] mod tests { use crate::e::E; }"),
        // The re-export leads to the module of C, and not to the parent that re-exports it.
        ("e.rs", "use crate::a::C; #[cfg(test)] use crate::a::B;"),
    ]);
    assert_eq!(acyclic.cycles(), Vec::<Vec<String>>::new());
}
