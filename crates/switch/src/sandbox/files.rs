//! What Landlock takes away: the file system, TCP, abstract sockets and signals to others.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Reach;

/// Newest rights that are handled; kernels that know less are given what they know.
const NEWEST: ABI = ABI::V9;

/// Where a worker finds the account of its CPU time when it starts. What else is in there is this
/// process's own.
const OWN_THREADS: &str = "/proc/self/task";

/// Restricts the calling thread. Says what the kernel cannot take away.
pub(super) fn restrict(reach: &Reach) -> Result<Option<String>, String> {
    let status = rules(reach).and_then(RulesetCreated::restrict_self);
    let status = status.map_err(|error| error.to_string())?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Some(
            "this kernel has no Landlock: files and TCP are closed by the filter of system calls alone"
                .into(),
        ),
        (_, LandlockStatus::Available { effective_abi, .. }) => missing(effective_abi),
        _ => None,
    })
}

fn missing(abi: ABI) -> Option<String> {
    let missing = match abi {
        abi if abi < ABI::V4 => "TCP, devices and signals",
        abi if abi < ABI::V5 => "devices and signals",
        abi if abi < ABI::V6 => "signals",
        _ => return None,
    };
    Some(format!(
        "this kernel's Landlock knows nothing of {missing}: these are closed by the filter of system calls alone"
    ))
}

fn rules(reach: &Reach) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules = allow(rules, Path::new(OWN_THREADS), AccessFs::ReadFile)?;
    for directory in &reach.removing {
        rules = allow(rules, directory, AccessFs::RemoveFile)?;
    }
    for directory in &reach.connecting {
        // It may be made later than the switch starts.
        let there = directory.ancestors().find(|path| path.is_dir());
        let directory = there.unwrap_or(Path::new("."));
        rules = allow(rules, directory, AccessFs::ResolveUnix)?;
    }
    Ok(rules)
}

/// What is not there needs no right.
fn allow(
    rules: RulesetCreated,
    directory: &Path,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(directory) {
        Ok(directory) => rules.add_rule(PathBeneath::new(directory, access)),
        Err(_) => Ok(rules),
    }
}
