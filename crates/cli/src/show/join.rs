//! From what is known to what is drawn. Nothing here looks anywhere.

mod backend;
mod machine;
mod outside;
mod passed;

use ringway_doctor::command::{Command, Nic};

use super::{
    path::{Arrow, Kind, Map, Path, Stage},
    world::{Known, World},
};
use crate::live::PortRates;
use machine::Vm;

/// Which ways are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Name(String),
    Process(i32),
}

/// What is wanted, of all that is known.
pub(super) fn map(world: &World, wanted: &Wanted) -> Map {
    let mut paths = Vec::new();
    let mut joined = Vec::new();
    for machine in &world.facts.machines {
        let vm = Vm { world, machine };
        let nics = Command::parse(&machine.command).nics();
        let named = match wanted {
            Wanted::All => true,
            Wanted::Name(name) => vm.name() == name,
            Wanted::Process(pid) => machine.pid == Some(*pid),
        };
        // A switch alone is asked about itself.
        let is_of_all = *wanted == Wanted::All && world.alone;
        for (index, nic) in nics.iter().enumerate() {
            let way = Way {
                world,
                vm,
                nic,
                index,
                of: nics.len(),
            };
            joined.extend(way.known().map(|known| known.name.clone()));
            if named && (!is_of_all || way.known().is_some()) {
                paths.push(way.path());
            }
        }
        if named && !is_of_all {
            let passed = machine.passthrough.iter();
            paths.extend(passed.filter_map(|device| passed::path(vm, device)));
        }
    }
    if *wanted == Wanted::All {
        let uplinks: Vec<String> = match world.alone {
            true => Vec::new(),
            false => world
                .networks
                .iter()
                .map(|n| n.interface.to_string())
                .collect(),
        };
        let rest = world.rates.ports.iter();
        let rest =
            rest.filter(|port| !joined.contains(&port.name) && !uplinks.contains(&port.name));
        paths.extend(rest.map(|port| outside::lone(world, port)));
    }
    Map {
        seconds: world.rates.seconds,
        paths,
        trouble: world.rates.trouble.clone(),
    }
}

/// A NIC and what surrounds it.
struct Way<'a> {
    world: &'a World,
    vm: Vm<'a>,
    nic: &'a Nic,
    index: usize,
    of: usize,
}

impl<'a> Way<'a> {
    /// Where its taps are.
    fn place(&self) -> outside::Place<'a> {
        outside::Place::of(self.world, self.vm.machine)
    }

    /// The port it is at.
    fn known(&self) -> Option<&'a Known> {
        // A tap of that name in another namespace is another tap.
        let tap = self.tap().filter(|_| self.place().is_own());
        let socket = self.nic.socket();
        self.world.ports.iter().find(|port| {
            (socket.is_some() && port.socket == socket) || (tap.is_some() && port.tap == tap)
        })
    }

    /// The tap or macvtap it is on, by name or by the descriptors it was given.
    fn tap(&self) -> Option<String> {
        if let Some(name) = self.nic.tap() {
            return Some(name.to_owned());
        }
        let given = self.nic.descriptors();
        let mut open = self.vm.machine.descriptors.iter();
        let first = open.find(|open| given.contains(&open.number))?;
        let index = || first.target.strip_prefix("/dev/tap")?.parse().ok();
        let macvtap = || Some(self.place().link_by_index(index()?)?.name.clone());
        first.tap.clone().or_else(macvtap)
    }

    /// What was counted of it.
    fn rates(&self) -> Option<PortRates> {
        let ports = &self.world.rates.ports;
        let known = self.known();
        let counted = known.and_then(|known| ports.iter().find(|port| port.name == known.name));
        counted
            .cloned()
            .or_else(|| outside::tap(&self.place(), &self.tap()?))
    }

    fn path(&self) -> Path {
        let rates = self.rates();
        let rates = rates.as_ref();
        let mut stages = vec![self.vm.guest(), self.device(rates), self.data_plane(rates)];
        let mut arrows = vec![
            Arrow::of(rates),
            Arrow::default().note(self.wake_ups(rates)),
        ];
        let (segment, beyond) = self.segment();
        stages.push(segment);
        arrows.push(Arrow::of(rates).drops(rates));
        if let Some((arrow, uplink)) = beyond {
            arrows.push(arrow);
            stages.push(uplink);
        }
        let pid = self.vm.machine.pid;
        let number = match self.of {
            1 => "NIC".to_owned(),
            of => format!("NIC {} of {of}", self.index + 1),
        };
        Path {
            name: self.vm.name().to_owned(),
            about: match pid {
                Some(pid) => format!("process {pid}, {number} {}", self.nic.id),
                None => format!("{number} {}", self.nic.id),
            },
            pid,
            stages,
            arrows,
        }
    }

    fn device(&self, rates: Option<&PortRates>) -> Stage {
        let Some(device) = &self.nic.device else {
            let stage = Stage::new(Kind::Device, "no device");
            return stage
                .detail(format!("nothing in the guest is at {}", self.nic.id))
                .broken();
        };
        let pairs = self.nic.queues();
        let mut line = match pairs {
            1 => "1 queue pair".to_owned(),
            pairs => format!("{pairs} queue pairs"),
        };
        if let Some(vectors) = device.get("vectors") {
            line += &format!(", {vectors} vectors");
        }
        let mut stage = Stage::new(Kind::Device, self.nic.model()).detail(line);
        stage = stage.details(device.get("mac").map(str::to_owned));
        let Some(rates) = rates else { return stage };
        if rates.kind == "vhost-user" && !rates.connected {
            return stage.detail("not connected to the switch").broken();
        }
        let queues = rates.queues.iter().take(usize::from(pairs)).enumerate();
        let carried = queues.filter_map(|(number, queue)| {
            let (rx, tx) = (queue.rx?.frames, queue.tx?.frames);
            (rates.queues.len() > 1 && rx + tx > 0.0).then(|| {
                let [rx, tx] = [rx, tx].map(crate::print::rate);
                format!("queue {number}: {rx}/s from the guest, {tx}/s to it")
            })
        });
        stage.details(carried.take(SHOWN))
    }

    /// How often the two sides wake each other.
    fn wake_ups(&self, rates: Option<&PortRates>) -> Option<String> {
        let rates = rates.filter(|rates| rates.kind == "vhost-user" && rates.rx.is_some())?;
        let sum = |of: fn(&crate::live::QueueRates) -> Option<f64>| -> String {
            crate::print::rate(rates.queues.iter().filter_map(of).sum())
        };
        let (kicks, calls) = (sum(|queue| queue.kicks), sum(|queue| queue.calls));
        Some(format!("{kicks} kicks/s, {calls} calls/s"))
    }
}

/// Lines of one sort in a stage.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests;
