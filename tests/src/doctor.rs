//! `ringway doctor` at work: what it finds, its cures carried out, and QEMU's own word on both.

mod scene;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

pub use scene::{MEMORY, Outcome, RECONNECT, Running, Scene, nic};

use crate::{Endpoint, guest::Output, process::output, qemu, switch::binary};

const LIMIT: Duration = Duration::from_secs(60);
/// Words before doctor's own with which it sees no machine that runs: messages alone are judged then.
pub const ALONE: &str = "unshare --pid --fork --mount-proc";

/// What it found.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// The fault's name in the table.
    pub fault: String,
    /// The machine it concerns.
    pub machine: Option<String>,
    /// The thing.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// Commands, one a line.
    pub cure: Vec<String>,
}

/// A place in which it is asked, and how.
#[derive(Clone)]
pub struct Doctor<'a> {
    place: &'a dyn Endpoint,
    program: String,
    before: String,
    ignore: &'static str,
}

impl<'a> Doctor<'a> {
    /// In a network namespace of this machine. What concerns KVM is left out: it is as it is on all of the machine.
    pub fn new(place: &'a dyn Endpoint) -> Result<Self> {
        Ok(Self {
            ignore: " --ignore kvm-unusable --ignore tcg-chosen",
            ..Self::within(place).by(&binary()?.display().to_string())
        })
    }

    /// In a guest, which has the program.
    pub fn within(guest: &'a dyn Endpoint) -> Self {
        Self {
            place: guest,
            program: "ringway".into(),
            before: String::new(),
            ignore: "",
        }
    }

    /// The program that is called so there.
    pub fn by(mut self, program: &str) -> Self {
        self.program = program.into();
        self
    }

    /// With these words before its own: `setpriv ...`. QEMU is started with them, too; cures are not.
    pub fn after(mut self, before: &str) -> Self {
        self.before = format!("{before} ");
        self
    }

    /// What it finds, with these further arguments.
    pub fn asks(&self, arguments: &str) -> Result<Vec<Finding>> {
        let Self {
            program,
            before,
            ignore,
            ..
        } = self;
        let line = format!("{before}{program} doctor --json{ignore} {arguments}");
        let Output {
            status,
            stdout,
            stderr,
        } = self.place.start(&line)?.wait(LIMIT)?;
        let found: Vec<Finding> = serde_json::from_str(&stdout)
            .with_context(|| format!("{line}: {status}: {stdout}{stderr}"))?;
        ensure!(
            status == i32::from(!found.is_empty()),
            "{line}: exit code {status}, and {found:?}"
        );
        Ok(found)
    }

    /// It finds this fault alone, once, and names the thing.
    pub fn finds(&self, arguments: &str, fault: &str, thing: &str) -> Result<Finding> {
        let found = self.asks(arguments)?;
        let [one] = found.as_slice() else {
            bail!("{fault} of {thing} is not alone, or not there: {found:#?}");
        };
        ensure!(
            one.fault == fault && (one.subject.contains(thing) || one.what.contains(thing)),
            "{fault} of {thing}: {one:#?}"
        );
        ensure!(!one.cure.is_empty(), "{one:#?}");
        Ok(one.clone())
    }

    /// It finds nothing.
    pub fn is_silent(&self, arguments: &str) -> Result<()> {
        let found = self.asks(arguments)?;
        ensure!(found.is_empty(), "{arguments}: {found:#?}");
        Ok(())
    }

    /// Carries out a cure as it stands.
    pub fn cures(&self, finding: &Finding) -> Result<()> {
        // A guest takes one line at a time; what is for people to read ends with its line.
        let lines: Vec<&str> = commands(finding).collect();
        ensure!(!lines.is_empty(), "nothing to run: {finding:#?}");
        self.place
            .start(&format!("set -e; {}", lines.join("; ")))?
            .success(LIMIT)
            .with_context(|| format!("{finding:#?}"))?;
        Ok(())
    }

    /// Finds a fault, cures it, and finds nothing any more.
    pub fn mends(&self, arguments: &str, fault: &str, thing: &str) -> Result<Finding> {
        let found = self.finds(arguments, fault, thing)?;
        self.cures(&found)?;
        self.is_silent(arguments)
            .with_context(|| format!("after {:#?}", found.cure))?;
        Ok(found)
    }

    /// QEMU does not start, and says so; the fault is found and cured; QEMU starts.
    pub fn revives(&self, flags: &str, fault: &str, thing: &str, says: &str) -> Result<()> {
        let line = command(flags);
        self.refuses(&line, says)?;
        self.mends(&format!("-- {line}"), fault, thing)?;
        self.starts(&line)
    }

    /// QEMU starts with this line.
    pub fn starts(&self, line: &str) -> Result<()> {
        let output = self.tries(line)?;
        ensure!(output.status == 0, "{line}: {output:?}");
        Ok(())
    }

    /// QEMU does not start, and says why.
    pub fn refuses(&self, line: &str, says: &str) -> Result<()> {
        let output = self.tries(line)?;
        ensure!(
            output.status != 0 && output.stderr.contains(says),
            "{line}: no {says:?} in {output:?}"
        );
        Ok(())
    }

    /// Starts a QEMU that ends at once if it did start.
    fn tries(&self, line: &str) -> Result<Output> {
        let before = &self.before;
        let line = format!("echo quit | {before}timeout 60 {line} -monitor stdio");
        self.place.start(&line)?.wait(LIMIT)
    }
}

impl Finding {
    /// The last command of its cure: often a command line of QEMU.
    pub fn line(&self) -> Result<&str> {
        commands(self)
            .last()
            .with_context(|| format!("nothing to run: {self:#?}"))
    }

    /// The words of that line, as a shell divides them.
    pub fn words(&self) -> Result<Vec<String>> {
        let script = format!("printf '%s\\0' {}", self.line()?);
        let words = output(Command::new("sh").args(["-c", &script]))?;
        Ok(words.split_terminator('\0').map(str::to_owned).collect())
    }
}

/// What of a cure is not for people alone.
fn commands(finding: &Finding) -> impl Iterator<Item = &str> {
    let lines = finding.cure.iter().map(String::as_str);
    lines.filter(|line| !line.starts_with('#'))
}

/// A command line of a QEMU that shows nothing and runs nothing.
pub fn command(flags: &str) -> String {
    let qemu = qemu::program();
    format!("{qemu} -accel tcg -nodefaults -display none -S -m 64 -smp 16 {flags}")
}

/// The options of a virtio NIC on a tap that is opened by name, with what more each half has.
pub fn tap_nic(tap: &str, netdev: &str, device: &str) -> String {
    format!(
        "-netdev tap,id=n-{tap},ifname={tap},script=no,downscript=no{netdev} -device virtio-net-pci,netdev=n-{tap},romfile={device} "
    )
}

/// Makes a bridge; its name.
pub fn bridge(place: &dyn Endpoint) -> Result<String> {
    let bridge = name("br");
    let line = format!("ip link add {bridge} type bridge && ip link set {bridge} up");
    place.start(&line)?.success(LIMIT)?;
    Ok(bridge)
}

/// Makes a tap in a bridge; its name.
pub fn tap(place: &dyn Endpoint, bridge: &str, options: &str) -> Result<String> {
    let tap = name("t");
    let line = format!(
        "ip tuntap add dev {tap} mode tap {options} && ip link set {tap} master {bridge} && ip link set {tap} up"
    );
    place.start(&line)?.success(LIMIT)?;
    Ok(tap)
}

/// A name that nobody chose.
pub fn name(prefix: &str) -> String {
    format!("{prefix}{:06x}", random() & 0xff_ffff)
}

/// An Ethernet address that nobody has.
pub fn mac() -> String {
    let [.., a, b, c, d, e] = random().to_be_bytes();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
