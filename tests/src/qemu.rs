//! Which QEMU there is, which guest was built, and whether KVM really boots it.

use std::{env, fmt, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{Lab, guest::Builder, lab, process};

/// How guests are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation: slow, but it runs everywhere.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// The QEMU to run: `$QEMU` or `qemu-system-x86_64`.
pub(crate) fn program() -> String {
    env::var("QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into())
}

/// QEMU's version, for example `[10, 0]`.
pub fn version() -> Result<[u32; 2]> {
    let text = process::output(Command::new(program()).arg("--version"))
        .context("QEMU is needed for the test guests; scripts/setup installs it")?;
    parse_version(&text).with_context(|| format!("no version in {text:?}"))
}

fn parse_version(text: &str) -> Option<[u32; 2]> {
    let number = text.split("version ").nth(1)?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}

/// Refuses the QEMU that crashes with vhost-user devices when it translates.
pub(crate) fn check_vhost_user(version: [u32; 2], accel: Accel) -> Result<()> {
    if accel == Accel::Tcg && version < [8, 0] {
        bail!(
            "QEMU {}.{} crashes with vhost-user devices under TCG; version 10.0 from bookworm-backports works \
             (scripts/setup installs it, QEMU=/path/to/qemu-system-x86_64 names another)",
            version[0],
            version[1]
        );
    }
    Ok(())
}

/// Kernel and initramfs built by `guest/build`.
pub fn image(variant: &str) -> Result<[PathBuf; 2]> {
    let folder = lab::target().join("guest").join(variant);
    let files = ["vmlinuz", "initramfs"].map(|name| folder.join(name));
    for file in &files {
        if !file.exists() {
            bail!(
                "{} is missing; `guest/build {variant}` builds it",
                file.display()
            );
        }
    }
    Ok(files)
}

/// The disk that belongs to a variant, if it has one.
pub(crate) fn disk(variant: &str) -> Option<PathBuf> {
    let file = lab::target().join("guest").join(variant).join("disk");
    file.exists().then_some(file)
}

/// Whether KVM boots the guest here. Found out by booting once; the answer is kept until the next start of this machine.
pub fn accel(lab: &Lab) -> Result<Accel> {
    // The files that decide: the machine's boot, and QEMU.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let key = format!("{} {:?}", boot.trim(), version()?);
    let cache = lab::target().join("guest").join("accel");
    let known = fs::read_to_string(&cache).unwrap_or_default();
    for accel in [Accel::Kvm, Accel::Tcg] {
        if known == format!("{accel} {key}\n") {
            return Ok(accel);
        }
    }
    let accel = match Builder::new(lab, "kvm-probe")
        .accel(Accel::Kvm)
        .boot_limit(Duration::from_secs(15))
        .boot()
    {
        Ok(_) => Accel::Kvm,
        Err(_) => Accel::Tcg,
    };
    fs::write(&cache, format!("{accel} {key}\n"))
        .with_context(|| format!("cannot write {}", cache.display()))?;
    Ok(accel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_qemu_that_crashes_is_refused_only_where_it_crashes() {
        let version = |text: &str| parse_version(text).unwrap();
        let old = version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)");
        let new = version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright");
        assert_eq!((old, new), ([7, 2], [10, 0]));
        assert!(check_vhost_user(old, Accel::Tcg).is_err());
        assert!(check_vhost_user(old, Accel::Kvm).is_ok());
        assert!(check_vhost_user(new, Accel::Tcg).is_ok());
        assert_eq!(parse_version("something else"), None);
    }
}
