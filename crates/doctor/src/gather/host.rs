//! The host.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
};

use ringway_host::nft;
use ringway_vmm::{
    Qemu,
    accel::{Accel, choose},
};

use super::guards;
use crate::facts::{Device, Host, HugePages, Machine};

/// What it has, and what matters to these machines.
pub(super) fn host(machines: &[Machine]) -> Host {
    let kernel = read("/proc/sys/kernel/osrelease");
    let kvm = device("/dev/kvm");
    Host {
        cpus: thread::available_parallelism().ok().map(usize::from),
        tun: device("/dev/net/tun"),
        vhost_net: device("/dev/vhost-net"),
        vfio: device("/dev/vfio/vfio"),
        iommu: Some(
            fs::read_dir("/sys/kernel/iommu_groups").is_ok_and(|mut it| it.next().is_some()),
        ),
        virtualization: virtualization(),
        huge_pages: huge_pages(),
        huge_page_size: huge_page_size(),
        nft: Some(nft::version().unwrap_or_default()),
        guards: guards::guards(),
        denials: guards::denials(machines),
        kvm_boots: boots(&kvm, machines),
        kvm,
        kernel,
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
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

/// Boots something small, which takes a second or, where KVM is broken, ten; the answer is kept until the host boots again. Only
/// where there is somebody to whom it matters.
fn boots(kvm: &Device, machines: &[Machine]) -> Option<Result<(), String>> {
    if machines.is_empty() || !kvm.present || kvm.refused.is_some() {
        return None;
    }
    let choice = choose(&Qemu::find(None).ok()?, None);
    Some(match choice.accel {
        Accel::Kvm => Ok(()),
        Accel::Tcg => Err(choice.why),
    })
}

fn virtualization() -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag: &&str| flags.split_whitespace().any(|it| it == *flag);
    Some(
        ["vmx", "svm"]
            .into_iter()
            .find(has)
            .unwrap_or("")
            .to_owned(),
    )
}

fn huge_page_size() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("Hugepagesize:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn huge_pages() -> Vec<HugePages> {
    let entries = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let named = entries.filter_map(|it| Some((it.file_name().into_string().ok()?, it.path())));
        named.collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (name, path) in entries(Path::new("/sys/devices/system/node")) {
        let node = name.strip_prefix("node").and_then(|it| it.parse().ok());
        let Some(node) = node else { continue };
        for (name, path) in entries(&path.join("hugepages")) {
            let size = name
                .strip_prefix("hugepages-")
                .and_then(|it| it.strip_suffix("kB")?.parse().ok());
            let Some(size) = size else { continue };
            let count = |of: &str| read(path.join(of)).and_then(|it| it.parse().ok());
            found.push(HugePages {
                node,
                size,
                total: count("nr_hugepages").unwrap_or(0),
                free: count("free_hugepages").unwrap_or(0),
            });
        }
    }
    found.sort_by_key(|it| (it.size, it.node));
    found
}
