//! The control protocol of `ringway switch --control PATH`.
//!
//! A stream socket carries messages, each a `u32` length in little-endian order (at most [`MAX_MESSAGE`]) and as many bytes of
//! JSON. File descriptors ride with `SCM_RIGHTS` on the first byte of the message they belong to. Both sides open with
//! [`Hello`]; a side that meets another version answers with an error naming both and closes. After that the client sends
//! [`Request`]s and the switch answers each with one [`Reply`], in order.

mod channel;
mod client;
mod codec;
pub mod handover;
mod open;
mod passed;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{
    port_spec::{Mac, PortSpec, Rate, SpecError, Storm, VlanSet},
    stats::Statistics,
};

pub use channel::{Channel, ChannelError, Received};
pub use client::{Client, ClientError};
pub use codec::{CodecError, Decoder, Message, encode};
pub use open::{OpenError, Opened};
pub use passed::{Passed, PassedError};

/// Version of the protocol spoken here.
pub const VERSION: u32 = 1;
/// Longest JSON text of a message in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Most file descriptors with one message: the kernel's SCM_MAX_FD.
pub const MAX_FDS: usize = 253;

/// The first message of both sides. Fields may be added to it, so that sides of any two versions can read each other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Tagged", into = "Tagged")]
pub struct Hello {
    /// The sender's [`VERSION`].
    pub version: u32,
}

/// The form of [`Hello`] in JSON: a lone struct would be written with its tag but read without one.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Tagged {
    Hello { version: u32 },
}

impl From<Tagged> for Hello {
    fn from(Tagged::Hello { version }: Tagged) -> Self {
        Self { version }
    }
}

impl From<Hello> for Tagged {
    fn from(Hello { version }: Hello) -> Self {
        Self::Hello { version }
    }
}

/// What a client asks of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Adds a port; answered with [`Reply::Added`].
    AddPort {
        /// The port.
        spec: PortSpec,
        /// What the file descriptors sent along are.
        #[serde(default)]
        passed: Passed,
    },
    /// Changes settings of a port that runs.
    ChangePort {
        /// Its name.
        name: String,
        /// What to change.
        change: PortChange,
    },
    /// Removes a port and closes all it held.
    RemovePort {
        /// Its name.
        name: String,
    },
    /// Asks for [`Reply::Ports`].
    ListPorts,
    /// Asks for [`Reply::Statistics`].
    Statistics {
        /// Only this port; every port if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Asks for [`Reply::Addresses`].
    ListAddresses {
        /// Only those behind this port; those of all ports if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Has what crosses a port written, as pcapng, to the pipe whose writing end comes along. It ends when nobody reads there any
    /// more, or when the port goes.
    Capture {
        /// The port's name.
        port: String,
    },
    /// Ends the switch as SIGTERM does.
    Shutdown,
    /// Hands everything over to the client, which becomes the switch: see [`handover`].
    TakeOver {
        /// The oldest format of a hand-over that the client reads.
        oldest: u32,
        /// The newest one.
        newest: u32,
    },
}

/// What the switch answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Ok,
    /// The port was added.
    Added {
        /// The name it has.
        name: String,
    },
    /// The ports there are.
    Ports {
        /// In the order in which they were added.
        ports: Vec<PortInfo>,
    },
    /// What was counted.
    Statistics {
        /// The counters.
        statistics: Statistics,
    },
    /// What was learned.
    Addresses {
        /// The newest ones, by port.
        addresses: Vec<Address>,
        /// How many there are in all.
        learned: usize,
    },
    /// What follows on the connection is a hand-over.
    HandingOver {
        /// Its format.
        format: u32,
    },
    /// Not done.
    Error {
        /// One sentence with the value and the way out.
        message: String,
    },
}

/// A port of a running switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// What it was asked to be, changes included.
    pub spec: PortSpec,
    /// Whether a peer is there.
    pub connected: bool,
    /// Negotiated virtio features, as `0x...`.
    #[serde(with = "crate::hex")]
    pub features: u64,
}

/// An address that was learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Address {
    /// The port it is behind.
    pub port: String,
    /// The address.
    pub mac: Mac,
    /// The VLAN it was heard in; `None` on a port without one.
    pub vlan: Option<u16>,
    /// Seconds since a frame came from there.
    pub age: u32,
}

/// New settings for a port that runs; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortChange {
    /// Access VLAN.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub vlan: Setting<u16>,
    /// Tagged VLANs.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub trunk: Setting<VlanSet>,
    /// Isolation; `None` keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// The only source address accepted.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub mac: Setting<Mac>,
    /// Limit in each direction.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub rate: Setting<Rate>,
    /// Bytes that may pass at once; goes with the rate.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub burst: Setting<u64>,
    /// Limit of flooded frames; `null` is the default of the kind.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub storm: Setting<Storm>,
    /// Limit of addresses learned.
    #[serde(skip_serializing_if = "Setting::is_keep")]
    pub macs: Setting<u32>,
}

impl PortChange {
    /// The specification with the change made, or why it would not be one.
    pub fn apply(&self, spec: &PortSpec) -> Result<PortSpec, SpecError> {
        let burst = match self.rate {
            Setting::Clear if self.burst.is_keep() => None,
            _ => self.burst.over(&spec.burst),
        };
        let changed = PortSpec {
            vlan: self.vlan.over(&spec.vlan),
            trunk: self.trunk.over(&spec.trunk),
            isolated: self.isolated.unwrap_or(spec.isolated),
            mac: self.mac.over(&spec.mac),
            rate: self.rate.over(&spec.rate),
            burst,
            storm: self.storm.over(&spec.storm),
            macs: self.macs.over(&spec.macs),
            ..spec.clone()
        };
        changed.check()?;
        Ok(changed)
    }
}

/// A new value for a setting that may be absent: in JSON the field is left out, `null` or the value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Option<T>")]
pub enum Setting<T> {
    /// Stays as it is.
    #[default]
    Keep,
    /// Is taken away.
    Clear,
    /// Becomes this.
    Set(T),
}

impl<T> Setting<T> {
    /// Whether nothing changes.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

impl<T: Clone> Setting<T> {
    fn over(&self, old: &Option<T>) -> Option<T> {
        match self {
            Self::Keep => old.clone(),
            Self::Clear => None,
            Self::Set(new) => Some(new.clone()),
        }
    }
}

impl<T> From<Option<T>> for Setting<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Clear, Self::Set)
    }
}

/// In JSON it is left out, `null` or a value.
#[cfg(feature = "openapi")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Setting<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Option::<T>::json_schema(generator)
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep | Self::Clear => serializer.serialize_none(),
            Self::Set(value) => serializer.serialize_some(value),
        }
    }
}
