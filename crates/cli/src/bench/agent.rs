//! `ringway bench agent`: the program's part inside the guests of `ringway bench paths`.

use std::net::Ipv4Addr;

use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use ringway_host::link::Netlink;
use ringway_measure::paths::agent;
use tokio::runtime;

use crate::Failure;

/// Send and receive inside a guest of `ringway bench paths`, which starts this itself
#[derive(Args)]
#[command(hide = true)]
pub(crate) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Ok(agent::serve(&configure)?)
}

/// Without the guest's own programs, which differ.
fn configure(interface: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let address = IpNet::V4(Ipv4Net::new(address, 24)?);
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        netlink.set_up(interface).await?;
        Ok(netlink.set_addresses(interface, &[address]).await?)
    })
}
