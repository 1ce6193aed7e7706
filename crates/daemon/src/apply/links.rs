//! Interfaces of networks.

use std::path::Path;

use ipnet::IpNet;
use ringway_host::link::Netlink;
use ringway_host::tap::{self, Owner};
use ringway_network::{Link, LinkKind, TapKind};

use super::{GroundError, faults};

/// The Ethernet address of a network's gateway: the same whenever the interface is made, so that guests need not ask again.
pub(crate) fn gateway_mac(interface: &str) -> [u8; 6] {
    // FNV-1a.
    let hash = interface
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [.., a, b, c] = (hash ^ hash >> 32).to_be_bytes();
    [0x02, 0x52, 0x57, a, b, c]
}

/// Makes the interface what it shall be.
pub(super) async fn set(netlink: &Netlink, link: &Link) -> Result<(), GroundError> {
    let name = link.interface.as_str();
    if netlink.find(name).await?.is_none() {
        create(netlink, link).await?;
        faults::place();
    }
    // No link-local address of the host's either, unless the network has IPv6: guests reach only what is meant for them.
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if link.address6.is_none() && Path::new(&switch).exists() {
        let _ = std::fs::write(&switch, "1");
    }
    match &link.kind {
        LinkKind::Uplink => netlink.set_mac(name, gateway_mac(name)).await?,
        // One that is set stays, whichever ports the bridge has.
        LinkKind::Bridge(of) => netlink.set_mac(name, gateway_mac(of.as_str())).await?,
        LinkKind::Macvtap { mac, .. } => netlink.set_mac(name, mac.0).await?,
        LinkKind::Tap(_) => {}
    }
    if let Some(mtu) = link.mtu {
        netlink.set_mtu(name, mtu.into()).await?;
    }
    let bridge = link.bridge.as_ref().map(|bridge| bridge.as_str());
    netlink.set_bridge(name, bridge).await?;
    faults::place();
    let addresses: Vec<IpNet> = [link.address.map(IpNet::V4), link.address6.map(IpNet::V6)]
        .into_iter()
        .flatten()
        .collect();
    netlink.set_addresses(name, &addresses).await?;
    netlink.set_up(name).await?;
    Ok(())
}

async fn create(netlink: &Netlink, link: &Link) -> Result<(), GroundError> {
    let name = link.interface.as_str();
    // Nobody in particular is root, not everybody.
    let owner = |tap: &TapKind| Owner {
        user: tap.owner.or(tap.group.is_none().then_some(0)),
        group: tap.group,
    };
    match &link.kind {
        LinkKind::Uplink => tap::create_persistent(name, false, None)?,
        LinkKind::Bridge(_) => netlink.create_bridge(name).await?,
        // The kernel opens a tap of several queues and one of a single queue by different flags.
        LinkKind::Tap(tap) => tap::create_owned(name, tap.queues > 1, owner(tap))?,
        LinkKind::Macvtap { over, mac, tap } => {
            netlink.create_macvtap(name, over.as_str(), mac.0).await?;
            tap::own_macvtap(name, owner(tap))?;
        }
    }
    Ok(())
}
