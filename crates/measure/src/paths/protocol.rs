//! What host and agent say to each other over the guest's serial port: a line of JSON each, a reply for every request.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The name of the virtio-serial port.
pub(super) const PORT: &str = "org.ringway.bench";

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Gives the interface with this Ethernet address an address, and brings it up.
    Configure {
        /// `02:00:00:00:00:01`.
        mac: String,
        /// The address, in a network of 24 bits.
        address: Ipv4Addr,
    },
    /// Starts to send; one load at a time.
    Send {
        /// What.
        load: Load,
        /// To whom.
        to: Ipv4Addr,
    },
    /// Ends what `Send` began.
    Stop,
    /// What was counted until now.
    Count {
        /// Forget the times of requests before now.
        fresh: bool,
    },
}

/// What a guest sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    /// As much as goes through so many connections.
    Tcp {
        /// Connections.
        streams: u16,
    },
    /// As many datagrams as go out.
    Udp {
        /// Bytes of payload.
        size: u16,
        /// Senders, each with a port of its own.
        flows: u16,
    },
    /// A request, its answer, the next request: over one connection, 64 bytes each.
    Exchange,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    /// Said once, without a request.
    Ready {
        /// The guest's kernel.
        kernel: String,
    },
    /// It is done.
    Done,
    /// Counters.
    Counted(Counters),
    /// It could not be done.
    Failed(String),
}

/// What a guest counted since its agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The guest's monotonic clock.
    pub(super) nanoseconds: u64,
    /// Payload received.
    pub(super) bytes: u64,
    /// Datagrams received.
    pub(super) datagrams: u64,
    /// Datagrams sent.
    pub(super) sent: u64,
    /// Frames that the interface received.
    pub(super) frames_in: u64,
    /// Frames that the interface sent.
    pub(super) frames_out: u64,
    /// Requests answered since the last fresh count.
    pub(super) exchanges: u64,
    /// Half of them took no longer than this, in nanoseconds.
    pub(super) p50: u32,
    /// All but one in a hundred took no longer.
    pub(super) p99: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line() {
        let requests = [
            Request::Configure {
                mac: "02:00:00:00:00:0a".into(),
                address: Ipv4Addr::new(192, 168, 99, 1),
            },
            Request::Send {
                load: Load::Udp { size: 64, flows: 2 },
                to: Ipv4Addr::new(192, 168, 99, 2),
            },
            Request::Count { fresh: true },
            Request::Stop,
        ];
        for request in requests {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
    }
}
