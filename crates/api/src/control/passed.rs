//! What the file descriptors of an [`AddPort`](super::Request::AddPort) are.

use serde::{Deserialize, Serialize};

use crate::port_spec::{Mode, PortKind, VhostUser};

/// What the file descriptors sent along with a port are. The sender opened them, so that the switch needs no right to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passed {
    /// There are none: the switch opens what the port needs.
    #[default]
    Nothing,
    /// One listening socket, for vhost-user with mode=server.
    Listener,
    /// One connected socket, for vhost-user with mode=client.
    Connection,
    /// As many queues of a tap as the port has queue pairs, each set up already.
    TapQueues,
    /// The same, and after them as many /dev/vhost-net that nobody owns yet, to move their frames.
    VhostNet,
    /// One file open for writing, for pcap.
    File,
}

/// File descriptors that do not fit the port they came with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassedError {
    /// Too many or too few.
    #[error(
        "{count} file descriptors came with a {kind} port that needs {needed}: send exactly as many"
    )]
    Count {
        /// The port's kind.
        kind: &'static str,
        /// How many came.
        count: usize,
        /// How many it takes.
        needed: usize,
    },
    /// The kind has no use for them.
    #[error(
        "a {kind} port cannot be given {passed}: a listener goes with vhost-user mode=server, a connection with mode=client, tap queues with tap, a file with pcap"
    )]
    Kind {
        /// The port's kind, and mode where it matters.
        kind: String,
        /// What came.
        passed: &'static str,
    },
}

impl Passed {
    /// Whether `count` descriptors of this meaning fit the port.
    pub fn check(self, kind: &PortKind, count: usize) -> Result<(), PassedError> {
        let needed = match (self, kind) {
            (Self::Nothing, _) => 0,
            (
                Self::Listener,
                PortKind::VhostUser(VhostUser {
                    mode: Mode::Server, ..
                }),
            )
            | (
                Self::Connection,
                PortKind::VhostUser(VhostUser {
                    mode: Mode::Client, ..
                }),
            )
            | (Self::File, PortKind::Pcap { .. }) => 1,
            (Self::TapQueues, PortKind::Tap { queues, .. }) => usize::from(*queues),
            (Self::VhostNet, PortKind::Tap { queues, .. }) => 2 * usize::from(*queues),
            (_, PortKind::VhostUser(VhostUser { mode, .. })) => {
                return Err(PassedError::Kind {
                    kind: format!("vhost-user mode={mode}"),
                    passed: self.label(),
                });
            }
            _ => {
                return Err(PassedError::Kind {
                    kind: kind.label().to_owned(),
                    passed: self.label(),
                });
            }
        };
        if count == needed {
            Ok(())
        } else {
            Err(PassedError::Count {
                kind: kind.label(),
                count,
                needed,
            })
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Listener => "a listening socket",
            Self::Connection => "a connected socket",
            Self::TapQueues => "tap queues",
            Self::VhostNet => "tap queues with vhost-net devices",
            Self::File => "a file",
        }
    }
}
