//! Bridge and taps between two guests, in a network namespace of our own.

use std::os::fd::OwnedFd;

use anyhow::Result;
use ringway_host::{link::Netlink, tap, vhost_net};
use ringway_measure::paths::Wiring;
use tokio::runtime::{self, Runtime};

const BRIDGE: &str = "bench";

/// A bridge; it vanishes with the namespace.
pub(super) struct Bridge {
    runtime: Runtime,
    netlink: Netlink,
}

impl Bridge {
    pub(super) fn new() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let netlink = runtime.block_on(async {
            let netlink = Netlink::open()?;
            netlink.create_bridge(BRIDGE).await?;
            netlink.set_up(BRIDGE).await?;
            anyhow::Ok(netlink)
        })?;
        // Without the device it fails now and not between measurements.
        let mut bridge = Self { runtime, netlink };
        drop(bridge.tap("try", 1)?);
        bridge.remove("try")?;
        Ok(bridge)
    }
}

impl Wiring for Bridge {
    fn tap(&mut self, name: &str, queues: u16) -> Result<Vec<OwnedFd>> {
        tap::create_persistent(name, queues > 1, None)?;
        self.runtime.block_on(async {
            self.netlink.set_bridge(name, Some(BRIDGE)).await?;
            self.netlink.set_up(name).await
        })?;
        Ok(tap::open_for_vm(name, queues)?)
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        Ok(tap::delete(name)?)
    }

    fn vhost_net(&self, queues: u16) -> Result<Vec<OwnedFd>> {
        Ok(vhost_net::open(queues)?)
    }
}
