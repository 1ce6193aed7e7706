//! Network cards of guests.

use std::path::{Path, PathBuf};

/// Offloads of QEMU's virtio-net-pci, both directions.
const OFFLOADS: [&str; 14] = [
    "csum",
    "gso",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_ufo",
    "host_uso",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
    "guest_uso4",
    "guest_uso6",
];

/// A guest's network card.
#[derive(Debug, Clone)]
pub struct Nic {
    backend: Backend,
    queues: u16,
    mac: Option<String>,
    properties: Vec<String>,
}

#[derive(Debug, Clone)]
enum Backend {
    VhostUser(PathBuf),
    /// QEMU listens, the back-end connects.
    Listening(PathBuf),
    Tap(String),
}

impl Nic {
    /// A virtio NIC whose back-end listens at `path`.
    pub fn vhost_user(path: impl Into<PathBuf>) -> Self {
        Self::new(Backend::VhostUser(path.into()))
    }

    /// A virtio NIC whose back-end connects to `path`.
    pub fn vhost_user_listening(path: impl Into<PathBuf>) -> Self {
        Self::new(Backend::Listening(path.into()))
    }

    /// A virtio NIC on a kernel tap (QEMU moves the frames); the guest must run in the tap's namespace.
    pub fn tap(name: &str) -> Self {
        Self::new(Backend::Tap(name.into()))
    }

    fn new(backend: Backend) -> Self {
        Self {
            backend,
            queues: 1,
            mac: None,
            properties: Vec::new(),
        }
    }

    /// Number of queue pairs; the guest uses as many as it has processors.
    pub fn queues(mut self, pairs: u16) -> Self {
        self.queues = pairs;
        self
    }

    /// Its address; else one is made from the guest's name.
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// Offers no checksum or segmentation offload in either direction.
    pub fn without_offloads(mut self) -> Self {
        self.properties
            .extend(OFFLOADS.iter().map(|name| format!("{name}=off")));
        self
    }

    /// Uses the packed ring layout.
    pub fn packed(self) -> Self {
        self.property("packed=on")
    }

    /// Tells the guest this MTU.
    pub fn mtu(self, mtu: u16) -> Self {
        self.property(&format!("host_mtu={mtu}"))
    }

    /// A further property of virtio-net-pci, for example `mrg_rxbuf=off`.
    pub fn property(mut self, property: &str) -> Self {
        self.properties.push(property.into());
        self
    }

    pub(crate) fn is_vhost_user(&self) -> bool {
        matches!(self.backend, Backend::VhostUser(_) | Backend::Listening(_))
    }

    /// QEMU's options for it, as the card `index` of the guest `guest`.
    pub(crate) fn arguments(&self, index: usize, guest: &str) -> Vec<String> {
        let queues = self.queues;
        let socket = |path: &Path, mode: &str| {
            vec![
                "-chardev".into(),
                format!("socket,id=c{index},path={},{mode}", path.display()),
                "-netdev".into(),
                format!("vhost-user,id=n{index},chardev=c{index},queues={queues}"),
            ]
        };
        let mut arguments: Vec<String> = match &self.backend {
            Backend::VhostUser(path) => socket(path, "reconnect=1"),
            Backend::Listening(path) => socket(path, "server=on,wait=off"),
            Backend::Tap(name) => vec![
                "-netdev".into(),
                format!(
                    "tap,id=n{index},ifname={name},script=no,downscript=no,vhost=off,queues={queues}"
                ),
            ],
        };
        let mac = self.mac.clone().unwrap_or_else(|| mac_of(guest, index));
        // One vector per ring, one for configuration changes, one for the control ring.
        let mut device = format!(
            "virtio-net-pci,netdev=n{index},mac={mac},mq=on,vectors={},romfile=",
            2 * u32::from(queues) + 2
        );
        for property in &self.properties {
            device.push(',');
            device.push_str(property);
        }
        arguments.extend(["-device".into(), device]);
        arguments
    }
}

/// A locally administered address that tells guests apart.
fn mac_of(guest: &str, index: usize) -> String {
    let sum = guest.bytes().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let [a, b, c, d] = sum.to_be_bytes();
    format!("52:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{index:02x}")
}
