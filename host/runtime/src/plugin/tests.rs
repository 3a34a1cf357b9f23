//! Components that have the right names with the wrong types.

use std::fs;

use super::*;
use crate::cache::Compiler;

/// Loads a component with nothing granted.
fn loaded(text: &str) -> Result<Plugin, LoadError> {
    let directory = tempfile::tempdir().expect("a directory");
    let component = directory.path().join("handler.wasm");
    fs::write(&component, wat::parse_str(text).expect("it is text of a component")).expect("it is written");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _within = runtime.enter();
    Plugin::load(
        &Engine::new().expect("an engine"),
        &Cache::open(&directory.path().join("cache"), Compiler::InProcess).expect("a cache"),
        &Platform::simulated().0,
        &Arc::default(),
        PluginSpec {
            name: "handler".to_owned(),
            component,
            grants: Grants::default(),
            limits: Limits::default(),
            config: HashMap::new(),
        },
    )
}

#[test]
fn right_names_with_wrong_types_do_not_link() {
    let handler = "(instance $handler) (export \"xen:hotplug/handler@0.1.0\" (instance $handler))";
    for (what, import) in [
        (
            "a parameter of another type",
            "(export \"write\" (func (param \"level\" u32) (param \"message\" string)))",
        ),
        ("a result that there is not", "(export \"write\" (func (result u32)))"),
        ("a function that there is not", "(export \"shout\" (func))"),
        (
            "a module in the place of a function",
            "(export \"write\" (core module))",
        ),
        ("a handler without functions", ""),
    ] {
        let text = format!("(component (import \"xen:hotplug/log@0.1.0\" (instance {import})) {handler})");
        let error = loaded(&text).map(drop).expect_err(what);
        assert!(matches!(error, LoadError::Link { .. }), "{what}: {error}");
        let line = error.to_string();
        assert!(
            line.contains("handler.wasm: it does not fit xen:hotplug 0.1: "),
            "{line}"
        );
        assert!(!line.contains('\n'), "{line:?}");
    }
}
