//! The host.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    thread,
};

use crate::facts::{Device, Host};

pub(super) fn host() -> Host {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Host {
        kernel: kernel.map(|it| it.trim().to_owned()),
        cpus: thread::available_parallelism().ok().map(usize::from),
        kvm: device("/dev/kvm"),
        tun: device("/dev/net/tun"),
        vhost_net: device("/dev/vhost-net"),
        ..Host::default()
    }
}

fn device(path: &str) -> Device {
    let Ok(metadata) = fs::metadata(path) else {
        return Device::default();
    };
    let opened = OpenOptions::new().read(true).write(true).open(path);
    Device {
        present: true,
        mode: metadata.mode() & 0o7777,
        owner: metadata.uid(),
        group: metadata.gid(),
        refused: opened.err().map(|error: io::Error| error.to_string()),
    }
}
