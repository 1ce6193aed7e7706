//! What a test needs of the machine. Where it is missing, the test says so and is skipped; with `RINGWAY_TEST_STRICT=1`, as in
//! `make test` after everything was installed, it fails.

use std::{
    env, fs,
    io::{self, Write},
};

use anyhow::{Context, Result, bail};

use crate::{Lab, Netns, lab, ovs, qemu, switch};

/// Something the machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A QEMU that works and the built guest.
    Guests,
    /// The same with the guest of every driver (`guest/build full`).
    FullGuest,
    /// The same, and the guest with a Debian system.
    Debian,
    /// Network namespaces and taps.
    Namespaces,
    /// Open vSwitch with DPDK.
    Ovs,
    /// Root.
    Root,
    /// A program in the search path.
    Program(&'static str),
}

impl Lab {
    /// A lab for a test that needs the program and all of `needs`; `None` when something is missing and the test is skipped.
    pub fn with(name: &str, needs: &[Need]) -> Result<Option<Self>> {
        let lab = Self::new(name)?;
        switch::binary()?;
        let strict = env::var_os("RINGWAY_TEST_STRICT").is_some_and(|strict| strict == "1");
        for need in needs {
            let Err(missing) = need.check(&lab) else {
                continue;
            };
            // Whoever is not root did not forget to install something.
            if strict && *need != Need::Root {
                return Err(missing.context(format!("{name} cannot be tested here")));
            }
            tell(&format!("skipped: {name}: {missing:#}"));
            return Ok(None);
        }
        Ok(Some(lab))
    }

    /// Says what was measured, whether or not the test runner shows the output of tests.
    pub fn report(&self, text: &str) {
        tell(&format!("{}: {text}", self.name()));
    }
}

/// The test runner catches what `println!` writes, not this.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Need {
    fn check(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Guests => {
                qemu::check_vhost_user(qemu::version()?, qemu::accel(lab)?)?;
                qemu::image("cloud").map(drop)
            }
            Self::FullGuest => {
                Self::Guests.check(lab)?;
                qemu::image("full").map(drop)
            }
            Self::Debian => {
                Self::Guests.check(lab)?;
                qemu::image("debian").map(drop)
            }
            Self::Namespaces => {
                for program in ["unshare", "nsenter", "ip"] {
                    find(program)?;
                }
                fs::File::open("/dev/net/tun")
                    .context("cannot open /dev/net/tun; `modprobe tun` as root loads its driver")?;
                Netns::new().map(drop)
            }
            Self::Ovs => ovs::missing().map_or(Ok(()), |missing| bail!("{missing}")),
            Self::Root if rustix::process::geteuid().is_root() => Ok(()),
            Self::Root => bail!("it needs root"),
            Self::Program(name) => find(name),
        }
    }
}

fn find(program: &str) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return Ok(());
    }
    bail!(
        "{program} is missing; scripts/setup in {} installs it",
        lab::checkout().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let lab = Lab::new("needs-self-test").unwrap();
        Need::Program("sh").check(&lab).unwrap();
        let error = Need::Program("ringway-no-such-tool")
            .check(&lab)
            .unwrap_err();
        assert!(error.to_string().contains("ringway-no-such-tool"));
    }
}
