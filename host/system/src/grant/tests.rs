//! Tests of the paths, names and arguments that grants permit.

use super::*;

fn rule(args: &[&str]) -> HelperRule {
    HelperRule {
        name: "h".into(),
        path: "/bin/h".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    }
}

#[test]
fn name_pattern_matches_whole_names_or_prefixes() {
    for (pattern, name, expected) in [
        ("xenbr*", "xenbr0", true),
        ("xenbr*", "xenbr", true),
        ("xenbr*", "br0", false),
        ("br0", "br0", true),
        ("br0", "br01", false),
        ("*", "anything", true),
        ("", "br0", false),
    ] {
        assert_eq!(NamePattern(pattern.into()).matches(name), expected, "{pattern} {name}");
    }
}

#[test]
fn arguments_match_their_patterns_one_by_one() {
    for (patterns, arguments, expected) in [
        (vec![], vec![], true),
        (vec![], vec!["x"], false),
        (vec!["add-port"], vec!["add-port"], true),
        (vec!["add-port"], vec!["add-ports"], false),
        (vec!["--id=*"], vec!["--id=7"], true),
        (vec!["*"], vec!["name"], true),
        (vec!["*"], vec!["--exec=sh"], false),
        (vec!["*"], vec!["a/b"], false),
        (vec!["*"], vec!["a\nb"], false),
        (vec!["vif*-emu"], vec!["vif1.0-emu"], true),
        (vec!["vif*-emu"], vec!["vif1.0-emu2"], false),
        (vec!["a*b*c"], vec!["abbc"], true),
        (vec!["a*a"], vec!["a"], false),
        (vec!["/srv/*.img"], vec!["/srv/a.img"], true),
        (vec!["/srv/*.img"], vec!["/srv/../etc/a.img"], false),
        (vec!["/srv/*/a.img"], vec!["/srv/../a.img"], false),
        (vec!["-n", "*", "..."], vec!["-n", "a"], true),
        (vec!["-n", "*", "..."], vec!["-n", "a", "b", "c"], true),
        (vec!["-n", "*", "..."], vec!["-n"], false),
        (vec!["-n", "*", "..."], vec!["-n", "a", "-b"], false),
        (vec!["..."], vec!["a"], false),
        (vec!["..."], vec![], true),
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        assert_eq!(
            rule(&patterns).permits(&arguments),
            expected,
            "{patterns:?} {arguments:?}"
        );
    }
}

#[test]
fn route_is_granted_within_a_prefix_only() {
    let operator = Operator::of_configuration();
    let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
    let none = NetworkGrant::new(&operator, Vec::new());
    let grant = none
        .clone()
        .with_routes(&operator, vec![prefix("10.1.0.0/16"), prefix("2001:db8::/32")]);
    for (to, expected) in [
        ("10.1.0.0/16", true),
        ("10.1.2.3", true),
        ("10.2.0.1", false),
        ("10.0.0.0/8", false),
        ("0.0.0.0/0", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("::/0", false),
    ] {
        assert_eq!(grant.permits_route(prefix(to)), expected, "{to}");
        assert!(!none.permits_route(prefix(to)), "{to}");
    }
}

#[test]
fn pattern_rule_covers_matching_names() {
    let rule = |path: &str, access| PathRule {
        path: path.into(),
        access,
    };
    let grant = BlockGrant::new(
        &Operator::of_configuration(),
        vec![
            rule("/dev/nbd*", Access::ReadWrite),
            rule("/dev/nbd7", Access::ReadOnly),
            rule("/dev/disk/by-path/ip-*-lun-0", Access::ReadWrite),
        ],
        false,
    );
    for (path, expected) in [
        ("/dev/nbd0", Some(("/dev", "nbd0", Access::ReadWrite))),
        ("/dev/nbd7", Some(("/dev/nbd7", "", Access::ReadOnly))),
        (
            "/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.a-lun-0",
            Some((
                "/dev/disk/by-path",
                "ip-10.0.0.1:3260-iscsi-iqn.a-lun-0",
                Access::ReadWrite,
            )),
        ),
        ("/dev/disk/by-path/pci-0-lun-0", None),
        ("/dev/sda", None),
        ("/dev/disk/nbd0", None),
        ("/dev", None),
    ] {
        let found = grant.rule(Path::new(path));
        let found = found.map(|(rule, rest)| (rule.directory().to_str(), rest.to_str(), rule.access));
        let expected = expected.map(|(directory, rest, access)| (Some(directory), Some(rest), access));
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn most_specific_rule_counts() {
    let rule = |path: &str, access| PathRule {
        path: path.into(),
        access,
    };
    let grant = BlockGrant::new(
        &Operator::of_configuration(),
        vec![rule("/srv", Access::ReadWrite), rule("/srv/golden", Access::ReadOnly)],
        false,
    );
    let access = |path: &str| grant.rule(Path::new(path)).map(|(rule, _)| rule.access);
    assert_eq!(access("/srv/a"), Some(Access::ReadWrite));
    assert_eq!(access("/srv/golden/a"), Some(Access::ReadOnly));
    assert_eq!(access("/srv/goldenish"), Some(Access::ReadWrite));
    assert_eq!(access("/srvx"), None);
    assert_eq!(access("/etc/shadow"), None);
}
