//! Requests to xenstored, from its own trace.

use std::collections::BTreeMap;

/// Nodes that the kernel and the toolstack use once a device is connected (drivers/block/xen-blkback/xenbus.c,
/// drivers/net/xen-netback/xenbus.c, and the guest's driver for `mtu`).
const USED_NODES: [&str; 4] = ["node", "physical-device", "physical-device-path", "mtu"];

/// Requests in their order.
#[derive(Debug)]
pub struct Trace<'a>(Vec<Request<'a>>);

#[derive(Debug)]
struct Request<'a> {
    connection: &'a str,
    operation: &'a str,
    /// Arguments of the operation, such as path and value.
    body: &'a str,
}

impl<'a> Trace<'a> {
    /// Parses a trace, with lines such as `IN 0x55d0 20261125 17:23:53 WRITE (/a/b value`. Xen 4.20 puts `io: ` before them,
    /// and the domain, `(d0)`, after the connection. Skips the further lines of a value of several lines.
    pub fn of(text: &'a str) -> Self {
        let requests = text.lines().filter_map(|line| {
            let line = line.strip_prefix("io: ").unwrap_or(line);
            let (connection, rest) = line.strip_prefix("IN ")?.split_once(' ')?;
            let rest = match rest.strip_prefix("(d") {
                Some(domain) => domain.split_once(' ')?.1,
                None => rest,
            };
            let mut words = rest.splitn(4, ' ');
            let operation = words.nth(2)?;
            let body = words.next()?.strip_prefix('(')?;
            Some(Request {
                connection,
                operation,
                body: body.strip_suffix(')').unwrap_or(body),
            })
        });
        Self(requests.collect())
    }

    /// Returns the number of requests.
    pub fn requests(&self) -> usize {
        self.0.len()
    }

    /// Returns a line for each time that a device became connected, with the nodes of [`USED_NODES`] that existed by
    /// then. The writes of a transaction appear when it ends.
    pub(super) fn connections(&self) -> Vec<String> {
        let mut open: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut written: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut lines = Vec::new();
        for request in &self.0 {
            match request.operation {
                "TRANSACTION_START" => {
                    open.insert(request.connection, Vec::new());
                }
                "TRANSACTION_END" => {
                    let all = open.remove(request.connection).unwrap_or_default();
                    if request.body.starts_with('T') {
                        apply(&mut written, &all, &mut lines);
                    }
                }
                "WRITE" => match open.get_mut(request.connection) {
                    Some(all) => all.push(request.body),
                    None => apply(&mut written, &[request.body], &mut lines),
                },
                _ => {}
            }
        }
        lines
    }
}

/// Applies writes that became visible at once.
fn apply<'a>(written: &mut BTreeMap<String, Vec<&'a str>>, writes: &[&'a str], lines: &mut Vec<String>) {
    let mut connected = Vec::new();
    for write in writes {
        let (path, value) = write.split_once(' ').unwrap_or((write, ""));
        let Some((device, name)) = device_and_node(path) else {
            continue;
        };
        if name == "hotplug-status" && value == "connected" {
            connected.push(device);
        } else if USED_NODES.contains(&name) {
            written.entry(device).or_default().push(name);
        }
    }
    for device in connected {
        let mut names = written.get(&device).cloned().unwrap_or_default();
        names.sort_unstable();
        names.dedup();
        lines.push(format!("{device} connected when it had: {}", names.join(" ")));
    }
}

/// Returns the device, as `vbd/3/51712`, whose backend or frontend a node belongs to, and the node's name.
fn device_and_node(path: &str) -> Option<(String, &str)> {
    let path = path.strip_prefix("/local/domain/").unwrap_or(path);
    let words: Vec<&str> = path.split('/').collect();
    match words[..] {
        ["backend", kind, frontend, devid, name] | [_, "backend", kind, frontend, devid, name] => {
            Some((format!("{kind}/{frontend}/{devid}"), name))
        }
        // The toolstack writes its own nodes of the frontend before.
        [frontend, "device", kind, devid, name @ "mtu"] => Some((format!("{kind}/{frontend}/{devid}"), name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactions_writes_are_there_all_at_once() {
        let text = "IN 0x1 20260101 00:00:00 TRANSACTION_START ( )\n\
                    IN 0x1 20260101 00:00:00 WRITE (backend/vbd/3/51712/hotplug-status connected)\n\
                    IN 0x2 20260101 00:00:00 WRITE (backend/vbd/3/51712/node /dev/loop\n0)\n\
                    IN 0x1 20260101 00:00:00 WRITE (backend/vbd/3/51712/physical-device 7:0)\n\
                    OUT 0x1 20260101 00:00:00 WRITE (OK )\n\
                    IN 0x1 20260101 00:00:00 TRANSACTION_END (T )\n\
                    IN 0x1 20260101 00:00:00 WRITE (/local/domain/0/backend/vbd/3/51712/physical-device-path x)\n";
        let trace = Trace::of(text);
        assert_eq!(trace.requests(), 6);
        assert_eq!(
            trace.connections(),
            ["vbd/3/51712 connected when it had: node physical-device"]
        );
    }

    #[test]
    fn trace_of_xen_4_20_is_parsed() {
        let text = "io: IN 0x1 (d0) 20260101 00:00:00 WRITE (backend/vbd/3/51712/node /dev/loop0)\n\
                    obj: CREATE watch 0x2\n\
                    io: IN 0x1 (d0) 20260101 00:00:00 WRITE (backend/vbd/3/51712/hotplug-status connected)\n";
        assert_eq!(
            Trace::of(text).connections(),
            ["vbd/3/51712 connected when it had: node"]
        );
    }

    #[test]
    fn what_comes_after_is_not_there_yet() {
        let text = "IN 0x1 20260101 00:00:00 WRITE (backend/vif/3/0/hotplug-status connected)\n\
                    IN 0x1 20260101 00:00:00 WRITE (/local/domain/3/device/vif/0/mtu 1500)\n";
        assert_eq!(Trace::of(text).connections(), ["vif/3/0 connected when it had: "]);
    }
}
