//! QEMU's command line, read: which NIC hangs on what.

mod edit;
mod options;

use std::path::{Path, PathBuf};

pub use edit::{Edit, quoted};
pub use options::Options;

/// A command line of QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub program: String,
    /// Its options in their order: the name without dashes, and what follows it.
    pub options: Vec<(String, Options)>,
}

/// A NIC: its two halves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The id of its netdev, or what stands for it.
    pub id: String,
    /// `-netdev`: `tap`, `vhost-user`, `user`...
    pub netdev: Options,
    /// `-device`: `virtio-net-pci`, `e1000`...; `None` = nothing in the guest is connected to it.
    pub device: Option<Options>,
    /// The socket of a vhost-user netdev.
    pub chardev: Option<Options>,
}

impl Command {
    /// Reads the words of a command line, the program first.
    pub fn parse(words: &[String]) -> Self {
        let mut words = words.iter().peekable();
        let program = words.next().cloned().unwrap_or_default();
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
                continue;
            };
            let name = name.strip_prefix('-').unwrap_or(name).to_owned();
            // No option's value begins with a dash; `-` alone is standard input.
            let value = words.next_if(|next| !next.starts_with('-') || next.as_str() == "-");
            options.push((name, Options::parse(value.map_or("", String::as_str))));
        }
        Self { program, options }
    }

    /// What follows every option of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Options> {
        let named = self.options.iter().filter(move |(it, _)| it == name);
        named.map(|(_, options)| options)
    }

    /// What follows the last option of that name.
    pub fn last(&self, name: &str) -> Option<&Options> {
        self.options
            .iter()
            .rev()
            .find(|(it, _)| it == name)
            .map(|(_, options)| options)
    }

    /// Its NICs, in the order of their netdevs.
    pub fn nics(&self) -> Vec<Nic> {
        let mut nics = Vec::new();
        for (name, options) in &self.options {
            match name.as_str() {
                "netdev" => {
                    let id = options.get("id").unwrap_or_default().to_owned();
                    let device = self
                        .all("device")
                        .find(|device| device.get("netdev") == Some(&id));
                    nics.push(self.nic(id, options, device.cloned()));
                }
                // Both halves in one.
                "nic" if options.kind() != "none" => {
                    let model = options.get("model").unwrap_or("virtio-net-pci");
                    let id = options.get("id").unwrap_or(options.kind()).to_owned();
                    nics.push(self.nic(id, options, Some(options.with_kind(model))));
                }
                _ => {}
            }
        }
        nics
    }

    fn nic(&self, id: String, netdev: &Options, device: Option<Options>) -> Nic {
        let chardev = netdev.get("chardev").and_then(|id| {
            self.all("chardev")
                .find(|chardev| chardev.get("id") == Some(id))
        });
        Nic {
            id,
            netdev: netdev.clone(),
            device,
            chardev: chardev.cloned(),
        }
    }

    /// Virtual CPUs.
    pub fn cpus(&self) -> u16 {
        let smp = self.last("smp");
        smp.and_then(|smp| smp.get("cpus").unwrap_or(smp.kind()).parse().ok())
            .unwrap_or(1)
    }

    /// The accelerators it may use, in its order of preference.
    pub fn accelerators(&self) -> Vec<String> {
        let mut accelerators: Vec<String> =
            self.all("accel").map(|it| it.kind().to_owned()).collect();
        if self.last("enable-kvm").is_some() {
            accelerators.push("kvm".into());
        }
        for machine in self.all("machine").chain(self.all("M")) {
            let accel = machine.get("accel").unwrap_or_default();
            accelerators.extend(
                accel
                    .split(':')
                    .filter(|it| !it.is_empty())
                    .map(str::to_owned),
            );
        }
        if accelerators.is_empty() {
            accelerators.push("tcg".into());
        }
        accelerators
    }

    /// The objects that are the guest's memory.
    pub fn memory_objects(&self) -> Vec<&Options> {
        let machine = || self.all("machine").chain(self.all("M"));
        let numa = self.all("numa").filter_map(|numa| numa.get("memdev"));
        let ids: Vec<&str> = machine()
            .filter_map(|machine| machine.get("memory-backend"))
            .chain(numa)
            .collect();
        let objects = self.all("object");
        objects
            .filter(|object| object.kind().starts_with("memory-backend-"))
            .filter(|object| object.get("id").is_some_and(|id| ids.contains(&id)))
            .collect()
    }

    /// Whether the guest's memory can be mapped by a vhost-user back-end. `-mem-path` alone is private.
    pub fn memory_is_shared(&self) -> bool {
        let objects = self.memory_objects();
        // A memfd is shared unless it is said otherwise (QEMU, backends/hostmem-memfd.c).
        let shared = |it: &&Options| it.is_on("share", it.kind() == "memory-backend-memfd");
        !objects.is_empty() && objects.iter().all(shared)
    }
}

impl Nic {
    /// `tap`, `vhost-user`, `user`...
    pub fn backend(&self) -> &str {
        self.netdev.kind()
    }

    /// `virtio-net-pci`, `e1000`...; empty where there is none.
    pub fn model(&self) -> &str {
        self.device.as_ref().map_or("", Options::kind)
    }

    /// Whether the guest sees virtio.
    pub fn is_virtio(&self) -> bool {
        self.model().starts_with("virtio")
    }

    /// The tap that QEMU opens by name.
    pub fn tap(&self) -> Option<&str> {
        (self.backend() == "tap").then(|| self.netdev.get("ifname"))?
    }

    /// Descriptors of taps that QEMU was given.
    pub fn descriptors(&self) -> Vec<i32> {
        let given = self.netdev.get("fds").or(self.netdev.get("fd"));
        let given = given.unwrap_or_default().split(':');
        given.filter_map(|it| it.parse().ok()).collect()
    }

    /// Queue pairs of its back-end.
    pub fn queues(&self) -> u16 {
        let given = self.netdev.get("queues").and_then(|it| it.parse().ok());
        given.unwrap_or_else(|| u16::try_from(self.descriptors().len()).unwrap_or(1).max(1))
    }

    /// Whether the kernel's vhost-net carries its frames.
    pub fn vhost(&self) -> bool {
        let given = self.netdev.get("vhostfds").or(self.netdev.get("vhostfd"));
        self.backend() == "tap" && (self.netdev.is_on("vhost", false) || given.is_some())
    }

    /// The vhost-user socket, if it is one of the file system.
    pub fn socket(&self) -> Option<PathBuf> {
        let chardev = self.chardev.as_ref()?;
        Some(Path::new(chardev.get("path")?).to_owned())
    }

    /// Whether QEMU listens at the socket, and the switch connects.
    pub fn listens(&self) -> bool {
        let chardev = self.chardev.as_ref();
        chardev.is_some_and(|chardev| chardev.is_on("server", false))
    }
}

#[cfg(test)]
mod tests;
