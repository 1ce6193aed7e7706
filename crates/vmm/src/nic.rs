//! Network cards: how they are asked for on a command line, and what they are.

use std::{fmt, os::fd::RawFd, path::PathBuf, str::FromStr};

use ringway_api::{
    port_spec::{InterfaceName, MAX_QUEUES, MAX_SOCKET_PATH, Mac},
    v1::{Name, PortPath},
};
use serde::{Deserialize, Serialize};

/// What the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// virtio-net over PCI: the fastest, and the only one with more than one queue.
    #[default]
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Intel 82576.
    Igb,
}

impl Model {
    const ALL: [(&str, Self); 4] = [
        ("virtio", Self::Virtio),
        ("e1000", Self::E1000),
        ("e1000e", Self::E1000e),
        ("igb", Self::Igb),
    ];

    /// As on the command line and in libvirt.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, model)| *model == self);
        found.map_or("virtio", |(name, _)| name)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A network card as asked for: `NAME|socket=PATH[,path=..][,model=..][,queues=N][,mac=..][,mtu=N]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicRequest {
    /// What it is connected to.
    pub target: Target,
    /// How it reaches that; chosen by the model if absent.
    pub path: Option<PortPath>,
    /// What the guest sees.
    pub model: Model,
    /// Queue pairs, 1 to 128; chosen by whoever knows the machine if absent.
    pub queues: Option<u16>,
    /// Its address; made from names if absent.
    pub mac: Option<Mac>,
    /// What the guest is told as its MTU.
    pub mtu: Option<u16>,
}

/// What a network card is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A network of the daemon.
    Network(Name),
    /// A vhost-user socket that a switch listens at.
    Socket(PathBuf),
}

/// Why a card cannot be as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NicError {
    /// It does not begin with what it is connected to.
    #[error("{0:?} names no network: begin with a network's name, or with socket=PATH of a switch")]
    NoTarget(String),
    /// A key that there is not.
    #[error("there is no key {0:?}: path=, model=, queues=, mac= and mtu= may follow the network")]
    UnknownKey(String),
    /// A key stands twice.
    #[error("{0}= is given twice")]
    Twice(&'static str),
    /// A value has not its key's form.
    #[error("{key}={value} cannot be: give {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        wanted: &'static str,
    },
    /// Only virtio devices speak vhost-user.
    #[error(
        "model={0} cannot be on path=vhost-user, which carries virtio rings and nothing else: take model=virtio, or path=tap for {0}"
    )]
    ModelNeedsTap(Model),
    /// Only virtio has vhost in the kernel.
    #[error(
        "model={0} cannot be on path=vhost-net, which carries virtio rings and nothing else: take model=virtio, or path=tap for {0}"
    )]
    ModelWithoutVhost(Model),
    /// Only virtio has queue pairs that can be chosen.
    #[error("model={0} has no queues= to choose: it has what its hardware had; take model=virtio")]
    ModelWithoutQueues(Model),
    /// Only virtio tells its driver an MTU.
    #[error("model={0} cannot tell the guest an MTU: set it in the guest, or take model=virtio")]
    ModelWithoutMtu(Model),
    /// A socket is always vhost-user.
    #[error("socket= is a vhost-user socket: path=vhost-user, or nothing, goes with it")]
    SocketIsVhostUser,
}

impl FromStr for NicRequest {
    type Err = NicError;

    fn from_str(text: &str) -> Result<Self, NicError> {
        let mut parts = split(text).into_iter();
        let first = parts.next().unwrap_or_default();
        let mut request = Self {
            target: target(&first)?,
            path: None,
            model: Model::Virtio,
            queues: None,
            mac: None,
            mtu: None,
        };
        let mut model = None;
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((&part, ""));
            match key {
                "path" => set(&mut request.path, "path", value, PATHS, path(value))?,
                "model" => set(&mut model, "model", value, MODELS, known_model(value))?,
                "queues" => set(
                    &mut request.queues,
                    "queues",
                    value,
                    "queue pairs from 1 to 128",
                    number(value, 1..=MAX_QUEUES),
                )?,
                "mac" => set(
                    &mut request.mac,
                    "mac",
                    value,
                    "a unicast address such as 02:00:00:00:00:01",
                    value.parse().ok().filter(|mac: &Mac| mac.is_unicast()),
                )?,
                "mtu" => set(
                    &mut request.mtu,
                    "mtu",
                    value,
                    "bytes from 68 to 65535",
                    number(value, 68..=u16::MAX),
                )?,
                other => return Err(NicError::UnknownKey(other.to_owned())),
            }
        }
        request.model = model.unwrap_or_default();
        request.check()?;
        Ok(request)
    }
}

impl NicRequest {
    /// How it reaches its network: as asked for, else what the model can be on.
    pub fn chosen_path(&self) -> PortPath {
        self.path.unwrap_or(match self.model {
            Model::Virtio => PortPath::VhostUser,
            _ => PortPath::Tap,
        })
    }

    fn check(&self) -> Result<(), NicError> {
        let is_socket = matches!(self.target, Target::Socket(_));
        let path = match self.path {
            None if is_socket => PortPath::VhostUser,
            _ => self.chosen_path(),
        };
        if is_socket && path != PortPath::VhostUser {
            return Err(NicError::SocketIsVhostUser);
        }
        if self.model == Model::Virtio {
            return Ok(());
        }
        match path {
            PortPath::VhostUser => Err(NicError::ModelNeedsTap(self.model)),
            PortPath::VhostNet => Err(NicError::ModelWithoutVhost(self.model)),
            _ if self.queues.is_some_and(|queues| queues > 1) => {
                Err(NicError::ModelWithoutQueues(self.model))
            }
            _ if self.mtu.is_some() => Err(NicError::ModelWithoutMtu(self.model)),
            _ => Ok(()),
        }
    }
}

const PATHS: &str = "vhost-user, tap, vhost-net or macvtap";
const MODELS: &str = "virtio, e1000, e1000e or igb";

/// At single commas; two are one within a value, as in QEMU's options.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn target(text: &str) -> Result<Target, NicError> {
    match text.split_once('=') {
        Some(("socket", path)) if (1..=MAX_SOCKET_PATH).contains(&path.len()) => {
            Ok(Target::Socket(path.into()))
        }
        Some(("socket", path)) => Err(NicError::Value {
            key: "socket",
            value: path.to_owned(),
            wanted: "a path of 1 to 107 bytes",
        }),
        Some(_) => Err(NicError::NoTarget(text.to_owned())),
        None => text
            .parse()
            .map(Target::Network)
            .map_err(|_| NicError::NoTarget(text.to_owned())),
    }
}

fn set<T>(
    place: &mut Option<T>,
    key: &'static str,
    value: &str,
    wanted: &'static str,
    parsed: Option<T>,
) -> Result<(), NicError> {
    if place.is_some() {
        return Err(NicError::Twice(key));
    }
    *place = Some(parsed.ok_or_else(|| NicError::Value {
        key,
        value: value.to_owned(),
        wanted,
    })?);
    Ok(())
}

fn path(text: &str) -> Option<PortPath> {
    Some(match text {
        "vhost-user" => PortPath::VhostUser,
        "tap" => PortPath::Tap,
        "vhost-net" => PortPath::VhostNet,
        "macvtap" => PortPath::Macvtap,
        _ => return None,
    })
}

fn known_model(text: &str) -> Option<Model> {
    let found = Model::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, model)| *model)
}

fn number(text: &str, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    range.contains(&number).then_some(number)
}

/// A network card as it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// What it is connected to.
    pub backend: Backend,
    /// What the guest sees.
    pub model: Model,
    /// Queue pairs.
    pub queues: u16,
    /// Its address.
    pub mac: Mac,
    /// What the guest is told as its MTU.
    pub mtu: Option<u16>,
}

impl Nic {
    /// Interrupt vectors: one per ring, one for the control queue, one for configuration changes.
    pub fn vectors(&self) -> u32 {
        2 * u32::from(self.queues) + 2
    }
}

/// What a network card is connected to, ready for a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// A vhost-user socket at which a switch listens.
    VhostUser {
        /// The socket.
        socket: PathBuf,
    },
    /// A tap that the VMM opens.
    Tap {
        /// The interface.
        name: InterfaceName,
        /// With the kernel's vhost-net.
        vhost: bool,
    },
    /// Queues of a tap or macvtap that come as descriptors, and those of /dev/vhost-net, as many or none.
    Descriptors {
        /// The interface.
        name: InterfaceName,
        /// One per queue.
        queues: Vec<RawFd>,
        /// One per queue, or none.
        vhost: Vec<RawFd>,
    },
}

/// A locally administered address that stays the same for the same text (FNV-1a).
pub fn mac_of(text: &str) -> Mac {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let [.., a, b, c, d, e] = text.bytes().fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<NicRequest>().unwrap_err().to_string()
    }

    #[test]
    fn a_card_is_asked_for_in_one_word() {
        let request: NicRequest =
            "socket=/run/a,,b.sock,path=vhost-user,queues=8,mac=02:00:00:00:00:01,mtu=9000"
                .parse()
                .unwrap();
        assert_eq!(request.target, Target::Socket("/run/a,b.sock".into()));
        assert_eq!(request.queues, Some(8));
        assert_eq!(request.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!((request.mtu, request.model), (Some(9000), Model::Virtio));

        let request: NicRequest = "lan,model=e1000e".parse().unwrap();
        assert_eq!(request.target, Target::Network("lan".parse().unwrap()));
        assert_eq!(request.chosen_path(), PortPath::Tap);
        let request: NicRequest = "lan".parse().unwrap();
        assert_eq!(request.chosen_path(), PortPath::VhostUser);
    }

    #[test]
    fn only_virtio_is_on_vhost_user_and_the_way_out_is_said() {
        for text in [
            "socket=/a,model=e1000",
            "lan,path=vhost-user,model=igb",
            "lan,path=vhost-net,model=e1000e",
        ] {
            let sentence = refused(text);
            assert!(sentence.contains("path=tap for"), "{sentence}");
        }
        assert!("lan,path=tap,model=e1000".parse::<NicRequest>().is_ok());
        assert!(refused("socket=/a,path=tap").contains("path=vhost-user"));
        assert!(refused("lan,model=igb,queues=2").contains("model=virtio"));
        assert!(refused("lan,model=igb,mtu=9000").contains("in the guest"));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (text, part) in [
            ("", "names no network"),
            ("sockets=/a", "names no network"),
            ("socket=", "107 bytes"),
            ("lan,queue=2", "\"queue\""),
            ("lan,queues=0", "1 to 128"),
            ("lan,queues=+1", "1 to 128"),
            ("lan,queues=129", "1 to 128"),
            ("lan,mac=01:00:00:00:00:01", "unicast"),
            ("lan,mtu=67", "68"),
            ("lan,path=vfio", "vhost-user, tap"),
            ("lan,model=rtl8139", "e1000e or igb"),
            ("lan,queues=1,queues=2", "twice"),
        ] {
            let sentence = refused(text);
            assert!(sentence.contains(part), "{text}: {sentence}");
        }
    }

    #[test]
    fn made_addresses_stay_and_are_unicast() {
        assert_eq!(mac_of("/run/a"), mac_of("/run/a"));
        assert_ne!(mac_of("/run/a"), mac_of("/run/b"));
        assert!(mac_of("/run/a").is_unicast());
    }
}
