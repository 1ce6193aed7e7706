//! From text to specification. Every key is taken from the list exactly once; what the kind does not know is refused first, so
//! that a misspelled key is named rather than the one it was meant to be.

use std::{path::PathBuf, str::FromStr};

use super::{
    Generator, MAX_QUEUES, MAX_SOCKET_PATH, Mac, Mode, Offload, PortKind, PortSpec, SpecError,
    VhostNet, VhostUser,
    limit::{BURST, MACS, MAX_MACS, STORM, count},
    value::{INTERFACE, MAC, NAME, RATE, TRUNK, VLAN, check_name, number},
};

const KINDS: [&str; 6] = [
    "vhost-user",
    "tap",
    "af-packet",
    "pcap",
    "sink",
    "generator",
];
const COMMON: [&str; 10] = [
    "name", "vlan", "trunk", "isolated", "mac", "rate", "burst", "storm", "macs", "offload",
];

const PATH: &str = "a path that is not empty";
const MODE: &str = "server (the switch listens) or client (the virtual machine listens)";
const QUEUES: &str = "a number of queue pairs from 1 to 128";
const GROUP: &str = "the name or number of a group";
const PERMISSIONS: &str = "mode bits in octal from 0 to 0777, such as 0660";
const VHOST: &str = "auto, on or off";
const OFFLOAD: &str = "off, csum or all";
const ADDRESS: &str = "six hexadecimal pairs such as 02:00:00:00:00:01";
const SIZE: &str = "a frame length in bytes without FCS from 14 to 65535";
const PER_SECOND: &str = "frames per second from 1";
const COUNT: &str = "a number of frames from 1";

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut items = split(text).into_iter();
        let kind = items.next().unwrap_or_default();
        if kind.is_empty() {
            return Err(SpecError::Empty {
                kinds: list(&KINDS),
            });
        }
        let (label, own): (_, &[&str]) = match kind.as_str() {
            "vhost-user" => ("vhost-user", &["path", "mode", "queues", "group", "perm"]),
            "tap" => ("tap", &["name", "queues", "vhost"]),
            "af-packet" => ("af-packet", &["interface"]),
            "pcap" => ("pcap", &["path"]),
            "sink" => ("sink", &[]),
            "generator" => (
                "generator",
                &["destination", "source", "size", "pps", "count"],
            ),
            _ => {
                return Err(SpecError::UnknownKind {
                    kind,
                    kinds: list(&KINDS),
                });
            }
        };
        let mut keys = Keys::read(label, own, items)?;
        let kind = match label {
            "vhost-user" => PortKind::VhostUser(vhost_user(&mut keys)?),
            "tap" => PortKind::Tap {
                name: keys.required("name", "tap,name=tap0", INTERFACE, parsed)?,
                queues: keys.queues()?,
                vhost: keys
                    .optional("vhost", VHOST, vhost_net)?
                    .unwrap_or_default(),
            },
            "af-packet" => PortKind::AfPacket {
                interface: keys.required(
                    "interface",
                    "af-packet,interface=eth0",
                    INTERFACE,
                    parsed,
                )?,
            },
            "pcap" => PortKind::Pcap {
                path: keys.required("path", "pcap,path=frames.pcap", PATH, path)?,
            },
            "generator" => PortKind::Generator(generator(&mut keys)?),
            _ => PortKind::Sink,
        };
        let spec = Self {
            kind,
            name: keys.optional("name", NAME, |text| {
                check_name(text).ok().map(|()| text.to_owned())
            })?,
            vlan: keys.optional("vlan", VLAN, |text| {
                number(text).filter(|vlan| (1..=4094).contains(vlan))
            })?,
            trunk: keys.optional("trunk", TRUNK, parsed)?,
            isolated: keys.flag("isolated")?,
            mac: keys.optional("mac", MAC, parsed)?,
            rate: keys.optional("rate", RATE, parsed)?,
            burst: keys.optional("burst", BURST, count)?,
            storm: keys.optional("storm", STORM, parsed)?,
            macs: keys.optional("macs", MACS, number)?,
            offload: keys
                .optional("offload", OFFLOAD, offload)?
                .unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }
}

impl PortSpec {
    /// The rules on settings that can also be changed later, and those that span keys.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if let Some(vlan) = self.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return Err(SpecError::BadValue {
                key: "vlan",
                value: vlan.to_string(),
                allowed: VLAN,
            });
        }
        if let Some(mac) = self.mac.filter(|mac| !mac.is_unicast()) {
            return Err(SpecError::BadValue {
                key: "mac",
                value: mac.to_string(),
                allowed: MAC,
            });
        }
        if let Some(macs) = self.macs.filter(|macs| !(1..=MAX_MACS).contains(macs)) {
            return Err(SpecError::BadValue {
                key: "macs",
                value: macs.to_string(),
                allowed: MACS,
            });
        }
        if let (Some(burst), None) = (self.burst, self.rate) {
            return Err(SpecError::BurstWithoutRate { burst });
        }
        match (self.vlan, &self.trunk) {
            (Some(vlan), Some(trunk)) => Err(SpecError::VlanAndTrunk {
                vlan,
                trunk: trunk.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

fn vhost_user(keys: &mut Keys) -> Result<VhostUser, SpecError> {
    let path = keys.required("path", "vhost-user,path=/run/vm1.sock", PATH, path)?;
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(SpecError::PathTooLong {
            path: path.display().to_string(),
            length,
            limit: MAX_SOCKET_PATH,
        });
    }
    let mode = |text: &str| match text {
        "server" => Some(Mode::Server),
        "client" => Some(Mode::Client),
        _ => None,
    };
    let mode = keys.optional("mode", MODE, mode)?.unwrap_or_default();
    let queues = keys.queues()?;
    if mode == Mode::Client {
        for key in ["group", "perm"] {
            if let Some(value) = keys.take(key) {
                return Err(SpecError::ServerOnly {
                    key,
                    value: value.unwrap_or_default(),
                });
            }
        }
    }
    Ok(VhostUser {
        path,
        mode,
        queues,
        group: keys.optional("group", GROUP, |text| {
            check_name(text).ok().map(|()| text.to_owned())
        })?,
        permissions: keys
            .optional("perm", PERMISSIONS, octal)?
            .unwrap_or(VhostUser::PERMISSIONS),
    })
}

fn generator(keys: &mut Keys) -> Result<Generator, SpecError> {
    let default = Generator::default();
    let positive = |text: &str| number::<u64>(text).filter(|&count| count > 0);
    Ok(Generator {
        destination: keys
            .optional("destination", ADDRESS, parsed)?
            .unwrap_or(default.destination),
        source: keys
            .optional("source", MAC, unicast)?
            .unwrap_or(default.source),
        size: keys
            .optional("size", SIZE, |text| number(text).filter(|&size| size >= 14))?
            .unwrap_or(default.size),
        frames_per_second: keys.optional("pps", PER_SECOND, positive)?,
        count: keys.optional("count", COUNT, positive)?,
    })
}

/// The keys of one specification, each with its value if it has one.
struct Keys {
    kind: &'static str,
    items: Vec<(String, Option<String>)>,
}

impl Keys {
    fn read(
        kind: &'static str,
        own: &[&str],
        texts: impl Iterator<Item = String>,
    ) -> Result<Self, SpecError> {
        let mut known = own.to_vec();
        known.extend(COMMON.iter().filter(|key| !own.contains(key)));
        let mut items: Vec<(String, Option<String>)> = Vec::new();
        for text in texts {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            if !known.contains(&key.as_str()) {
                return Err(SpecError::UnknownKey {
                    kind,
                    key,
                    keys: list(&known),
                });
            }
            if items.iter().any(|(other, _)| *other == key) {
                return Err(SpecError::Repeated { key });
            }
            items.push((key, value));
        }
        Ok(Self { kind, items })
    }

    fn take(&mut self, key: &str) -> Option<Option<String>> {
        let index = self.items.iter().position(|(other, _)| other == key)?;
        Some(self.items.swap_remove(index).1)
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        match self.take(key) {
            None => Ok(None),
            Some(None) => Err(SpecError::NoValue {
                key: key.to_owned(),
                allowed,
            }),
            Some(Some(value)) => match parse(&value) {
                Some(parsed) => Ok(Some(parsed)),
                None => Err(SpecError::BadValue {
                    key,
                    value,
                    allowed,
                }),
            },
        }
    }

    fn required<T>(
        &mut self,
        key: &'static str,
        example: &'static str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, SpecError> {
        self.optional(key, allowed, parse)?
            .ok_or(SpecError::Missing {
                kind: self.kind,
                key,
                example,
            })
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, SpecError> {
        match self.take(key) {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(value)) => Err(SpecError::UnwantedValue {
                key: key.to_owned(),
                value,
            }),
        }
    }

    fn queues(&mut self) -> Result<u16, SpecError> {
        let queues = |text: &str| number(text).filter(|queues| (1..=MAX_QUEUES).contains(queues));
        Ok(self.optional("queues", QUEUES, queues)?.unwrap_or(1))
    }
}

fn vhost_net(text: &str) -> Option<VhostNet> {
    Some(match text {
        "auto" => VhostNet::Auto,
        "on" => VhostNet::On,
        "off" => VhostNet::Off,
        _ => return None,
    })
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn unicast(text: &str) -> Option<Mac> {
    parsed(text).filter(|mac: &Mac| mac.is_unicast())
}

fn octal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .filter(|&bits| bits <= 0o777)
}

fn offload(text: &str) -> Option<Offload> {
    match text {
        "off" => Some(Offload::Off),
        "csum" => Some(Offload::Csum),
        "all" => Some(Offload::All),
        _ => None,
    }
}

/// Splits at single commas; a doubled comma stands for one in a value.
fn split(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match items.last_mut() {
            Some(item) if character != ',' || characters.next_if_eq(&',').is_some() => {
                item.push(character)
            }
            _ => items.push(String::new()),
        }
    }
    items
}

/// `a, b or c`.
fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
