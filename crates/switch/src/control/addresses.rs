//! What the learning table is told about ports.

use super::Control;
use crate::table::{Owner, PORT_LIMIT};

impl Control {
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
