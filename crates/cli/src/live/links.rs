//! Counters of the kernel's interfaces, read in the network namespace of this process.

use std::{fs, path::Path};

use ringway_api::{
    stats::{PortStatistics, QueueStatistics},
    v1::{PortInfo, PortPath},
};

/// A port that the kernel carries, as if the switch had counted it; `None` where its interface is not to be seen.
pub(super) fn port(port: &PortInfo) -> Option<PortStatistics> {
    let tap = port.tap.as_ref()?;
    let kind = match port.path {
        PortPath::VhostUser => return None,
        PortPath::Tap => "tap",
        PortPath::VhostNet => "vhost-net",
        PortPath::Macvtap => "macvtap",
    };
    let mut read = counters(tap.as_str())?;
    // What a tap receives came from the guest. A macvtap is a card: what it receives goes to the guest.
    if port.path == PortPath::Macvtap
        && let Some(queue) = read.queues.first_mut()
    {
        (queue.rx_frames, queue.tx_frames) = (queue.tx_frames, queue.rx_frames);
        (queue.rx_bytes, queue.tx_bytes) = (queue.tx_bytes, queue.rx_bytes);
    }
    read.name = format!("{}/{}", port.network, port.name);
    read.kind = kind.into();
    Some(read)
}

/// What an interface counted: rx is what the host received from it.
fn counters(name: &str) -> Option<PortStatistics> {
    let folder = Path::new("/sys/class/net").join(name);
    let number = |counter: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join("statistics").join(counter)).ok()?;
        text.trim().parse().ok()
    };
    let queue = QueueStatistics {
        rx_frames: number("rx_packets")?,
        rx_bytes: number("rx_bytes")?,
        tx_frames: number("tx_packets")?,
        tx_bytes: number("tx_bytes")?,
        ..QueueStatistics::default()
    };
    let drops = ["rx_dropped", "tx_dropped", "rx_errors", "tx_errors"];
    let carrier = fs::read_to_string(folder.join("carrier")).unwrap_or_default();
    Some(PortStatistics {
        name: name.to_owned(),
        connected: carrier.trim() == "1",
        queues: vec![queue],
        drops: drops
            .into_iter()
            .filter_map(|counter| Some((counter.to_owned(), number(counter)?)))
            .collect(),
        ..PortStatistics::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_counted_and_a_missing_one_is_not() {
        let lo = counters("lo").unwrap();
        assert_eq!(lo.queues.len(), 1);
        assert!(lo.drops.contains_key("tx_dropped"), "{lo:?}");
        assert_eq!(counters("rw-no-such-link"), None);
    }
}
