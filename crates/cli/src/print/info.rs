//! The daemon and its host.

use ringway_api::v1::DaemonInfo;

/// All about it.
pub(crate) fn info(info: &DaemonInfo) -> String {
    let switch = match (info.switch_pid, info.switch_restarts) {
        (None, _) => "does not run; the daemon's log says why".into(),
        (Some(pid), 0) => format!("process {pid}"),
        (Some(pid), times) => format!("process {pid}, started again {times} times"),
    };
    let mut text = super::fields(&[
        (
            "daemon",
            format!("process {}, version {}", info.pid, info.version),
        ),
        ("switch", switch),
    ]);
    for warning in &info.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_below() {
        let text = info(&DaemonInfo {
            version: "0.1.0".into(),
            pid: 7,
            switch_pid: Some(8),
            switch_restarts: 2,
            warnings: vec!["another firewall".into()],
        });
        assert_eq!(
            text,
            "daemon     process 7, version 0.1.0\nswitch     process 8, started again 2 times\nwarning: another firewall\n"
        );
    }
}
