//! A map to draw, for tests.

use std::collections::BTreeMap;

use super::path::{Arrow, Kind, Map, Path, Stage};
use crate::live::{Flow, Role, ThreadRates};

pub(super) fn map() -> Map {
    let vcpu = ThreadRates {
        owner: "web".into(),
        role: Role::Vcpu,
        name: "CPU 0/KVM".into(),
        process: 12,
        id: 14,
        cpu: Some(3),
        percent: Some(45.0),
    };
    let flow = |frames, bits| Some(Flow { frames, bits });
    Map {
        seconds: 1.0,
        paths: vec![Path {
            name: "web".into(),
            about: "process 12, NIC n0".into(),
            pid: Some(12),
            stages: vec![
                Stage::new(Kind::Guest, "guest web")
                    .detail("1 virtual CPU")
                    .threads([&vcpu]),
                Stage::new(Kind::Device, "virtio-net-pci").detail("1 queue pair, 4 vectors"),
                Stage::new(Kind::Segment, "switch").detail("port lan/web"),
            ],
            arrows: vec![
                Arrow {
                    from_guest: flow(812_000.0, 9.414e9),
                    to_guest: flow(10_000.0, 5_120_000.0),
                    ..Arrow::default()
                },
                Arrow {
                    drops: BTreeMap::from([("no_buffers".into(), 50.0), ("too_long".into(), 10.0)]),
                    note: Some("300 kicks/s, 2 calls/s".into()),
                    ..Arrow::default()
                },
            ],
        }],
        trouble: None,
    }
}
