//! Tests of the parsers against xl's syntax and libxl's nodes.

use super::*;

fn disk(text: &str) -> Result<Disk, SpecError> {
    Disk::parse(text)
}

fn node<'a>(nodes: &'a Nodes, name: &str) -> &'a str {
    nodes
        .iter()
        .find(|(have, _)| *have == name)
        .map_or("-", |(_, value)| value)
}

/// Formats kind, params, script, dev, mode, device type, removable and discard.
fn summary(text: &str) -> String {
    match disk(text) {
        Ok(disk) => {
            let back = disk.backend_nodes();
            let script = node(&back, "script").rsplit('/').next().unwrap_or_default();
            let [params, dev, mode, device, discard] =
                ["params", "dev", "mode", "device-type", "discard-enable"].map(|name| node(&back, name));
            format!("{} {params} {script} {dev} {mode} {device} {discard}", disk.kind)
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn disk_is_parsed_as_xl_does() {
    let usual = "vbd /dev/vg/guest-volume block hda w disk 1";
    let image = "vbd /root/image.iso block hdc r cdrom 0";
    let cases: &[(&str, &str)] = &[
        // The examples of xl-disk-configuration(5).
        ("/dev/vg/guest-volume,,hda", usual),
        ("/dev/vg/guest-volume,raw,hda,rw", usual),
        ("format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", usual),
        ("raw:/dev/vg/guest-volume,hda,w", usual),
        ("/root/image.iso,,hdc,cdrom", image),
        ("/root/image.iso,,hdc,,cdrom", image),
        ("/root/image.iso,raw,hdc,devtype=cdrom", image),
        (
            "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
            image,
        ),
        ("raw:/root/image.iso,hdc:cdrom,ro", image),
        // Each format with its kind of backend.
        ("/srv/a.img,raw,xvda", "vbd /srv/a.img block xvda w disk 1"),
        ("/srv/a.img,qcow2,xvda", "qdisk qcow2:/srv/a.img - xvda w disk 1"),
        ("/srv/a.img,qcow,xvda", "qdisk qcow:/srv/a.img - xvda w disk 1"),
        ("/srv/a.img,qed,xvda", "qdisk qed:/srv/a.img - xvda w disk 1"),
        ("/srv/a.vhd,vhd,xvda", "qdisk vhd:/srv/a.vhd - xvda w disk 1"),
        (
            "/srv/a.vhd,vhd,xvda,backendtype=tap",
            "vbd3 vhd:/srv/a.vhd block-tap xvda w disk 1",
        ),
        (
            "/srv/a.img,raw,xvda,backendtype=tap",
            "vbd3 aio:/srv/a.img block-tap xvda w disk 1",
        ),
        (
            "/srv/a.img,raw,xvda,backendtype=qdisk",
            "qdisk aio:/srv/a.img - xvda w disk 1",
        ),
        (
            "/srv/a.img,raw,xvda,backendtype=phy",
            "vbd /srv/a.img block xvda w disk 1",
        ),
        // Access.
        ("/srv/a.img,raw,xvda,r", "vbd /srv/a.img block xvda r disk 0"),
        ("/srv/a.img,raw,xvda,ro", "vbd /srv/a.img block xvda r disk 0"),
        ("/srv/a.img,raw,xvda,w", "vbd /srv/a.img block xvda w disk 1"),
        ("/srv/a.img,raw,xvda,", "vbd /srv/a.img block xvda w disk 1"),
        // `target=` takes the rest of the text.
        (
            "vdev=xvda,target=/srv/a.img,access=rw",
            "vbd /srv/a.img,access=rw block xvda w disk 1",
        ),
        // Flags.
        (
            "/srv/a.img,raw,xvda,rw,no-discard",
            "vbd /srv/a.img block xvda w disk 0",
        ),
        ("/srv/a.img,raw,xvda,ro,discard", "vbd /srv/a.img block xvda r disk 1"),
        (
            "no-discard,discard,/srv/a.img,raw,xvda",
            "vbd /srv/a.img block xvda w disk 1",
        ),
        ("devtype=disk,/srv/a.img,,xvda", "vbd /srv/a.img block xvda w disk 1"),
        ("no-colo,trusted,/srv/a.img,,xvda", "vbd /srv/a.img block xvda w disk 1"),
        // Empty drives.
        (",,hdc,cdrom", "vbd  block hdc r cdrom 0"),
        (",hdc:cdrom,r", "vbd  block hdc r cdrom 0"),
        ("vdev=hdc,cdrom", "vbd  block hdc r cdrom 0"),
        (",empty,hdc,,cdrom", "vbd  block hdc r cdrom 0"),
        // Scripts, and the older prefixes.
        (
            "script=block-iscsi,vdev=xvda,target=iqn=iqn.2001-05.com.x:a,b",
            "vbd iqn=iqn.2001-05.com.x:a,b block-iscsi xvda w disk 1",
        ),
        ("script=/opt/mine,vdev=xvda,target=a", "vbd a mine xvda w disk 1"),
        ("iscsi:iqn.2001,xvda,w", "vbd iqn.2001 block-iscsi xvda w disk 1"),
        ("nbd:10.0.0.1,xvda", "vbd 10.0.0.1 block-nbd xvda w disk 1"),
        ("enbd:10.0.0.1,xvda", "vbd 10.0.0.1 block-enbd xvda w disk 1"),
        ("drbd:r0,xvda", "vbd r0 block-drbd xvda w disk 1"),
        ("phy:/dev/vg0/a,xvda,w", "vbd /dev/vg0/a block xvda w disk 1"),
        ("file:/srv/a.img,xvda,w", "vbd /srv/a.img block xvda w disk 1"),
        ("tap:aio:/srv/a.img,xvda,w", "vbd /srv/a.img block xvda w disk 1"),
        ("tap2:qcow2:/srv/a.img,xvda,w", "qdisk qcow2:/srv/a.img - xvda w disk 1"),
        (
            "tapdisk:vhd:/srv/a.vhd,xvda:disk,r",
            "qdisk vhd:/srv/a.vhd - xvda r disk 0",
        ),
        // Spaces, order, empty values, repeated keys.
        (
            "  /srv/a.img ,raw",
            "vdev: is missing; expected a virtual device: xvda, hda, sda1, d0p0 or a number",
        ),
        ("vdev=xvda,\t/srv/a.img", "vbd /srv/a.img block xvda w disk 1"),
        (
            "format=,access=,vdev=xvda,/srv/a.img",
            "vbd /srv/a.img block xvda w disk 1",
        ),
        (
            ",,xvda,target=/srv/a, b=c.img",
            "vbd /srv/a, b=c.img block xvda w disk 1",
        ),
        ("format=raw,format=raw,vdev=xvda,/a", "vbd /a block xvda w disk 1"),
        (
            "backendtype=phy,backendtype=phy,vdev=xvda,/a",
            "vbd /a block xvda w disk 1",
        ),
        ("vdev=xvda,target=/srv/a.img,", "vbd /srv/a.img block xvda w disk 1"),
        // Errors.
        (
            "",
            "vdev: is missing; expected a virtual device: xvda, hda, sda1, d0p0 or a number",
        ),
        (
            "vdev=xvda",
            "target: is missing; expected a block device or an image file",
        ),
        (
            "/a,raw,xvda,rw,more",
            "`more` is one too many; expected at most target, format, vdev and access without a key",
        ),
        (
            "/a,rawr,xvda",
            "format: `rawr` is not raw, qcow, qcow2, vhd, qed or empty",
        ),
        (
            "/a,raw,xvdq0",
            "vdev: `xvdq0` is not a virtual device: xvda, hda, sda1, d0p0 or a number",
        ),
        ("/a,raw,xvda,rx", "access: `rx` is not r, ro, w or rw"),
        ("acess=rw,vdev=xvda,/a", "unknown key `acess`; did you mean `access`?"),
        (
            "backendtyp=phy,vdev=xvda,/a",
            "unknown key `backendtyp`; did you mean `backendtype`?",
        ),
        (
            "backendtype=file,vdev=xvda,/a",
            "backendtype: `file` is not phy, tap or qdisk",
        ),
        (
            "backendtype=phy,backendtype=tap,vdev=xvda,/a",
            "backendtype: given twice, `phy` and `tap`; expected once",
        ),
        ("devtype=floppy,vdev=xvda,/a", "devtype: `floppy` is not cdrom or disk"),
        (
            "vdev=xvda,vdev=xvdb,/a",
            "vdev: given twice, `xvda` and `xvdb`; expected once",
        ),
        (
            "format=raw,format=vhd,vdev=xvda,/a",
            "format: given twice, `raw` and `vhd`; expected once",
        ),
        (
            "/a,vdev=xvda,target=/b",
            "target: given twice, `/a` and `/b`; expected once",
        ),
        (
            "/a=b,raw,xvda",
            "target: `/a=b` is not a path without `=` and `,`; such a one has to come last, after `target=`",
        ),
        (
            "specification=virtio,vdev=xvda,/a",
            "specification: a virtio disk cannot be attached to a running guest",
        ),
        ("specification=x,vdev=xvda,/a", "specification: `x` is not xen"),
        (
            "backendtype=standalone,vdev=xvda,/a",
            "backendtype: a virtio disk cannot be attached to a running guest",
        ),
        (
            "backendtype=phy,format=vhd,vdev=xvda,/a",
            "backendtype: phy serves the format raw alone",
        ),
        (
            "backendtype=tap,format=qcow2,vdev=xvda,/a",
            "backendtype: tap serves the formats raw and vhd alone",
        ),
        (
            "backendtype=qdisk,script=s,vdev=xvda,/a",
            "backendtype: qdisk runs no script; expected phy or tap with `script`",
        ),
        (
            "script=s,format=qcow2,vdev=xvda,/a",
            "script: a script serves the formats raw and vhd alone",
        ),
        (
            "colo,/a,raw,xvda",
            "colo: COLO's disks are set up with their guest, and cannot be attached later",
        ),
        (
            "floppy:/a,xvda",
            "target: `floppy:` is not a known prefix: raw, qcow, qcow2, vhd, iscsi, nbd, enbd, drbd, tapdisk, tap, aio, file or phy",
        ),
        (
            "/a,empty,hdc,,cdrom",
            "target: `/a` is not expected: the format says that the drive is empty",
        ),
        (
            ",empty,xvda",
            "format: `empty` is not for a disk, which has a target; a cdrom may be empty",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(summary(text), *expected, "{text:?}");
    }
}

#[test]
fn disk_has_the_nodes_that_libxl_writes() {
    let disk = disk("vdev=xvdb,untrusted,direct-io-safe,backend=storage,target=/srv/a.img").unwrap();
    assert_eq!(disk.backend.as_deref(), Some("storage"));
    let expected = [
        ("params", "/srv/a.img"),
        ("script", "/etc/xen/scripts/block"),
        ("removable", "0"),
        ("bootable", "1"),
        ("dev", "xvdb"),
        ("type", "phy"),
        ("mode", "w"),
        ("device-type", "disk"),
        ("direct-io-safe", "1"),
        ("discard-enable", "1"),
        ("specification", "xen"),
    ];
    assert_eq!(
        disk.backend_nodes(),
        expected.map(|(name, value)| (name, value.to_owned()))
    );
    let expected = [("virtual-device", "51728"), ("device-type", "disk"), ("trusted", "0")];
    assert_eq!(
        disk.frontend_nodes(),
        expected.map(|(name, value)| (name, value.to_owned()))
    );
}

#[test]
fn virtual_device_has_libxls_number() {
    for (vdev, expected) in [
        ("xvda", Some(51712)),
        ("xvda1", Some(51713)),
        ("xvdb", Some(51728)),
        ("xvdp15", Some(51967)),
        ("xvdq", Some((1 << 28) | (16 << 8))),
        ("xvda16", Some((1 << 28) | 16)),
        ("xvdaa", Some((1 << 28) | (26 << 8))),
        ("xvdba3", Some((1 << 28) | (52 << 8) | 3)),
        ("d0p0", Some(51712)),
        ("d1p2", Some(51730)),
        ("d0x10p0", Some((1 << 28) | (16 << 8))),
        ("d1048576p0", None),
        ("d0p256", None),
        ("hda", Some(768)),
        ("hdb1", Some(833)),
        ("hdc", Some(5632)),
        ("hdd", Some(5696)),
        ("hde", None),
        ("hda64", None),
        ("sda", Some(2048)),
        ("sdb1", Some(2065)),
        ("sdp15", Some(2303)),
        ("sdq", None),
        ("51712", Some(51712)),
        ("0xca00", Some(51712)),
        ("0145000", Some(51712)),
        ("2147483648", None),
        ("xvd", None),
        ("xvda0", None),
        ("xvda01", None),
        ("xvda256", None),
        ("xvdA", None),
        ("vda", None),
        ("", None),
        ("-1", None),
        ("+1", None),
    ] {
        assert_eq!(dev_number(vdev), expected.map(DevId), "{vdev:?}");
    }
}

/// Formats the nodes of a vif, except for the constant ones.
fn vif_summary(text: &str) -> String {
    match Vif::parse(text) {
        Ok(vif) => {
            let nodes = vif.backend_nodes(vif.devid.unwrap_or(DevId(0))).into_iter();
            let words = nodes.filter_map(|(name, value)| match (name, &*value) {
                ("type", "vif")
                | ("bridge", "xenbr0")
                | ("handle", "0")
                | ("script", "/etc/xen/scripts/vif-bridge") => None,
                ("mac", mac) if mac.starts_with("00:16:3e") && !text.contains("mac") => None,
                _ => Some(format!("{name}={value}")),
            });
            words.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn vif_is_parsed_as_xl_does() {
    let rate = "a rate: a number with GB, MB, KB, B, Gb, Mb, Kb or b, `/s`, and perhaps `@` and an interval in s, ms or us, \
                as in 10Mb/s or 1MB/s@20ms";
    let wrong_rate = |text: &str| format!("rate: `{text}` is not {rate}");
    let cases: &[(&str, &str)] = &[
        // The examples of xl-network-configuration(5).
        (
            "mac=00:16:3E:74:3d:76,model=rtl8139,bridge=xenbr0",
            "mac=00:16:3e:74:3d:76",
        ),
        ("mac=00:16:3E:74:34:32", "mac=00:16:3e:74:34:32"),
        ("", ""),
        (
            "mac=00:16:3e:5f:48:e4,bridge=xenbr1",
            "mac=00:16:3e:5f:48:e4 bridge=xenbr1",
        ),
        ("rate=10Mb/s", "rate=62500,50000"),
        ("rate=250KB/s", "rate=12500,50000"),
        ("rate=1MB/s@20ms", "rate=20000,20000"),
        ("vlan=10", "vlan=10"),
        ("vlan=10p/20", "vlan=10p/20"),
        ("vlan=10p/100+10x4", "vlan=10p/100+10x4"),
        // Each key.
        ("bridge=xenbr1", "bridge=xenbr1"),
        ("bridge=ovsbr0.10:20:30", "bridge=ovsbr0.10:20:30"),
        ("gatewaydev=eth0", "gatewaydev=eth0"),
        ("netdev=eth0", "gatewaydev=eth0"),
        ("vifname=web0", "vifname=web0"),
        ("script=vif-route", "script=/etc/xen/scripts/vif-route"),
        ("script=/opt/mine", "script=/opt/mine"),
        ("ip=10.0.0.2 10.0.0.3", "ip=10.0.0.2 10.0.0.3"),
        ("ip=", ""),
        ("type=vif", ""),
        ("model=e1000", ""),
        ("devid=3", "handle=3"),
        ("mtu=9000", "mtu=9000"),
        ("mtu=1500", ""),
        ("trusted", ""),
        ("untrusted", ""),
        ("backend=net", ""),
        (" bridge=xenbr1 , ip=10.0.0.2 ", "ip=10.0.0.2 bridge=xenbr1"),
        // Rates.
        ("rate=1Gb/s", "rate=6250000,50000"),
        ("rate=1GB/s@1", "rate=1000000000,1000000"),
        ("rate=100B/s@1s", "rate=100,1000000"),
        ("rate=800b/s@1s", "rate=100,1000000"),
        ("rate=1KB/s@500us", "rate=0,500"),
        ("rate=1MB/s@20m", "rate=20000,20000"),
        ("rate=1MB/s@20u", "rate=20,20"),
        // VLANs.
        ("vlan=10p", "vlan=10p"),
        ("vlan=5p/1-4u", "vlan=5p/1-4u"),
        // Errors.
        (
            "mac=00:16:3e:74:34",
            "mac: `00:16:3e:74:34` is not an address: six groups of two hexadecimal digits, 00:16:3e:01:02:03",
        ),
        (
            "mac=01:16:3e:74:34:32",
            "mac: `01:16:3e:74:34:32` is not a unicast address",
        ),
        (
            "mac=00:16:3e:74:34:3g",
            "mac: `00:16:3e:74:34:3g` is not an address: six groups of two hexadecimal digits, 00:16:3e:01:02:03",
        ),
        ("bridg=xenbr0", "unknown key `bridg`; did you mean `bridge`?"),
        ("vif_name=a", "unknown key `vif_name`; did you mean `vifname`?"),
        ("bridge", "bridge: is missing; expected `=` and a value"),
        ("untrustd", "unknown key `untrustd`; did you mean `untrusted`?"),
        ("trusted=1", "trusted: is a flag; expected no value"),
        ("bridge=a,bridge=b", "bridge: given twice, `a` and `b`; expected once"),
        (
            "netdev=a,gatewaydev=b",
            "gatewaydev: given twice, `a` and `b`; expected once",
        ),
        (
            "type=ioemu",
            "type: a vif that is attached to a running guest cannot be emulated; expected vif",
        ),
        ("type=tap", "type: `tap` is not vif"),
        ("mtu=67", "mtu: `67` is not a number of bytes from 68 to 65535"),
        ("mtu=+1500", "mtu: `+1500` is not a number of bytes from 68 to 65535"),
        ("devid=x", "devid: `x` is not a device's number"),
        (
            "vifname=averyveryverylong",
            "vifname: `averyveryverylong` is not a link's name: at most 15 characters, none of them `/`, `:` or a space",
        ),
        ("accel=1", "accel: xl does not support it either"),
        (
            "forwarddev=eth0",
            "forwarddev: COLO's vifs are set up with their guest and cannot be attached",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(vif_summary(text), *expected, "{text:?}");
    }
    for text in [
        "10",
        "10/s",
        "0MB/s",
        "10TB/s",
        "10MB",
        "10MB/s@",
        "10MB/s@0",
        "10MB/s@1h",
        "5000000000B/s",
        "MB/s",
    ] {
        assert_eq!(vif_summary(&format!("rate={text}")), wrong_rate(text));
    }
    for text in [
        "0",
        "4095",
        "10/20",
        "10p/20p",
        "4-1p",
        "10p/20-10",
        "10p/4000+10x20",
        "p",
        "10p/",
        "a",
    ] {
        assert!(
            vif_summary(&format!("vlan={text}")).starts_with(&format!("vlan: `{text}` is not VLANs")),
            "{text}"
        );
    }
}

#[test]
fn vif_without_mac_gets_a_xen_address() {
    let [one, other] = [Vif::parse("").unwrap(), Vif::parse("").unwrap()];
    assert_eq!(one.mac[..3], [0x00, 0x16, 0x3e]);
    assert!(one.mac[3] < 0x80);
    assert_ne!(one.mac, other.mac);
    let nodes = one.frontend_nodes(DevId(2));
    assert_eq!(node(&nodes, "handle"), "2");
    assert_eq!(node(&nodes, "mtu"), "1500");
    assert_eq!(node(&nodes, "trusted"), "1");
}
