//! `ringway doctor --from`: faults that cannot be made on every machine, judged from facts as `--save` writes them. In each file
//! there is a sound machine beside the sick one.

use anyhow::{Result, ensure};
use ringway_tests::{
    cures::{Finding, findings, only},
    lab::checkout,
};

fn saved(name: &str) -> Result<Vec<Finding>> {
    let file = checkout().join("tests/facts").join(name);
    findings(&["--json", "--from", &file.display().to_string()])
}

#[test]
fn a_dhcp_client_that_refuses_half_checksums() -> Result<()> {
    let found = saved("dhcp-checksum.json")?;
    let one = only(&found, "dhcp-checksum")?;
    ensure!(one.machine.as_deref() == Some("mailbox"), "{one:?}");
    let cure = one.cure.join("\n");
    ensure!(
        cure.contains("<guest csum='off'") && cure.contains("virsh edit mailbox"),
        "{cure}"
    );
    Ok(())
}

#[test]
fn a_machine_of_libvirt_is_changed_by_virsh() -> Result<()> {
    let found = saved("libvirt-memory.json")?;
    let one = only(&found, "memory-not-shared")?;
    ensure!(one.machine.as_deref() == Some("private"), "{one:?}");
    let cure = one.cure.join("\n");
    for part in ["<access mode='shared'/>", "virsh edit private"] {
        ensure!(cure.contains(part), "{cure}");
    }
    Ok(())
}

#[test]
fn the_qemu_that_crashes_does_so_without_kvm_alone() -> Result<()> {
    let found = saved("qemu-crashes.json")?;
    let one = only(&found, "qemu-crashes")?;
    ensure!(one.machine.as_deref() == Some("old"), "{one:?}");
    Ok(())
}

#[test]
fn the_kernel_that_does_not_start_costs_speed_and_no_link() -> Result<()> {
    let found = saved("vhost-net-not-started.json")?;
    let one = only(&found, "vhost-not-started")?;
    ensure!(one.machine.as_deref() == Some("k"), "{one:?}");
    ensure!(one.what.contains("QEMU itself carries"), "{one:?}");
    Ok(())
}
