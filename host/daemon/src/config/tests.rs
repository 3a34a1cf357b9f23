mod edited;

use std::path::Path;

use super::*;

const GOOD: &str = r#"
mode = "driver-domain"

[plugin.phy]
component = "phy.wasm"
kinds = ["vbd"]
scripts = ["block"]
[plugin.phy.grant]
block = [{ path = "/srv", access = "rw" }]
loop = true
[plugin.phy.limits]
memory = "16MiB"
deadline = "10s"
[plugin.phy.config]
a = 1
b.c = "x"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(&Source {
        file: Path::new("x.toml"),
        text,
    })
}

#[test]
fn valid_configuration_resolves() {
    let config = parse(GOOD).expect("it is good");
    let plugin = &config.plugins[0];
    assert_eq!(plugin.spec.component, Path::new("/usr/lib/xenplug/plugins/phy.wasm"));
    assert_eq!(plugin.spec.limits.memory, 16 << 20);
    assert_eq!(plugin.spec.limits.deadline, Duration::from_secs(10));
    assert_eq!(plugin.spec.config["a"], "1");
    assert_eq!(plugin.spec.config["b.c"], "x");
    assert!(plugin.spec.grants.block.is_some() && plugin.spec.grants.process.is_none());
    assert_eq!(plugin.location, "x.toml:5");
}

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))
}

#[test]
fn examples_are_valid() {
    for (name, mode) in [("driver-domain.toml", Mode::DriverDomain), ("dom0.toml", Mode::Dom0)] {
        let config = Config::load(&examples().join(name)).expect(name);
        assert_eq!(config.mode, mode);
        assert_eq!(config.plugins.len(), 2, "{name}");
    }
}

#[test]
fn every_mistake_is_reported_with_its_line_and_advice() {
    for (from, to, expected) in [
        (
            "memory =",
            "memroy =",
            "x.toml:12: unknown key `memroy`; did you mean `memory`?",
        ),
        (
            "loop = true",
            "loops = true",
            "x.toml:10: unknown key `loops`; did you mean `loop`?",
        ),
        ("\"rw\"", "\"rwx\"", "x.toml:9: unknown value `rwx`; did you mean `rw`?"),
        (
            "\"driver-domain\"",
            "\"driver\"",
            "x.toml:2: unknown value `driver`; did you mean `driver-domain`?",
        ),
        (
            "\"driver-domain\"\n",
            "\"dom0\"\n[scripts]\nfallbck = \"fail\"\n",
            "x.toml:4: unknown key `fallbck`; did you mean `fallback`?",
        ),
        (
            "\"driver-domain\"\n",
            "\"dom0\"\n[scripts]\nfallback = \"orginal\"\n",
            "x.toml:4: unknown value `orginal`; did you mean `original`?",
        ),
        ("\"/srv\"", "\"srv\"", "x.toml:9: path is not absolute; begin it with /"),
        ("\"16MiB\"", "\"lots\"", "x.toml:12: \"lots\" is not a size"),
        (
            "\"16MiB\"",
            "\"16GiB\"",
            "is outside what a plugin can have; choose from 64KiB to 256MiB",
        ),
        ("\"10s\"", "\"0s\"", "x.toml:13: \"0s\" is not a deadline"),
        (
            "[plugin.phy]\n",
            "[backoff]\nfirst = \"0s\"\n[plugin.phy]\n",
            "x.toml:5: \"0s\" is not a first",
        ),
        ("[\"vbd\"]", "[]", "x.toml:6: kinds is empty"),
        ("[\"vbd\"]", "[\"V/D\"]", "x.toml:6: \"V/D\" is not a kind of backend"),
        (
            "[\"block\"]",
            "[\"/etc/block\"]",
            "x.toml:7: \"/etc/block\" is not the name of a script",
        ),
        ("[plugin.phy]", "[plugin.phy", "x.toml:4: "),
        ("component = \"phy.wasm\"\n", "", "missing field `component`"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} stands in the configuration");
        let error = parse(&text).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
        assert!(!error.contains('\n'), "{error:?} is one line");
    }
}

#[test]
fn two_plugins_cannot_serve_the_same_script() {
    let second = GOOD[GOOD.find("[plugin.phy]").expect("it is there")..].replace("plugin.phy", "plugin.other");
    let error = parse(&format!("{GOOD}\n{second}"))
        .expect_err("both serve block")
        .to_string();
    assert!(
        error.contains("plugin.other and plugin.phy both serve script \"block\""),
        "{error}"
    );
}
