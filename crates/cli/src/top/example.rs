//! Rates to draw, for tests.

use std::collections::BTreeMap;

use crate::live::{Flow, PortRates, QueueRates, Rates, Role, ThreadRates};

pub(super) fn rates() -> Rates {
    let flow = |frames, bits| Some(Flow { frames, bits });
    let (rx, tx) = (flow(812_000.0, 9.414e9), flow(10_000.0, 5_120_000.0));
    let thread = |owner: &str, role, name: &str, id, cpu, percent| ThreadRates {
        owner: owner.into(),
        role,
        name: name.into(),
        process: 10,
        id,
        cpu,
        percent,
    };
    Rates {
        seconds: 1.0,
        switch: Some(10),
        delivered: Some(822_000.0),
        dropped: Some(60.0),
        ports: vec![
            PortRates {
                name: "lan/db".into(),
                kind: "vhost-net".into(),
                ..PortRates::default()
            },
            PortRates {
                name: "lan/web".into(),
                kind: "vhost-user".into(),
                connected: true,
                rx,
                tx,
                drops: BTreeMap::from([("no_buffers".into(), 50.0), ("too_long".into(), 10.0)]),
                queues: vec![QueueRates {
                    worker: Some(1),
                    rx,
                    tx,
                    kicks: Some(300.0),
                    calls: None,
                }],
            },
        ],
        links: Vec::new(),
        threads: vec![
            thread("web", Role::Vcpu, "CPU 0/KVM", 34, Some(1), Some(45.0)),
            thread("switch", Role::Worker, "worker-1", 12, Some(3), Some(98.7)),
            thread("switch", Role::Other, "signals", 13, Some(3), Some(0.0)),
            thread("web", Role::Vhost, "vhost-33", 35, None, None),
        ],
        trouble: None,
    }
}
