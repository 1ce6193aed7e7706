//! What the learning table is told about ports.

use std::collections::HashMap;

use ringway_api::control::{Address, Reply};
use ringway_api::port_spec::Mac;

use super::Control;
use crate::table::{Owner, PORT_LIMIT};

/// Most addresses in one reply, which has to fit into a message.
const MOST_LISTED: usize = 4096;

impl Control {
    /// What was learned, of one port or of all: by port, the addresses heard last first.
    pub(super) fn addresses(&self, only: Option<&str>) -> Reply {
        let ports = self.ports.values();
        let ports = ports.filter(|port| only.is_none_or(|name| port.name == name));
        let names: HashMap<u16, &str> = ports.map(|port| (port.slot, &*port.name)).collect();
        let now = self.shared.now();
        let mut addresses = Vec::new();
        self.shared.table.for_each(|key, slot, seen| {
            let Some(port) = names.get(&slot) else { return };
            let [a, b, c, d, e, f, ..] = key.mac().to_le_bytes();
            addresses.push(Address {
                port: (*port).to_owned(),
                mac: Mac([a, b, c, d, e, f]),
                vlan: Some(key.domain()).filter(|vlan| *vlan != 0),
                age: now.saturating_sub(seen),
            });
        });
        let learned = addresses.len();
        addresses.sort_by(|a, b| (a.age, &a.port, a.mac.0).cmp(&(b.age, &b.port, b.mac.0)));
        addresses.truncate(MOST_LISTED);
        addresses.sort_by(|a, b| a.port.cmp(&b.port));
        Reply::Addresses { addresses, learned }
    }

    /// Limits of learned addresses, and which belong to a port. An address belongs to the port that may
    /// send from no other, as long as its driver runs: a guest that migrates is learned where it went.
    pub(super) fn tell_table(&self) {
        let table = &self.shared.table;
        for port in self.ports.values() {
            table.limit_port(port.slot, port.spec.macs.unwrap_or(PORT_LIMIT));
        }
        let runs = self.ports.values().filter(|port| {
            let view = port.view.as_ref();
            view.is_some_and(|view| view.send_queues() > 0)
        });
        let owners = runs.filter_map(|port| {
            Some(Owner {
                mac: port.policy.mac?,
                slot: port.slot,
                vlan: port.policy.vlan.clone(),
            })
        });
        table.set_owners(owners.collect());
    }
}
