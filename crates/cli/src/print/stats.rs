//! What was counted.

use ringway_api::{
    stats::Statistics,
    v1::{Addresses, Stats},
};

use super::table::{Align, Table, cell};

/// Which address is behind which port.
pub(crate) fn learned(learned: &Addresses) -> String {
    let mut table = Table::new([
        ("PORT", Align::Left),
        ("MAC", Align::Left),
        ("VLAN", Align::Right),
        ("AGE", Align::Right),
    ]);
    for address in &learned.addresses {
        table.row([
            address.port.clone(),
            address.mac.to_string(),
            cell(&address.vlan),
            format!("{} s", address.age),
        ]);
    }
    let shown = learned.addresses.len();
    let rest = match learned.learned.saturating_sub(shown) {
        0 => String::new(),
        rest => format!("\nand {rest} more, which are older\n"),
    };
    format!("{table}{rest}")
}

/// The switch's ports, why frames were dropped, and what the networks' services did.
pub(crate) fn stats(stats: &Stats, by_queue: bool) -> String {
    let mut text = match &stats.switch {
        Some(switch) if by_queue => format!("{}\n{}", queues(switch), carried(switch)),
        Some(switch) => carried(switch),
        None => "the switch does not run; `ringway daemon` starts it again\n".into(),
    };
    let mut services = Table::new([
        ("NETWORK", Align::Left),
        ("COUNTER", Align::Left),
        ("COUNT", Align::Right),
    ]);
    for (network, counters) in &stats.services {
        for (counter, count) in counters {
            services.row([network.clone(), counter.clone(), count.to_string()]);
        }
    }
    if stats.services.values().any(|counters| !counters.is_empty()) {
        text += &format!("\n{services}");
    }
    text
}

fn queues(switch: &Statistics) -> String {
    let mut table = Table::new([
        ("PORT", Align::Left),
        ("QUEUE", Align::Right),
        ("WORKER", Align::Right),
        ("RX-FRAMES", Align::Right),
        ("RX-BYTES", Align::Right),
        ("TX-FRAMES", Align::Right),
        ("TX-BYTES", Align::Right),
        ("KICKS", Align::Right),
        ("CALLS", Align::Right),
    ]);
    for port in &switch.ports {
        for (number, queue) in port.queues.iter().enumerate() {
            table.row([
                port.name.clone(),
                number.to_string(),
                cell(&queue.worker),
                queue.rx_frames.to_string(),
                queue.rx_bytes.to_string(),
                queue.tx_frames.to_string(),
                queue.tx_bytes.to_string(),
                queue.kicks.to_string(),
                queue.calls.to_string(),
            ]);
        }
    }
    table.to_string()
}

fn carried(switch: &Statistics) -> String {
    let mut ports = Table::new([
        ("PORT", Align::Left),
        ("KIND", Align::Left),
        ("CONNECTED", Align::Left),
        ("RX-FRAMES", Align::Right),
        ("RX-BYTES", Align::Right),
        ("TX-FRAMES", Align::Right),
        ("TX-BYTES", Align::Right),
        ("DROPS", Align::Right),
    ]);
    let mut drops = Table::new([
        ("PORT", Align::Left),
        ("DROPPED", Align::Left),
        ("FRAMES", Align::Right),
    ]);
    for port in &switch.ports {
        let sum = |count: fn(&ringway_api::stats::QueueStatistics) -> u64| {
            let sum = port.queues.iter().map(count).fold(0, u64::saturating_add);
            sum.to_string()
        };
        let dropped = port.drops.values().copied().fold(0, u64::saturating_add);
        ports.row([
            port.name.clone(),
            port.kind.clone(),
            if port.connected { "yes" } else { "no" }.into(),
            sum(|queue| queue.rx_frames),
            sum(|queue| queue.rx_bytes),
            sum(|queue| queue.tx_frames),
            sum(|queue| queue.tx_bytes),
            dropped.to_string(),
        ]);
        for (reason, count) in port.drops.iter().filter(|(_, count)| **count > 0) {
            drops.row([port.name.clone(), reason.clone(), count.to_string()]);
        }
    }
    let any = |count: &u64| *count > 0;
    let reasons = match switch.ports.iter().any(|port| port.drops.values().any(any)) {
        true => format!("\n{drops}"),
        false => String::new(),
    };
    format!(
        "{ports}\nof {} deliveries {} were done and {} dropped\n{reasons}",
        switch.attempted, switch.delivered, switch.dropped
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_stand_with_their_port_and_the_older_ones_are_counted() {
        let address =
            json!({ "port": "lan/web", "mac": "02:00:00:00:00:01", "vlan": 7, "age": 12 });
        let given = json!({ "addresses": [address], "learned": 5001 });
        assert_eq!(
            learned(&serde_json::from_value(given).unwrap()),
            "PORT     MAC                VLAN   AGE\n\
             lan/web  02:00:00:00:00:01     7  12 s\n\
             \n\
             and 5000 more, which are older\n"
        );
    }

    #[test]
    fn ports_reasons_and_services_each_have_their_table() {
        let queue = json!({
            "rx_frames": 5, "rx_bytes": 300, "tx_frames": 4, "tx_bytes": 240, "kicks": 1, "calls": 1
        });
        let given: Stats = serde_json::from_value(json!({
            "switch": {
                "ports": [{
                    "name": "lan.web", "kind": "vhost-user", "connected": true, "features": "0x0",
                    "queues": [queue, queue], "drops": { "no_buffers": 3, "storm_limited": 0 }
                }],
                "attempted": 11, "delivered": 8, "dropped": 3, "copied_bytes": 480
            },
            "services": { "lan": { "dhcp_offers": 2 } }
        }))
        .unwrap();
        assert_eq!(
            stats(&given, false),
            "PORT     KIND        CONNECTED  RX-FRAMES  RX-BYTES  TX-FRAMES  TX-BYTES  DROPS\n\
             lan.web  vhost-user  yes               10       600          8       480      3\n\
             \n\
             of 11 deliveries 8 were done and 3 dropped\n\
             \n\
             PORT     DROPPED     FRAMES\n\
             lan.web  no_buffers       3\n\
             \n\
             NETWORK  COUNTER      COUNT\n\
             lan      dhcp_offers      2\n"
        );
        let by_queue = stats(&given, true);
        assert!(
            by_queue.starts_with(
                "PORT     QUEUE  WORKER  RX-FRAMES  RX-BYTES  TX-FRAMES  TX-BYTES  KICKS  CALLS\n\
                 lan.web      0       -          5       300          4       240      1      1\n\
                 lan.web      1       -          5"
            ),
            "{by_queue}"
        );
        let none = Stats {
            switch: None,
            services: Default::default(),
        };
        assert!(stats(&none, true).starts_with("the switch does not run"));
    }
}
