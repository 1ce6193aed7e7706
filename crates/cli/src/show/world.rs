//! What is drawn is joined from: QEMU's command lines and the host's links, the daemon's ports and networks or a switch's, and rates.

use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

use ringway_api::{
    control,
    port_spec::PortKind,
    v1::{Name, NetworkInfo, client::Client},
};
use ringway_doctor::{
    Facts,
    gather::{self, Which},
};

use crate::live::{Rates, Source, Whom, machines};

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) facts: Facts,
    pub(super) rates: Rates,
    pub(super) ports: Vec<Known>,
    pub(super) networks: Vec<NetworkInfo>,
    /// Our machines by QEMU's process.
    pub(super) names: BTreeMap<i32, String>,
    /// A switch without a daemon.
    pub(super) alone: bool,
}

/// A port as it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// As in the switch's statistics.
    pub(super) name: String,
    pub(super) socket: Option<PathBuf>,
    /// The tap that it is, or that carries it.
    pub(super) tap: Option<String>,
    pub(super) network: Option<Name>,
    pub(super) details: Vec<String>,
}

impl World {
    /// Looks, waits for `interval`, and looks again.
    pub(super) fn look(whom: &Whom, run: PathBuf, interval: Duration) -> Self {
        let mut source = Source::new(whom.clone(), run.clone()).with_links();
        let before = source.sample();
        let mut world = Self {
            facts: gather::gather(&Which::All, &[]),
            names: machines(&run),
            ..Self::default()
        };
        let asked = match whom {
            Whom::Daemon(client) => world.ask_daemon(client),
            Whom::Switch(path) => world.ask_switch(path),
        };
        thread::sleep(interval);
        world.rates = Rates::between(Some(&before), &source.sample());
        // What failed first tells more.
        let trouble = before.trouble.or(asked.err());
        world.rates.trouble = trouble.or(world.rates.trouble);
        world
    }

    fn ask_daemon(&mut self, client: &Client) -> Result<(), String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        self.networks = client.networks().map_err(|error| said(&error))?;
        for port in client.ports(None).map_err(|error| said(&error))? {
            self.ports.push(Known {
                name: format!("{}/{}", port.network, port.name),
                socket: port.socket,
                tap: port.tap.map(|tap| tap.to_string()),
                network: Some(port.network),
                details: port.address.iter().map(ToString::to_string).collect(),
            });
        }
        Ok(())
    }

    fn ask_switch(&mut self, path: &std::path::Path) -> Result<(), String> {
        self.alone = true;
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let patience = Duration::from_secs(5);
        let mut client = control::Client::connect(path, patience).map_err(|error| said(&error))?;
        for port in client.ports().map_err(|error| said(&error))? {
            let (socket, tap) = match &port.spec.kind {
                PortKind::VhostUser(socket) => (Some(socket.path.clone()), None),
                PortKind::Tap { name, .. } => (None, Some(name.to_string())),
                PortKind::AfPacket { interface } => (None, Some(interface.to_string())),
                PortKind::Pcap { .. } | PortKind::Sink | PortKind::Generator(_) => (None, None),
            };
            let vlan = port.spec.vlan.map(|vlan| format!("VLAN {vlan}"));
            self.ports.push(Known {
                name: port.name,
                socket,
                tap,
                network: None,
                details: vlan.into_iter().collect(),
            });
        }
        Ok(())
    }
}
