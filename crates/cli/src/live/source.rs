//! Where samples come from.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ringway_api::{
    control,
    stats::Statistics,
    v1::{PortInfo, client::Client},
};
use ringway_vmm::Folder;
use rustix::net::sockopt::socket_peercred;

use super::{Sample, links, threads};

/// How long may pass until an answer, so that a daemon that hangs is said and not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask for counters.
#[derive(Debug, Clone)]
pub(crate) enum Whom {
    /// The daemon, for its switch and the ports that the kernel carries.
    Daemon(Client),
    /// A switch at its control socket.
    Switch(PathBuf),
}

/// Reads samples.
pub(crate) struct Source {
    whom: Whom,
    /// Where machines that run are written down.
    run: PathBuf,
    begin: Instant,
    links: bool,
    switch: Option<(control::Client, Option<i32>)>,
    /// The process of the daemon's switch when it was last asked for.
    process: Option<i32>,
}

impl Source {
    pub(crate) fn new(whom: Whom, run: PathBuf) -> Self {
        let whom = match whom {
            Whom::Daemon(client) => Whom::Daemon(client.with_deadline(PATIENCE)),
            whom => whom,
        };
        Self {
            whom,
            run,
            begin: Instant::now(),
            links: false,
            switch: None,
            process: None,
        }
    }

    /// Counters of all interfaces of the host as well.
    pub(crate) fn with_links(self) -> Self {
        Self {
            links: true,
            ..self
        }
    }

    /// Who is asked, for a headline.
    pub(crate) fn title(&self) -> String {
        match &self.whom {
            Whom::Daemon(client) => format!("daemon {}", client.socket().display()),
            Whom::Switch(path) => format!("switch {}", path.display()),
        }
    }

    /// Reads everything there is now. What cannot be had is said in the sample.
    pub(crate) fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        let read = match &self.whom {
            Whom::Daemon(client) => self.of_daemon(&client.clone(), &mut sample),
            Whom::Switch(path) => self.of_switch(&path.clone(), &mut sample),
        };
        sample.trouble = read.err();
        // As close to the counters as can be: rates are by this clock.
        sample.at = self.begin.elapsed();
        let qemus = threads::qemus();
        if self.links {
            sample.links = links::all();
            let elsewhere = links::elsewhere(qemus.iter().map(|(pid, _)| *pid));
            sample.links.extend(elsewhere);
        }
        let mut owners = BTreeMap::new();
        if let Some(pid) = sample.switch {
            threads::of_switch(pid, &mut sample.threads);
            owners.insert(pid, "switch".to_owned());
        }
        let ours = machines(&self.run);
        for (pid, name) in qemus {
            let owner = ours.get(&pid).cloned().or(name);
            let owner = owner.unwrap_or_else(|| format!("qemu {pid}"));
            threads::of_qemu(pid, &owner, &mut sample.threads);
            owners.insert(pid, owner);
        }
        threads::of_kernel(&owners, &mut sample.threads);
        sample
    }

    fn of_daemon(&mut self, client: &Client, sample: &mut Sample) -> Result<(), String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let stats = client.stats().map_err(|error| said(&error))?;
        // For this the daemon looks at the whole host: it is asked again only when the process is gone.
        if !self.process.is_some_and(threads::exists) {
            let info = client.info().map_err(|error| said(&error))?;
            self.process = info.switch_pid.and_then(|pid| pid.try_into().ok());
        }
        sample.switch = self.process;
        let ports: Vec<PortInfo> = client.ports(None).map_err(|error| said(&error))?;
        let runs = stats.switch.is_some();
        if let Some(statistics) = stats.switch {
            add(statistics, sample);
        }
        let links = links::all();
        let taps = ports.iter().filter_map(|port| links::port(port, &links));
        sample.taps = taps.collect();
        match runs {
            true => Ok(()),
            false => Err("the switch does not run; the daemon starts it again".into()),
        }
    }

    fn of_switch(&mut self, path: &Path, sample: &mut Sample) -> Result<(), String> {
        let (mut client, pid) = match self.switch.take() {
            Some(connected) => connected,
            None => connect(path)?,
        };
        let statistics = client.statistics(None).map_err(|error| error.to_string())?;
        // Kept only while it answers: the next sample connects anew.
        self.switch = Some((client, pid));
        sample.switch = pid;
        add(statistics, sample);
        Ok(())
    }
}

fn connect(path: &Path) -> Result<(control::Client, Option<i32>), String> {
    let said = |error: &dyn std::fmt::Display| {
        format!(
            "no switch answers at {}: {error}; `ringway switch --control PATH` listens there",
            path.display()
        )
    };
    let socket = UnixStream::connect(path).map_err(|error| said(&error))?;
    // Who made the socket: another process, if the switch took it over from there.
    let pid = socket_peercred(&socket).ok();
    let pid = pid.map(|peer| peer.pid.as_raw_nonzero().get());
    let client = control::Client::from_socket(socket.into(), PATIENCE);
    Ok((client.map_err(|error| said(&error))?, pid))
}

fn add(statistics: Statistics, sample: &mut Sample) {
    sample.counted = true;
    sample.delivered = statistics.delivered;
    sample.dropped = statistics.dropped;
    sample.ports = statistics.ports;
}

/// Names of our machines by QEMU's process.
pub(crate) fn machines(run: &Path) -> BTreeMap<i32, String> {
    let folders = Folder::list(run).unwrap_or_default();
    let named = |folder: &Folder| Some((folder.record().ok()?.pid?, folder.name().to_string()));
    folders.iter().filter_map(named).collect()
}
