//! Where the daemon's socket is.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "RINGWAY_SOCKET";

const SYSTEM: &str = "/run/ringway";
const SOCKET: &str = "api.sock";

/// Where a client finds the daemon: `$RINGWAY_SOCKET`, the user's own daemon if it has made its socket, or the system's.
pub fn socket() -> PathBuf {
    Surroundings::here().socket(Path::exists)
}

/// The socket that `$RINGWAY_SOCKET` names.
pub fn socket_of_environment() -> Option<PathBuf> {
    Surroundings::here().variable.map(PathBuf::from)
}

/// Where a daemon's sockets are if nobody says otherwise: for root below /run, for others below `$XDG_RUNTIME_DIR`.
pub fn run_directory() -> PathBuf {
    Surroundings::here().run_directory()
}

struct Surroundings {
    variable: Option<OsString>,
    runtime: Option<OsString>,
    root: bool,
}

impl Surroundings {
    fn here() -> Self {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            variable: variable(SOCKET_VARIABLE),
            runtime: variable("XDG_RUNTIME_DIR"),
            root: rustix::process::geteuid().is_root(),
        }
    }

    fn socket(&self, exists: impl Fn(&Path) -> bool) -> PathBuf {
        if let Some(socket) = &self.variable {
            return socket.into();
        }
        let own = self.run_directory().join(SOCKET);
        if exists(&own) {
            own
        } else {
            Path::new(SYSTEM).join(SOCKET)
        }
    }

    fn run_directory(&self) -> PathBuf {
        match &self.runtime {
            Some(runtime) if !self.root => Path::new(runtime).join("ringway"),
            _ => SYSTEM.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variable: &str, runtime: &str, root: bool) -> Surroundings {
        let given = |text: &str| (!text.is_empty()).then(|| text.into());
        Surroundings {
            variable: given(variable),
            runtime: given(runtime),
            root,
        }
    }

    #[test]
    fn the_variable_comes_first_then_the_users_own_daemon_then_the_systems() {
        let own = "/run/user/7/ringway/api.sock";
        let system = "/run/ringway/api.sock";
        for (variable, runtime, root, exists, found) in [
            ("/a", "/run/user/7", false, true, "/a"),
            ("", "/run/user/7", false, true, own),
            ("", "/run/user/7", false, false, system),
            ("", "/run/user/0", true, true, system),
            ("", "", false, false, system),
        ] {
            let here = surroundings(variable, runtime, root);
            let socket = here.socket(|path| exists && path == Path::new(own));
            assert_eq!(socket, Path::new(found));
        }
    }

    #[test]
    fn a_users_daemon_runs_where_its_clients_look() {
        let directory = |root| surroundings("/a", "/run/user/7", root).run_directory();
        assert_eq!(directory(false), Path::new("/run/user/7/ringway"));
        assert_eq!(directory(true), Path::new(SYSTEM));
    }
}
