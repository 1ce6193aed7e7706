//! Counters of the kernel's interfaces, in the network namespace of this process.

use std::{collections::BTreeMap, fs};

use ringway_api::{
    stats::{PortStatistics, QueueStatistics},
    v1::{PortInfo, PortPath},
};

/// A port that the kernel carries, as if the switch had counted it; `None` where its interface is not to be seen.
pub(super) fn port(port: &PortInfo, links: &[PortStatistics]) -> Option<PortStatistics> {
    let tap = port.tap.as_ref()?;
    let kind = match port.path {
        PortPath::VhostUser => return None,
        PortPath::Tap => "tap",
        PortPath::VhostNet => "vhost-net",
        PortPath::Macvtap => "macvtap",
    };
    let mut read = links.iter().find(|link| link.name == tap.as_str())?.clone();
    // What a tap receives came from the guest. A macvtap is a card: what it receives goes to the guest.
    if port.path == PortPath::Macvtap
        && let Some(queue) = read.queues.first_mut()
    {
        (queue.rx_frames, queue.tx_frames) = (queue.tx_frames, queue.rx_frames);
        (queue.rx_bytes, queue.tx_bytes) = (queue.tx_bytes, queue.rx_bytes);
    }
    read.name = format!("{}/{}", port.network, port.name);
    read.kind = kind.into();
    read.connected = port.connected.unwrap_or(true);
    Some(read)
}

/// All interfaces of this network namespace; rx is what the host received.
pub(super) fn all() -> Vec<PortStatistics> {
    // /sys may be another namespace's; this file is ours.
    read("thread-self")
}

/// Those of the namespaces that these processes live in, where they are others; named `NAMESPACE/INTERFACE`, by the namespace's number.
pub(super) fn elsewhere(pids: impl Iterator<Item = i32>) -> Vec<PortStatistics> {
    let mut seen = vec![namespace("thread-self")];
    let mut found = Vec::new();
    for pid in pids.map(|pid| pid.to_string()) {
        let namespace = namespace(&pid);
        let Some(number) = namespace.filter(|_| !seen.contains(&namespace)) else {
            continue;
        };
        seen.push(namespace);
        found.extend(read(&pid).into_iter().map(|link| PortStatistics {
            name: format!("{number}/{}", link.name),
            ..link
        }));
    }
    found
}

/// The number of a process's network namespace.
fn namespace(process: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{process}/ns/net")).ok()?;
    let number = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    number.parse().ok()
}

fn read(process: &str) -> Vec<PortStatistics> {
    let text = fs::read_to_string(format!("/proc/{process}/net/dev")).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// A line of proc_net_dev(5): bytes, packets, errors and drops, and so on, of each direction.
fn parse(line: &str) -> Option<PortStatistics> {
    let (name, counters) = line.split_once(':')?;
    let counters = counters.split_whitespace().map(|it| it.parse().ok());
    let counters: Vec<u64> = counters.collect::<Option<_>>()?;
    let [
        rx_bytes,
        rx_frames,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        rest @ ..,
    ] = counters.as_slice()
    else {
        return None;
    };
    let [tx_bytes, tx_frames, tx_errors, tx_dropped, ..] = rest else {
        return None;
    };
    let drops = [
        ("rx_dropped", rx_dropped),
        ("tx_dropped", tx_dropped),
        ("rx_errors", rx_errors),
        ("tx_errors", tx_errors),
    ];
    Some(PortStatistics {
        name: name.trim().to_owned(),
        connected: true,
        queues: vec![QueueStatistics {
            rx_frames: *rx_frames,
            rx_bytes: *rx_bytes,
            tx_frames: *tx_frames,
            tx_bytes: *tx_bytes,
            ..QueueStatistics::default()
        }],
        drops: drops
            .map(|(reason, count)| (reason.to_owned(), *count))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        ..PortStatistics::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kernels_table_is_read_and_its_headings_are_not() {
        assert!(all().iter().any(|link| link.name == "lo"));
        assert_eq!(parse("Inter-|   Receive   |  Transmit"), None);
        assert_eq!(parse(" face |bytes packets: errs"), None);
        let link = parse("  tap0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0").unwrap();
        assert_eq!((link.name.as_str(), link.drops["tx_dropped"]), ("tap0", 8));
        let queue = link.queues[0];
        assert_eq!((queue.rx_bytes, queue.rx_frames), (100, 2));
        assert_eq!((queue.tx_bytes, queue.tx_frames), (500, 6));
    }

    #[test]
    fn a_macvtap_receives_for_its_guest_and_a_tap_from_it() {
        let links = [parse("t: 100 2 0 0 0 0 0 0 500 6 0 0 0 0 0 0").unwrap()];
        let counted = |path: &str| {
            let info = json!({
                "network": "lan", "name": "web", "path": path, "socket": null, "tap": "t",
                "mac": "02:00:00:00:00:01", "address": null, "queues": 1, "rate": null, "connected": null
            });
            port(&serde_json::from_value(info).unwrap(), &links)
        };
        let frames = |path: &str| {
            let counted = counted(path).unwrap();
            assert_eq!(
                (counted.name.as_str(), counted.kind.as_str()),
                ("lan/web", path)
            );
            (counted.queues[0].rx_frames, counted.queues[0].tx_frames)
        };
        assert_eq!((frames("tap"), frames("macvtap")), ((2, 6), (6, 2)));
        assert_eq!(counted("vhost-user"), None);
    }
}
