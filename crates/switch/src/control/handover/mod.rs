//! Upgrade without a link flap: a switch that runs hands sockets, memory, descriptors and the position of
//! every ring to a new process, which goes on where it stopped. `ringway_api::control::handover` has the
//! conversation, `old` and `new` are its two sides, `state` is what both make of a port.
//!
//! A switch that hands over reads no session, listener or request meanwhile; what comes waits in the
//! sockets. Its workers go on until the new one has mapped and opened everything, and stand still from
//! then on until the new one's begin.

mod new;
mod old;
mod state;

use std::time::Duration;

use ringway_api::control::ClientError;
use ringway_api::control::handover::{FORMAT, HandoverError};

use super::socket::SocketError;

pub(super) use new::Takeover;

/// How long the new switch may take to open and map everything, while frames cross but no front-end is
/// answered.
const PREPARING: Duration = Duration::from_secs(5);

/// How long it may take to begin once nobody is served. Beyond it the old switch goes on.
const STANDING_STILL: Duration = Duration::from_secs(1);

/// Why a switch cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Nobody there, or it refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The hand-over failed.
    #[error("{0}; the switch before goes on")]
    Handover(#[from] HandoverError),
    /// A port cannot be gone on with.
    #[error("port {name}: {reason}; the switch before goes on")]
    Port {
        /// The port.
        name: String,
        /// One sentence.
        reason: String,
    },
    /// The control socket of its own.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// Out of descriptors or the like.
    #[error("the system refused: {0}; the switch before goes on")]
    System(#[from] std::io::Error),
}

/// Why a client that reads formats `oldest` to `newest` cannot take over.
pub(super) fn refusal(oldest: u32, newest: u32) -> Option<String> {
    let readable = oldest <= FORMAT && FORMAT <= newest;
    (!readable).then(|| {
        format!(
            "this switch hands over in format {FORMAT}, the program that asks reads {oldest} to {newest}: \
             use one that reads {FORMAT}, or end this switch and start the other"
        )
    })
}

/// Nanoseconds of a clock that all processes share.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn s(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
