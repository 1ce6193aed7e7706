//! What runs inside the guests: does as the host says over a serial port, sends and receives.
//!
//! It is this very program, brought into the guest with the libraries it needs, so a guest needs nothing installed.

mod load;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::protocol::{PORT, Reply, Request};
use load::{Receivers, Sender};

/// The port may come a moment after the agent, with its driver.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Gives an interface its address and brings it up.
pub type Configure = dyn Fn(&str, Ipv4Addr) -> Result<()>;

/// Serves the host until the port is closed, which it is only with the guest.
pub fn serve(configure: &Configure) -> Result<()> {
    let path = await_port()?;
    let port = File::options().read(true).write(true).open(&path);
    let mut port = port.with_context(|| path.display().to_string())?;
    let lines = BufReader::new(port.try_clone()?).lines();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut agent = Agent {
        configure,
        receivers: Receivers::start()?,
        interface: String::new(),
        sender: None,
        begin: Instant::now(),
    };
    let kernel = kernel.trim().to_owned();
    say(&mut port, &Reply::Ready { kernel })?;
    for line in lines {
        let request = serde_json::from_str(&line?).context("no request");
        let reply = request.and_then(|request| agent.perform(request));
        let failed = |error| Reply::Failed(format!("{error:#}"));
        say(&mut port, &reply.unwrap_or_else(failed))?;
    }
    Ok(())
}

fn say(port: &mut File, reply: &Reply) -> Result<()> {
    let line = format!("{}\n", serde_json::to_string(reply)?);
    Ok(port.write_all(line.as_bytes())?)
}

fn await_port() -> Result<PathBuf> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(path) = find_port(Path::new("/sys/class/virtio-ports")) {
            return Ok(path);
        }
        anyhow::ensure!(
            Instant::now() < end,
            "this machine has no virtio-serial port {PORT}: the agent is started by `ringway bench paths` in its guests"
        );
        thread::sleep(POLL);
    }
}

/// By its name in sysfs: links in /dev are udev's, which a guest may lack.
fn find_port(folder: &Path) -> Option<PathBuf> {
    let is_ours = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT)
    };
    let found = fs::read_dir(folder).ok()?.flatten().find(is_ours)?;
    Some(Path::new("/dev").join(found.file_name()))
}

struct Agent<'a> {
    configure: &'a Configure,
    receivers: Receivers,
    interface: String,
    sender: Option<Sender>,
    begin: Instant,
}

impl Agent<'_> {
    fn perform(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Configure { mac, address } => {
                let interface = interface(&mac)
                    .with_context(|| format!("the guest has no driver for its NIC {mac}"))?;
                (self.configure)(&interface, address)?;
                self.interface = interface;
            }
            Request::Send { load, to } => {
                anyhow::ensure!(self.sender.is_none(), "it sends already");
                self.sender = Some(Sender::start(load, to)?);
            }
            Request::Stop => {
                let sender = self.sender.take();
                sender.map_or(Ok(()), Sender::stop)?;
            }
            Request::Count { fresh } => return self.count(fresh),
        }
        Ok(Reply::Done)
    }

    fn count(&mut self, fresh: bool) -> Result<Reply> {
        let mut counters = self.receivers.count();
        if let Some(sender) = &self.sender {
            sender.count(&mut counters, fresh);
        }
        counters.frames_in = self.frames("rx")?;
        counters.frames_out = self.frames("tx")?;
        let now = self.begin.elapsed().as_nanos();
        counters.nanoseconds = u64::try_from(now)?;
        Ok(Reply::Counted(counters))
    }

    fn frames(&self, direction: &str) -> Result<u64> {
        let path = format!(
            "/sys/class/net/{}/statistics/{direction}_packets",
            self.interface
        );
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        text.trim().parse().with_context(|| path)
    }
}

/// The interface with this Ethernet address.
fn interface(mac: &str) -> Option<String> {
    let has_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("address")).is_ok_and(|found| found.trim() == mac)
    };
    let mut links = fs::read_dir("/sys/class/net").ok()?.flatten();
    let found = links.find(has_it)?;
    Some(found.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let folder = std::env::temp_dir().join(format!("ringway-ports-{}", std::process::id()));
        for (port, name) in [
            ("vport1p1", "org.qemu.guest_agent.0\n"),
            ("vport2p1", "org.ringway.bench\n"),
        ] {
            fs::create_dir_all(folder.join(port)).unwrap();
            fs::write(folder.join(port).join("name"), name).unwrap();
        }
        assert_eq!(find_port(&folder), Some("/dev/vport2p1".into()));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(find_port(&folder), None);
    }
}
