//! What is around the guests: a host with the daemon, and an outside that knows nothing of its networks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Guest, Netns, Nic, daemon::Daemon, switch::Statistics};
use rustix::process::Signal;

/// The host, as the outside sees it.
pub(crate) const HOST: &str = "203.0.113.1";
/// The web server outside.
pub(crate) const OUTSIDE: &str = "203.0.113.2";
const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(60);

/// Two network namespaces with a cable between them.
pub(crate) struct Ground {
    pub(crate) host: Netns,
    pub(crate) outside: Netns,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let (host, outside) = (Netns::new()?, Netns::new()?);
        host.sh(&format!(
            "ip link add out0 type veth peer name out1 netns {} && ip address add {HOST}/24 dev out0 && ip link set out0 up",
            outside.id()
        ))?;
        outside.sh(&format!(
            "ip address add {OUTSIDE}/24 dev out1 && ip link set out1 up"
        ))?;
        serve_outside(&outside)?;
        Ok(Self { host, outside })
    }

    /// Everything that the daemon may have changed on the host.
    pub(crate) fn picture(&self) -> Result<String> {
        self.host.sh(
            "ip -br link | awk '{print $1}' | sort; nft list ruleset; sysctl net.ipv4.ip_forward",
        )
    }

    /// Fetches a page from outside, at a port of the host.
    pub(crate) fn fetch(&self, port: u16) -> Result<String> {
        let said = self.outside.run(move || {
            let mut server = TcpStream::connect((HOST, port))?;
            server.set_read_timeout(Some(LIMIT))?;
            server.write_all(REQUEST.as_bytes())?;
            let mut said = String::new();
            server.read_to_string(&mut said)?;
            Ok(said)
        })?;
        page(&said)
    }
}

/// A port at which a guest is to be started.
pub(crate) struct Socket {
    path: String,
    mac: String,
}

impl Socket {
    pub(crate) fn nic(&self, queues: u16) -> Nic {
        Nic::vhost_user(&self.path).mac(&self.mac).queues(queues)
    }
}

/// What a person types; here it goes to the daemon under `lab`.
pub(crate) fn create_port(daemon: &Daemon<'_>, name: &str, queues: u16) -> Result<Socket> {
    let port = daemon.json(&format!("port create default {name} --queues {queues}"))?;
    let text = |key: &str| -> Result<String> {
        let value = port[key].as_str();
        value
            .map(Into::into)
            .with_context(|| format!("no {key}: {port}"))
    };
    Ok(Socket {
        path: text("socket")?,
        mac: text("mac")?,
    })
}

/// Asks for an address by DHCP, in the guest; gives it.
pub(crate) fn ask_for_address(guest: &Guest) -> Result<String> {
    guest.sh("ip link set eth0 up")?;
    let name = guest.name();
    guest.sh(&format!(
        "udhcpc -i eth0 -f -q -n -t 20 -T 1 -x hostname:{name} -s /etc/udhcpc-script"
    ))?;
    let line = guest.sh("ip -4 -o address show dev eth0")?;
    let address = line
        .split_whitespace()
        .nth(3)
        .and_then(|net| net.split('/').next());
    Ok(address
        .with_context(|| format!("guest {name} has no address"))?
        .into())
}

/// Fetches a page in the guest.
pub(crate) fn fetch(guest: &Guest, address: &str) -> Result<String> {
    let request = REQUEST.escape_default();
    page(&guest.sh(&format!(
        "printf '{request}' | socat -t 10 - TCP:{address}:80,connect-timeout=10"
    ))?)
}

/// What follows the head of an answer.
fn page(answer: &str) -> Result<String> {
    let (_, page) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("not a page: {answer:?}"))?;
    Ok(page.trim().to_owned())
}

/// Counters of the switch under the daemon, as soon as they agree.
pub(crate) fn statistics(daemon: &Daemon<'_>) -> Result<Statistics> {
    let mut stats = daemon.json("stats")?;
    let statistics: Statistics = serde_json::from_value(stats["switch"].take())?;
    Ok(statistics)
}

/// Deletes the network, ends the daemon and its switch, and looks whether the host is as it was.
pub(crate) fn leave(ground: &Ground, daemon: Daemon<'_>, before: &str) -> Result<()> {
    daemon.ringway("net delete default --force")?;
    daemon.end_by(Signal::TERM)?;
    let after = ground.picture()?;
    ensure!(after == before, "the host was\n{before}\nand is\n{after}");
    Ok(())
}

/// A web server in the namespace, which says who asks. It ends with the demo.
fn serve_outside(outside: &Netns) -> Result<()> {
    let listener = outside.run(|| Ok(TcpListener::bind((OUTSIDE, 80))?))?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = answer(&mut client);
        }
    });
    Ok(())
}

fn answer(client: &mut TcpStream) -> Result<()> {
    client.set_read_timeout(Some(LIMIT))?;
    let peer = client.peer_addr()?.ip();
    for line in BufReader::new(client.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let page = format!("hello, {peer}\n");
    write!(
        client,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    )?;
    Ok(())
}
