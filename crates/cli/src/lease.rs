//! `ringway lease`: who has which address.

mod hosts;

use std::{net::Ipv4Addr, path::PathBuf};

use clap::{Args, Subcommand};
use ringway_api::{
    port_spec::Mac,
    v1::{Name, StaticLease},
};

use crate::{
    Failure,
    ask::{Daemon, Form},
    print,
};

/// Addresses: list them, resolve a name, bind one to a client
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
    /// List addresses that are lent or bound
    List {
        /// Only those of this network
        network: Option<Name>,
        #[command(flatten)]
        form: Form,
    },
    /// Print the addresses of a name, one per line
    Resolve {
        /// A name, such as web, web.lan or web.lan.ringway
        name: String,
        #[command(flatten)]
        form: Form,
    },
    /// Print names and addresses as lines of a hosts file
    Hosts {
        /// Only those of this network
        network: Option<Name>,
        /// Put them into FILE instead, between two marks, in place of those put there before
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// Bind an address to a client
    Bind(Bind),
    /// Undo a binding
    Unbind {
        /// The network
        network: Name,
        /// The address
        address: Ipv4Addr,
    },
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  ringway lease bind lan 192.168.40.10 --mac 52:54:00:12:34:56 --name web"
)]
struct Bind {
    /// The network
    network: Name,
    /// The address
    address: Ipv4Addr,
    /// The client's hardware address
    #[arg(long, conflicts_with = "client_id")]
    mac: Option<Mac>,
    /// The client's DHCP identifier (option 61) in hexadecimal digits
    #[arg(long, value_name = "HEX")]
    client_id: Option<String>,
    /// The name that the address gets
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    form: Form,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = arguments.daemon.client();
    match arguments.verb {
        Verb::List { network, form } => {
            let leases = client.leases(network.as_ref())?;
            print::answer(form.json, &leases, |leases| print::leases(leases))?;
            if leases.is_empty() && !form.json {
                print::hint(
                    "nobody has an address yet; `ringway port list` shows which virtual machines are connected",
                );
            }
            Ok(())
        }
        Verb::Resolve { name, form } => {
            let leases = client.resolve(&name)?;
            if leases.is_empty() {
                let known = "`ringway lease list` shows who has one";
                return Err(anyhow::anyhow!("nobody called {name} has an address: {known}").into());
            }
            print::answer(form.json, &leases, |leases| print::addresses(leases))
        }
        Verb::Hosts { network, write } => {
            let leases = client.leases(network.as_ref())?;
            let lines = hosts::lines(&leases, &client.networks()?);
            match write {
                Some(file) => Ok(hosts::write(&file, &lines)?),
                None => print::out(&lines),
            }
        }
        Verb::Bind(bind) if bind.mac.is_none() && bind.client_id.is_none() => Err(Failure::Usage(
            "lease bind does not say whose the address is: give --mac or --client-id".into(),
        )),
        Verb::Bind(bind) => {
            let lease = StaticLease {
                mac: bind.mac,
                client_id: bind.client_id,
                address: bind.address,
                name: bind.name,
            };
            let lease = client.bind(&bind.network, &lease)?;
            print::answer(bind.form.json, &lease, |lease| {
                print::leases(std::slice::from_ref(lease))
            })
        }
        Verb::Unbind { network, address } => Ok(client.unbind(&network, address)?),
    }
}
