//! The machine as a libvirt domain.

use std::fmt::Write;

use crate::{Accel, Backend, Machine, Model, Nic, Qemu, disk::Writes};

/// Why a machine cannot be a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibvirtError {
    /// Descriptors cannot be written down.
    #[error("libvirt opens a tap itself: give it one by name, with path=tap or path=vhost-net")]
    Descriptors,
    /// They mean nothing in a domain.
    #[error(
        "words for QEMU's command line cannot be put into a domain: add what they stand for to its XML by hand"
    )]
    MoreWords,
}

/// The XML of a domain, for `virsh define` or `virsh create`.
pub fn domain(qemu: &Qemu, accel: Accel, machine: &Machine) -> Result<String, LibvirtError> {
    if !machine.more.is_empty() {
        return Err(LibvirtError::MoreWords);
    }
    let mut xml = Xml::default();
    let kind = match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "qemu",
    };
    xml.open(&format!("domain type='{kind}'"));
    xml.line(&format!("<name>{}</name>", text(&machine.name)));
    xml.line(&format!("<memory unit='MiB'>{}</memory>", machine.memory));
    xml.open("memoryBacking");
    if machine.hugepages {
        xml.line("<hugepages/>");
    }
    // What vhost-user stands on: memory in a file that the switch can map.
    xml.line("<source type='memfd'/>");
    xml.line("<access mode='shared'/>");
    xml.close("memoryBacking");
    xml.line(&format!("<vcpu placement='static'>{}</vcpu>", machine.cpus));
    if let Some(pin) = &machine.pin {
        xml.open("cputune");
        for vcpu in 0..machine.cpus {
            let cpu = pin.nth_wrapping(vcpu.into());
            xml.line(&format!("<vcpupin vcpu='{vcpu}' cpuset='{cpu}'/>"));
        }
        xml.line(&format!("<emulatorpin cpuset='{pin}'/>"));
        xml.close("cputune");
    }
    if let Some(node) = machine.numa_node {
        xml.open("numatune");
        xml.line(&format!("<memory mode='strict' nodeset='{node}'/>"));
        xml.close("numatune");
    }
    xml.open("os");
    xml.line("<type arch='x86_64' machine='q35'>hvm</type>");
    if let Some(boot) = &machine.boot {
        xml.element("kernel", &boot.kernel.display().to_string());
        if let Some(initrd) = &boot.initrd {
            xml.element("initrd", &initrd.display().to_string());
        }
        if let Some(append) = &boot.append {
            xml.element("cmdline", append);
        }
    }
    xml.close("os");
    xml.line("<features><acpi/><apic/></features>");
    let cpu = match accel {
        Accel::Kvm => "host-passthrough",
        Accel::Tcg => "maximum",
    };
    xml.line(&format!("<cpu mode='{cpu}'/>"));
    // A guest that powers down or crashes is gone, as with QEMU's own command line.
    xml.line("<on_crash>destroy</on_crash>");
    xml.open("devices");
    xml.element("emulator", &qemu.program.display().to_string());
    for (index, disk) in machine.disks.iter().enumerate() {
        let letter = char::from(b'a'.saturating_add(u8::try_from(index).unwrap_or(25)));
        xml.open("disk type='file' device='disk'");
        xml.line(&format!(
            "<driver name='qemu' type='{}'/>",
            disk.format.name()
        ));
        let path = text(&disk.path.display().to_string());
        xml.line(&format!("<source file='{path}'/>"));
        xml.line(&format!("<target dev='vd{letter}' bus='virtio'/>"));
        match disk.writes {
            Writes::Kept => (),
            Writes::Forgotten => xml.line("<transient/>"),
            Writes::Refused => xml.line("<readonly/>"),
        }
        xml.close("disk");
    }
    for nic in &machine.nics {
        interface(&mut xml, nic)?;
    }
    xml.line("<serial type='pty'/>");
    xml.line("<console type='pty'><target type='serial'/></console>");
    xml.line("<memballoon model='none'/>");
    xml.close("devices");
    xml.close("domain");
    Ok(xml.text)
}

fn interface(xml: &mut Xml, nic: &Nic) -> Result<(), LibvirtError> {
    let driver = match &nic.backend {
        Backend::VhostUser { socket } => {
            xml.open("interface type='vhostuser'");
            let path = text(&socket.display().to_string());
            xml.open(&format!("source type='unix' path='{path}' mode='client'"));
            xml.line("<reconnect enabled='yes' timeout='1'/>");
            xml.close("source");
            // libvirt makes mq=on and 2N+2 vectors of the number of queues.
            (nic.queues > 1).then(|| format!("<driver queues='{}'/>", nic.queues))
        }
        Backend::Tap { name, vhost } => {
            xml.open("interface type='ethernet'");
            let name = text(name.as_str());
            xml.line(&format!("<target dev='{name}' managed='no'/>"));
            let queues = match nic.queues {
                1 => String::new(),
                queues => format!(" queues='{queues}'"),
            };
            let driver = if *vhost { "vhost" } else { "qemu" };
            (nic.model == Model::Virtio).then(|| format!("<driver name='{driver}'{queues}/>"))
        }
        Backend::Descriptors { .. } => return Err(LibvirtError::Descriptors),
    };
    xml.line(&format!("<mac address='{}'/>", nic.mac));
    xml.line(&format!("<model type='{}'/>", nic.model));
    if let Some(driver) = driver {
        xml.line(&driver);
    }
    if let Some(mtu) = nic.mtu {
        xml.line(&format!("<mtu size='{mtu}'/>"));
    }
    // libvirt would look for a boot ROM's file.
    xml.line("<rom enabled='no'/>");
    xml.close("interface");
    Ok(())
}

#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", 2 * self.depth);
    }

    /// `tag` with its attributes.
    fn open(&mut self, tag: &str) {
        self.line(&format!("<{tag}>"));
        self.depth += 1;
    }

    fn close(&mut self, tag: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.line(&format!("</{tag}>"));
    }

    fn element(&mut self, tag: &str, content: &str) {
        self.line(&format!("<{tag}>{}</{tag}>", text(content)));
    }
}

/// As text or in an attribute between single quotes.
fn text(content: &str) -> String {
    let mut escaped = String::new();
    for c in content.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, machine::example, qemu::Version};

    fn xml(accel: Accel, machine: &Machine) -> String {
        let qemu = Qemu {
            program: "/usr/bin/qemu-system-x86_64".into(),
            version: Version(10, 0),
        };
        domain(&qemu, accel, machine).unwrap()
    }

    #[test]
    fn a_domain_in_full() {
        assert_eq!(
            xml(Accel::Tcg, &example()),
            "\
<domain type='qemu'>
  <name>web</name>
  <memory unit='MiB'>1024</memory>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <vcpu placement='static'>8</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='maximum'/>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/srv/web.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <transient/>
    </disk>
    <interface type='vhostuser'>
      <source type='unix' path='/run/web.sock' mode='client'>
        <reconnect enabled='yes' timeout='1'/>
      </source>
      <mac address='02:00:00:00:00:01'/>
      <model type='virtio'/>
      <driver queues='8'/>
      <mtu size='9000'/>
      <rom enabled='no'/>
    </interface>
    <serial type='pty'/>
    <console type='pty'><target type='serial'/></console>
    <memballoon model='none'/>
  </devices>
</domain>
"
        );
    }

    #[test]
    fn cpus_memory_and_a_kernel_have_their_places() {
        let mut machine = example();
        machine.cpus = 3;
        machine.pin = Some("2-3".parse().unwrap());
        machine.hugepages = true;
        machine.numa_node = Some(1);
        machine.boot = Some(Boot {
            kernel: "/boot/k&r".into(),
            initrd: None,
            append: Some("init='/bin/sh'".into()),
        });
        let xml = xml(Accel::Kvm, &machine);
        for part in [
            "<domain type='kvm'>",
            "<hugepages/>",
            "<vcpupin vcpu='0' cpuset='2'/>",
            "<vcpupin vcpu='1' cpuset='3'/>",
            "<vcpupin vcpu='2' cpuset='2'/>",
            "<emulatorpin cpuset='2-3'/>",
            "<memory mode='strict' nodeset='1'/>",
            "<kernel>/boot/k&amp;r</kernel>",
            "<cmdline>init=&apos;/bin/sh&apos;</cmdline>",
            "<cpu mode='host-passthrough'/>",
        ] {
            assert!(xml.contains(part), "{part} is not in {xml}");
        }
    }

    #[test]
    fn taps_are_named_and_descriptors_refused() {
        let mut machine = example();
        machine.nics[0].backend = Backend::Tap {
            name: "rw-web".parse().unwrap(),
            vhost: true,
        };
        let with_tap = xml(Accel::Tcg, &machine);
        for part in [
            "<interface type='ethernet'>",
            "<target dev='rw-web' managed='no'/>",
            "<driver name='vhost' queues='8'/>",
        ] {
            assert!(with_tap.contains(part), "{part} is not in {with_tap}");
        }
        machine.nics[0].backend = Backend::Descriptors {
            name: "rt-web".parse().unwrap(),
            queues: vec![3],
            vhost: Vec::new(),
        };
        let qemu = Qemu {
            program: "q".into(),
            version: Version(10, 0),
        };
        let refused = domain(&qemu, Accel::Tcg, &machine).unwrap_err();
        assert_eq!(refused, LibvirtError::Descriptors);
    }
}
