//! The ways of frames, as they are drawn: chains of stages with an arrow between each two. Text, SVG and JSON are made of the same.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::live::{Flow, PortRates, ThreadRates};

/// Everything that is drawn.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Map {
    /// Over how long rates were taken.
    pub(crate) seconds: f64,
    /// Ways of virtual machines, and then of ports that belong to none.
    pub(crate) paths: Vec<Path>,
    /// Why something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// One NIC's way, from the guest outwards.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Path {
    /// The machine's name, or the port's where there is no machine.
    pub(crate) name: String,
    /// What tells it from others: process, NIC.
    pub(crate) about: String,
    /// QEMU's process.
    pub(crate) pid: Option<i32>,
    /// At least one.
    pub(crate) stages: Vec<Stage>,
    /// One less than stages: each leads to the next.
    pub(crate) arrows: Vec<Arrow>,
}

/// Where frames stand or are worked on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Stage {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    /// One line each.
    pub(crate) details: Vec<String>,
    /// Who does the work here.
    pub(crate) threads: Vec<ThreadRates>,
    /// Nothing goes on from here, and it should.
    pub(crate) broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Guest,
    Device,
    DataPlane,
    /// Switch, bridge, or what stands in its place.
    Segment,
    Uplink,
}

/// What passes between two stages, per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Arrow {
    /// `None` = not counted here.
    pub(crate) from_guest: Option<Flow>,
    pub(crate) to_guest: Option<Flow>,
    /// Lost here, by reason.
    pub(crate) drops: BTreeMap<String, f64>,
    /// What else is to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Stage {
    pub(super) fn new(kind: Kind, title: impl Into<String>) -> Self {
        Self {
            kind,
            title: title.into(),
            details: Vec::new(),
            threads: Vec::new(),
            broken: false,
        }
    }

    pub(super) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    pub(super) fn details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(lines);
        self
    }

    pub(super) fn broken(self) -> Self {
        Self {
            broken: true,
            ..self
        }
    }

    /// With those who work here, each on a line.
    pub(super) fn threads<'a>(
        mut self,
        threads: impl IntoIterator<Item = &'a ThreadRates>,
    ) -> Self {
        for thread in threads {
            self.details.push(about(thread));
            self.threads.push(thread.clone());
        }
        self
    }
}

/// `worker-0 on CPU 3, 98.7 %`.
fn about(thread: &ThreadRates) -> String {
    let cpu = thread.cpu.map(|cpu| format!(" on CPU {cpu}"));
    let busy = thread.percent.map(|percent| format!(", {percent:.1} %"));
    format!(
        "{}{}{}",
        thread.name,
        cpu.unwrap_or_default(),
        busy.unwrap_or_default()
    )
}

impl Arrow {
    /// What a port counted, whose rx is from the guest.
    pub(super) fn of(port: Option<&PortRates>) -> Self {
        Self {
            from_guest: port.and_then(|port| port.rx),
            to_guest: port.and_then(|port| port.tx),
            ..Self::default()
        }
    }

    /// The same of a port at the other end: its rx goes to the guest.
    pub(super) fn back(port: Option<&PortRates>) -> Self {
        let arrow = Self::of(port);
        Self {
            from_guest: arrow.to_guest,
            to_guest: arrow.from_guest,
            ..arrow
        }
    }

    pub(super) fn drops(mut self, port: Option<&PortRates>) -> Self {
        self.drops = port.map(|port| port.drops.clone()).unwrap_or_default();
        self
    }

    pub(super) fn note(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }

    /// `812k frames/s 9.41G bit/s` each way, from the guest first.
    pub(super) fn flows(&self) -> [Option<String>; 2] {
        [self.from_guest, self.to_guest].map(|flow| {
            let rate = crate::print::rate;
            flow.map(|flow| format!("{} frames/s {} bit/s", rate(flow.frames), rate(flow.bits)))
        })
    }

    /// `60 drops/s: no_buffers 50, too_long 10`, most first.
    pub(super) fn lost(&self) -> Option<String> {
        let rate = crate::print::rate;
        let mut drops: Vec<_> = self.drops.iter().collect();
        drops.sort_by(|a, b| b.1.total_cmp(a.1));
        let sum: f64 = self.drops.values().sum();
        let reasons: Vec<String> = drops
            .iter()
            .map(|(reason, count)| match drops.len() {
                1 => (*reason).clone(),
                _ => format!("{reason} {}", rate(**count)),
            })
            .collect();
        (!drops.is_empty()).then(|| format!("{} drops/s: {}", rate(sum), reasons.join(", ")))
    }
}
