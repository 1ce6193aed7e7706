//! nftables, through `nft -f -`: a text is one transaction.

pub mod rules;

use std::env;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink, socket_with};

/// What nft did not do.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It does not run.
    #[error("cannot run nft: install the package nftables")]
    Missing(#[source] io::Error),
    /// It refused.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// What the installed nft says about itself; `None` if there is none.
pub fn version() -> Option<String> {
    let output = program()
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Carries out a text as one transaction: all of it or nothing.
pub fn load(text: &str) -> Result<(), NftError> {
    run(&["-f", "-"], text).map(|_| ())
}

/// Whether there is a table, such as `inet ringway`.
pub fn has_table(table: &str) -> Result<bool, NftError> {
    let tables = run(&["list", "tables"], "")?;
    Ok(tables
        .lines()
        .any(|line| line.strip_prefix("table ") == Some(table)))
}

/// What `nft --json list` prints, such as `["chain", "ip", "filter", "FORWARD"]`: objects with handles.
pub fn list_json(what: &[&str]) -> Result<String, NftError> {
    run(&[&["--json", "list"], what].concat(), "")
}

/// A socket that becomes readable when somebody changes rules, of this network namespace. What it says has to be read away; an
/// overflow (ENOBUFS) says that there was a change, too. Needs CAP_NET_ADMIN.
pub fn changes() -> io::Result<OwnedFd> {
    // NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, as a bit.
    const GROUP: u32 = 1 << (7 - 1);
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::NETFILTER),
    )?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUP))?;
    Ok(socket)
}

/// It lies among the programs of root, which users need not have in their path; it prints versions and, in namespaces of theirs, rules
/// for them as well.
fn program() -> Command {
    let mut command = Command::new("nft");
    let path = env::var_os("PATH").unwrap_or_default();
    let root = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    if let Ok(path) = env::join_paths(env::split_paths(&path).chain(root)) {
        command.env("PATH", path);
    }
    command
}

fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let mut child = program()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads all before it says anything; one that ends early says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(NftError::Missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.bytes().all(|b| b == b'^' || b == b' '))
        .collect();
    Err(NftError::Refused(lines.join(" / ")))
}
