//! `ringway vm run`: a machine, and its console.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow};
use clap::Args;
use ringway_api::v1::client::Client;
use ringway_vmm::{
    Folder, Machine, Qmp, Record,
    nic::Target,
    seed::{Login, Seed},
};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{
    Run, console,
    console::End,
    look,
    machine::{MachineArguments, Runner, absolute, mebibytes},
    stop::{self, GRACE},
    supervise::{ENDED, Plan, Report},
};
use crate::{Failure, print};

/// Between two questions whether a machine has its address by now.
const POLL: Duration = Duration::from_millis(300);

/// Start a machine, with its console in this terminal: Ctrl-] leaves it, and the machine goes on
///
/// What the guest writes goes to a file upon the image and is gone when the machine ends, unless --persistent is given. At the console
/// all keys are the guest's, Ctrl-C too. Where there is no terminal, Ctrl-C (SIGINT) or SIGTERM powers the machine down.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    machine: MachineArguments,
    /// Make the disk larger, with M or G; the guest has to use it
    #[arg(long, value_name = "SIZE", value_parser = mebibytes, conflicts_with = "persistent", requires = "image")]
    disk_size: Option<u64>,
    /// Let the owner of this key in over SSH, by cloud-init in the image: the public key, or the private one beside it
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Let the user in with this password, by cloud-init in the image
    #[arg(long)]
    password: Option<String>,
    /// The user whom --ssh-key and --password are for, and `vm ssh` logs in as [default: ringway with them, else root]
    #[arg(long)]
    user: Option<String>,
    /// Give this file to cloud-init in the image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ssh_key", "password"])]
    user_data: Option<PathBuf>,
    /// Return when the machine runs
    #[arg(long)]
    detach: bool,
    /// With --detach, return when it has an address, or after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "detach")]
    wait: Option<u64>,
    /// How long the guest may take to power down when this command is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE.as_secs())]
    timeout: u64,
    /// Directory of overlays [default: /var/lib/ringway/vm, or $XDG_STATE_HOME/ringway/vm for others than root]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, client: &Client, run: &Run) -> Result<(), Failure> {
    let mut machine = arguments.machine.machine()?;
    machine.paused = !arguments.detach;
    let name = arguments.machine.name()?;
    for net in &arguments.machine.nets {
        if let Target::Socket(path) = &net.target {
            listens(path, net.queues.unwrap_or(1))?;
        }
    }
    if machine.hugepages {
        enough_pages(&machine)?;
    }
    let folder = Folder::new(&run.directory(), &name);
    let runner = Runner::find(&arguments.machine)?;
    let login = login(arguments)?;
    let private = arguments.ssh_key.as_deref().map(private_key);
    let user = match (&arguments.user, &login) {
        (Some(user), _) => user.clone(),
        (None, Some(Login::User { name, .. })) => name.clone(),
        _ => "root".into(),
    };
    let overlay = if arguments.machine.image.is_some() && !arguments.machine.persistent {
        let file = state(arguments)?.join(format!("{name}.qcow2"));
        Some((absolute(&file)?, arguments.disk_size))
    } else {
        None
    };
    let instance = SystemTime::now().duration_since(UNIX_EPOCH);
    let plan = Plan {
        nets: arguments.machine.nets.clone(),
        qemu: runner.qemu.clone(),
        accel: runner.accel,
        run: run.directory(),
        daemon: absolute(client.socket())?,
        overlay,
        seed: login.map(|login| Seed {
            name: machine.name.clone(),
            instance: format!(
                "{}-{}",
                machine.name,
                instance.unwrap_or_default().as_secs()
            ),
            login,
        }),
        user,
        key: private.flatten(),
        machine,
    };
    // From here on a signal does not leave a machine behind that nobody knows of.
    let (told, tell) = UnixStream::pair()?;
    if !arguments.detach {
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, tell.try_clone()?)?;
        }
    }
    start(&plan)?;
    let record = folder.record()?;
    tracing::info!(
        "{name} runs; `ringway vm show {name}` shows it, `ringway vm stop {name}` ends it"
    );
    if arguments.detach {
        let limit = arguments.wait.map_or(Duration::ZERO, Duration::from_secs);
        await_address(&record, client, limit, "\n");
        return Ok(());
    }
    let grace = Duration::from_secs(arguments.timeout);
    foreground(&folder, record, client, &told, grace)
}

/// The machine's console here, until it ends or the detach key is pressed.
fn foreground(
    folder: &Folder,
    record: Record,
    client: &Client,
    told: &UnixStream,
    grace: Duration,
) -> Result<(), Failure> {
    let name = folder.name();
    let terminal = io::stdin().is_terminal();
    if terminal {
        tracing::info!("this is its console: Ctrl-] leaves it, and {name} goes on");
    }
    let stream = console::connect(&folder.console())?;
    let mut log = fs::File::open(folder.log())?;
    Qmp::connect(&folder.monitor())?.go_on()?;
    // Without the end of a line a raw terminal would go on where it was.
    let newline = if terminal { "\r\n" } else { "\n" };
    let client = client.clone();
    thread::spawn(move || await_address(&record, &client, Duration::from_secs(600), newline));
    match console::attach(stream, told)? {
        End::Detached => {
            tracing::info!("{name} goes on; `ringway vm console {name}` comes back to it");
            Ok(())
        }
        End::Signalled => {
            tracing::info!("{name} is asked to power down");
            stop::stop(folder, grace)
        }
        End::Gone => {
            stop::await_end(folder, stop::CLEAN)?;
            // The file has gone with the machine, but not for us.
            let mut said = Vec::new();
            log.read_to_end(&mut said)?;
            match String::from_utf8_lossy(&said)
                .lines()
                .find(|line| line.starts_with(ENDED))
            {
                Some(line) => Err(anyhow!("{name}: {line}").into()),
                None => Ok(()),
            }
        }
    }
}

/// Starts the supervisor, and waits for what it says.
fn start(plan: &Plan) -> Result<(), Failure> {
    let program = env::current_exe().context("this program's path")?;
    let mut supervisor = Command::new(program)
        .args(["vm", "supervise"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the supervisor")?;
    let text = serde_json::to_vec(plan)?;
    if let Some(mut stdin) = supervisor.stdin.take() {
        stdin.write_all(&text)?;
    }
    let stdout = supervisor.stdout.take().context("no pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(Report::Started) => Ok(()),
        Ok(Report::Failed(sentence)) => {
            // When it has ended, everything is taken back.
            let _ = supervisor.wait();
            Err(anyhow!(sentence).into())
        }
        Err(_) => {
            let status = supervisor.wait()?;
            Err(anyhow!("the supervisor ended without a word ({status})").into())
        }
    }
}

/// Says the addresses and names once there are any.
fn await_address(record: &Record, client: &Client, limit: Duration, newline: &str) {
    if record.ports.is_empty() {
        return;
    }
    let end = Instant::now() + limit;
    loop {
        let Ok(leases) = client.leases(None) else {
            return;
        };
        let said: Vec<String> = look::leases_of(record, &leases)
            .map(print::lease_of_machine)
            .collect();
        if !said.is_empty() {
            let _ = write!(
                io::stderr(),
                "ringway: {} has {}{newline}",
                record.machine.name,
                said.join(" and ")
            );
            return;
        }
        if Instant::now() > end {
            return;
        }
        thread::sleep(POLL);
    }
}

fn listens(path: &Path, queues: u16) -> Result<(), Failure> {
    let is_socket = fs::metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if is_socket {
        return Ok(());
    }
    let path = path.display();
    let queues = match queues {
        1 => String::new(),
        queues => format!(",queues={queues}"),
    };
    Err(anyhow!(
        "no switch listens at {path}: start one with `ringway switch --port vhost-user,path={path}{queues}`, or take a network of the \
         daemon with --net NAME"
    )
    .into())
}

/// Whether there are as many huge pages as the machine's memory needs (fault: QEMU cannot allocate memory).
fn enough_pages(machine: &Machine) -> Result<(), Failure> {
    let folder = match machine.numa_node {
        None => "/sys/kernel/mm".to_owned(),
        Some(node) => format!("/sys/devices/system/node/node{node}"),
    };
    let file = format!("{folder}/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .with_context(|| format!("{file} does not say how many huge pages are free"))?;
    let needed = machine.memory / 2;
    if free >= needed {
        return Ok(());
    }
    let total = file.replace("free_hugepages", "nr_hugepages");
    Err(anyhow!(
        "{needed} huge pages are needed and {free} are free: write a larger number to {total}, or leave --hugepages away"
    )
    .into())
}

fn login(arguments: &Arguments) -> Result<Option<Login>, Failure> {
    if let Some(path) = &arguments.user_data {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        return Ok(Some(Login::Given(text)));
    }
    if arguments.ssh_key.is_none() && arguments.password.is_none() {
        return Ok(None);
    }
    Ok(Some(Login::User {
        name: arguments.user.clone().unwrap_or_else(|| "ringway".into()),
        key: arguments.ssh_key.as_deref().map(public_key).transpose()?,
        password: arguments.password.clone(),
    }))
}

/// The text of the public key that the file is, or that lies beside it.
fn public_key(path: &Path) -> Result<String, Failure> {
    let is_public = path.extension().is_some_and(|ending| ending == "pub");
    let path = if is_public {
        path.to_owned()
    } else {
        PathBuf::from(format!("{}.pub", path.display()))
    };
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "no public key at {}: name one that `ssh-keygen` made",
            path.display()
        )
    })?;
    let kinds = ["ssh-", "ecdsa-", "sk-"];
    if !kinds.iter().any(|kind| text.starts_with(kind)) || text.trim().contains('\n') {
        return Err(anyhow!("{} is no public key of OpenSSH's", path.display()).into());
    }
    Ok(text.trim().to_owned())
}

/// The private key that goes with it, if it lies there.
fn private_key(path: &Path) -> Option<PathBuf> {
    let is_public = path.extension().is_some_and(|ending| ending == "pub");
    let private = if is_public {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    private.exists().then(|| absolute(&private).ok())?
}

fn state(arguments: &Arguments) -> Result<PathBuf, Failure> {
    if let Some(state) = &arguments.state {
        return Ok(state.clone());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/ringway/vm".into());
    }
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let state = match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => PathBuf::from(state),
        (None, Some(home)) => Path::new(&home).join(".local/state"),
        (None, None) => {
            return Err(Failure::Usage(
                "there is no home to keep the overlay in: give a directory with --state".into(),
            ));
        }
    };
    Ok(state.join("ringway/vm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_either_half() {
        let folder = env::temp_dir().join(format!("ringway-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (private, public) = (folder.join("id"), folder.join("id.pub"));
        fs::write(&private, "-----BEGIN").unwrap();
        fs::write(&public, "ssh-ed25519 AAAA me\n").unwrap();
        for path in [&private, &public] {
            assert!(matches!(public_key(path), Ok(key) if key == "ssh-ed25519 AAAA me"));
            assert_eq!(private_key(path), Some(private.clone()));
        }
        fs::write(&public, "-----BEGIN").unwrap();
        assert!(public_key(&private).is_err());
        fs::remove_dir_all(&folder).unwrap();
        assert!(public_key(&private).is_err());
        assert_eq!(private_key(&public), None);
    }
}
