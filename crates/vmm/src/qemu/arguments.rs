//! QEMU's command line.

use std::path::Path;

use super::{Qemu, Version};
use crate::{Accel, Backend, Console, Disk, Machine, Model, Nic, disk::Writes};

/// Seconds after which QEMU connects again to a switch that went away.
const RECONNECT: u32 = 1;

/// The words after the program's name.
///
/// Memory is a memfd that is shared, whatever the NICs are: that is what a vhost-user switch needs, and it costs nothing. Boot ROMs of
/// NICs are left out, because nobody boots from the network here and QEMU would look for them in files.
pub fn arguments(qemu: &Qemu, accel: Accel, machine: &Machine) -> Vec<String> {
    let mut words = Words(Vec::new());
    let (cpu, memory) = (accel.cpu(), machine.memory);
    words.option("-name", format!("{},debug-threads=on", machine.name));
    words.option("-M", "q35,memory-backend=mem".into());
    words.option("-accel", accel.to_string());
    words.option("-cpu", cpu.into());
    words.option("-smp", machine.cpus.to_string());
    words.option("-m", format!("{memory}M"));
    words.option("-object", memory_object(machine));
    words.0.push("-nodefaults".into());
    words.option("-display", "none".into());
    match &machine.console {
        Console::Terminal => words.option("-serial", "mon:stdio".into()),
        Console::Socket { path } => {
            let path = escaped(path);
            words.option(
                "-chardev",
                format!("socket,id=console,path={path},server=on,wait=off"),
            );
            words.option("-serial", "chardev:console".into());
        }
    }
    if let Some(monitor) = &machine.monitor {
        let path = escaped(monitor);
        words.option(
            "-chardev",
            format!("socket,id=monitor,path={path},server=on,wait=off"),
        );
        words.option("-mon", "chardev=monitor,mode=control".into());
    }
    if let Some(boot) = &machine.boot {
        words.option("-kernel", boot.kernel.display().to_string());
        if let Some(initrd) = &boot.initrd {
            words.option("-initrd", initrd.display().to_string());
        }
        if let Some(append) = &boot.append {
            words.option("-append", append.clone());
        }
    }
    if !machine.disks.is_empty() {
        words.option("-object", "iothread,id=io0".into());
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        words.disk(index, disk);
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        words.nic(index, nic, qemu.version);
    }
    if machine.paused {
        words.0.push("-S".into());
    }
    words.0.extend(machine.more.iter().cloned());
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn option(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    fn disk(&mut self, index: usize, disk: &Disk) {
        let (path, format) = (escaped(&disk.path), disk.format.name());
        let writes = match disk.writes {
            Writes::Kept => "",
            Writes::Forgotten => ",snapshot=on",
            Writes::Refused => ",readonly=on",
        };
        self.option(
            "-drive",
            format!("file={path},format={format},if=none,id=disk{index}{writes}"),
        );
        self.option(
            "-device",
            format!("virtio-blk-pci,drive=disk{index},iothread=io0"),
        );
    }

    fn nic(&mut self, index: usize, nic: &Nic, version: Version) {
        let queues = match nic.queues {
            1 => String::new(),
            queues => format!(",queues={queues}"),
        };
        match &nic.backend {
            Backend::VhostUser { socket } => {
                let (path, reconnect) = (escaped(socket), reconnect(version));
                self.option(
                    "-chardev",
                    format!("socket,id=c{index},path={path},{reconnect}"),
                );
                self.option(
                    "-netdev",
                    format!("vhost-user,id=n{index},chardev=c{index}{queues}"),
                );
            }
            Backend::Tap { name, vhost } => {
                let name = name.as_str().replace(',', ",,");
                let vhost = if *vhost { "on" } else { "off" };
                self.option(
                    "-netdev",
                    format!(
                        "tap,id=n{index},ifname={name},script=no,downscript=no,vhost={vhost}{queues}"
                    ),
                );
            }
            Backend::Descriptors { queues, vhost, .. } => {
                let mut option = format!("tap,id=n{index},fds={}", joined(queues));
                match vhost.is_empty() {
                    true => option.push_str(",vhost=off"),
                    false => option.push_str(&format!(",vhost=on,vhostfds={}", joined(vhost))),
                }
                self.option("-netdev", option);
            }
        }
        let model = match nic.model {
            Model::Virtio => "virtio-net-pci",
            Model::E1000 => "e1000",
            Model::E1000e => "e1000e",
            Model::Igb => "igb",
        };
        let mut device = format!("{model},netdev=n{index},mac={},romfile=", nic.mac);
        if nic.model == Model::Virtio {
            if nic.queues > 1 {
                device.push_str(&format!(",mq=on,vectors={}", nic.vectors()));
            }
            if let Some(mtu) = nic.mtu {
                device.push_str(&format!(",host_mtu={mtu}"));
            }
        }
        self.option("-device", device);
    }
}

fn memory_object(machine: &Machine) -> String {
    let mut object = format!(
        "memory-backend-memfd,id=mem,size={}M,share=on",
        machine.memory
    );
    if machine.hugepages {
        object.push_str(",hugetlb=on,hugetlbsize=2M,prealloc=on");
    }
    if let Some(node) = machine.numa_node {
        object.push_str(&format!(",host-nodes={node},policy=bind"));
    }
    object
}

/// Milliseconds since 9.2, where the older spelling became obsolete.
fn reconnect(version: Version) -> String {
    if version >= Version(9, 2) {
        format!("reconnect-ms={}", RECONNECT * 1000)
    } else {
        format!("reconnect={RECONNECT}")
    }
}

fn joined(numbers: &[i32]) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(":")
}

/// As a value in a list of QEMU's, where a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Format, machine::example};

    fn line(version: Version, accel: Accel, machine: &Machine) -> String {
        let qemu = Qemu {
            program: "qemu-system-x86_64".into(),
            version,
        };
        arguments(&qemu, accel, machine).join(" ")
    }

    #[test]
    fn a_machine_in_full() {
        assert_eq!(
            line(Version(10, 0), Accel::Tcg, &example()),
            "-name web,debug-threads=on -M q35,memory-backend=mem -accel tcg -cpu max -smp 8 -m 1024M \
             -object memory-backend-memfd,id=mem,size=1024M,share=on -nodefaults -display none -serial mon:stdio \
             -object iothread,id=io0 \
             -drive file=/srv/web.qcow2,format=qcow2,if=none,id=disk0,snapshot=on -device virtio-blk-pci,drive=disk0,iothread=io0 \
             -chardev socket,id=c0,path=/run/web.sock,reconnect-ms=1000 -netdev vhost-user,id=n0,chardev=c0,queues=8 \
             -device virtio-net-pci,netdev=n0,mac=02:00:00:00:00:01,romfile=,mq=on,vectors=18,host_mtu=9000"
        );
    }

    #[test]
    fn the_spelling_is_what_the_version_knows() {
        let line = line(Version(7, 2), Accel::Kvm, &example());
        assert!(line.contains(",reconnect=1 "), "{line}");
        assert!(line.contains(" -accel kvm -cpu host "), "{line}");
    }

    #[test]
    fn one_queue_pair_needs_no_multi_queue_options() {
        let mut machine = example();
        machine.nics[0].queues = 1;
        machine.nics[0].mtu = None;
        let line = line(Version(10, 0), Accel::Tcg, &machine);
        assert!(line.contains("-netdev vhost-user,id=n0,chardev=c0 -device"));
        assert!(line.ends_with("mac=02:00:00:00:00:01,romfile="), "{line}");
    }

    #[test]
    fn taps_are_opened_by_qemu_or_come_as_descriptors() {
        let mut machine = example();
        let nic = machine.nics[0].clone();
        machine.nics = vec![
            Nic {
                backend: Backend::Tap {
                    name: "rw-web".parse().unwrap(),
                    vhost: true,
                },
                queues: 2,
                ..nic.clone()
            },
            Nic {
                backend: Backend::Descriptors {
                    name: "rt-web".parse().unwrap(),
                    queues: vec![5, 6],
                    vhost: vec![7, 8],
                },
                queues: 2,
                ..nic.clone()
            },
            Nic {
                backend: Backend::Descriptors {
                    name: "rt-web".parse().unwrap(),
                    queues: vec![9],
                    vhost: Vec::new(),
                },
                queues: 1,
                mtu: None,
                model: Model::E1000e,
                ..nic
            },
        ];
        let line = line(Version(10, 0), Accel::Kvm, &machine);
        for part in [
            "-netdev tap,id=n0,ifname=rw-web,script=no,downscript=no,vhost=on,queues=2 ",
            "-netdev tap,id=n1,fds=5:6,vhost=on,vhostfds=7:8 ",
            ",mq=on,vectors=6,",
            "-netdev tap,id=n2,fds=9,vhost=off -device e1000e,netdev=n2,mac=02:00:00:00:00:01,romfile=",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn memory_kernel_and_sockets_go_where_they_are_asked_to() {
        let mut machine = example();
        machine.hugepages = true;
        machine.numa_node = Some(1);
        machine.boot = Some(Boot {
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd".into()),
            append: Some("console=ttyS0 quiet".into()),
        });
        machine.console = Console::Socket {
            path: "/run/a,b/console".into(),
        };
        machine.monitor = Some("/run/qmp".into());
        machine.disks[0].format = Format::Raw;
        machine.disks[0].writes = Writes::Kept;
        machine.paused = true;
        machine.more = vec!["-device".into(), "virtio-rng-pci".into()];
        let line = line(Version(10, 0), Accel::Kvm, &machine);
        for part in [
            "size=1024M,share=on,hugetlb=on,hugetlbsize=2M,prealloc=on,host-nodes=1,policy=bind ",
            "-chardev socket,id=console,path=/run/a,,b/console,server=on,wait=off -serial chardev:console ",
            "-chardev socket,id=monitor,path=/run/qmp,server=on,wait=off -mon chardev=monitor,mode=control ",
            "-kernel /boot/vmlinuz -initrd /boot/initrd -append console=ttyS0 quiet ",
            "format=raw,if=none,id=disk0 ",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(line.ends_with(" -S -device virtio-rng-pci"), "{line}");
    }
}
