//! An Open vSwitch of our own, with its database in the folder of the run and its devices in a network namespace that ends with it.
//! Its ports are vhost-user clients, because only those pass segmentation offload on: we listen.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_tests::Process;
use ringway_vhost::user::frontend::Frontend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{LIMIT, Place, command, installed, log, sockets};
use crate::guest::PATIENCE;
use crate::traffic::Traffic;

/// Debian has the one with DPDK beside the ordinary one.
const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(super) fn missing() -> Option<String> {
    let there = Path::new(DAEMON).is_file() && installed("ovsdb-server") && installed("ovs-vsctl");
    (!there).then(|| "OVS with DPDK is not installed: `scripts/setup peers` brings it".into())
}

pub(super) fn start(place: &Place, traffic: &Traffic) -> Result<(Vec<Process>, [Frontend; 2])> {
    let folder = place.folder.join("ovs");
    // The database of the row before.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let ovs = Ovs { folder };
    ovs.run("ovsdb-tool", &["create", &ovs.file("conf.db"), SCHEMA])?;
    let mut database = ovs.command("ovsdb-server");
    database.arg(ovs.file("conf.db"));
    database.arg(format!("--remote=punix:{}", ovs.file("db.sock")));
    database.stdout(log(&ovs.folder, "database")?);
    database.stderr(log(&ovs.folder, "database.messages")?);
    let database = Process::spawn("ovsdb-server", &mut database)?;
    ovs.await_file("db.sock")?;
    ovs.vsctl(&["--no-wait", "init"])?;
    let mask = format!("{:#x}", 1u64 << place.cpu);
    ovs.vsctl(&[
        "--no-wait",
        "set",
        "Open_vSwitch",
        ".",
        "other_config:dpdk-init=true",
        &format!("other_config:pmd-cpu-mask={mask}"),
        "other_config:dpdk-socket-mem=1024",
        "other_config:dpdk-extra=--no-pci --no-telemetry --in-memory --single-file-segments",
        "other_config:n-handler-threads=1",
        "other_config:n-revalidator-threads=1",
        &format!("other_config:userspace-tso-enable={}", traffic.tso),
    ])?;
    let paths = sockets(place, "ovs");
    let listeners = listen(&paths)?;
    let mut daemon = ovs.command("unshare");
    daemon.args(["-n", DAEMON, &format!("unix:{}", ovs.file("db.sock"))]);
    daemon.stdout(log(&ovs.folder, "vswitchd")?);
    daemon.stderr(log(&ovs.folder, "vswitchd.messages")?);
    let daemon = Process::spawn("ovs-vswitchd", &mut daemon)?;
    ovs.vsctl(&[
        "add-br",
        "br0",
        "--",
        "set",
        "bridge",
        "br0",
        "datapath_type=netdev",
    ])?;
    let mtu = if traffic.size > 1518 && !traffic.tso {
        9000
    } else {
        1500
    };
    for (name, path) in ["p0", "p1"].into_iter().zip(&paths) {
        ovs.vsctl(&[
            "add-port",
            "br0",
            name,
            "--",
            "set",
            "Interface",
            name,
            "type=dpdkvhostuserclient",
            &format!("options:vhost-server-path={}", path.display()),
            &format!("mtu_request={mtu}"),
        ])?;
    }
    // A new bridge has the one rule whose action is NORMAL.
    let [first, second] = listeners;
    let fronts = [accept(&first)?, accept(&second)?];
    Ok((vec![daemon, database], fronts))
}

struct Ovs {
    folder: PathBuf,
}

impl Ovs {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A program that keeps all its files in our folder.
    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.folder);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = self.command(program).args(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {}: {}", arguments.join(" "), said.trim());
        }
        Ok(())
    }

    fn vsctl(&self, arguments: &[&str]) -> Result<()> {
        let database = format!("--db=unix:{}", self.file("db.sock"));
        self.run(
            "ovs-vsctl",
            &[&["--timeout=20", &database], arguments].concat(),
        )
    }

    fn await_file(&self, name: &str) -> Result<()> {
        let (path, end) = (self.folder.join(name), Instant::now() + LIMIT);
        while !path.exists() {
            if Instant::now() > end {
                bail!("no {} after {LIMIT:?}", path.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn listen(paths: &[PathBuf; 2]) -> Result<[UnixListener; 2]> {
    let bind = |path: &PathBuf| {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))
    };
    Ok([bind(&paths[0])?, bind(&paths[1])?])
}

fn accept(listener: &UnixListener) -> Result<Frontend> {
    let limit = Timespec::try_from(LIMIT)?;
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    if poll(&mut waiting, Some(&limit))? == 0 {
        bail!("OVS did not connect within {LIMIT:?}");
    }
    let (stream, _) = listener.accept()?;
    Ok(Frontend::new(OwnedFd::from(stream), PATIENCE)?)
}
