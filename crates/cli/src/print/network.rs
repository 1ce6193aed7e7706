//! Networks, and what happens to them.

use ringway_api::v1::{Applied, Kind, NetworkInfo};

use super::{
    duration::duration,
    table::{Align, Table, cell},
};

/// One line each.
pub(crate) fn networks(networks: &[NetworkInfo]) -> String {
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("KIND", Align::Left),
        ("SUBNET", Align::Left),
        ("GATEWAY", Align::Left),
        ("INTERFACE", Align::Left),
        ("PORTS", Align::Right),
        ("LEASES", Align::Right),
    ]);
    for network in networks {
        table.row([
            network.spec.name.to_string(),
            kind(network.spec.kind).into(),
            cell(&network.spec.subnet),
            cell(&network.gateway),
            network.interface.to_string(),
            network.ports.to_string(),
            network.leases.to_string(),
        ]);
    }
    table.to_string()
}

/// All about one.
pub(crate) fn network(network: &NetworkInfo) -> String {
    let spec = &network.spec;
    let dhcp = match (spec.dhcp.enabled, spec.dhcp.range) {
        _ if spec.kind == Kind::Bridge => "left to the bridge's network".into(),
        (false, _) => "off".into(),
        (true, range) => {
            let addresses = range.map(|(first, last)| format!("{first} to {last}, "));
            let time = duration(spec.dhcp.lease_seconds.into());
            format!("{}for {time}", addresses.unwrap_or_default())
        }
    };
    let dns = match (spec.kind, spec.dns.enabled) {
        (Kind::Bridge, _) => "left to the bridge's network".into(),
        (_, false) => "off".into(),
        (_, true) => format!("NAME.{}.{}", spec.name, spec.dns.domain),
    };
    let mut lines = vec![
        ("name", spec.name.to_string()),
        ("kind", kind(spec.kind).into()),
        ("subnet", cell(&spec.subnet)),
        ("subnet6", cell(&spec.subnet6)),
        ("gateway", cell(&network.gateway)),
        ("interface", network.interface.to_string()),
        ("mtu", cell(&spec.mtu)),
        ("dhcp", dhcp),
        ("dns", dns),
        ("ports", network.ports.to_string()),
        ("leases", network.leases.to_string()),
    ];
    if let Some(free) = network.free {
        let hint = if free == 0 {
            ": the next client gets no address"
        } else {
            ""
        };
        lines.push(("free", format!("{free}{hint}")));
    }
    if let Some(bridge) = &spec.bridge {
        lines.push(("bridge", bridge.to_string()));
    }
    super::fields(&lines)
}

/// What was made, and what to do next.
pub(crate) fn network_created(network: &NetworkInfo) -> String {
    let name = &network.spec.name;
    let subnet = network.spec.subnet.map(|subnet| format!(", {subnet}"));
    format!(
        "network {name} ({}{}) is there; `ringway port create {name} NAME` makes a port for a virtual machine\n",
        kind(network.spec.kind),
        subnet.unwrap_or_default(),
    )
}

/// What was done, or would be.
pub(crate) fn applied(applied: &Applied) -> String {
    if applied.steps.is_empty() {
        return "everything is so already\n".into();
    }
    let lines = applied.steps.iter().map(|step| format!("{step}\n"));
    let rest = if applied.done {
        ""
    } else {
        "nothing was done; without --dry-run it is\n"
    };
    lines.chain([rest.to_owned()]).collect()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Nat => "nat",
        Kind::Routed => "routed",
        Kind::Isolated => "isolated",
        Kind::Bridge => "bridge",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lan() -> NetworkInfo {
        serde_json::from_value(json!({
            "name": "lan", "subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "mtu": 1500,
            "dhcp": { "range": ["10.9.0.10", "10.9.0.99"] },
            "interface": "rw-lan", "vlan": 2, "ports": 3, "leases": 12, "free": 0
        }))
        .unwrap()
    }

    #[test]
    fn a_list_has_a_line_each() {
        assert_eq!(
            networks(&[lan()]),
            "NAME  KIND  SUBNET       GATEWAY   INTERFACE  PORTS  LEASES\n\
             lan   nat   10.9.0.0/24  10.9.0.1  rw-lan         3      12\n"
        );
    }

    #[test]
    fn one_network_is_told_in_full() {
        let text = network(&lan());
        for line in [
            "name       lan\n",
            "dhcp       10.9.0.10 to 10.9.0.99, for 1 h 0 min\n",
            "dns        NAME.lan.ringway\n",
            "subnet6    -\n",
            "free       0: the next client gets no address\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_dry_run_says_that_it_was_one() {
        let steps = vec!["create network lan".into()];
        let dry = applied(&Applied { steps, done: false });
        assert!(
            dry.starts_with("create network lan\nnothing was done"),
            "{dry}"
        );
        assert_eq!(applied(&Applied::default()), "everything is so already\n");
    }
}
