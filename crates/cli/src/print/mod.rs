//! Everything the command prints itself.

mod address;
mod clean;
mod dhcp;
mod duration;
mod findings;
mod frame;
mod info;
mod machine;
mod network;
mod port;
mod qemu;
mod rate;
mod sizes;
mod stats;
mod summary;
mod table;
mod trace;
mod wrap;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::Failure;

pub(crate) use address::{addresses, forwards, leases};
pub(crate) use clean::clean;
pub(crate) use findings::{findings, unseen};
pub(crate) use frame::frame;
pub(crate) use info::info;
pub(crate) use machine::{lease_of_machine, machine, machines, threads};
pub(crate) use network::{applied, network, network_created, networks};
pub(crate) use port::{port, port_created, ports};
pub(crate) use qemu::{qemu_options, shell_line};
pub(crate) use rate::rate;
pub(crate) use sizes::sizes;
pub(crate) use stats::{learned, stats};
pub(crate) use trace::{traced, traced_json};
pub(crate) use wrap::wrap;

/// One sentence on standard error; there is nobody left to tell if that fails.
pub(crate) fn error(sentence: &str) {
    let lines: Vec<_> = sentence.split('\n').map(clean).collect();
    let _ = writeln!(io::stderr(), "ringway: {}", lines.join("\n"));
}

/// What to do next, for people who look at a list with nothing in it; what reads the list gets none.
pub(crate) fn hint(sentence: &str) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// What went well, but not as it was meant to.
pub(crate) fn warning(sentence: &str) {
    let _ = writeln!(io::stderr(), "ringway: warning: {}", clean(sentence));
}

/// An answer of the daemon: one line of JSON for programs, or what `text` makes of it for people.
pub(crate) fn answer<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if json {
        out(&format!("{}\n", serde_json::to_string(value)?))
    } else {
        out(&text(value))
    }
}

/// Text on standard output.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Nobody reads on, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Whether standard output may have colours: it is a terminal, and nobody asked for none (no-color.org).
pub(crate) fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refused
}

/// Whether the locale has more than plain letters.
pub(crate) fn unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
    let locale = set.iter().find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Names and values, one line each.
fn fields(lines: &[(&str, String)]) -> String {
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:10} {value}\n"));
    lines.collect()
}

/// What `ringway` alone says: what this is and what to type next.
pub(crate) fn welcome() -> String {
    format!(
        "Ringway {} gives virtual machines their network: addresses, names, the way out, from one daemon.\n\n\
         Start the daemon as root and leave it running; it comes with a network `default`:\n\n\
         \x20 ringway daemon\n\n\
         In another terminal, start a virtual machine from an image that boots:\n\n\
         \x20 ringway vm run disk.qcow2 --net default\n\n\
         `ringway port create default vm1` makes a port and says how you start one there yourself. `ringway net create NAME` makes a network of your own, `ringway lease list` shows who has which address.\n\n\
         Without a daemon and without root, a switch whose ports are sockets connects virtual machines among themselves:\n\n\
         \x20 ringway switch --port vhost-user,path=/tmp/vm1.sock --port vhost-user,path=/tmp/vm2.sock\n\n\
         When something is slow or broken, `ringway doctor` says what, why, and the command that cures it; `ringway top` and `ringway show` watch.\n\n\
         `ringway --help` lists all verbs, `ringway dump --help` tells how to look at what a virtual machine sends.\n",
        env!("CARGO_PKG_VERSION"),
    )
}
