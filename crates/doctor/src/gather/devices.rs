//! What command lines take from the host: PCI devices, and directories of huge pages.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::statfs;

use crate::{command::Command, facts::Passed};

/// linux/magic.h.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// Host devices that a command line passes through.
pub(super) fn passed(words: &[String]) -> Vec<Passed> {
    let command = Command::parse(words);
    let devices = command.all("device");
    let hosts = devices
        .filter(|device| device.kind().starts_with("vfio-pci"))
        .filter_map(|device| device.get("host"));
    hosts
        .map(|address| {
            // The domain may be left out.
            let address = match address.matches(':').count() {
                1 => format!("0000:{address}"),
                _ => address.to_owned(),
            };
            let mut passed = device(&address);
            let others = Path::new(DEVICES)
                .join(&address)
                .join("iommu_group/devices");
            let others = fs::read_dir(others).into_iter().flatten().flatten();
            let names = others.filter_map(|entry| entry.file_name().into_string().ok());
            passed.others = names
                .filter(|name| *name != address)
                .map(|name| device(&name))
                .collect();
            passed.others.sort_by(|a, b| a.address.cmp(&b.address));
            passed
        })
        .collect()
}

const DEVICES: &str = "/sys/bus/pci/devices";

fn device(address: &str) -> Passed {
    let folder = Path::new(DEVICES).join(address);
    let link = |name: &str| {
        let target = fs::read_link(folder.join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    let class = fs::read_to_string(folder.join("class")).unwrap_or_default();
    Passed {
        present: folder.exists(),
        class: class
            .trim()
            .strip_prefix("0x")
            .and_then(|it| u32::from_str_radix(it, 16).ok()),
        driver: link("driver"),
        bridge: class.starts_with("0x06"),
        group: link("iommu_group").and_then(|it| it.parse().ok()),
        address: address.to_owned(),
        others: Vec::new(),
    }
}

/// Directories that memory comes from, and the size in KiB of their pages, where these are huge.
pub(super) fn huge_paths(words: &[String]) -> BTreeMap<PathBuf, u64> {
    let command = Command::parse(words);
    let objects = command.all("object").filter_map(|it| it.get("mem-path"));
    let plain = command.all("mem-path").map(|it| it.kind());
    let paths = objects.chain(plain).filter_map(|path| {
        let found = statfs(path).ok()?;
        // A file that is to be made lies in a directory that is there.
        let huge = found.f_type == HUGETLBFS_MAGIC;
        huge.then(|| {
            (
                path.into(),
                u64::try_from(found.f_bsize).unwrap_or(0) / 1024,
            )
        })
    });
    paths.collect()
}
