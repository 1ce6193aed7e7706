//! `ringway vm args`: how a machine is started, for those who start it themselves.

use clap::Args;
use ringway_api::v1::client::Client;
use ringway_vmm::{cloud_hypervisor, libvirt, qemu};

use super::{
    machine::{MachineArguments, Runner},
    nics,
    nics::Taps,
};
use crate::{Failure, print};

/// Print the flags that start a machine with its network, for QEMU, libvirt or cloud-hypervisor
///
/// With --net socket=PATH it needs no daemon. With --net NAME the daemon makes a port named after the machine, which stays until
/// `ringway port delete`. What stands on standard output can be put behind the program's name; the rest is on standard error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    machine: MachineArguments,
    /// Print the XML of a libvirt domain
    #[arg(long, conflicts_with_all = ["cloud_hypervisor", "json"])]
    libvirt: bool,
    /// Print the flags of cloud-hypervisor
    #[arg(long)]
    cloud_hypervisor: bool,
    /// Print a JSON array, one string per word
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    let mut machine = arguments.machine.machine()?;
    let name = arguments.machine.name()?;
    let runner = if arguments.cloud_hypervisor {
        None
    } else {
        Some(Runner::find(&arguments.machine)?)
    };
    let mut made = Vec::new();
    let resolved = nics::resolve(
        &arguments.machine.nets,
        &name,
        machine.cpus,
        Taps::Named,
        client,
        &mut made,
    );
    // The ports stay if all went well: the machine is started later, by somebody else.
    let printed = resolved.and_then(|resolved| {
        machine.nics = resolved.into_iter().map(|resolved| resolved.nic).collect();
        let Some(runner) = runner else {
            if machine.boot.is_none() {
                tracing::info!(
                    "cloud-hypervisor needs a firmware to boot an image: add --firmware with the path of hypervisor-fw"
                );
            }
            return words(arguments.json, cloud_hypervisor::arguments(&machine)?);
        };
        runner.check(&machine)?;
        if arguments.libvirt {
            let domain = libvirt::domain(&runner.qemu, runner.accel, &machine)?;
            return print::out(&domain);
        }
        if let Some(pin) = &machine.pin {
            tracing::info!(
                "QEMU has no flag for --pin; once it runs: ringway vm pin --pid PID --vcpus {pin}"
            );
        }
        let words_of = qemu::arguments(&runner.qemu, runner.accel, &machine);
        words(arguments.json, words_of)
    });
    if printed.is_err() {
        nics::delete(&made, client);
    }
    printed
}

fn words(json: bool, words: Vec<String>) -> Result<(), Failure> {
    print::answer(json, &words, |words| print::shell_line(words))
}
