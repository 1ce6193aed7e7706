//! Which guest is booted.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use ringway_measure::paths::Image;
use ringway_vmm::{Boot, disk};

use crate::Failure;

/// What guests boot
#[derive(Args)]
pub(super) struct GuestArguments {
    /// Boot this disk image, which needs cloud-init; it stays as it is [default: the project's test guest]
    #[arg(long, value_name = "IMAGE")]
    guest: Option<PathBuf>,
    /// Boot this kernel: upon the image, or with an initramfs as `guest/build` makes it
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initramfs
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line, with an image
    #[arg(long, value_name = "LINE", requires_all = ["kernel", "guest"])]
    append: Option<String>,
}

impl GuestArguments {
    pub(super) fn image(&self) -> Result<Image, Failure> {
        let [kernel, initrd] = [self.kernel.as_deref(), self.initrd.as_deref()]
            .map(|file| file.map(readable).transpose());
        let (kernel, initrd) = (kernel?, initrd?);
        if let Some(image) = &self.guest {
            disk::format_of(image)?;
            let append = self.append.clone();
            return Ok(Image::Disk {
                path: std::path::absolute(image)?,
                boot: kernel.map(|kernel| Boot {
                    kernel,
                    initrd,
                    append,
                }),
            });
        }
        match (kernel, initrd) {
            (Some(kernel), Some(initrd)) => return Ok(Image::Built { kernel, initrd }),
            (Some(_), None) => {
                return Err(Failure::Usage(
                    "--kernel needs --initrd with an initramfs as `guest/build` makes it, or --guest with an image".into(),
                ));
            }
            _ => (),
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

fn readable(path: &Path) -> Result<PathBuf, Failure> {
    File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(std::path::absolute(path)?)
}

/// The guest built in the checkout that this place is in; the one with all drivers if it is there.
fn built(place: &Path) -> Option<Image> {
    let folders = place.ancestors().map(|folder| folder.join("target/guest"));
    let variants = folders.flat_map(|folder| ["full", "cloud"].map(|variant| folder.join(variant)));
    let mut images = variants.map(|folder| (folder.join("vmlinuz"), folder.join("initramfs")));
    let found = images.find(|(kernel, initrd)| kernel.is_file() && initrd.is_file());
    found.map(|(kernel, initrd)| Image::Built { kernel, initrd })
}
