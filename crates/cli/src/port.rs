//! `ringway port`: where virtual machines connect to networks.

use std::{fmt::Display, net::Ipv4Addr, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};
use ringway_api::{
    control::Setting,
    port_spec::{Mac, Rate},
    v1::{Name, PortPatch, PortPath, PortRequest},
};

use crate::{
    Failure, account,
    ask::{Daemon, Form},
    print,
};

/// Ports, at which virtual machines connect: create, list, show, delete, set
#[derive(Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a port, and print how a virtual machine is started at it
    Create(Create),
    /// List ports
    List {
        /// Only those of this network
        network: Option<Name>,
        #[command(flatten)]
        form: Form,
    },
    /// Show one port
    Show {
        #[command(flatten)]
        port: Port,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a port; a virtual machine at it loses its network
    Delete(Port),
    /// Change a port
    Set(Set),
}

#[derive(Args)]
struct Port {
    /// The network
    network: Name,
    /// The port
    name: Name,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Create {
    #[command(flatten)]
    port: Port,
    /// How the NIC reaches the network
    #[arg(long, value_enum, default_value_t = PathArgument::VhostUser)]
    path: PathArgument,
    /// The NIC's address [default: made from the names]
    #[arg(long)]
    mac: Option<Mac>,
    /// The IPv4 address that the virtual machine gets [default: any of the network's]
    #[arg(long, value_name = "IP")]
    address: Option<Ipv4Addr>,
    /// Queue pairs, 1 to 128
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    queues: u16,
    /// Bits per second each way at most, with k, M or G, such as 100M [default: no limit]
    #[arg(long)]
    rate: Option<Rate>,
    /// The user who may open the tap, by name or number [default: root]
    #[arg(long, value_name = "USER", value_parser = account::user)]
    owner: Option<u32>,
    /// The group that may open the tap, by name or number
    #[arg(long, value_name = "GROUP", value_parser = account::group)]
    group: Option<u32>,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = "\
Examples:
  ringway port create lan web
  ringway port create lan db --path tap --owner qemu
  ringway port create lan web2 --address 192.168.40.10 --queues 4 --rate 1G";

#[derive(Args)]
struct Set {
    #[command(flatten)]
    port: Port,
    /// The address that the virtual machine gets, or none
    #[arg(long, value_name = "IP|none", value_parser = setting::<Ipv4Addr>)]
    address: Option<Setting<Ipv4Addr>>,
    /// Bits per second each way at most, with k, M or G, such as 100M, or none
    #[arg(long, value_name = "RATE|none", value_parser = setting::<Rate>)]
    rate: Option<Setting<Rate>>,
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum PathArgument {
    /// A vhost-user socket of the switch
    VhostUser,
    /// A tap of the kernel, on a bridge with the network
    Tap,
    /// The same, with the kernel's vhost-net
    VhostNet,
    /// A macvtap over the interface that a network of kind bridge joins; the host is not reached from it
    Macvtap,
}

impl From<PathArgument> for PortPath {
    fn from(path: PathArgument) -> Self {
        match path {
            PathArgument::VhostUser => Self::VhostUser,
            PathArgument::Tap => Self::Tap,
            PathArgument::VhostNet => Self::VhostNet,
            PathArgument::Macvtap => Self::Macvtap,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.daemon.client();
    match arguments.verb {
        Verb::Create(create) => {
            let request = PortRequest {
                name: create.port.name,
                path: create.path.into(),
                mac: create.mac,
                address: create.address,
                queues: create.queues,
                rate: create.rate,
                owner: create.owner,
                group: create.group,
            };
            let port = client.create_port(&create.port.network, &request)?;
            print::answer(create.form.json, &port, print::port_created)
        }
        Verb::List { network, form } => {
            let ports = client.ports(network.as_ref())?;
            print::answer(form.json, &ports, |ports| print::ports(ports))?;
            if ports.is_empty() && !form.json {
                print::hint("there is no port yet: `ringway port create NETWORK NAME` makes one");
            }
            Ok(())
        }
        Verb::Show { port, form } => {
            let port = client.port(&port.network, &port.name)?;
            print::answer(form.json, &port, print::port)
        }
        Verb::Delete(port) => Ok(client.delete_port(&port.network, &port.name)?),
        Verb::Set(set) if set.address.is_none() && set.rate.is_none() => Err(Failure::Usage(
            "port set changes nothing without --address or --rate: give one of them".into(),
        )),
        Verb::Set(set) => {
            let patch = PortPatch {
                address: set.address.unwrap_or_default(),
                rate: set.rate.unwrap_or_default(),
            };
            let port = client.patch_port(&set.port.network, &set.port.name, &patch)?;
            print::answer(set.form.json, &port, print::port)
        }
    }
}

/// `none` takes the setting away.
fn setting<T: FromStr<Err: Display>>(text: &str) -> Result<Setting<T>, String> {
    match text {
        "none" => Ok(Setting::Clear),
        text => text
            .parse()
            .map(Setting::Set)
            .map_err(|error: T::Err| format!("{error}, or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_value_or_none() {
        assert_eq!(setting::<Rate>("none"), Ok(Setting::Clear));
        let rate = "10M".parse().unwrap();
        assert_eq!(setting::<Rate>("10M"), Ok(Setting::Set(rate)));
        assert!(setting::<Rate>("fast").unwrap_err().ends_with(", or none"));
    }
}
