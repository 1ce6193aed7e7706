//! `ringway net`: networks.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use ringway_api::{
    port_spec::InterfaceName,
    v1::{DhcpOptions, DnsOptions, Document, Kind, Name, NetworkSpec, client::Client},
};

use crate::{
    Failure,
    ask::{Daemon, Form},
    file, print,
};

/// Networks: create, list, show, delete, or apply a file of them
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
    /// Create a network; virtual machines at its ports get addresses and names, and reach the outside
    Create(Box<Create>),
    /// List the networks
    List(Form),
    /// Show one network
    Show {
        /// The network
        name: Name,
        #[command(flatten)]
        form: Form,
    },
    /// Delete a network
    Delete {
        /// The network
        name: Name,
        /// Delete its ports as well
        #[arg(long)]
        force: bool,
    },
    /// Make networks as a TOML file has them; what is so already stays
    #[command(after_help = FILE_HELP)]
    Apply {
        /// The file, - for standard input
        file: PathBuf,
        /// Only print what would be done
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        form: Form,
    },
}

const FILE_HELP: &str = "\
A file, for example:
  [[network]]
  name = \"lan\"
  subnet = \"192.168.40.0/24\"

  [[network.port]]
  name = \"web\"
  address = \"192.168.40.10\"

  [[network.forward]]
  ports = \"8080\"
  to = \"192.168.40.10\"
  to_port = 80

Networks that it does not name stay as they are. Within those that it names, ports, leases and forwards that it does not name go.";

const EXAMPLES: &str = "\
Examples:
  ringway net create lan
  ringway net create lab --kind isolated --subnet 10.7.0.0/24
  ringway net create office --kind bridge --bridge br0";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Create {
    /// Its name, part of the names of its virtual machines
    name: Name,
    /// How it meets the world
    #[arg(long, value_enum, default_value_t = KindArgument::Nat)]
    kind: KindArgument,
    /// IPv4 subnet, such as 192.168.40.0/24 [default: one that is free]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// IPv6 subnet, a /64
    #[arg(long, value_name = "CIDR")]
    subnet6: Option<Ipv6Net>,
    /// The bridge to join, with --kind bridge
    #[arg(long, value_name = "IF", required_if_eq("kind", "bridge"))]
    bridge: Option<InterfaceName>,
    /// Largest IP packet in bytes, 576 to 65521 [default: 1500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(576..=65521))]
    mtu: Option<u16>,
    /// Hand out no addresses
    #[arg(long)]
    no_dhcp: bool,
    /// Answer no names
    #[arg(long)]
    no_dns: bool,
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindArgument {
    /// Behind the host's address
    Nat,
    /// With addresses that the outside has a route to
    Routed,
    /// Virtual machines and host among themselves
    Isolated,
    /// On a bridge of the host
    Bridge,
}

impl From<KindArgument> for Kind {
    fn from(kind: KindArgument) -> Self {
        match kind {
            KindArgument::Nat => Self::Nat,
            KindArgument::Routed => Self::Routed,
            KindArgument::Isolated => Self::Isolated,
            KindArgument::Bridge => Self::Bridge,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.daemon.client();
    match arguments.verb {
        Verb::Create(create) => {
            let json = create.form.json;
            let network = client.create_network(&specification(*create))?;
            print::answer(json, &network, print::network_created)?;
            warn(&client, &[network.interface]);
            Ok(())
        }
        Verb::List(form) => {
            let networks = client.networks()?;
            print::answer(form.json, &networks, |networks| print::networks(networks))?;
            if networks.is_empty() && !form.json {
                print::hint("there is no network yet: `ringway net create NAME` makes one");
            }
            Ok(())
        }
        Verb::Show { name, form } => {
            let network = client.network(&name)?;
            print::answer(form.json, &network, print::network)
        }
        Verb::Delete { name, force } => Ok(client.delete_network(&name, force)?),
        Verb::Apply {
            file,
            dry_run,
            form,
        } => apply(&client, &file, dry_run, &form),
    }
}

fn specification(create: Create) -> NetworkSpec {
    NetworkSpec {
        name: create.name,
        kind: create.kind.into(),
        subnet: create.subnet,
        subnet6: create.subnet6,
        bridge: create.bridge,
        mtu: create.mtu,
        dhcp: DhcpOptions {
            enabled: !create.no_dhcp,
            ..DhcpOptions::default()
        },
        dns: DnsOptions {
            enabled: !create.no_dns,
            ..DnsOptions::default()
        },
    }
}

fn apply(client: &Client, path: &Path, dry_run: bool, form: &Form) -> Result<(), Failure> {
    let document: Document = file::toml(path)?;
    let applied = client.apply(&document, dry_run)?;
    print::answer(form.json, &applied, print::applied)?;
    if !applied.steps.is_empty() && applied.done {
        let networks = client.networks().unwrap_or_default().into_iter();
        let named = networks.filter(|network| {
            let mut names = document.networks.iter().map(|named| &named.spec.name);
            names.any(|name| *name == network.spec.name)
        });
        let interfaces: Vec<_> = named.map(|network| network.interface).collect();
        warn(client, &interfaces);
    }
    Ok(())
}

/// Says what the host does to these networks that nobody asked for. They are made, whatever becomes of this question.
fn warn(client: &Client, interfaces: &[InterfaceName]) {
    let Ok(info) = client.info() else { return };
    for warning in info.warnings {
        let mut words = warning.split(|c: char| c.is_whitespace() || c == ';');
        if words.any(|word| {
            interfaces
                .iter()
                .any(|interface| interface.as_str() == word)
        }) {
            print::warning(&warning);
        }
    }
}
