//! `ringway doctor --from`: faults that cannot be made on every machine, judged from facts as `--save` writes them. In each file
//! there is a sound machine beside the sick one.

use anyhow::{Result, bail, ensure};
use ringway_tests::{Lab, Need, Netns, doctor::Doctor, lab::checkout};

/// One fault alone is found in saved facts, of one machine, and its cure has these parts.
fn finds(file: &str, fault: &str, machine: &str, parts: &[&str]) -> Result<()> {
    let Some(_lab) = Lab::with(&format!("doctor-{file}"), &[Need::Namespaces])? else {
        return Ok(());
    };
    let place = Netns::new()?;
    let path = checkout().join("tests/facts").join(format!("{file}.json"));
    let found = Doctor::new(&place)?.asks(&format!("--from {}", path.display()))?;
    let [one] = found.as_slice() else {
        bail!("not {fault} alone: {found:#?}");
    };
    ensure!(
        one.fault == fault && one.machine.as_deref() == Some(machine),
        "{one:#?}"
    );
    let cure = one.cure.join("\n");
    for part in parts {
        ensure!(cure.contains(part), "no {part:?} in {one:#?}");
    }
    Ok(())
}

#[test]
fn a_dhcp_client_in_a_machine_of_libvirt() -> Result<()> {
    let parts = ["<guest csum='off'", "virsh edit mailbox"];
    finds("dhcp-checksum", "dhcp-checksum", "mailbox", &parts)
}

#[test]
fn a_machine_of_libvirt_is_changed_by_virsh() -> Result<()> {
    let parts = ["<access mode='shared'/>", "virsh edit private"];
    finds("libvirt-memory", "memory-not-shared", "private", &parts)
}

#[test]
fn the_qemu_that_crashes_does_so_without_kvm_alone() -> Result<()> {
    finds("qemu-crashes", "qemu-crashes", "old", &["vectors=0"])
}

#[test]
fn the_kernel_that_does_not_start_costs_speed_and_no_link() -> Result<()> {
    let parts = ["modprobe vhost_net"];
    finds("vhost-net-not-started", "vhost-not-started", "k", &parts)
}
