//! Statistics of a switch, as printed on SIGUSR1 and answered over the control socket.
//!
//! The JSON names are fixed; readers ignore fields they do not know, so that new ones can be added at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a switch counted since it started.
///
/// `attempted == delivered + dropped` holds at every quiescent point; a flooded frame counts once per receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Statistics {
    /// One entry per port, in the order in which they were added.
    pub ports: Vec<PortStatistics>,
    /// Deliveries tried.
    pub attempted: u64,
    /// Deliveries done.
    pub delivered: u64,
    /// Deliveries not done; the reasons stand at the ports.
    pub dropped: u64,
    /// Frame bytes written into the memory of guests, each once; virtio-net headers do not count.
    pub copied_bytes: u64,
    /// One entry per worker.
    #[serde(default)]
    pub workers: Vec<WorkerStatistics>,
}

/// What one worker did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct WorkerStatistics {
    /// The name of its thread.
    pub name: String,
    /// Receive queues it serves now.
    pub queues: usize,
    /// Its part of `attempted`.
    pub attempted: u64,
    /// Its part of `delivered`.
    pub delivered: u64,
    /// Nanoseconds it spent on bursts, estimated from a few of them; polling and sleeping are not in it.
    pub busy_ns: u64,
    /// Nanoseconds of CPU its thread used; `None` = the system does not say.
    pub cpu_ns: Option<u64>,
    /// Queues it took over from other workers.
    pub moves: u64,
}

/// What one port counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PortStatistics {
    /// The port's name, unique in its switch.
    pub name: String,
    /// The kind as written on the command line, for example `vhost-user`.
    pub kind: String,
    /// Whether a peer is there: a front-end's connection, or the device that was opened.
    pub connected: bool,
    /// Negotiated virtio features, as `0x...`.
    #[serde(with = "crate::hex")]
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub features: u64,
    /// One entry per queue pair.
    pub queues: Vec<QueueStatistics>,
    /// Drops charged to this port, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Rings that were stopped because their driver lied or their memory went, by what was wrong. Printed only when there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, u64>,
    /// Addresses that are learned behind the port now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub addresses: u64,
    /// Times an address was not learned: beyond the limit of the port, or because it moved too often. What is sent to it is
    /// flooded, or goes where it was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlearned: u64,
}

/// What one queue pair counted; rx is from the guest, tx is to the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct QueueStatistics {
    /// Frames from the guest.
    pub rx_frames: u64,
    /// Bytes of these frames, virtio-net header excluded.
    pub rx_bytes: u64,
    /// Frames to the guest.
    pub tx_frames: u64,
    /// Bytes of these frames, virtio-net header excluded.
    pub tx_bytes: u64,
    /// Kicks received from the driver.
    pub kicks: u64,
    /// Calls sent to the driver.
    pub calls: u64,
    /// Kicks that the driver owed and never sent; the queue was served all the same. Printed only when there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed_kicks: u64,
    /// The worker that receives from the guest, if the driver runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// Nanoseconds a worker spent on bursts from the guest, estimated from a few of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub busy_ns: u64,
    /// Times a worker that wanted to send to the guest found another one at it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lock_waits: u64,
    /// Times the guest had to wait with sending, because its port had sent beyond its rate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate_delays: u64,
}

impl Statistics {
    /// The one line of JSON that is printed, without the line's end.
    pub fn to_json(&self) -> String {
        // Only maps with keys other than strings can fail, and there are none.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_exactly_the_documented_one() {
        let statistics = Statistics {
            ports: vec![PortStatistics {
                name: "a".into(),
                kind: "vhost-user".into(),
                connected: true,
                features: 0x1_3000_0000,
                queues: vec![QueueStatistics {
                    rx_frames: 1,
                    rx_bytes: 60,
                    tx_frames: 2,
                    tx_bytes: 120,
                    kicks: 3,
                    calls: 4,
                    missed_kicks: 0,
                    worker: Some(0),
                    busy_ns: 900,
                    lock_waits: 0,
                    rate_delays: 0,
                }],
                drops: BTreeMap::from([("no-buffers".into(), 5)]),
                faults: BTreeMap::from([("unmapped".into(), 1)]),
                addresses: 0,
                unlearned: 0,
            }],
            attempted: 7,
            delivered: 2,
            dropped: 5,
            copied_bytes: 180,
            workers: vec![WorkerStatistics {
                name: "worker-0".into(),
                queues: 1,
                attempted: 7,
                delivered: 2,
                busy_ns: 900,
                cpu_ns: Some(1000),
                moves: 0,
            }],
        };
        let text = concat!(
            r#"{"ports":[{"name":"a","kind":"vhost-user","connected":true,"features":"0x130000000","#,
            r#""queues":[{"rx_frames":1,"rx_bytes":60,"tx_frames":2,"tx_bytes":120,"kicks":3,"calls":4,"#,
            r#""worker":0,"busy_ns":900}],"#,
            r#""drops":{"no-buffers":5},"faults":{"unmapped":1}}],"attempted":7,"delivered":2,"dropped":5,"copied_bytes":180,"#,
            r#""workers":[{"name":"worker-0","queues":1,"attempted":7,"delivered":2,"busy_ns":900,"cpu_ns":1000,"moves":0}]}"#
        );
        assert_eq!(statistics.to_json(), text);
        assert_eq!(
            serde_json::from_str::<Statistics>(text).unwrap(),
            statistics
        );
    }

    #[test]
    fn features_must_be_hexadecimal_and_unknown_fields_are_ignored() {
        let text = |features: &str| {
            format!(
                r#"{{"name":"a","kind":"sink","connected":true,"features":{features},"queues":[],"drops":{{}},"new":1}}"#
            )
        };
        assert_eq!(
            serde_json::from_str::<PortStatistics>(&text("\"0xffffffffffffffff\""))
                .unwrap()
                .features,
            u64::MAX
        );
        for bad in [
            "\"12\"",
            "\"0x\"",
            "\"0x+1\"",
            "\"0x1ffffffffffffffff\"",
            "1",
        ] {
            assert!(
                serde_json::from_str::<PortStatistics>(&text(bad)).is_err(),
                "{bad}"
            );
        }
    }
}
