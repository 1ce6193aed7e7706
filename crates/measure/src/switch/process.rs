//! A `ringway switch` of our own: sockets in a folder that goes with it, a control socket to ask for its counters.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_api::control::Client;
use ringway_api::stats::Statistics;
use ringway_vhost::user::frontend::Frontend;
use rustix::process::{Pid, Signal, kill_process};

use super::guest::connect;

/// How long the switch may take to listen and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the names of folders begin with; the process follows.
const PREFIX: &str = "ringway-bench-";

/// A folder that nobody else may look into. Dropped, it is removed.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one among the temporary files. Those of processes that were killed go.
    pub fn new() -> Result<Self> {
        let all = std::env::temp_dir();
        for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            let owner = owner.and_then(|owner| owner.parse::<u32>().ok());
            if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
                // Other users' stay.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = all.join(format!("{PREFIX}{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}; TMPDIR says where", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is of no use to anybody, and nobody is left to be told.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A switch that runs. Dropped, it ends.
#[derive(Debug)]
pub struct Switch {
    child: Child,
    control: Client,
}

/// The two ends of a pair of guests.
pub type Fronts = [Frontend; 2];

impl Switch {
    /// Starts `program` with `workers` threads on `cpus`, and connects so many pairs of guests. Pairs do not see each other.
    pub fn start(
        program: &Path,
        folder: &Folder,
        workers: usize,
        cpus: &[usize],
        pairs: usize,
    ) -> Result<(Self, Vec<Fronts>)> {
        let folder = folder.path();
        let control = folder.join("control");
        let mut command = command(program);
        command.arg("switch");
        command.arg("--workers").arg(workers.to_string());
        let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
        command.arg("--cpus").arg(cpus.join(","));
        command.arg("--control").arg(&control);
        for number in 0..pairs {
            for path in sockets(folder, number) {
                // A comma in a value is written twice.
                let path = path.display().to_string().replace(',', ",,");
                let vlan = match pairs {
                    1 => String::new(),
                    _ => format!(",vlan={}", number + 1),
                };
                command
                    .arg("--port")
                    .arg(format!("vhost-user,path={path}{vlan}"));
            }
        }
        let log = folder.join("switch.log");
        command.stderr(File::create(&log)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // Ctrl-C is for whoever measures, and that one ends the switch.
        command.process_group(0);
        let program = program.display();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut child = Ended(Some(child));
        child.ready().with_context(|| said(&log))?;
        let control = Client::connect(&control, PATIENCE)?;
        let fronts = (0..pairs).map(|number| {
            let [first, second] = sockets(folder, number);
            Ok([connect(&first, PATIENCE)?, connect(&second, PATIENCE)?])
        });
        let fronts = fronts.collect::<Result<_>>()?;
        let child = child.0.take().context("the switch ended")?;
        Ok((Self { child, control }, fronts))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it counted.
    pub fn statistics(&mut self) -> Result<Statistics> {
        Ok(self.control.statistics(None)?)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A child that is not served yet.
struct Ended(Option<Child>);

impl Ended {
    /// Waits until it listens; it says so, or it ends.
    fn ready(&mut self) -> Result<()> {
        let out = self.0.as_mut().and_then(|child| child.stdout.take());
        let mut line = String::new();
        BufReader::new(out.context("no pipe")?).read_line(&mut line)?;
        match line.trim_end() {
            "ready" => Ok(()),
            _ => bail!("the switch did not start"),
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

/// In order if it can, and at once if it does not.
fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let limit = Instant::now() + FAREWELL;
    while Instant::now() < limit {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            _ => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Killed by the kernel when we are gone, where there is a program that asks for it.
fn command(program: &Path) -> Command {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let helper = std::env::split_paths(&paths).map(|path| path.join("setpriv"));
    match helper.into_iter().find(|path| path.is_file()) {
        Some(helper) => {
            let mut command = Command::new(helper);
            let words = ["--pdeathsig", "KILL", "--"].map(OsString::from);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn sockets(folder: &Path, pair: usize) -> [PathBuf; 2] {
    ["a", "b"].map(|end| folder.join(format!("{pair}{end}")))
}

/// The last line that the switch wrote.
fn said(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_does_not_start_is_told_with_its_own_words_and_leaves_nothing() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        let error = Switch::start(Path::new("/bin/false"), &folder, 1, &[0], 1).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "it said nothing: the switch did not start"
        );
        drop(folder);
        assert!(!path.exists());
    }
}
