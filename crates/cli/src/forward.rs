//! `ringway forward`: ports of the host that lead to virtual machines.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use clap::{Args, Subcommand, ValueEnum};
use ringway_api::v1::{ForwardSpec, Name, PortRange, Protocol};

use crate::{
    Failure,
    ask::{Daemon, Form},
    print,
};

/// Ports of the host that lead to virtual machines: add, list, delete
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
    /// Let ports of the host lead to a virtual machine
    Add(Add),
    /// List forwards
    List {
        /// Only those of this network
        network: Option<Name>,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a forward
    Delete {
        /// The network
        network: Name,
        /// Its number, as listed
        id: u64,
    },
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Add {
    /// The network
    network: Name,
    /// The host's port, or ports such as 8000-8010
    ports: PortRange,
    /// The virtual machine's address, and its first port if it is another, such as 192.168.40.10:80
    #[arg(value_name = "ADDRESS[:PORT]")]
    to: Target,
    /// Transport protocol
    #[arg(long, value_enum, default_value_t = ProtocolArgument::Tcp)]
    protocol: ProtocolArgument,
    /// Only what is sent to this address of the host
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProtocolArgument {
    Tcp,
    Udp,
}

impl From<ProtocolArgument> for Protocol {
    fn from(protocol: ProtocolArgument) -> Self {
        match protocol {
            ProtocolArgument::Tcp => Self::Tcp,
            ProtocolArgument::Udp => Self::Udp,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    address: Ipv4Addr,
    port: Option<u16>,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, Some(port.parse::<PortRange>())),
            None => (text, None),
        };
        let port = match port {
            Some(Ok(range)) if range.first() == range.last() => Some(range.first()),
            None => None,
            _ => return Err("the port is no number from 1 to 65535, such as in 192.168.40.10:80"),
        };
        let address = address.parse().map_err(
            |_| "give an IPv4 address, with a port or without, such as 192.168.40.10:80",
        )?;
        Ok(Self { address, port })
    }
}

const EXAMPLES: &str = "\
Examples:
  ringway forward add lan 8080 192.168.40.10:80
  ringway forward add lan 5000-5009 192.168.40.10 --protocol udp";

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.daemon.client();
    match arguments.verb {
        Verb::Add(add) => {
            let spec = ForwardSpec {
                protocol: add.protocol.into(),
                listen: add.listen,
                ports: add.ports,
                to: add.to.address,
                to_port: add.to.port,
            };
            let forward = client.add_forward(&add.network, &spec)?;
            print::answer(add.form.json, &forward, |forward| {
                print::forwards(std::slice::from_ref(forward))
            })
        }
        Verb::List { network, form } => {
            let forwards = client.forwards(network.as_ref())?;
            print::answer(form.json, &forwards, |forwards| print::forwards(forwards))?;
            if forwards.is_empty() && !form.json {
                print::hint(
                    "there is no forward yet: `ringway forward add NETWORK 8080 ADDRESS:80` lets port 8080 of the host lead to a \
                     virtual machine",
                );
            }
            Ok(())
        }
        Verb::Delete { network, id } => Ok(client.delete_forward(&network, id)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_with_or_without_a_port() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let target = |port| Ok(Target { address, port });
        assert_eq!("10.0.0.1".parse(), target(None));
        assert_eq!("10.0.0.1:80".parse(), target(Some(80)));
        for text in [
            "",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:1-2",
            "web:80",
            "::1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
