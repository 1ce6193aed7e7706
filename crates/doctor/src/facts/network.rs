//! A network namespace.

use std::collections::BTreeMap;

use ringway_host::{
    nft::rules::Judge,
    survey::{Route, Surveyed},
};
use serde::{Deserialize, Serialize};

/// Links of a network namespace, and how packets pass it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its number, as `/proc/PID/ns/net` has it.
    pub id: Option<u64>,
    /// A process that lives in it, where it is not that of who looked: `nsenter --target PID --net` leads there.
    pub entrance: Option<i32>,
    /// Its links.
    pub links: Vec<Surveyed>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// It passes on IPv4 packets between its links (`net.ipv4.ip_forward`).
    pub forwarding: Option<bool>,
    /// Its bridges show their IPv4 packets to the firewall (`net.bridge.bridge-nf-call-iptables`).
    pub bridges_filtered: Option<bool>,
    /// Links that take only packets whose answer would leave the same way (`net.ipv4.conf.*.rp_filter` = 1).
    pub strict: Option<Vec<String>>,
    /// Chains that judge what crosses the host or is for it, without those of our own table.
    pub firewall: Option<Vec<Judge>>,
    /// Offloads that somebody switched off, by link; the kernel's names of them.
    pub switched_off: BTreeMap<String, Vec<String>>,
}

impl Network {
    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Surveyed> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link of that number.
    pub fn link_by_index(&self, index: u32) -> Option<&Surveyed> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The bridge, bond or other master of a link.
    pub fn master(&self, link: &Surveyed) -> Option<&Surveyed> {
        self.link_by_index(link.master?)
    }

    /// Links that belong to one.
    pub fn ports(&self, master: &Surveyed) -> impl Iterator<Item = &Surveyed> {
        let index = master.index;
        self.links
            .iter()
            .filter(move |link| link.master == Some(index))
    }
}

/// A process that has a queue of a tap open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// The tap.
    pub tap: String,
    /// The process.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The network namespace it lives in, which need not be the tap's.
    pub namespace: Option<u64>,
}
