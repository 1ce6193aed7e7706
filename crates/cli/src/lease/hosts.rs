//! `ringway lease hosts`: names and addresses as hosts(5) has them.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::Path,
};

use anyhow::{Context, Result};
use ringway_api::v1::{Binding, Lease, NetworkInfo};

/// What is between these lines is ours.
const BEGIN: &str = "# ringway: begin";
const END: &str = "# ringway: end";

/// One line for each lease with a name: address, full name, and the name in its network.
pub(super) fn lines(leases: &[Lease], networks: &[NetworkInfo]) -> String {
    let mut text = String::new();
    for lease in leases {
        let network = networks.iter().find(|n| n.spec.name == lease.network);
        let (Some(name), Some(network)) = (&lease.name, network) else {
            continue;
        };
        if lease.binding == Binding::Declined {
            continue;
        }
        let domain = &network.spec.dns.domain;
        let short = format!("{name}.{}", lease.network);
        let _ = writeln!(text, "{}\t{short}.{domain} {short}", lease.address);
    }
    text
}

/// Puts them into a file between two marks, and leaves the rest of it as it is. Whoever reads it meanwhile sees all or nothing.
pub(super) fn write(path: &Path, lines: &str) -> Result<()> {
    let before = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let after = exchange(&before, lines);
    if after != before {
        replace(path, &after).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn exchange(before: &str, lines: &str) -> String {
    let mut kept: Vec<&str> = before.lines().collect();
    let begin = kept.iter().position(|line| *line == BEGIN);
    // Without an end, nobody knows what is ours.
    let end = begin.and_then(|begin| {
        let len = kept[begin..].iter().position(|line| *line == END)?;
        Some(begin + len)
    });
    if let Some((begin, end)) = begin.zip(end) {
        kept.drain(begin..=end);
    }
    let mut after: String = kept.iter().flat_map(|line| [*line, "\n"]).collect();
    if !lines.is_empty() {
        after.extend([BEGIN, "\n", lines, END, "\n"]);
    }
    after
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Where the file is a link, it stays one.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".ringway");
    let new = path.with_file_name(name);
    let made = (|| {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = path.metadata() {
            file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_exchanged_and_the_rest_stays() {
        let others = "127.0.0.1 localhost\n::1 localhost\n";
        let once = exchange(others, "10.0.0.5\tweb\n");
        assert_eq!(once, format!("{others}{BEGIN}\n10.0.0.5\tweb\n{END}\n"));
        assert_eq!(exchange(&once, "10.0.0.5\tweb\n"), once);
        assert_eq!(exchange(&once, ""), others);
        // A line that somebody put behind ours stays, too.
        let more = format!("{once}192.0.2.1 later");
        assert_eq!(exchange(&more, ""), format!("{others}192.0.2.1 later\n"));
        let cut = format!("{BEGIN}\n{others}");
        assert_eq!(exchange(&cut, ""), cut);
    }
}
