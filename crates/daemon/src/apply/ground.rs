//! The host as the place where steps are carried out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_api::v1::{ForwardSpec, Kind, Protocol};
use ringway_host::conntrack::{self, Connection};
use ringway_host::link::{LinkError, Netlink};
use ringway_host::nft::{self, NftError};
use ringway_host::tap::TapError;
use ringway_network::{Firewall, Step, firewall};

use super::{Ground, faults, links};
use crate::foreign;
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
    /// Whether other firewalls are made to let networks pass.
    pub(crate) open_foreign: bool,
    /// Whether it is known that there is no rule of ours in them.
    pub(crate) foreign_clean: AtomicBool,
}

impl Ground for HostGround {
    async fn carry(&self, step: &Step) -> Result<(), GroundError> {
        match step {
            Step::Link(name, change) => match &change.new {
                Some(link) => {
                    // Queues and owner of a tap are those it was made with.
                    if change.old.as_ref().is_some_and(|old| old.kind != link.kind) {
                        self.netlink.delete(name).await?;
                    }
                    links::set(&self.netlink, link).await?;
                }
                None => self.netlink.delete(name).await?,
            },
            Step::Port(name, change) => match &change.new {
                Some(port) => self.switch.set_port(port.spec.clone()).await?,
                None => self.switch.remove_port(name).await?,
            },
            Step::Firewall(change) => {
                self.set_firewall(change.new.as_ref()).await?;
                let (old, new) = (forwards(&change.old), forwards(&change.new));
                let gone = old.into_iter().filter(|forward| !new.contains(forward));
                cut(gone.collect()).await;
            }
            Step::Service(name, change) => match &change.new {
                Some(service) => self.services.set(service).await?,
                None => self.services.remove(name),
            },
        }
        Ok(())
    }
}

fn forwards(firewall: &Option<Firewall>) -> Vec<ForwardSpec> {
    let networks = firewall.iter().flat_map(|f| f.networks.values());
    let forwards = networks.flat_map(|network| &network.forwards);
    forwards.map(|forward| forward.spec.clone()).collect()
}

/// Ends what goes over forwards that are no more: the kernel would translate it for as long as it is used.
async fn cut(forwards: Vec<ForwardSpec>) {
    if forwards.is_empty() {
        return;
    }
    let over = move |connection: &Connection| {
        forwards.iter().any(|forward| {
            let number = match forward.protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            let (address, port) = connection.asked;
            connection.protocol == number
                && connection.answers.0 == forward.to
                && (forward.ports.first()..=forward.ports.last()).contains(&port)
                && forward.listen.is_none_or(|listen| listen == address)
        })
    };
    let cut = tokio::task::spawn_blocking(move || conntrack::forget(over)).await;
    if let Ok(Err(error)) = cut {
        tracing::warn!("connections over forwards that are gone may go on for a while: {error}");
    }
}

impl HostGround {
    /// Loads our table, or removes it.
    pub(crate) async fn set_firewall(
        &self,
        firewall: Option<&Firewall>,
    ) -> Result<(), GroundError> {
        let crosses = |kind| matches!(kind, Kind::Nat | Kind::Routed);
        let forwards = firewall.is_some_and(|f| f.networks.values().any(|n| crosses(n.kind)));
        let mut text = firewall::ruleset(firewall);
        let taps = firewall.is_some_and(|firewall| !firewall.taps.is_empty());
        let load = move || {
            // Not every kernel filters on bridges; it need not, as long as there is nothing to filter.
            if !taps && nft::has_table(firewall::BRIDGE_TABLE).unwrap_or(false) {
                text += &firewall::without_taps();
            }
            nft::load(&text)
        };
        let load = tokio::task::spawn_blocking(load).await;
        load.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        faults::place();
        self.set_foreign(firewall.cloned()).await;
        // After the rules: nothing is ever forwarded without them.
        self.set_forwarding(forwards)
            .map_err(GroundError::Forwarding)
    }

    /// Makes other firewalls let our networks pass, or takes back what did. Where one does not let us, it is told and no more: the
    /// networks are as asked for.
    pub(crate) async fn set_foreign(&self, firewall: Option<Firewall>) {
        let open = self.open_foreign;
        if !open && self.foreign_clean.load(Ordering::Relaxed) {
            return;
        }
        let set = tokio::task::spawn_blocking(move || foreign::set(open, firewall.as_ref())).await;
        match set {
            Ok(Err(error)) => tracing::warn!("other firewalls stay as they are: {error}"),
            _ => self.foreign_clean.store(!open, Ordering::Relaxed),
        }
    }

    fn set_forwarding(&self, wanted: bool) -> io::Result<()> {
        let is = std::fs::read_to_string(IP_FORWARD)?.trim() == "1";
        if wanted && !is {
            std::fs::write(&self.forwarding_note, "0")?;
            faults::place();
            std::fs::write(IP_FORWARD, "1")?;
        }
        if !wanted && self.forwarding_note.exists() {
            std::fs::write(IP_FORWARD, "0")?;
            faults::place();
            std::fs::remove_file(&self.forwarding_note)?;
        }
        Ok(())
    }
}
