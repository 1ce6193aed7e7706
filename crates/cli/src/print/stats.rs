//! What was counted.

use ringway_api::{stats::Statistics, v1::Stats};

use super::table::{Align, Table};

/// The switch's ports, why frames were dropped, and what the networks' services did.
pub(crate) fn stats(stats: &Stats) -> String {
    let mut text = match &stats.switch {
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
            stats(&given),
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
        let none = Stats {
            switch: None,
            services: Default::default(),
        };
        assert!(stats(&none).starts_with("the switch does not run"));
    }
}
