//! The machine as cloud-hypervisor's command line.

use crate::{Backend, Machine, Model, Nic, disk::Writes};

/// Why a machine cannot be cloud-hypervisor's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudHypervisorError {
    /// It has virtio only.
    #[error("cloud-hypervisor has no {0}: take model=virtio")]
    Model(Model),
    /// It does not write into a file beside the image.
    #[error(
        "cloud-hypervisor writes into the image itself: give --persistent, or an overlay made with `qemu-img create -b`"
    )]
    WritesIntoImage,
    /// They are QEMU's.
    #[error("words for QEMU's command line mean nothing to cloud-hypervisor: leave them away")]
    MoreWords,
}

/// The words after the program's name. Without a kernel of its own the machine needs a firmware besides (`--firmware`).
pub fn arguments(machine: &Machine) -> Result<Vec<String>, CloudHypervisorError> {
    if !machine.more.is_empty() {
        return Err(CloudHypervisorError::MoreWords);
    }
    let mut words: Vec<String> = Vec::new();
    let mut option = |option: &str, value: String| words.extend([option.to_owned(), value]);
    let mut cpus = format!("boot={}", machine.cpus);
    if let Some(pin) = &machine.pin {
        let each =
            (0..machine.cpus).map(|vcpu| format!("{vcpu}@[{}]", pin.nth_wrapping(vcpu.into())));
        let each: Vec<_> = each.collect();
        cpus += &format!(",affinity=[{}]", each.join(","));
    }
    option("--cpus", cpus);
    // A NUMA node is named in a zone of memory, whose size stands there instead.
    let pages = if machine.hugepages {
        ",hugepages=on"
    } else {
        ""
    };
    match machine.numa_node {
        None => option(
            "--memory",
            format!("size={}M,shared=on{pages}", machine.memory),
        ),
        Some(node) => {
            option("--memory", "size=0".into());
            let size = machine.memory;
            option(
                "--memory-zone",
                format!("id=mem0,size={size}M,shared=on,host_numa_node={node}{pages}"),
            );
        }
    }
    if let Some(boot) = &machine.boot {
        option("--kernel", boot.kernel.display().to_string());
        if let Some(initrd) = &boot.initrd {
            option("--initramfs", initrd.display().to_string());
        }
        if let Some(append) = &boot.append {
            option("--cmdline", append.clone());
        }
    }
    for disk in &machine.disks {
        let readonly = match disk.writes {
            Writes::Kept => "",
            Writes::Refused => ",readonly=on",
            Writes::Forgotten => return Err(CloudHypervisorError::WritesIntoImage),
        };
        option("--disk", format!("path={}{readonly}", disk.path.display()));
    }
    for nic in &machine.nics {
        option("--net", net(nic)?);
    }
    option("--serial", "tty".into());
    option("--console", "off".into());
    Ok(words)
}

fn net(nic: &Nic) -> Result<String, CloudHypervisorError> {
    if nic.model != Model::Virtio {
        return Err(CloudHypervisorError::Model(nic.model));
    }
    // It counts rings, not pairs.
    let (rings, mac) = (2 * u32::from(nic.queues), nic.mac);
    let mtu = nic.mtu.map(|mtu| format!(",mtu={mtu}")).unwrap_or_default();
    let backend = match &nic.backend {
        Backend::VhostUser { socket } => {
            format!(
                "vhost_user=true,socket={},vhost_mode=client",
                socket.display()
            )
        }
        Backend::Tap { name, .. } => format!("tap={name}"),
        Backend::Descriptors { queues, .. } => {
            let numbers: Vec<_> = queues.iter().map(ToString::to_string).collect();
            format!("fd=[{}]", numbers.join(","))
        }
    };
    Ok(format!("{backend},num_queues={rings},mac={mac}{mtu}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, machine::example};

    #[test]
    fn rings_are_counted_and_memory_is_shared() {
        let mut machine = example();
        machine.disks[0].writes = Writes::Kept;
        machine.boot = Some(Boot {
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd".into()),
            append: Some("console=ttyS0".into()),
        });
        assert_eq!(
            arguments(&machine).unwrap().join(" "),
            "--cpus boot=8 --memory size=1024M,shared=on --kernel /boot/vmlinuz --initramfs /boot/initrd \
             --cmdline console=ttyS0 --disk path=/srv/web.qcow2 \
             --net vhost_user=true,socket=/run/web.sock,vhost_mode=client,num_queues=16,mac=02:00:00:00:00:01,mtu=9000 \
             --serial tty --console off"
        );
        machine.pin = Some("1".parse().unwrap());
        machine.cpus = 2;
        machine.numa_node = Some(0);
        machine.hugepages = true;
        let line = arguments(&machine).unwrap().join(" ");
        for part in [
            "--cpus boot=2,affinity=[0@[1],1@[1]] ",
            "--memory size=0 --memory-zone id=mem0,size=1024M,shared=on,host_numa_node=0,hugepages=on ",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn what_it_lacks_is_said_with_the_way_out() {
        let mut machine = example();
        let refused = arguments(&machine).unwrap_err().to_string();
        assert!(refused.contains("--persistent"), "{refused}");
        machine.disks.clear();
        machine.nics[0].model = Model::Igb;
        let refused = arguments(&machine).unwrap_err().to_string();
        assert!(refused.contains("no igb: take model=virtio"), "{refused}");
    }
}
