//! Bridge and taps between two guests, in a network namespace of our own.

use std::{collections::BTreeSet, fs, os::fd::OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use ringway_host::{link::Netlink, tap, vhost_net};
use ringway_measure::paths::Wiring;
use tokio::runtime::{self, Runtime};

const BRIDGE: &str = "bench";
/// What macvtaps lie upon. Those upon one interface reach each other directly, so it may be any; a bridge of nobody needs no driver more.
const BELOW: &str = "bench-below";
/// How many macvtaps are made until one has a device of its own.
const ATTEMPTS: u32 = 64;

/// A bridge; it vanishes with the namespace.
pub(super) struct Bridge {
    runtime: Runtime,
    netlink: Netlink,
    lacks_macvtap: Option<String>,
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
        let mut bridge = Self {
            runtime,
            netlink,
            lacks_macvtap: None,
        };
        drop(bridge.tap("try", 1)?);
        bridge.remove("try")?;
        let tried = bridge.try_macvtap();
        bridge.lacks_macvtap = tried.err().map(|error| format!("{error:#}"));
        Ok(bridge)
    }

    fn try_macvtap(&mut self) -> Result<()> {
        self.runtime.block_on(async {
            self.netlink.create_bridge(BELOW).await?;
            self.netlink.set_up(BELOW).await
        })?;
        drop(self.macvtap("try", [2, 0, 0, 0, 0, 1], 1)?);
        self.remove("try")
    }
}

/// Devices of macvtaps, those of other network namespaces included.
fn devices() -> BTreeSet<String> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("tap")).collect()
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

    fn lacks_macvtap(&self) -> Option<String> {
        self.lacks_macvtap.clone()
    }

    fn macvtap(&mut self, name: &str, mac: [u8; 6], queues: u16) -> Result<Vec<OwnedFd>> {
        // A macvtap's device is called after the interface's number, and numbers are of a namespace: that of the same number elsewhere, the
        // host's own too, would be opened in its place. The next one has the next number.
        let before = devices();
        for _ in 0..ATTEMPTS {
            let index = self.runtime.block_on(async {
                self.netlink.create_macvtap(name, BELOW, mac).await?;
                self.netlink.set_up(name).await?;
                self.netlink.find(name).await
            })?;
            let device = format!("tap{}", index.context("it is gone")?.index);
            if !before.contains(&device) {
                ensure!(
                    devices().contains(&device),
                    "the kernel made a macvtap, but /dev/{device} does not appear: /dev is not the kernel's own here"
                );
                return Ok(tap::open_for_vm(name, queues)?);
            }
            self.remove(name)?;
        }
        bail!("all numbers for devices of macvtaps are taken by other network namespaces")
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.netlink.delete(name))?)
    }

    fn vhost_net(&self, queues: u16) -> Result<Vec<OwnedFd>> {
        Ok(vhost_net::open(queues)?)
    }
}
