//! An Open vSwitch of our own, with its database in a folder of the run and its devices in a network namespace that ends with it.
//! It has one bridge, `br0`, with the one rule whose action is NORMAL: a learning switch.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::process::{Process, command};

/// Debian has the one with DPDK beside the ordinary one.
const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Time to start.
const LIMIT: Duration = Duration::from_secs(20);

/// A running Open vSwitch with DPDK.
#[derive(Debug)]
pub struct Ovs {
    // In the order in which they are to end.
    daemon: Process,
    database: Process,
    folder: Folder,
}

/// Where all its files are.
#[derive(Debug)]
struct Folder(PathBuf);

/// What is missing for one, and what brings it.
pub fn missing() -> Option<String> {
    let installed = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    let there = Path::new(DAEMON).is_file() && installed("ovsdb-server") && installed("ovs-vsctl");
    (!there).then(|| {
        "OVS with DPDK is not installed: `scripts/setup peers` or `scripts/setup test` brings it"
            .into()
    })
}

impl Ovs {
    /// Starts it in `folder`, which is made anew, with settings of `other_config`; DPDK's are among them. Needs root.
    pub fn start(folder: PathBuf, settings: &[&str]) -> Result<Self> {
        // The database of the run before.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let folder = Folder(folder);
        folder.run("ovsdb-tool", &["create", &folder.file("conf.db"), SCHEMA])?;
        let mut database = folder.command("ovsdb-server", "database")?;
        database.arg(folder.file("conf.db"));
        database.arg(format!("--remote=punix:{}", folder.file("db.sock")));
        let database = Process::spawn("ovsdb-server", &mut database)?;
        folder.await_file("db.sock")?;
        folder.vsctl(&["--no-wait", "init"])?;
        let settings = settings
            .iter()
            .map(|setting| format!("other_config:{setting}"));
        let settings: Vec<String> = settings.collect();
        let mut set = vec!["--no-wait", "set", "Open_vSwitch", "."];
        set.extend(settings.iter().map(String::as_str));
        folder.vsctl(&set)?;
        let mut daemon = folder.command("unshare", "vswitchd")?;
        daemon.args(["-n", DAEMON, &format!("unix:{}", folder.file("db.sock"))]);
        let daemon = Process::spawn("ovs-vswitchd", &mut daemon)?;
        folder.vsctl(&[
            "add-br",
            "br0",
            "--",
            "set",
            "bridge",
            "br0",
            "datapath_type=netdev",
        ])?;
        Ok(Self {
            daemon,
            database,
            folder,
        })
    }

    /// Adds a port that connects to whoever listens at `path`, with further settings of its interface.
    pub fn add_client(&self, name: &str, path: &Path, settings: &[&str]) -> Result<()> {
        let path = format!("options:vhost-server-path={}", path.display());
        let mut add = vec!["add-port", "br0", name, "--", "set", "Interface", name];
        add.extend(["type=dpdkvhostuserclient", &path]);
        add.extend(settings);
        self.folder.vsctl(&add)
    }

    /// The daemon and its database, in the order in which they are to end.
    pub fn into_processes(self) -> [Process; 2] {
        [self.daemon, self.database]
    }
}

impl Folder {
    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A program that keeps all its files in our folder, and what it prints under `name`.
    fn command(&self, program: &str, name: &str) -> Result<Command> {
        let mut command = self.bare(program);
        let file = |ending: &str| {
            let path = self.0.join(format!("{name}.{ending}"));
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))
        };
        command.stdout(file("log")?).stderr(file("messages.log")?);
        Ok(command)
    }

    fn bare(&self, program: &str) -> Command {
        let mut command = command(program, None);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.0);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = self.bare(program).args(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {}: {}", arguments.join(" "), said.trim());
        }
        Ok(())
    }

    fn vsctl(&self, arguments: &[&str]) -> Result<()> {
        let database = format!("--db=unix:{}", self.file("db.sock"));
        let first = ["--timeout=20", &database];
        self.run("ovs-vsctl", &[&first, arguments].concat())
            .with_context(|| format!("see {}", self.0.display()))
    }

    fn await_file(&self, name: &str) -> Result<()> {
        let (path, end) = (self.0.join(name), Instant::now() + LIMIT);
        while !path.exists() {
            if Instant::now() > end {
                bail!("no {} after {LIMIT:?}", path.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
