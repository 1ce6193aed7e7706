//! A network namespace.

use ringway_host::survey::Surveyed;
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
