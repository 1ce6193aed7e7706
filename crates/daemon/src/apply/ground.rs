//! The host as the place where steps are carried out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ringway_host::link::{LinkError, Netlink};
use ringway_host::nft::{self, NftError};
use ringway_host::tap::TapError;
use ringway_network::{Firewall, Step, firewall};

use super::{Ground, links};
use crate::services::{ServiceError, Services};
use crate::switch_process::{SwitchError, SwitchProcess};

/// Whether the host forwards IPv4 packets.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// What a step met.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroundError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Switch(#[from] SwitchError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("cannot make the host forward packets: set net.ipv4.ip_forward to 1 yourself")]
    Forwarding(#[source] io::Error),
    /// A test's.
    #[cfg(test)]
    #[error("injected")]
    Injected,
}

/// This host.
#[derive(Debug)]
pub(crate) struct HostGround {
    pub(crate) netlink: Netlink,
    pub(crate) switch: Arc<SwitchProcess>,
    pub(crate) services: Services,
    /// Where it is noted that packets were not forwarded before us; it goes with a reboot, as the setting does.
    pub(crate) forwarding_note: PathBuf,
}

impl Ground for HostGround {
    async fn carry(&self, step: &Step) -> Result<(), GroundError> {
        match step {
            Step::Link(name, change) => match &change.new {
                Some(link) => links::set(&self.netlink, link).await?,
                None => self.netlink.delete(name).await?,
            },
            Step::Port(name, change) => match &change.new {
                Some(port) => self.switch.set_port(port.spec.clone()).await?,
                None => self.switch.remove_port(name).await?,
            },
            Step::Firewall(change) => self.set_firewall(change.new.as_ref()).await?,
            Step::Service(name, change) => match &change.new {
                Some(service) => self.services.set(service).await?,
                None => self.services.remove(name),
            },
        }
        Ok(())
    }
}

impl HostGround {
    /// Loads our table, or removes it.
    pub(crate) async fn set_firewall(
        &self,
        firewall: Option<&Firewall>,
    ) -> Result<(), GroundError> {
        use ringway_api::v1::Kind;
        let crosses = |kind| matches!(kind, Kind::Nat | Kind::Routed);
        let forwards = firewall.is_some_and(|f| f.networks.values().any(|n| crosses(n.kind)));
        let text = firewall::ruleset(firewall);
        let load = tokio::task::spawn_blocking(move || nft::load(&text)).await;
        load.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        // After the rules: nothing is ever forwarded without them.
        self.set_forwarding(forwards)
            .map_err(GroundError::Forwarding)
    }

    fn set_forwarding(&self, wanted: bool) -> io::Result<()> {
        let is = std::fs::read_to_string(IP_FORWARD)?.trim() == "1";
        if wanted && !is {
            std::fs::write(&self.forwarding_note, "0")?;
            std::fs::write(IP_FORWARD, "1")?;
        }
        if !wanted && self.forwarding_note.exists() {
            std::fs::write(IP_FORWARD, "0")?;
            std::fs::remove_file(&self.forwarding_note)?;
        }
        Ok(())
    }
}
