//! What the daemon is told when it starts.

use std::path::PathBuf;

/// Where things are, and what the daemon does on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of sockets: the switch's control socket and those of ports. Gone after a reboot.
    pub run: PathBuf,
    /// Directory of what has to survive a reboot.
    pub state: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
    /// The program whose `switch` verb is the switch; the running one if absent.
    pub switch: Option<PathBuf>,
    /// Whether a network `default` is made on the first start.
    pub default_network: bool,
    /// Where the host names the resolvers that networks without any of their own ask, as resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// Whether other firewalls are made to let networks pass.
    pub open_foreign: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run: "/run/ringway".into(),
            state: "/var/lib/ringway".into(),
            socket: "/run/ringway/api.sock".into(),
            switch: None,
            default_network: true,
            resolv_conf: "/etc/resolv.conf".into(),
            open_foreign: false,
        }
    }
}
