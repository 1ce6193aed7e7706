//! A `ringway` that is expected to refuse what it is asked.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    Lab, Netns,
    lines::Lines,
    process::{Process, command},
    switch::binary,
};

const LIMIT: Duration = Duration::from_secs(10);

/// A command line to be refused.
#[derive(Debug)]
pub struct Attempt<'a> {
    lab: &'a Lab,
    arguments: Vec<String>,
    netns: Option<&'a Netns>,
    unprivileged: bool,
}

/// How it was refused.
#[derive(Debug)]
pub struct Refusal {
    /// The exit code, 1 or 2.
    pub code: i32,
    /// The one line on stderr, without `ringway: `.
    pub sentence: String,
}

impl Lab {
    /// A command line of `ringway` that shall be refused.
    pub fn attempt<S: ToString>(&self, arguments: &[S]) -> Attempt<'_> {
        Attempt {
            lab: self,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            netns: None,
            unprivileged: false,
        }
    }

    /// The checkout may lie where only its owner can look.
    pub fn reachable_binary(&self) -> Result<PathBuf> {
        let copy = self.path("ringway");
        if !copy.exists() {
            fs::copy(binary()?, &copy)?;
        }
        Ok(copy)
    }
}

impl<'a> Attempt<'a> {
    /// Runs it in this network namespace.
    pub fn within(mut self, netns: &'a Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Runs it as a user who may do nothing in particular.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Runs it. It must end by itself, with one sentence on stderr and nothing on stdout.
    pub fn refused(self) -> Result<Refusal> {
        let mut ringway = if self.unprivileged && rustix::process::geteuid().is_root() {
            let mut setpriv = command("setpriv", self.netns);
            setpriv
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(self.lab.reachable_binary()?);
            setpriv
        } else {
            command(binary()?, self.netns)
        };
        ringway
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn("ringway", &mut ringway)?;
        let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
        let log = self.lab.log("refusal");
        let mut stdout = Lines::read("ringway", stdout.context("no pipe")?, &log)?;
        let mut stderr = Lines::read("ringway", stderr.context("no pipe")?, &log)?;
        let status = process
            .wait(LIMIT)
            .with_context(|| format!("not refused: {:?}", self.arguments))?;
        let printed = stdout.rest(LIMIT)?.join("\n");
        let said = stderr.rest(LIMIT)?.join("\n");
        let code = status.code().unwrap_or(-1);
        let arguments = &self.arguments;
        ensure!(
            matches!(code, 1 | 2),
            "{arguments:?}: ended with {status}: {said}"
        );
        ensure!(
            printed.is_empty(),
            "{arguments:?}: printed {printed:?} on stdout"
        );
        let sentence = said
            .strip_prefix("ringway: ")
            .with_context(|| format!("{arguments:?}: said {said:?}"))?;
        ensure!(
            !sentence.contains('\n'),
            "{arguments:?}: more than a sentence: {said}"
        );
        Ok(Refusal {
            code,
            sentence: sentence.to_owned(),
        })
    }
}

impl Refusal {
    /// The sentence has each of `parts`: the value, and the way out.
    pub fn says(&self, code: i32, parts: &[&str]) -> Result<()> {
        for part in parts {
            ensure!(self.sentence.contains(part), "no {part:?} in: {self:?}");
        }
        ensure!(self.code == code, "not {code}: {self:?}");
        Ok(())
    }
}
