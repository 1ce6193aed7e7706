//! A network namespace for the whole command, so that bridge and taps are made there and go with it.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, anyhow};

use crate::Failure;

/// The option that says it has happened.
pub(super) const OPTION: &str = "--inside";

/// Starts this command again in a network namespace, in the place of this process; without root in a user namespace, too.
///
/// It comes back only if there can be none, with the reason.
pub(super) fn enter() -> Result<String, Failure> {
    let mut unshare: Vec<&OsStr> = vec!["--net".as_ref()];
    if !rustix::process::geteuid().is_root() {
        unshare.extend::<[&OsStr; 2]>(["--user".as_ref(), "--map-root-user".as_ref()]);
    }
    unshare.push("--".as_ref());
    let tried = Command::new("unshare")
        .args(&unshare)
        .arg("true")
        .stdin(Stdio::null())
        .output();
    match tried {
        Err(error) => {
            return Ok(format!(
                "unshare (of util-linux) cannot be started: {error}"
            ));
        }
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            return Ok(format!(
                "no network namespace can be made for bridge and taps ({}): run it as root, or permit user namespaces \
                 (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)",
                said.trim()
            ));
        }
        Ok(_) => (),
    }
    let program = env::current_exe().context("cannot find this program")?;
    let error = Command::new("unshare")
        .args(&unshare)
        .arg(program)
        .args(env::args_os().skip(1))
        .arg(OPTION)
        .exec();
    Err(anyhow!("unshare (of util-linux) cannot be started: {error}").into())
}

/// Whether nothing but the loopback is here, as in a namespace that was just made.
pub(super) fn is_empty() -> bool {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let mut names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.all(|(name, _)| name.trim() == "lo")
}
