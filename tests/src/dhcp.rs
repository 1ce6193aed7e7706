//! DHCP clients that people have, run as they are, each in a namespace and with files of its own: nothing of the machine's
//! (`/etc/resolv.conf`, `/var/lib/dhcp`, `/run`) is touched.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    Lab, Netns,
    lines::Lines,
    process::{Process, command},
};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// BusyBox.
    Udhcpc,
    /// ISC.
    Dhclient,
    /// Roy Marples'.
    Dhcpcd,
}

/// All of them.
pub const KINDS: [Kind; 3] = [Kind::Udhcpc, Kind::Dhclient, Kind::Dhcpcd];

/// What a client told its script, in words of ours: `event` is `bound`, `renewed`, `released` or the client's own, and of what it got
/// `address`, `router`, `dns`, `domain`, `search`, `routes`, `mtu`, `host` and `seconds`, as it writes them.
pub type Event = BTreeMap<String, String>;

/// A running client of the interface `guest0`. Dropped, it is killed with everything that it started.
#[derive(Debug)]
pub struct Client {
    kind: Kind,
    process: Process,
    events: Lines,
}

impl Kind {
    /// Its name, which is also the host name that it sends.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udhcpc => "udhcpc",
            Self::Dhclient => "dhclient",
            Self::Dhcpcd => "dhcpcd",
        }
    }

    /// Shell: starts it as `$client`, with `$script` and `$folder`.
    fn start(self) -> &'static str {
        match self {
            Self::Udhcpc => {
                "busybox udhcpc -f -i guest0 -s $script -x hostname:udhcpc -O search -O staticroutes -O mtu -t 10 -T 1"
            }
            Self::Dhclient => {
                "dhclient -4 -d -sf $script -cf $folder/conf -lf $folder/leases -pf $folder/pid guest0"
            }
            Self::Dhcpcd => "dhcpcd -4 -B -f $folder/conf --script $script guest0",
        }
    }

    /// Shell: has it give its address back.
    fn release(self) -> &'static str {
        match self {
            Self::Udhcpc => "kill -USR2 $client",
            Self::Dhclient => {
                "dhclient -4 -r -sf $script -cf $folder/conf -lf $folder/leases -pf $folder/pid guest0"
            }
            Self::Dhcpcd => "dhcpcd -4 -k guest0",
        }
    }

    fn configuration(self) -> &'static str {
        match self {
            Self::Udhcpc => "",
            Self::Dhclient => {
                "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n\
                 send host-name \"dhclient\";\n\
                 request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, domain-search, host-name,\n\
                 interface-mtu, rfc3442-classless-static-routes;\n\
                 timeout 30; retry 2; initial-interval 1;\n"
            }
            Self::Dhcpcd => {
                "hostname dhcpcd\nclientid\nnoipv4ll\n\
                 option domain_name_servers, domain_name, domain_search, classless_static_routes, interface_mtu, host_name, routers\n"
            }
        }
    }

    /// What it runs when something happens: a line with what it got goes to the test. dhcpcd configures the interface by itself.
    fn script(self) -> &'static str {
        match self {
            Self::Udhcpc => {
                r#"
event=$1 address=$ip routes=$staticroutes seconds=$lease host=$hostname
case $1 in
bound | renew) ip address replace "$ip/$mask" dev "$interface" ;;
deconfig) ip address flush dev "$interface" && ip link set "$interface" up ;;
esac
[ "$1" = renew ] && event=renewed
[ "$1" = deconfig ] && event=released
"#
            }
            Self::Dhclient => {
                r#"
case $reason in
PREINIT) ip link set "$interface" up; exit ;;
BOUND | REBOOT) event=bound ;;
RENEW | REBIND) event=renewed ;;
RELEASE) event=released ;;
*) event=$reason ;;
esac
[ -z "$new_ip_address" ] || ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface"
address=$new_ip_address router=$new_routers dns=$new_domain_name_servers domain=$new_domain_name search=$new_domain_search
routes=$new_rfc3442_classless_static_routes mtu=$new_interface_mtu host=$new_host_name seconds=$new_dhcp_lease_time
"#
            }
            Self::Dhcpcd => {
                r#"
case $reason in
BOUND | REBOOT) event=bound ;;
RENEW | REBIND) event=renewed ;;
STOP) event=released ;;
*) event=$reason ;;
esac
address=$new_ip_address router=$new_routers dns=$new_domain_name_servers domain=$new_domain_name search=$new_domain_search
routes=$new_classless_static_routes mtu=$new_interface_mtu host=$new_host_name seconds=$new_dhcp_lease_time
"#
            }
        }
    }
}

/// Ends the scripts: one write, so that lines do not mix.
const TELL: &str = r#"
tab=$(printf '\t')
echo "event=$event${tab}address=$address${tab}router=$router${tab}dns=$dns${tab}domain=$domain${tab}search=$search${tab}routes=$routes${tab}mtu=$mtu${tab}host=$host${tab}seconds=$seconds" >>EVENTS
"#;

/// Runs in a mount and a process namespace, where it is the first process: all ends with it. A line on its input is the order to
/// give the address back.
const HOUSE: &str = r#"
mount -t tmpfs tmpfs /run && mount --bind /dev/null /etc/resolv.conf || exit 1
for state in /var/lib/dhcp /var/lib/dhcpcd; do
    [ ! -d $state ] || mount -t tmpfs tmpfs $state || exit 1
done
START &
client=$!
read -r order || exit 0
RELEASE
read -r order
"#;

impl Client {
    /// Starts one in `netns`.
    pub fn start(lab: &Lab, netns: &Netns, kind: Kind) -> Result<Self> {
        let name = kind.name();
        let folder = lab.path(name);
        fs::create_dir_all(&folder)?;
        let at = |name: &str| folder.join(name);
        let (script, events) = (at("script"), at("events"));
        netns.sh(&format!("mkfifo {}", events.display()))?;
        // Read and written, so that nobody waits for the other end and no end ends it.
        let pipe = File::options().read(true).write(true).open(&events)?;
        let events = Lines::read(name, pipe, &lab.log(&format!("{name}.events")))?;
        let tell = TELL.replace("EVENTS", &at("events").display().to_string());
        write_script(&script, &format!("#!/bin/sh\n{}{tell}", kind.script()))?;
        fs::write(at("conf"), kind.configuration())?;

        let log = File::create(lab.log(&format!("{name}.log")))?;
        let house = HOUSE
            .replace("START", kind.start())
            .replace("RELEASE", kind.release());
        let mut unshare = command("unshare", Some(netns));
        unshare
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--", "sh", "-c", &house])
            .env("script", &script)
            .env("folder", &folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = Process::spawn(name, &mut unshare)?;
        Ok(Self {
            kind,
            process,
            events,
        })
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Waits for the next event of one of these names; others before it are passed over.
    pub fn await_event(&mut self, events: &[&str], limit: Duration) -> Result<Event> {
        let wanted = |line: &str| {
            let event = line.split('\t').next().unwrap_or_default();
            events.iter().any(|name| event == format!("event={name}"))
        };
        let line = self
            .events
            .await_line(&events.join(" or "), limit, wanted)?;
        let pairs = line.split('\t').filter_map(|pair| pair.split_once('='));
        Ok(pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }

    /// Has it give its address back.
    pub fn release(&mut self) -> Result<()> {
        let stdin = self.process.child().stdin.as_mut().context("no pipe")?;
        stdin.write_all(b"release\n")?;
        Ok(())
    }
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
