//! What can be wrong with a tap, each with its cure.

use std::io;

/// Why a tap cannot be used: one sentence with the value and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name does not fit the kernel's field.
    #[error("tap name {name:?} has {length} bytes: an interface name has 1 to 15, choose another")]
    NameLength {
        /// The name.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// The name has characters that no interface can have.
    #[error(
        "tap name {name:?} is not possible: an interface name has no space, '/', ':' or '%', choose another"
    )]
    NameForm {
        /// The name.
        name: String,
    },
    /// More queues than any tap can have, or none.
    #[error("tap {name} cannot have {queues} queues: ask for 1 to {limit}")]
    QueueCount {
        /// The tap.
        name: String,
        /// Queues asked for.
        queues: u16,
        /// The most there may be.
        limit: u16,
    },
    /// No such interface.
    #[error("tap {name} does not exist: create it as root with `{}`", create(name, *multi_queue))]
    Missing {
        /// The tap.
        name: String,
        /// Whether more than one queue was asked for.
        multi_queue: bool,
    },
    /// No right to make interfaces.
    #[error("tap {name} may not be created by user {}: create it as root with `{}`", rustix::process::getuid().as_raw(), create(name, *multi_queue))]
    CreateDenied {
        /// The tap.
        name: String,
        /// Whether it was to have more than one queue.
        multi_queue: bool,
    },
    /// The interface exists already.
    #[error(
        "interface {name} exists already: choose another name or remove it as root with `ip link delete {name}`"
    )]
    Exists {
        /// The interface.
        name: String,
    },
    /// The interface carries IP packets, not Ethernet frames.
    #[error(
        "{name} is a tun interface, which carries no Ethernet frames: replace it as root by a tap with `ip link delete {name} && {}`",
        create(name, false)
    )]
    Tun {
        /// The interface.
        name: String,
    },
    /// The interface is something else.
    #[error(
        "{name} is no tap but an interface of driver {driver}: give the name of a tap, such as one created as root with `{}`",
        create("tap0", false)
    )]
    OtherDevice {
        /// The interface.
        name: String,
        /// What the kernel calls its driver.
        driver: String,
    },
    /// Several queues were asked for, the tap has one.
    #[error(
        "tap {name} has a single queue but queues={queues} is asked for: use queues=1, or create it anew as root with `ip link delete {name} && {}`",
        create(name, true)
    )]
    SingleQueue {
        /// The tap.
        name: String,
        /// Queues asked for.
        queues: u16,
    },
    /// Others hold so many of the tap's queues that not enough are left.
    #[error(
        "tap {name} gave only {opened} of {queues} queues, the rest of its 256 are in use: use queues={opened} or stop the other program"
    )]
    QueuesTaken {
        /// The tap.
        name: String,
        /// Queues asked for.
        queues: u16,
        /// Queues that could be opened.
        opened: u16,
    },
    /// A single-queue tap that somebody has open.
    #[error("tap {name} is in use {}", busy_cure(holder.as_deref()))]
    Busy {
        /// The tap.
        name: String,
        /// `PID (NAME)` of a process that has it open, where that can be seen.
        holder: Option<String>,
    },
    /// The tap belongs to somebody else.
    #[error("tap {name} belongs to {}: run as that user, or give it to yourself as root with `ip link delete {name} && {}`", owner_text(*owner), create_for(name, rustix::process::getuid().as_raw()))]
    Owned {
        /// The tap.
        name: String,
        /// The owner's user number, where it can be seen.
        owner: Option<u32>,
    },
    /// The interface is down, so that the kernel refuses its frames.
    #[error(
        "tap {name} is down and carries nothing: set it up as root with `ip link set dev {name} up`"
    )]
    LinkDown {
        /// The tap.
        name: String,
    },
    /// The kernel has no tun driver.
    #[error("/dev/net/tun is missing: load the driver as root with `modprobe tun`")]
    NoTunDriver,
    /// Not allowed to use any tap.
    #[error(
        "/dev/net/tun may not be opened: allow it as root with `chmod 0666 /dev/net/tun`, or run as root"
    )]
    TunDenied,
    /// Opening the driver failed in another way, such as too many open files.
    #[error("/dev/net/tun cannot be opened")]
    OpenTun {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel said something that is none of the above.
    #[error("cannot {action} tap {name}")]
    System {
        /// The tap.
        name: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl TapError {
    pub(super) fn missing(name: &str, queues: u16) -> Self {
        Self::Missing {
            name: name.to_owned(),
            multi_queue: queues > 1,
        }
    }
}

/// The command that makes a tap, usable by whoever asks.
fn create(name: &str, multi_queue: bool) -> String {
    let uid = rustix::process::getuid().as_raw();
    let user = if uid == 0 {
        String::new()
    } else {
        format!(" user {uid}")
    };
    let multi_queue = if multi_queue { " multi_queue" } else { "" };
    format!("ip tuntap add dev {name} mode tap{multi_queue}{user} && ip link set dev {name} up")
}

fn create_for(name: &str, uid: u32) -> String {
    format!("ip tuntap add dev {name} mode tap user {uid} && ip link set dev {name} up")
}

fn busy_cure(holder: Option<&str>) -> String {
    match holder {
        Some(holder) => format!("by process {holder} and has a single queue: stop that process or use another tap"),
        None => "by another program and has a single queue: find it as root with `grep -l iff: /proc/*/fdinfo/*` and stop it, or use another tap".to_owned(),
    }
}

fn owner_text(owner: Option<u32>) -> String {
    owner.map_or("another user".to_owned(), |uid| format!("user {uid}"))
}
