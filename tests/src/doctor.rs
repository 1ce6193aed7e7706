//! `ringway doctor` at work: what it finds, its cures carried out, and QEMU's own word on both.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{Endpoint, guest::Output, qemu, switch::binary};

const LIMIT: Duration = Duration::from_secs(60);

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
    ignore: Vec<String>,
}

impl<'a> Doctor<'a> {
    /// In a network namespace of this machine. What concerns KVM is left out: it is as it is on all of the machine.
    pub fn new(place: &'a dyn Endpoint) -> Result<Self> {
        let program = binary()?.display().to_string();
        let doctor = Self {
            place,
            program,
            before: String::new(),
            ignore: Vec::new(),
        };
        Ok(doctor.ignoring(&["kvm-unusable", "tcg-chosen"]))
    }

    /// In a guest, which has the program.
    pub fn within(guest: &'a dyn Endpoint) -> Self {
        Self::of(guest, "ringway")
    }

    /// The program that is called so there.
    pub fn of(place: &'a dyn Endpoint, program: &str) -> Self {
        Self {
            place,
            program: program.into(),
            before: String::new(),
            ignore: Vec::new(),
        }
    }

    /// With these words before its own: `setpriv ...`. QEMU is started with them, too; cures are not.
    pub fn after(mut self, before: &str) -> Self {
        self.before = format!("{before} ");
        self
    }

    /// Without these faults.
    pub fn ignoring(mut self, faults: &[&str]) -> Self {
        self.ignore
            .extend(faults.iter().map(|fault| format!(" --ignore {fault}")));
        self
    }

    /// What it finds, with these further arguments.
    pub fn asks(&self, arguments: &str) -> Result<Vec<Finding>> {
        let Self {
            program, before, ..
        } = self;
        let ignore = self.ignore.concat();
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
            anyhow::bail!("{fault} of {thing} is not alone, or not there: {found:#?}");
        };
        ensure!(
            one.fault == fault && one.subject.contains(thing) && one.what.contains(thing),
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
        let lines = finding.cure.iter().filter(|line| !line.starts_with('#'));
        let lines: Vec<&str> = lines.map(String::as_str).collect();
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
        let before = self.starts(flags)?;
        ensure!(
            before.status != 0 && before.stderr.contains(says),
            "no {says:?} in {before:?}"
        );
        self.mends(&format!("-- {}", command(flags)), fault, thing)?;
        let after = self.starts(flags)?;
        ensure!(after.status == 0, "{after:?}");
        Ok(())
    }

    /// Starts QEMU, which ends at once if it did start.
    pub fn starts(&self, flags: &str) -> Result<Output> {
        let line = format!(
            "echo quit | {}timeout 60 {} -monitor stdio",
            self.before,
            command(flags)
        );
        self.place.start(&line)?.wait(LIMIT)
    }
}

/// A command line of a QEMU that shows nothing and runs nothing.
pub fn command(flags: &str) -> String {
    let qemu = qemu::program();
    format!("{qemu} -accel tcg -nodefaults -display none -S -m 64 -smp 16 {flags}")
}

/// A name that nobody chose.
pub fn name(prefix: &str) -> String {
    let number = RandomState::new().build_hasher().finish();
    format!("{prefix}{:06x}", number & 0xff_ffff)
}
