//! Which guest is booted.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::Args;
use ringway_measure::paths::Image;
use ringway_vmm::disk;

use crate::Failure;

/// What guests boot
#[derive(Args)]
pub(super) struct GuestArguments {
    /// Boot this disk image, which needs cloud-init; it stays as it is [default: the project's test guest]
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["kernel", "initrd"])]
    guest: Option<PathBuf>,
    /// Boot this kernel, with an initramfs as `guest/build` makes it
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// Its initramfs
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
}

impl GuestArguments {
    pub(super) fn image(&self) -> Result<Image, Failure> {
        if let Some(image) = &self.guest {
            disk::format_of(image)?;
            return Ok(Image::Disk(std::path::absolute(image)?));
        }
        if let (Some(kernel), Some(initrd)) = (&self.kernel, &self.initrd) {
            return Ok(Image::Built {
                kernel: std::path::absolute(kernel)?,
                initrd: std::path::absolute(initrd)?,
            });
        }
        let program = env::current_exe().unwrap_or_default();
        let here = env::current_dir().unwrap_or_default();
        [program, here].iter().find_map(|place| built(place)).ok_or_else(|| {
            Failure::Failed(anyhow::anyhow!(
                "no guest to boot: build the test guest with `guest/build full` in a checkout and run this there, or name an image \
                 that has cloud-init with --guest"
            ))
        })
    }
}

/// The guest built in the checkout that this place is in; the one with all drivers if it is there.
fn built(place: &Path) -> Option<Image> {
    let folders = place.ancestors().map(|folder| folder.join("target/guest"));
    let variants = folders.flat_map(|folder| ["full", "cloud"].map(|variant| folder.join(variant)));
    let mut images = variants.map(|folder| (folder.join("vmlinuz"), folder.join("initramfs")));
    let found = images.find(|(kernel, initrd)| kernel.is_file() && initrd.is_file());
    found.map(|(kernel, initrd)| Image::Built { kernel, initrd })
}
