//! The canonical text of a specification: defaults left out, keys in a fixed order.

use std::fmt;

use super::{Generator, Mode, Offload, PortKind, PortSpec, VhostNet, VhostUser, limit::short};

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.label())?;
        match &self.kind {
            PortKind::VhostUser(port) => vhost_user(f, port)?,
            PortKind::Tap {
                name,
                queues,
                vhost,
            } => {
                key(f, "name", name)?;
                unless(f, "queues", *queues, 1)?;
                unless(f, "vhost", *vhost, VhostNet::default())?;
            }
            PortKind::Pcap { path } => key(f, "path", path.display())?,
            PortKind::AfPacket { interface } => key(f, "interface", interface)?,
            PortKind::Sink => {}
            PortKind::Generator(port) => generator(f, port)?,
        }
        // A tap's own key `name` is the interface and names the port too.
        if !matches!(self.kind, PortKind::Tap { .. }) {
            optional(f, "name", self.name.as_ref())?;
        }
        optional(f, "vlan", self.vlan)?;
        optional(f, "trunk", self.trunk.as_ref())?;
        if self.isolated {
            f.write_str(",isolated")?;
        }
        optional(f, "mac", self.mac)?;
        optional(f, "rate", self.rate)?;
        optional(f, "burst", self.burst.map(short))?;
        optional(f, "storm", self.storm)?;
        optional(f, "macs", self.macs)?;
        unless(f, "offload", self.offload, Offload::default())
    }
}

fn vhost_user(f: &mut fmt::Formatter<'_>, port: &VhostUser) -> fmt::Result {
    key(f, "path", port.path.display())?;
    unless(f, "mode", port.mode, Mode::default())?;
    unless(f, "queues", port.queues, 1)?;
    optional(f, "group", port.group.as_ref())?;
    if port.permissions != VhostUser::PERMISSIONS {
        key(f, "perm", format_args!("{:04o}", port.permissions))?;
    }
    Ok(())
}

fn generator(f: &mut fmt::Formatter<'_>, port: &Generator) -> fmt::Result {
    let default = Generator::default();
    unless(f, "destination", port.destination, default.destination)?;
    unless(f, "source", port.source, default.source)?;
    unless(f, "size", port.size, default.size)?;
    optional(f, "pps", port.frames_per_second)?;
    optional(f, "count", port.count)
}

fn key(f: &mut fmt::Formatter<'_>, key: &str, value: impl fmt::Display) -> fmt::Result {
    write!(f, ",{key}={}", value.to_string().replace(',', ",,"))
}

fn optional(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: Option<impl fmt::Display>,
) -> fmt::Result {
    value.map_or(Ok(()), |value| key(f, name, value))
}

fn unless<T: fmt::Display + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: T,
    default: T,
) -> fmt::Result {
    if value == default {
        Ok(())
    } else {
        key(f, name, value)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

impl fmt::Display for VhostNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Csum => "csum",
            Self::All => "all",
        })
    }
}
