//! Everything the command prints itself.

mod dhcp;
mod frame;
mod qemu;
mod summary;

use std::io::{self, Write};

use ringway_api::PortSpec;

pub(crate) use frame::frame;
pub(crate) use qemu::qemu_options;

/// One sentence on standard error; there is nobody left to tell if that fails.
pub(crate) fn error(sentence: &str) {
    let _ = writeln!(io::stderr(), "ringway: {sentence}");
}

/// What `ringway` alone says: what this is and what to type next.
pub(crate) fn welcome() -> String {
    let ports = ["/tmp/vm1.sock", "/tmp/vm2.sock"].map(|path| format!("vhost-user,path={path}"));
    let qemu = |text: &String| {
        text.parse::<PortSpec>()
            .ok()
            .and_then(|port| qemu_options(0, &port))
            .unwrap_or_default()
    };
    format!(
        "Ringway {} connects virtual machines: a learning switch whose ports are vhost-user sockets, taps and captures.\n\n\
         Start a switch with two ports and leave it running:\n\n\
         \x20 ringway switch --port {} --port {}\n\n\
         In two other terminals, start a virtual machine on each port, with your own disk and, where there is KVM, -accel kvm:\n\n\
         \x20 qemu-system-x86_64 -M q35 {} -drive file=DISK1,if=virtio\n\
         \x20 qemu-system-x86_64 -M q35 {} -drive file=DISK2,if=virtio\n\n\
         `ringway switch --help` tells the other kinds of ports, `ringway dump --help` how to look at what a guest sends.\n",
        env!("CARGO_PKG_VERSION"),
        ports[0],
        ports[1],
        qemu(&ports[0]),
        qemu(&ports[1]),
    )
}
