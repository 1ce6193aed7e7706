//! Leases and forwards.

use std::time::{SystemTime, UNIX_EPOCH};

use ringway_api::v1::{Binding, Forward, Lease};

use super::{
    duration::until,
    table::{Align, Table, cell},
};

/// One line each.
pub(crate) fn leases(leases: &[Lease]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    leases_at(leases, now.map_or(0, |now| now.as_secs()))
}

/// The addresses alone, for scripts.
pub(crate) fn addresses(leases: &[Lease]) -> String {
    let lines = leases.iter().map(|lease| format!("{}\n", lease.address));
    lines.collect()
}

/// One line each.
pub(crate) fn forwards(forwards: &[Forward]) -> String {
    let mut table = Table::new([
        ("NETWORK", Align::Left),
        ("ID", Align::Right),
        ("PROTOCOL", Align::Left),
        ("LISTEN", Align::Left),
        ("PORTS", Align::Left),
        ("TO", Align::Left),
    ]);
    for forward in forwards {
        let spec = &forward.spec;
        let first = spec.to_port.unwrap_or(spec.ports.first());
        let more = spec.ports.last() - spec.ports.first();
        let last = u32::from(first) + u32::from(more);
        let to = match more {
            0 => format!("{}:{first}", spec.to),
            _ => format!("{}:{first}-{last}", spec.to),
        };
        table.row([
            forward.network.to_string(),
            forward.id.to_string(),
            spec.protocol.to_string(),
            spec.listen
                .map_or_else(|| "any".into(), |listen| listen.to_string()),
            spec.ports.to_string(),
            to,
        ]);
    }
    table.to_string()
}

fn leases_at(leases: &[Lease], now: u64) -> String {
    let mut table = Table::new([
        ("NETWORK", Align::Left),
        ("ADDRESS", Align::Left),
        ("MAC", Align::Left),
        ("NAME", Align::Left),
        ("BINDING", Align::Left),
        ("EXPIRES", Align::Left),
    ]);
    for lease in leases {
        let client = lease.client_id.as_ref().map(|id| format!("id {id}"));
        table.row([
            lease.network.to_string(),
            lease.address.to_string(),
            lease
                .mac
                .map(|mac| mac.to_string())
                .or(client)
                .unwrap_or_else(|| "-".into()),
            cell(&lease.name),
            binding(lease.binding).into(),
            lease
                .expires
                .map_or_else(|| "-".into(), |time| until(time, now)),
        ]);
    }
    table.to_string()
}

fn binding(binding: Binding) -> &'static str {
    match binding {
        Binding::Static => "static",
        Binding::Port => "port",
        Binding::Dynamic => "dynamic",
        Binding::Declined => "declined",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leases_say_how_long_they_last() {
        let lease = |address: &str, mac: Option<&str>, expires: Option<u64>| -> Lease {
            serde_json::from_value(json!({
                "network": "lan", "address": address, "mac": mac, "client_id": "01ff", "name": null,
                "binding": "dynamic", "expires": expires
            }))
            .unwrap()
        };
        let leases = [
            lease("10.9.0.9", Some("02:00:00:00:00:01"), Some(3_700)),
            lease("10.9.0.100", None, None),
        ];
        assert_eq!(
            leases_at(&leases, 100),
            "NETWORK  ADDRESS     MAC                NAME  BINDING  EXPIRES\n\
             lan      10.9.0.9    02:00:00:00:00:01  -     dynamic  in 1 h 0 min\n\
             lan      10.9.0.100  id 01ff            -     dynamic  -\n"
        );
        assert_eq!(addresses(&leases), "10.9.0.9\n10.9.0.100\n");
    }

    #[test]
    fn forwards_say_which_port_leads_where() {
        let forward = |ports: &str, to_port: Option<u16>| -> Forward {
            serde_json::from_value(json!({
                "id": 7, "network": "lan", "ports": ports, "to": "10.9.0.9", "to_port": to_port
            }))
            .unwrap()
        };
        assert_eq!(
            forwards(&[forward("8080", Some(80)), forward("5000-5009", None)]),
            "NETWORK  ID  PROTOCOL  LISTEN  PORTS      TO\n\
             lan       7  tcp       any     8080       10.9.0.9:80\n\
             lan       7  tcp       any     5000-5009  10.9.0.9:5000-5009\n"
        );
    }
}
