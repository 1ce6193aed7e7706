//! From what is known to what is drawn. Nothing here looks anywhere.

mod backend;
mod outside;

use ringway_doctor::{
    command::{Command, Nic},
    facts::Machine,
};

use super::{
    path::{Arrow, Kind, Map, Path, Stage},
    world::{Known, World},
};
use crate::live::{PortRates, Role, ThreadRates};

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
        let nics = Command::parse(&machine.command).nics();
        for (index, nic) in nics.iter().enumerate() {
            let way = Way {
                world,
                machine,
                nic,
                index,
                of: nics.len(),
            };
            joined.extend(way.known().map(|known| known.name.clone()));
            // A switch alone is asked about itself.
            let meant = match wanted {
                Wanted::All => !world.alone || way.known().is_some(),
                Wanted::Name(name) => way.name() == name,
                Wanted::Process(pid) => machine.pid == Some(*pid),
            };
            if meant {
                paths.push(way.path());
            }
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
    machine: &'a Machine,
    nic: &'a Nic,
    index: usize,
    of: usize,
}

impl<'a> Way<'a> {
    fn name(&self) -> &'a str {
        let pid = self.machine.pid.unwrap_or_default();
        self.world.names.get(&pid).unwrap_or(&self.machine.name)
    }

    /// Where its taps are.
    fn place(&self) -> outside::Place<'a> {
        outside::Place::of(self.world, self.machine)
    }

    /// The port it is at.
    fn known(&self) -> Option<&'a Known> {
        let (socket, tap) = (self.nic.socket(), self.tap());
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
        let mut open = self.machine.descriptors.iter();
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

    fn threads(&self, role: Role) -> impl Iterator<Item = &'a ThreadRates> + use<'a> {
        let name = format!("vhost-{}", self.machine.pid.unwrap_or_default());
        let pid = self.machine.pid;
        self.world.rates.threads.iter().filter(move |thread| {
            thread.role == role
                && match role {
                    Role::Vhost => thread.name == name || Some(thread.process) == pid,
                    _ => Some(thread.process) == pid,
                }
        })
    }

    fn path(&self) -> Path {
        let rates = self.rates();
        let rates = rates.as_ref();
        let mut stages = vec![self.guest(), self.device(rates), self.data_plane(rates)];
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
        let pid = self.machine.pid;
        let number = match self.of {
            1 => "NIC".to_owned(),
            of => format!("NIC {} of {of}", self.index + 1),
        };
        Path {
            name: self.name().to_owned(),
            about: match pid {
                Some(pid) => format!("process {pid}, {number} {}", self.nic.id),
                None => format!("{number} {}", self.nic.id),
            },
            pid,
            stages,
            arrows,
        }
    }

    fn guest(&self) -> Stage {
        let cpus = Command::parse(&self.machine.command).cpus();
        let mut vcpus: Vec<&ThreadRates> = self.threads(Role::Vcpu).collect();
        let count = match cpus {
            1 => "1 virtual CPU".to_owned(),
            cpus => format!("{cpus} virtual CPUs"),
        };
        let busy = |thread: &ThreadRates| thread.percent.unwrap_or_default();
        vcpus.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
        let stage = Stage::new(Kind::Guest, format!("guest {}", self.name()));
        let more = vcpus.len().saturating_sub(SHOWN);
        let stage = match vcpus.is_empty() {
            true => stage.detail(format!("{count}, threads without names")),
            false => stage.detail(count).threads(vcpus.into_iter().take(SHOWN)),
        };
        match more {
            0 => stage,
            more => stage.detail(format!("and {more} that do less")),
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
