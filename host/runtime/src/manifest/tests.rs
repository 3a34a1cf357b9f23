//! Imports that a component may have, and the export that it must have.

use xenplug_system::grant::{BlockGrant, FirewallGrant, NetworkGrant, Operator, ProcessGrant};

use super::*;

const HANDLER: &str = "xen:hotplug/handler@0.1.0";

/// Checks a component that imports and exports empty instances of these names.
fn checked(imports: &[&str], export: &str, grants: &Grants) -> Result<Vec<Interface>, ManifestError> {
    let imports: String = imports
        .iter()
        .map(|name| format!("(import \"{name}\" (instance))"))
        .collect();
    let text = format!("(component {imports} (instance $handler) (export \"{export}\" (instance $handler)))");
    let engine = Engine::new().expect("an engine");
    let bytes = wat::parse_str(text).expect("it is text of a component");
    let component = Component::from_binary(engine.wasmtime(), &bytes).expect("it is a component");
    check(&engine, &component, grants)
}

fn everything() -> Grants {
    let operator = Operator::of_configuration();
    Grants {
        block: Some(BlockGrant::new(&operator, Vec::new(), false)),
        network: Some(NetworkGrant::new(&operator, Vec::new())),
        firewall: Some(FirewallGrant::new(&operator)),
        process: Some(ProcessGrant::new(&operator, Vec::new())),
        guest: true,
        hooks: None,
    }
}

#[test]
fn ungranted_import_is_refused_with_the_line_that_grants_it() {
    for (interface, line) in [
        (Interface::Block, "block = [{ path = "),
        (Interface::Network, "bridges = ["),
        (Interface::Firewall, "firewall = true"),
        (Interface::Process, "process = [{ name = "),
        (Interface::Guest, "guest = true"),
    ] {
        let name = format!("xen:hotplug/{}@0.1.0", interface.name());
        let error = checked(&[&name], HANDLER, &Grants::default()).expect_err(&name);
        assert_eq!(error, ManifestError::NotGranted(interface));
        assert!(error.to_string().contains(line), "{error}");
        assert_eq!(checked(&[&name], HANDLER, &everything()), Ok(vec![interface]));
    }
}

#[test]
fn unknown_import_is_refused_whatever_is_granted() {
    for name in [
        "xen:hotplug/block@0.2.0",
        "xen:hotplug/block@1.0.0",
        "xen:hotplug/block@0.10.0",
        "xen:hotplug/block",
        "xen:hotplug/blocks@0.1.0",
        "xen:hotplug/handler@0.1.0",
        "xen:hotplugs/block@0.1.0",
        "wasi:http/types@0.2.0",
        "wasi:io/streams@0.3.0",
        "wasi:nn/tensor@0.2.0",
        "vendor:driver/backdoor@0.1.0",
        "env",
    ] {
        let error = checked(&[name], HANDLER, &everything()).expect_err(name);
        assert_eq!(error, ManifestError::Unknown(name.to_owned()));
    }
}

#[test]
fn log_config_and_the_empty_wasi_take_no_grant() {
    let names = [
        "xen:hotplug/types@0.1.0",
        "xen:hotplug/log@0.1.0",
        "xen:hotplug/config@0.1.7",
        "wasi:cli/environment@0.2.0",
        "wasi:io/streams@0.2.6",
        "wasi:clocks/wall-clock@0.2.3",
        "wasi:filesystem/preopens@0.2.3",
        "wasi:random/random@0.2.3",
        "wasi:sockets/tcp@0.2.3",
    ];
    assert_eq!(checked(&names, HANDLER, &Grants::default()), Ok(vec![]));
}

#[test]
fn component_without_a_handler_of_this_version_is_refused() {
    for export in [
        "xen:hotplug/handler@0.2.0",
        "xen:hotplug/handler",
        "xen:hotplug/handlers@0.1.0",
        "run",
    ] {
        assert_eq!(
            checked(&[], export, &everything()),
            Err(ManifestError::NoHandler),
            "{export}"
        );
    }
    assert_eq!(checked(&[], "xen:hotplug/handler@0.1.3", &everything()), Ok(vec![]));
}

#[test]
fn other_exports_beside_a_handler_are_ignored() {
    let text = format!(
        "(component (instance $handler) (export \"{HANDLER}\" (instance $handler)) (export \"backdoor\" (instance $handler)) \
         (export \"xen:hotplug/process@0.1.0\" (instance $handler)))"
    );
    let engine = Engine::new().expect("an engine");
    let bytes = wat::parse_str(text).expect("it is text of a component");
    let component = Component::from_binary(engine.wasmtime(), &bytes).expect("it is a component");
    assert_eq!(check(&engine, &component, &Grants::default()), Ok(vec![]));
}
